"""What matters for the final image: derivatives through the whole sampler, and what goes by them."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.sampling import samplers
from laqfi.sensitivity.curvature import curvatures, layers_of
from laqfi.sensitivity.image import ImageImportance, image_importance
from laqfi.sensitivity.inputs import measuring

SAMPLER = {"sampler": "ddim", "steps": 3, "eta": 0.0, "clip": False}
STEPS = [100, 50, 1]  # `spaced_timesteps` of 100 timesteps


class Times(nn.Module):
    """ε = w x: what a sampler makes of it is a product over its steps."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.mix.weight, 0.3)

    def forward(self, x, timestep):
        return self.mix(x)


def noise_of(shape, images):
    return torch.from_numpy(np.stack([generator("x_T", i).standard_normal(shape, "float32") for i in range(images)]))


def sampled(noise, alphas_cumprod, **how):
    """`samplers.reverse` from rows of `noise`; what steps add beside is the same for every part that begins there."""

    def run(denoiser, part):
        drawn = iter(range(100))

        def draw():
            one = next(drawn)
            return noise[part.start : part.stop] if one == 0 else noise[part.start : part.stop].roll(one, -1)

        return samplers.reverse(denoiser, draw, alphas_cumprod, **SAMPLER | how)

    return run


def test_of_a_linear_network_it_is_that_of_a_product(alphas_cumprod):
    """x_0 = Π (a_t + b_t w) x_T, so ∂x_0/∂ε_t = b_t Π_later and ∂x_0/∂w = Σ_t b_t Π_others x_T: of one pixel."""
    noise, model = noise_of((1, 1, 1), 1), Times()
    found = image_importance(model, sampled(noise, alphas_cumprod), STEPS, 1, 0)
    w, bars = 0.3, [alphas_cumprod[t].item() for t in [*STEPS, 0]]
    ab = []
    for bar, after in pairwise(bars):
        a = math.sqrt(after / bar)
        ab.append((a, math.sqrt(1 - after) - a * math.sqrt(1 - bar)))
    factors = [a + b * w for a, b in ab]
    gains = [b * math.prod(factors[i + 1 :]) for i, (_, b) in enumerate(ab)]
    by_weight = sum(b * math.prod(factors[:i] + factors[i + 1 :]) for i, (_, b) in enumerate(ab)) * noise.item()
    total = sum(gain**2 for gain in gains)
    np.testing.assert_allclose(found.shares, [gain**2 / total for gain in gains], rtol=1e-5)
    assert found.tensors == {"mix.weight": pytest.approx(by_weight**2 / total, rel=1e-5)}


@pytest.mark.parametrize("how", [{"clip": True}, {"eta": 1.0}, {"sampler": "ddpm", "clip": True}])
def test_it_is_that_of_one_graph_of_all_steps(unet, alphas_cumprod, how):
    noise = noise_of((1, 8, 8), 6)
    run = sampled(noise, alphas_cumprod, **how)
    found = image_importance(unet, run, STEPS, 6, 5)
    random, shares, squares = generator("image importance", 5), [], 0.0
    for part in (range(4), range(4, 6)):
        errors = []

        def watched(x, t, errors=errors):
            errors.append(unet(x, t).detach().mul(0).requires_grad_(True))
            return unet(x, t) + errors[-1]

        with measuring(unet):
            final = run(watched, part)
            signs = torch.from_numpy(random.integers(0, 2, tuple(final.shape)) * 2.0 - 1).float()
            gains = torch.autograd.grad((signs * final).sum(), errors, retain_graph=True)
            gains = torch.stack([gain.square().sum((1, 2, 3)) for gain in gains])
            value = (final * signs / gains.sum(0).sqrt()[:, None, None, None]).sum()
            squares = squares + np.array(
                [g.square().mean().item() for g in torch.autograd.grad(value, [*unet.parameters()])]
            )
        shares.append(gains / gains.sum(0))
    np.testing.assert_allclose(found.shares, torch.cat(shares, 1).mean(1), rtol=1e-4)
    np.testing.assert_allclose([*found.tensors.values()], squares / 6, rtol=1e-3)


def test_it_is_the_same_twice_and_leaves_the_network_as_it_was(unet, alphas_cumprod):
    unet.train().requires_grad_(False)
    run = sampled(noise_of((1, 8, 8), 5), alphas_cumprod)
    first, again = (image_importance(unet, run, STEPS, 5, 0).arrays() for _ in range(2))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert unet.training
    assert not any(p.requires_grad or p.grad is not None for p in unet.parameters())


def test_an_image_that_moves_more_counts_no_more(alphas_cumprod):
    """Where the final image is a hundred times the sampler's, nothing but the scale of all of it could change."""
    run, model = sampled(noise_of((1, 4, 4), 4), alphas_cumprod), Times()

    def louder(denoiser, part):
        return run(denoiser, part) * torch.tensor([1.0, 100.0, 1.0, 10.0])[:, None, None, None]

    plain, loud = (image_importance(model, one, STEPS, 4, 0) for one in (run, louder))
    np.testing.assert_allclose(plain.shares, loud.shares, rtol=1e-5)
    assert plain.tensors["mix.weight"] == pytest.approx(loud.tensors["mix.weight"], rel=1e-5)


def test_timesteps_count_what_the_steps_near_them_do():
    found = ImageImportance([1000, 600, 510, 1], np.array([0.1, 0.2, 0.3, 0.4]), {})
    assert found.at([1, 500, 900]) == pytest.approx({1: 1.2, 500: 1.5, 900: 0.3})


def test_a_timestep_of_the_curvature_counts_by_its_weight(unet, alphas_cumprod):
    images = noise_of((1, 8, 8), 3).clamp(-1, 1)
    layers = {"conv_in.weight": layers_of(unet)["conv_in.weight"]}
    measure = partial(curvatures, unet, layers, images, alphas_cumprod, chunk=2, seed=0)

    def dense(**how):
        with measuring(unet):
            return torch.cat([block.flatten() for block in measure(**how)["conv_in.weight"].blocks.values()])

    both = dense(timesteps=[1, 100], weights={1: 2.25, 100: 0.0})
    torch.testing.assert_close(both, 2.25 * dense(timesteps=[1]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_shares": np.ones(2)}, r"has 3, 2 and 1 steps, shares and tensors, allowed are 1 tensors"),
        ({"image_tensors": np.ones(2)}, r"has 3, 3 and 2 steps, shares and tensors, allowed are 1 tensors"),
        ({"image_shares": np.array([1.0, -1.0, 1.0])}, r"holds an importance for the image that is below 0"),
        ({"image_tensors": np.array([math.nan])}, r"holds an importance for the image that is below 0|not finite"),
        ({"image_steps": None}, r"holds no array 'image_steps'"),
    ],
)
def test_a_file_with_another_importance_is_refused(tmp_path, changed, message):
    path, whole = tmp_path / "calibration.npz", ImageImportance(STEPS, np.array([0.5, 0.25, 0.25]), {"w": 2.0})
    files.write_arrays(path, **whole.arrays())
    read = ImageImportance.read(path, ["w"])
    assert (read.timesteps, read.shares.tolist(), read.tensors) == (STEPS, whole.shares.tolist(), whole.tensors)
    arrays = {name: array for name, array in (whole.arrays() | changed).items() if array is not None}
    files.write_arrays(path, **arrays)
    with pytest.raises(LaqfiError, match=message):
        ImageImportance.read(path, ["w"])
