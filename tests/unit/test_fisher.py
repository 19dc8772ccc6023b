import pytest
import torch
from torch import nn

from laqfi.base.random import generator
from laqfi.diffusion.process import add_noise
from laqfi.sensitivity.fisher import KINDS, LOSSES, fisher_maps, mean_and_error, squared_gradients


@pytest.fixture
def unet(unet):
    """In double precision: a gradient that is zero in exact arithmetic must not look like a difference."""
    return unet.double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    x, noise, probe = torch.randn(3, 5, 1, 8, 8, dtype=torch.float64)
    return x, torch.tensor([1, 20, 50, 99, 100]), noise, probe.sign()


def some_images(count):
    torch.manual_seed(2)
    return torch.rand(count, 1, 8, 8, dtype=torch.float64) * 2 - 1


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-20)


@pytest.mark.parametrize("kind", KINDS)
def test_per_sample_gradients_equal_a_loop_of_single_backward_passes(unet, batch, kind):
    x, t, noise, probe = batch
    squares = squared_gradients(unet, LOSSES[kind], x, t, noise, probe)
    for i in range(len(x)):
        unet.zero_grad()
        predicted = unet(x[i : i + 1], t[i : i + 1])[0]
        loss = 0.5 * (predicted - noise[i]).pow(2).sum() if kind == "empirical" else (probe[i] * predicted).sum()
        loss.backward()
        for name, parameter in unet.named_parameters():
            close(squares[name][i], parameter.grad**2)


def maps(unet, alphas_cumprod, images, chunk, **changes):
    settings = {"timesteps": [1, 40, 60, 100], "bins": [1, 50, 100], "seed": 3} | changes
    return fisher_maps(unet, images, alphas_cumprod, chunk=chunk, **settings)


def test_the_result_does_not_depend_on_the_chunk(unet, alphas_cumprod):
    images = some_images(5)
    whole, parts = maps(unet, alphas_cumprod, images, 5), maps(unet, alphas_cumprod, images, 2)
    for kind in KINDS:
        for edge in (1, 50, 100):
            for name, tensor in whole[kind].per_weight[edge].items():
                close(parts[kind].per_weight[edge][name], tensor)
        for name, rows in whole[kind].per_sample.items():
            close(parts[kind].per_sample[name], rows)


def test_maps_have_the_shapes_of_the_weights_and_agree_with_the_table(unet, alphas_cumprod):
    images = some_images(4)
    found = maps(unet, alphas_cumprod, images, 4)
    for kind in KINDS:
        for name, parameter in unet.named_parameters():
            mean, error = mean_and_error(found[kind].per_sample[name])
            assert found[kind].per_weight[100][name].shape == parameter.shape
            for edge, columns in ((1, [0]), (50, [1]), (100, [2, 3])):
                close(found[kind].per_weight[edge][name].mean(), mean[columns].mean())
            assert (error >= 0).all()


def test_squares_are_averaged_and_not_the_average_squared(unet, alphas_cumprod):
    """The usual bug, the square of a batch mean, is far smaller."""
    images = some_images(6)
    found = maps(unet, alphas_cumprod, images, 6, timesteps=[100], bins=[100])["empirical"].per_weight[100]
    noise = torch.from_numpy(generator("fisher", 3, 100).standard_normal(images.shape, dtype="float32"))
    t = torch.full((6,), 100)
    x = add_noise(images, noise, t, alphas_cumprod)
    (0.5 * (unet(x, t) - noise).pow(2).flatten(1).sum(1)).mean().backward()
    squared_mean = sum(p.grad.pow(2).sum() for p in unet.parameters())
    assert sum(tensor.sum() for tensor in found.values()) > 2 * squared_mean


class Scale(nn.Module):
    """ε = w ⊙ x: the Gauss–Newton Fisher of w_j is E x_j², with no spread over the signs."""

    def __init__(self, pixels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(pixels))

    def forward(self, x, timestep):
        return (x.flatten(1) * self.weight).view_as(x)


def test_gauss_newton_of_a_linear_model_is_its_closed_form(alphas_cumprod):
    images = torch.rand(50, 1, 2, 2) * 2 - 1
    found = maps(Scale(4), alphas_cumprod, images, 7, timesteps=[30], bins=[30])["gauss_newton"]
    noise = torch.from_numpy(generator("fisher", 3, 30).standard_normal(images.shape, dtype="float32"))
    x = add_noise(images, noise, torch.full((50,), 30), alphas_cumprod)
    torch.testing.assert_close(found.per_weight[30]["weight"], x.flatten(1).pow(2).mean(0))


def test_empirical_fisher_vanishes_for_a_perfect_fit_and_gauss_newton_does_not(alphas_cumprod):
    model = Scale(4)
    with torch.no_grad():
        model.weight.fill_(1 / (1 - alphas_cumprod[30]).sqrt().float())
    found = maps(model, alphas_cumprod, torch.zeros(8, 1, 2, 2), 8, timesteps=[30], bins=[30])
    assert found["empirical"].per_weight[30]["weight"].max() < 1e-10
    assert found["gauss_newton"].per_weight[30]["weight"].min() > 0.01


def test_gauss_newton_predicts_the_change_of_the_output(unet, alphas_cumprod):
    images = some_images(64)
    found = maps(unet, alphas_cumprod, images, 64, timesteps=[50], bins=[50])["gauss_newton"].per_weight[50]
    noise = torch.from_numpy(generator("fisher", 3, 50).standard_normal(images.shape, dtype="float32"))
    t = torch.full((64,), 50)
    x = add_noise(images, noise, t, alphas_cumprod)
    with torch.no_grad():
        before, changed = unet(x, t), []
        delta = {name: torch.randn_like(p) * 1e-4 for name, p in unet.named_parameters()}
        predicted = sum((found[name] * delta[name] ** 2).sum().item() for name in found)
        for sign in (1, -1):
            for name, parameter in unet.named_parameters():
                parameter.add_(sign * delta[name])
            changed.append((unet(x, t) - before).pow(2).flatten(1).sum(1).mean().item())
            for name, parameter in unet.named_parameters():
                parameter.sub_(sign * delta[name])
    assert sum(changed) / 2 == pytest.approx(predicted, rel=0.35)
