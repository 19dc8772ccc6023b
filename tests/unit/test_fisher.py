import pytest
import torch
from torch import nn

from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.diffusion.process import add_noise
from laqfi.sensitivity import gradients
from laqfi.sensitivity.fisher import KINDS, LOSSES, fisher_maps, mean_and_error, of
from laqfi.sensitivity.gradients import SampleGradients


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


def sample_gradients(model, x, t, losses):
    """The gradient of every sample, by kind and parameter."""
    found = {
        kind: {name: torch.zeros(len(x), *p.shape, dtype=p.dtype) for name, p in model.named_parameters()}
        for kind in losses
    }

    def keep(kind):
        def add(name, part, gradients):
            found[kind][name][part] += gradients  # one that is told twice would be twice as large

        return add

    SampleGradients(model, x[:1], t[:1]).measure(x, t, [(loss, keep(kind)) for kind, loss in losses.items()])
    return found


def by_single_backward_passes(model, x, t, loss):
    rows = {name: [] for name, _ in model.named_parameters()}
    for i in range(len(x)):
        model.zero_grad()
        loss(model(x[i : i + 1], t[i : i + 1]), slice(i, i + 1)).backward()
        for name, parameter in model.named_parameters():
            rows[name].append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return {name: torch.stack(row) for name, row in rows.items()}


def losses_of(noise, probe):
    return {kind: of(loss, noise, probe) for kind, loss in LOSSES.items()}


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_per_sample_gradients_equal_a_loop_of_single_backward_passes(unet, batch, at_once, monkeypatch):
    monkeypatch.setattr(gradients, "AT_ONCE", at_once)
    x, t, noise, probe = batch
    losses = losses_of(noise, probe)
    found = sample_gradients(unet, x, t, losses)
    for kind, loss in losses.items():
        for name, rows in by_single_backward_passes(unet, x, t, loss).items():
            torch.testing.assert_close(found[kind][name], rows, rtol=1e-8, atol=1e-12, msg=name)
    assert all(parameter.requires_grad for parameter in unet.parameters())
    assert not any(module._forward_hooks for module in unet.modules())


class Awkward(nn.Module):
    """What a batch cannot tell apart by hooks: bare and shared parameters, one layer twice, rows of several samples."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(1, 1, 3, padding=1)
        self.grouped = nn.Conv2d(2, 2, 3, padding=1, groups=2)
        self.circular = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
        self.strided = nn.ConvTranspose2d(2, 1, (3, 1), padding=(1, 0))
        self.merged = nn.Linear(8, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.embedding = nn.Embedding(200, 8)
        self.norm, self.wide = nn.LayerNorm(8), nn.LayerNorm((8, 8))
        self.plain = nn.GroupNorm(1, 2, affine=False)
        self.scale = nn.Parameter(torch.rand(8))
        self.unused = nn.Linear(3, 3)

    def forward(self, x, timestep):
        x = self.circular(self.twice(torch.tanh(self.twice(x))))
        x = self.strided(self.plain(self.grouped(torch.cat([x, x.square()], 1))))
        x = self.norm(self.wide(x)) * self.scale + self.embedding(timestep)[:, None, None]
        x = self.second(torch.sin(self.first(x)))
        return self.merged(x.flatten(0, 2)).view_as(x)


def test_parameters_of_any_kind_have_the_gradients_of_a_loop_of_single_backward_passes(batch):
    torch.manual_seed(0)
    model, (x, t, noise, probe) = Awkward().double(), batch
    losses = losses_of(noise, probe)
    found = sample_gradients(model, x, t, losses)
    for kind, loss in losses.items():
        for name, rows in by_single_backward_passes(model, x, t, loss).items():
            torch.testing.assert_close(found[kind][name], rows, rtol=1e-8, atol=1e-12, msg=name)


class Overwriting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, x, timestep):
        x = x * 2
        found = self.layer(x)
        x.add_(1)
        return found


def test_a_layer_whose_input_is_overwritten_is_refused_rather_than_measured_wrong(alphas_cumprod):
    with pytest.raises(LaqfiError, match=r"^layer: its input was overwritten by a later operation"):
        maps(Overwriting(), alphas_cumprod, torch.rand(2, 1, 4, 4), 2)


def maps(unet, alphas_cumprod, images, chunk, **changes):
    settings = {"timesteps": [1, 40, 60, 100], "bins": [1, 50, 100], "seed": 3} | changes
    return fisher_maps(unet, images, alphas_cumprod, chunk=chunk, **settings)


def test_the_result_does_not_depend_on_the_chunk(unet, alphas_cumprod):
    images = some_images(5)
    whole, parts = maps(unet, alphas_cumprod, images, 5), maps(unet, alphas_cumprod, images, 2)
    for name, tensor in whole.per_weight.items():
        close(parts.per_weight[name], tensor)
        close(parts.per_bin[name], whole.per_bin[name])
        for kind in KINDS:
            close(parts.per_sample[kind][name], whole.per_sample[kind][name])


def test_maps_have_the_shapes_of_the_weights_and_agree_with_the_table(unet, alphas_cumprod):
    found = maps(unet, alphas_cumprod, some_images(4), 4)
    for name, parameter in unet.named_parameters():
        mean, error = mean_and_error(found.per_sample["gauss_newton"][name])
        assert found.per_weight[name].shape == parameter.shape
        close(found.per_bin[name], torch.stack([mean[0], mean[1], mean[2:].mean()]))
        # Bins of 1, 49 and 50 of the 100 timesteps.
        close(found.per_weight[name].mean(), (mean[0] + 49 * mean[1] + 50 * mean[2:].mean()) / 100)
        assert (error >= 0).all()


def test_squares_are_averaged_and_not_the_average_squared(unet, alphas_cumprod):
    """The usual bug, the square of a batch mean, is far smaller."""
    images = some_images(6)
    found = maps(unet, alphas_cumprod, images, 6, timesteps=[100], bins=[100]).per_sample["empirical"]
    noise = torch.from_numpy(generator("fisher", 3, 100).standard_normal(images.shape, dtype="float32"))
    t = torch.full((6,), 100)
    x = add_noise(images, noise, t, alphas_cumprod)
    (0.5 * (unet(x, t) - noise).pow(2).flatten(1).sum(1)).mean().backward()
    parameters = dict(unet.named_parameters())
    squared_mean = sum(p.grad.pow(2).sum() for p in parameters.values())
    assert sum(rows.mean() * parameters[name].numel() for name, rows in found.items()) > 2 * squared_mean


class Scale(nn.Module):
    """ε = w ⊙ x: the Gauss–Newton Fisher of w_j is E x_j², with no spread over the signs."""

    def __init__(self, pixels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(pixels))

    def forward(self, x, timestep):
        return (x.flatten(1) * self.weight).view_as(x)


def test_gauss_newton_of_a_linear_model_is_its_closed_form(alphas_cumprod):
    images = torch.rand(50, 1, 2, 2) * 2 - 1
    found = maps(Scale(4), alphas_cumprod, images, 7, timesteps=[30], bins=[30])
    noise = torch.from_numpy(generator("fisher", 3, 30).standard_normal(images.shape, dtype="float32"))
    x = add_noise(images, noise, torch.full((50,), 30), alphas_cumprod)
    torch.testing.assert_close(found.per_weight["weight"], x.flatten(1).pow(2).mean(0))


def test_empirical_fisher_vanishes_for_a_perfect_fit_and_gauss_newton_does_not(alphas_cumprod):
    model = Scale(4)
    with torch.no_grad():
        model.weight.fill_(1 / (1 - alphas_cumprod[30]).sqrt().float())
    found = maps(model, alphas_cumprod, torch.zeros(8, 1, 2, 2), 8, timesteps=[30], bins=[30])
    assert found.per_sample["empirical"]["weight"].max() < 1e-10
    assert found.per_weight["weight"].min() > 0.01


def test_gauss_newton_predicts_the_change_of_the_output(unet, alphas_cumprod):
    images = some_images(64)
    found = maps(unet, alphas_cumprod, images, 64, timesteps=[50], bins=[50]).per_weight
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
