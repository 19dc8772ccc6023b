"""Curvature, rounding that compensates, and what the Fisher information foretells."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.diffusion.process import add_noise, linear_alphas_cumprod
from laqfi.quant import gptq
from laqfi.quant.choice import Choice
from laqfi.quant.evidence import Evidence
from laqfi.quant.gather import bin_weights
from laqfi.quant.prediction import bits_over_bound, predicted_change, water_filling_bits
from laqfi.sampling.samplers import ddim, error_gains, spaced_timesteps
from laqfi.sensitivity import curvature as summing
from laqfi.sensitivity.compensation import Compensation, cholesky, factored
from laqfi.sensitivity.curvature import compensations, curvatures, layers_of, passes
from laqfi.sensitivity.layers import patches
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout
from stored import quantize


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.Conv2d(2, 1, 1),
        nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1),
        nn.ConvTranspose2d(4, 2, 3, stride=1, padding=0),
    ],
)
def test_patches_times_the_weights_matrix_is_the_layer(module):
    x = torch.randn(2, module.in_channels, 6, 6)
    layout = Layout(Format("float32"), tuple(module.weight.shape), int(isinstance(module, nn.ConvTranspose2d)))
    expected = (module(x) - module.bias[:, None, None]).flatten(2)
    torch.testing.assert_close(layout.matrix(module.weight) @ patches(module, x), expected, rtol=1e-4, atol=1e-5)


class OneLayer(nn.Module):
    """ε = W x pixel by pixel, so that the curvature of W is E Σ x xᵀ, times the share of one output channel."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2, 2, 1, bias=False)

    def forward(self, x, timestep):
        return self.mix(x)


def curvature_of(model, images, alphas_cumprod, **settings):
    """H of every layer, mean over images and timesteps."""
    found = curvatures(model, layers_of(model), images, alphas_cumprod, **settings)
    return {name: dense(one, len(images) * len(settings["timesteps"])) for name, one in found.items()}


def dense(curvature, samples):
    matrix, order = curvature.ordered(samples)
    assert (matrix.diagonal().diff() >= 0).all()
    place = order.argsort()
    return matrix[place][:, place]


def gptq_codes(matrix, curvature, scale, zero_point, levels):
    order, feedback = Compensation.of(curvature).unpacked(torch.arange(len(curvature)), torch.device("cpu"))
    return gptq.gptq_codes(matrix, order, feedback, scale, zero_point, levels)


def test_curvature_of_a_linear_model_is_the_second_moment_of_its_inputs(alphas_cumprod):
    images = torch.rand(20, 2, 4, 4) * 2 - 1
    found = curvature_of(OneLayer(), images, alphas_cumprod, timesteps=[40], chunk=6, seed=3)["mix.weight"]
    noise = torch.from_numpy(generator("curvature", 3, 40).standard_normal(images.shape, dtype="float32"))
    x = add_noise(images, noise, torch.full((20,), 40), alphas_cumprod).flatten(2)
    torch.testing.assert_close(found, torch.einsum("bip,bjp->ij", x, x) / 20, rtol=1e-4, atol=1e-4)


def test_curvature_is_the_mean_of_the_timesteps(alphas_cumprod):
    images = torch.rand(6, 2, 4, 4) * 2 - 1

    def found(*timesteps):
        return curvature_of(OneLayer(), images, alphas_cumprod, timesteps=[*timesteps], chunk=6, seed=3)["mix.weight"]

    torch.testing.assert_close(found(10, 40, 90), (found(10) + found(40) + found(90)) / 3)


def test_every_weight_of_the_network_has_its_curvature(unet, alphas_cumprod):
    found = curvature_of(unet, torch.rand(4, 1, 8, 8) * 2 - 1, alphas_cumprod, timesteps=[1, 100], chunk=2, seed=0)
    for name, parameter in unet.named_parameters():
        if parameter.dim() > 1:
            columns = parameter.numel() // parameter.shape[1 if "resample" in name and parameter.shape[-1] == 4 else 0]
            assert found[name].shape == (columns, columns)
            assert torch.linalg.eigvalsh(found[name].double()).min() > -1e-4 * found[name].diagonal().max()
    assert not any(module._forward_hooks for module in unet.modules())


def random_problem(seed, rows=6, columns=12):
    torch.manual_seed(seed)
    root = torch.randn(columns, columns // 2)
    scale = torch.full((rows, columns), 0.8)
    return torch.randn(rows, columns), root @ root.T, scale, torch.full((rows, columns), 4.0)


def second_order(delta, curvature):
    return ((delta @ curvature) * delta).sum()


@pytest.mark.parametrize("seed", range(5))
def test_gptq_costs_less_than_nearest_on_correlated_inputs(seed):
    matrix, curvature, scale, zero_point = random_problem(seed)
    codes = gptq_codes(matrix, curvature, scale, zero_point, 8)
    nearest = (matrix / scale + zero_point).round().clamp(0, 7)
    assert codes.min() >= 0
    assert codes.max() <= 7
    assert torch.equal(codes, codes.round())
    gained, plain = (second_order(scale * (c - zero_point) - matrix, curvature) for c in (codes, nearest))
    assert gained < 0.8 * plain


def optimal_brain_quantizer(matrix, curvature, scale, zero_point, levels):
    """GPTQ as it was first written: after each column the inverse of what is left of the damped curvature (float64)."""
    damped = curvature.double() + 0.01 * curvature.double().diagonal().mean() * torch.eye(len(curvature))
    weights, codes = matrix.double().clone(), torch.zeros_like(matrix)
    left = curvature.diagonal().argsort(descending=True).tolist()
    while left:
        column = left[0]
        inverse = torch.linalg.inv(damped[left][:, left])
        codes[:, column] = (
            (weights[:, column] / scale[:, column] + zero_point[:, column]).round().clamp(0, levels - 1).float()
        )
        error = weights[:, column] - scale[:, column] * (codes[:, column] - zero_point[:, column])
        weights[:, left] -= error[:, None] * inverse[0] / inverse[0, 0]
        left.remove(column)
    return codes


@pytest.mark.parametrize("width", [1, 5, 12, 128])
@pytest.mark.parametrize("seed", range(5))
def test_gptq_rounds_column_by_column_those_of_the_largest_curvature_first(seed, width, monkeypatch):
    """In blocks of any width, the last of them cut short."""
    monkeypatch.setattr(gptq, "WHOLE", 0)
    monkeypatch.setattr(gptq, "LAZY", width)
    problem = random_problem(seed)
    assert torch.equal(gptq_codes(*problem, 8), optimal_brain_quantizer(*problem, 8))


def test_gptq_tells_columns_at_once_where_a_cpu_can_hold_them_and_block_by_block_beyond():
    """The widest layers of the profiles for a CPU have 1024 columns: their bytes are those of no blocks at all."""
    assert gptq.block_width(torch.empty(2, 1024)) == 1024
    assert gptq.block_width(torch.empty(2, 1025)) == 128


def test_gptq_in_blocks_costs_what_it_does_without(monkeypatch):
    """The sums' order is another, so that a weight midway between two codes may get the other one: few do."""
    torch.manual_seed(0)
    root = torch.randn(300, 500)
    matrix, curvature = torch.randn(40, 500), root.T @ root / 300
    problem = matrix, curvature, torch.full((40, 500), 0.5), torch.full((40, 500), 8.0), 16
    whole = gptq_codes(*problem)
    monkeypatch.setattr(gptq, "WHOLE", 0)
    blocks = gptq_codes(*problem)
    assert (blocks != whole).float().mean() < 0.01
    costs = [second_order(0.5 * (codes - 8) - matrix, curvature) for codes in (blocks, whole)]
    assert costs[0] == pytest.approx(costs[1].item(), rel=0.01)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_rounded_in_several_formats_at_once_is_as_by_itself(axis):
    torch.manual_seed(0)
    weight, fisher = torch.randn(6, 4, 3, 3), torch.rand(6, 4, 3, 3)
    fisher[:, :, 0] = 0  # three kernel positions are not stored
    columns = weight.numel() // weight.shape[axis]
    root = torch.randn(columns, 40)
    compensation = Compensation.of(root @ root.T)
    wanted = {
        Choice(Format(name, symmetric, group), None, search, rounding)
        for name, symmetric, group in (("int2", True, 0), ("int5", False, 4), ("int4", True, -1), ("float16", True, 0))
        for search in ("mse", "fisher")
        for rounding in ("gptq", "nearest")
    } | {Choice(Format("int12"), rounding="gptq", step=0.1)}
    together, alone = (
        Evidence("w", None, 0.0, weight, axis, fisher, compensation=lambda: compensation) for _ in range(2)
    )
    together.store_together(wanted)
    kept = dict(together.kept)
    for one in wanted:
        found, expected = (t.stored(one.format, one.search, one.rounding, one.step) for t in (together, alone))
        assert found in kept.values()
        assert found.layout == expected.layout
        for part, tensor in expected.parts.items():
            assert torch.equal(found.parts[part], tensor)


def test_rounding_in_several_formats_at_once_names_the_tensor_it_cannot_round():
    wanted = {Choice(Format(name), rounding="gptq") for name in ("int2", "int3")}
    with pytest.raises(LaqfiError, match=r"^w has no curvature"):
        Evidence("w", None, 0.0, torch.randn(6, 4)).store_together(wanted)
    few = Compensation.of(torch.eye(3))
    with pytest.raises(LaqfiError, match=r"^w has a curvature of 3 columns .* allowed are 4"):
        Evidence("w", None, 0.0, torch.randn(6, 4), compensation=lambda: few).store_together(wanted)


def test_gptq_on_uncorrelated_inputs_is_nearest():
    matrix, _, scale, zero_point = random_problem(0)
    codes = gptq_codes(matrix, torch.diag(torch.rand(12) + 0.1), scale, zero_point, 8)
    assert torch.equal(codes, (matrix / scale + zero_point).round().clamp(0, 7))


def test_gptq_without_any_curvature_still_rounds():
    matrix, _, scale, zero_point = random_problem(0)
    codes = gptq_codes(matrix, torch.zeros(12, 12), scale, zero_point, 8)
    assert torch.equal(codes, (matrix / scale + zero_point).round().clamp(0, 7))


def test_gptq_leaves_out_the_taps_that_are_not_stored():
    torch.manual_seed(0)
    weight, root = torch.randn(4, 3, 3, 3), torch.randn(27, 27)
    layout = Layout(Format("int4"), (4, 3, 3, 3), 0, (0, 4, 5))
    _, restored = quantize(weight, layout, "mse", None, root @ root.T)
    kept = restored.flatten(2)[:, :, [0, 4, 5]]
    assert restored.flatten(2).count_nonzero() <= kept.numel()
    assert (kept - weight.flatten(2)[:, :, [0, 4, 5]]).abs().max() < 1


@pytest.mark.parametrize("columns", [1, 9, 26, 28])
def test_gptq_refuses_a_curvature_of_another_layer(columns):
    layout = Layout(Format("int4"), (4, 3, 3, 3), 0, (0, 4, 5))
    with pytest.raises(LaqfiError, match=rf"^has a curvature of {columns} columns .*, allowed are 27$"):
        quantize(torch.randn(4, 3, 3, 3), layout, "mse", None, torch.eye(columns))


def test_water_filling_of_equal_variances_is_the_rate_of_a_gaussian():
    # D = n σ² 2^(-2 b): 6.02 dB per bit.
    for bits in (0.5, 2, 5):
        found = water_filling_bits(np.full(10, 3.0), np.full(10, 7), 70 * 3.0 * 4.0**-bits)
        assert found == pytest.approx(bits, rel=1e-6)


def test_water_filling_gives_nothing_to_what_lies_under_the_level():
    # θ = 1: one class of variance 16 at 2 bits, one of 0.5 at none; distortion 1 + 0.5.
    assert water_filling_bits(np.array([16.0, 0.5]), np.array([1, 1]), 1.5) == pytest.approx(1.0)
    assert water_filling_bits(np.array([16.0, 0.0]), np.array([1, 3]), 1.0) == pytest.approx(0.5)
    assert water_filling_bits(np.array([1.0]), np.array([1]), 0.0) == float("inf")
    assert water_filling_bits(np.zeros(3), np.ones(3), 0.0) == 0


def test_water_filling_counts_every_class_as_often_as_it_has_weights():
    # θ = 1: one weight at 2 bits, five at 1, three under the level; distortion 1 + 5 + 3 / 4.
    found = water_filling_bits(np.array([16.0, 4.0, 0.25]), np.array([1, 5, 3]), 6.75)
    assert found == pytest.approx((1 * 2 + 5 * 1) / 9, rel=1e-12)


@pytest.mark.parametrize("level", [1e-12, 0.3, 2.0, 7.9, 15.999])
def test_water_filling_finds_the_level_wherever_it_lies(level):
    variances, counts = np.array([16.0, 8.0, 0.5]), np.array([2, 3, 4])
    distortion = float((counts * np.minimum(variances, level)).sum())
    expected = (counts * np.log2(np.maximum(variances / level, 1)) / 2).sum() / counts.sum()
    assert water_filling_bits(variances, counts, distortion) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distortion", [16.5, 17.0, 1e9])
def test_no_bits_are_needed_for_an_error_as_large_as_the_weights(distortion):
    assert water_filling_bits(np.array([16.0, 0.5]), np.array([1, 1]), distortion) == pytest.approx(0, abs=1e-12)


def test_integers_that_are_exact_have_no_bound():
    layout = {"a": Layout(Format("int4"), (2, 8))}
    weight = {"a": torch.arange(16.0).view(2, 8)}
    assert bits_over_bound(layout, weight, {"a": 0.0}, {"a": torch.ones(2, 8)}, 12) is None


def test_bits_lie_above_the_bound_and_floats_have_none():
    torch.manual_seed(0)
    weight, fisher = torch.randn(16, 64), torch.rand(16, 64)
    layout = Layout(Format("int4"), (16, 64))
    _, restored = quantize(weight, layout, "mse")
    change = {"w": predicted_change(restored - weight, fisher)}
    found = bits_over_bound({"w": layout}, {"w": weight}, change, {"w": fisher}, layout.bytes())
    assert found["bits"] == pytest.approx(4 + 16 / 64)
    assert 2.5 < found["bound"] < found["bits"]
    plain = Layout(Format("float16"), (16, 64))
    assert bits_over_bound({"w": plain}, {"w": weight}, change, {"w": fisher}, plain.bytes()) is None


def test_predicted_change_sums_fisher_times_squared_error():
    assert predicted_change(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25], dtype=torch.bfloat16)) == 0.5 + 1


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_error_gain_is_the_squared_derivative_of_the_final_image(steps):
    alphas_cumprod = linear_alphas_cumprod(200, 0.001, 0.05)
    timesteps = spaced_timesteps(200, steps)
    found = error_gains(alphas_cumprod, sampler="ddim", steps=steps, eta=0.0)

    def final(errors):
        x = torch.tensor(1.0, dtype=torch.float64)
        for t, t_prev, error in zip(timesteps, [*timesteps[1:], 0], errors, strict=True):
            noise = 0.3 + error
            x, _ = ddim(x, noise, alphas_cumprod[t].item(), alphas_cumprod[t_prev].item(), eta=0.0, clip=False)
        return x

    gradient = torch.autograd.functional.jacobian(final, torch.zeros(steps, dtype=torch.float64))
    np.testing.assert_allclose([found[t] for t in timesteps], gradient.square().numpy(), rtol=1e-6)


def closed_form_gains(alphas_cumprod, sampler, steps, eta):
    """b² / ᾱ_prev of x_prev = a x + b ε: all later steps together multiply x_prev by 1/√ᾱ_prev."""
    timesteps = spaced_timesteps(len(alphas_cumprod) - 1, steps)
    gains = {}
    for t, t_prev in zip(timesteps, [*timesteps[1:], 0], strict=True):
        now, prev = alphas_cumprod[t].item(), alphas_cumprod[t_prev].item()
        variance = (1 - prev) / (1 - now) * (1 - now / prev)
        kept = 1 - prev - (1.0 if sampler == "ddpm" else eta**2) * variance
        gains[t] = (math.sqrt(max(kept, 0.0)) - math.sqrt(prev * (1 - now) / now)) ** 2 / prev
    return gains


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0.0), ("ddim", 0.7), ("ddim", 1.0), ("ddpm", 0.0)])
@pytest.mark.parametrize("steps", [1, 2, 20, 200])
def test_the_gains_of_both_samplers_are_those_of_the_closed_form(sampler, eta, steps):
    alphas_cumprod = linear_alphas_cumprod(200, 0.001, 0.05)
    found = error_gains(alphas_cumprod, sampler=sampler, steps=steps, eta=eta)
    wanted = closed_form_gains(alphas_cumprod, sampler, steps, eta)
    assert list(found) == list(wanted)
    np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-12, atol=1e-14)


def test_timestep_weightings_share_out_the_bins():
    alphas_cumprod = linear_alphas_cumprod(100, 0.001, 0.1)
    settings = {"sampler": "ddim", "steps": 10, "eta": 0.0}
    assert bin_weights("last", [1, 50, 100], alphas_cumprod, **settings) == {1: 1.0, 50: 0.0, 100: 0.0}
    assert bin_weights("uniform", [1, 50, 100], alphas_cumprod, **settings) == {1: 0.01, 50: 0.49, 100: 0.5}
    sampler = bin_weights("sampler", [1, 50, 100], alphas_cumprod, **settings)
    assert sum(sampler.values()) == pytest.approx(sum(error_gains(alphas_cumprod, **settings).values()))
    assert min(sampler.values()) > 0


def random_curvature(columns, dead=()):
    root = torch.randn(columns, columns // 2 + 1)
    root[list(dead)] = 0
    return root @ root.T


@pytest.mark.parametrize("dead", [(), (0, 3, 8)])
@pytest.mark.parametrize("columns", [1, 2, 9, 40])
def test_a_compensation_holds_the_factors_of_the_damped_curvature(columns, dead):
    torch.manual_seed(columns)
    dead = [column for column in dead if column < columns - 1]
    curvature, kept = random_curvature(columns, dead), [column for column in range(columns) if column not in dead]
    found = Compensation.of(curvature)
    assert len(found.feedback) % 4 == 0
    order, feedback = found.unpacked(torch.tensor(kept), torch.device("cpu"))
    assert sorted(order.tolist()) == list(range(len(kept)))
    live = curvature[kept][:, kept]
    damped = live + 0.01 * live.diagonal().mean() * torch.eye(len(kept))
    upper = feedback.float() + torch.eye(len(kept))
    assert torch.equal(upper, upper.triu())
    again = upper @ torch.diag(found.pivots[: len(kept)]) @ upper.T
    torch.testing.assert_close(again, damped[order][:, order], rtol=1e-3, atol=2e-3 * live.diagonal().max().item())


def test_nearly_equal_columns_are_factored_in_float64_where_float32_fails():
    a, b, c = (
        float.fromhex(word) for word in ("0x1.7497e2p+1", "0x1.4510bep+0", "0x1.1b99a4p-1")
    )  # a·c is just above b²
    matrix = torch.tensor([[a, b, 0.0], [b, c, 0.0], [0.0, 0.0, 1.0]])
    assert factored(matrix.clone()) is None
    wanted = np.linalg.cholesky(matrix.numpy().astype("float64"))
    np.testing.assert_allclose(cholesky(matrix.clone()).tril(), wanted, rtol=1e-6)


@pytest.mark.parametrize("block", [1, 3, 7, 1024])
def test_curvature_in_blocks_of_rows_is_the_same(unet, alphas_cumprod, block, monkeypatch):
    images, settings = torch.rand(3, 1, 8, 8) * 2 - 1, {"timesteps": [1, 100], "chunk": 2, "seed": 0}
    whole = curvature_of(unet, images, alphas_cumprod, **settings)
    monkeypatch.setattr(summing, "BLOCK", block)
    for name, found in curvature_of(unet, images, alphas_cumprod, **settings).items():
        torch.testing.assert_close(found, whole[name], rtol=1e-4, atol=1e-5 * whole[name].abs().max().item())


def test_passes_hold_as_many_layers_as_have_room_and_at_least_one(unet):
    layers = layers_of(unet)
    assert list(passes(layers, 1 << 40)) == [layers]
    assert [len(some) for some in passes(layers, 1)] == [1] * len(layers)
    some = list(passes(layers, 40_000))
    assert 1 < len(some) < len(layers)
    assert {name: m for part in some for name, m in part.items()} == layers
    for part in some:
        assert len(part) == 1 or sum(2 * summing.columns_of(m) ** 2 for m in part.values()) <= 40_000


def test_many_passes_over_the_images_give_what_one_does(unet, alphas_cumprod, monkeypatch):
    images, settings = torch.rand(3, 1, 8, 8) * 2 - 1, {"timesteps": [1, 100], "chunk": 2, "seed": 0}
    once = dict(compensations(unet, images, alphas_cumprod, **settings))
    monkeypatch.setattr(summing, "ROOM", 0)
    again = dict(compensations(unet, images, alphas_cumprod, **settings))
    assert list(again) == list(once)
    for name, one in once.items():
        assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(again[name]).values(), strict=True))
