"""Rounded inputs, PTQD's statistics and what the sampler makes of them, on cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from laqfi.base.errors import LaqfiError
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.quant.calibration import CalibrationSet, inputs_of
from laqfi.quant.ptqd import measured_correction, statistics
from laqfi.quant.ranges import measured_inputs
from laqfi.quant.recipe import Activations
from laqfi.sampling import samplers
from laqfi.storage.activations import (
    Input,
    Inputs,
    RoundedInputs,
    check_layers,
    nearest_columns,
    rounded,
    straight_through,
)
from laqfi.storage.correction import BIAS, DEVIATION, SLOPE, Corrected, Correction
from laqfi.storage.layout import affine_grid


class Seamed(nn.Module):
    """Two branches, one of them a hundred times larger, that a convolution reads side by side."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.time = nn.Linear(1, 4)
        self.small, self.large = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 2, 3, padding=1)
        self.middle, self.last = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 1, 1)

    def forward(self, x, t):
        time = self.time(t[:, None].float() / 100)[:, :, None, None]
        return self.last(self.middle(torch.cat([self.small(x) + time, 100 * self.large(x)], 1)))


@pytest.fixture
def network() -> Seamed:
    return Seamed().eval().requires_grad_(False)


@pytest.fixture
def found() -> CalibrationSet:
    return CalibrationSet(torch.randn(3, 5, 1, 6, 6, generator=torch.Generator().manual_seed(1)), [90, 50, 10])


def test_codes_of_a_grid_by_hand():
    scale, zero_point = affine_grid(torch.tensor(-1.0), torch.tensor(2.0), 4)
    assert (scale.item(), zero_point.item()) == (1.0, 1.0)
    x = torch.tensor([-5.0, -0.6, 0.0, 0.4, 0.6, 9.0])
    assert rounded(x, scale, zero_point, torch.tensor(4.0)).tolist() == [-1.0, -1.0, 0.0, 0.0, 1.0, 2.0]


def test_a_range_holds_zero_and_one_without_width_stands_for_it():
    scale, zero_point = affine_grid(torch.tensor([0.5, 0.0]), torch.tensor([1.5, 0.0]), 256)
    assert zero_point.tolist() == [0.0, 0.0]
    assert rounded(torch.zeros(2), scale, zero_point, torch.tensor(256.0)).tolist() == [0.0, 0.0]


def test_straight_through_rounds_and_has_the_derivative_of_what_it_got():
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    (straight_through(x) * torch.tensor([2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [2.0, 3.0]


def test_the_nearest_measured_timestep():
    assert nearest_columns([10, 4, 1]).tolist() == [2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0]


def test_layers_are_found_in_the_order_of_calls_with_the_seam_of_the_one_that_reads_a_concatenation(network, found):
    layers = inputs_of(network, found.x[0, :1], torch.tensor([90]), 4)
    assert [one.name for one in layers] == ["time", "small", "large", "middle", "last"]
    assert [one.seam for one in layers] == [None, None, None, 4, None]
    assert [one.bits for one in layers] == [4, 8, 8, 4, 8]  # what reads the image, and the last one, keep 8


def test_a_layer_that_is_called_twice_is_refused(found):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1)

        def forward(self, x, t):
            return self.layer(self.layer(x))

    with pytest.raises(LaqfiError, match="layer: is called twice"):
        inputs_of(Twice(), found.x[0, :1], torch.tensor([90]), 8)


def brute_force_extremes(network, found) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Every input of every layer, kept whole."""
    seen: dict[str, list] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, a, name=name: seen.setdefault(name, []).append(a[0]))
        for name, module in network.named_children()
    ]
    for x, t in zip(found.x, found.timesteps, strict=True):
        network(x, torch.full((len(x),), t))
    for hook in hooks:
        hook.remove()
    return {name: torch.stack(inputs) for name, inputs in seen.items()}


@pytest.mark.parametrize("ranges", ["static", "per_step"])
def test_ranges_are_the_extremes_of_a_brute_force_pass(network, found, ranges):
    about, tables = measured_inputs(network, Activations(bits=8, ranges=ranges), found)
    seen = brute_force_extremes(network, found)
    row = 0
    for one in about.layers:
        parts = [seen[one.name]] if one.seam is None else seen[one.name].split([4, 2], dim=2)
        for part in parts:
            steps = part.flatten(1) if ranges == "per_step" else part.flatten()[None]
            low, high = steps.amin(1).clamp(max=0), steps.amax(1).clamp(min=0)
            assert tables["activation/scale"][row].tolist() == ((high - low) / 255).half().tolist()
            row += 1
    assert row == about.quantizers == 6


@pytest.mark.parametrize("ranges", ["static", "per_step", "dynamic", "tdq"])
def test_eight_bits_move_the_output_a_little_and_two_a_lot(network, found, ranges):
    x, t = found.x.flatten(0, 1), found.t
    errors = []
    for bits in (8, 2):
        about, tables = measured_inputs(network, Activations(bits=bits, ranges=ranges), found)
        quantized = RoundedInputs(Seamed().requires_grad_(False), about, tables)
        quantized.network.load_state_dict(
            {f"{name.replace('.', '.layer.')}": value for name, value in network.state_dict().items()}, strict=False
        )
        errors.append((quantized(x, t) - network(x, t)).square().mean() / network(x, t).square().mean())
    assert 0 < errors[0] < 1e-3
    assert errors[1] > 20 * errors[0]


def test_each_sample_is_rounded_by_the_range_of_its_own_timestep(network):
    about = Inputs(ranges="per_step", timesteps=[90, 10], layers=[Input(name="last", bits=2)])
    tables = {
        "activation/scale": torch.tensor([[1.0, 0.0]]).half(),
        "activation/zero_point": torch.tensor([[1, 0]], dtype=torch.uint8),
    }
    x = torch.randn(4, 1, 6, 6)
    quantized = RoundedInputs(network, about, tables)
    nothing = network.last.layer.bias.item()
    mixed = quantized(x, torch.tensor([90, 10, 10, 90]))
    assert (mixed[[1, 2]] == nothing).all()  # a scale of 0: all inputs are zero
    assert torch.equal(mixed[[0, 3]], quantized(x[[0, 3]], torch.tensor([90, 90])))


def test_a_seam_keeps_a_small_half_apart_from_a_large_one(network, found):
    _, tables = measured_inputs(network, Activations(bits=8), found)
    small, large = tables["activation/scale"][3:5, 0].float()
    assert large > 20 * small


@pytest.mark.parametrize(
    ("layers", "message"),
    [(["nowhere"], "'nowhere', which the network does not have"), (["last", "last"], "twice")],
)
def test_layers_of_another_network_are_refused(network, layers, message):
    about = Inputs(ranges="static", timesteps=[1], layers=[Input(name=name, bits=8) for name in layers])
    with pytest.raises(LaqfiError, match=message):
        check_layers(about, network)


def test_rows_that_are_not_samples_are_refused(network):
    about = Inputs(ranges="dynamic", timesteps=[], layers=[Input(name="last", bits=8)])
    quantized = RoundedInputs(network, about, {})
    quantized.clock.columns = torch.tensor([0, 0])
    with pytest.raises(LaqfiError, match="last: got 3 rows for 2 samples"):
        network.last(torch.zeros(3, 6, 6, 6))


def test_ptqd_finds_the_slope_bias_and_deviation_that_were_put_in():
    random = np.random.default_rng(0)
    noise = torch.from_numpy(random.standard_normal((400, 2, 8, 8)))
    left = torch.from_numpy(random.standard_normal((400, 2, 8, 8)))
    bias = torch.tensor([0.3, -0.2])[:, None, None]
    k, b, deviation = statistics(noise + 0.1 * noise + bias + 0.05 * left, noise)
    assert k.item() == pytest.approx(0.1, abs=2e-3)
    assert b.tolist() == pytest.approx([0.3, -0.2], abs=2e-3)
    assert deviation.item() == pytest.approx(0.05, rel=0.02)


def test_ptqd_leaves_a_negative_slope_to_the_residual():
    noise = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    k, b, deviation = statistics(0.8 * noise, noise)
    assert k.item() == 0
    assert b.item() == pytest.approx(0, abs=1e-7)
    assert deviation.item() == pytest.approx(0.2 * noise.double().numpy().std())


def test_a_correction_gives_back_what_slope_and_bias_did(found):
    class Off(nn.Module):
        def forward(self, x, t):
            return 1.25 * x + t[:, None, None, None] / 100

    base = lambda x, t: x  # noqa: E731
    about, tables = measured_correction(Off(), base, found)
    corrected = Corrected(Off(), about, tables)
    for x, t in found.batches():
        assert torch.allclose(corrected(x, t), x, atol=2e-6)
    assert corrected.excess(50) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("sampler", "options"), [("ddpm", {}), ("ddim", {"eta": 0.0}), ("ddim", {"eta": 0.7})])
def test_what_a_unit_of_noise_adds_is_the_closed_form_and_the_numeric_derivative(sampler, options):
    alphas = linear_alphas_cumprod(100, 1e-3, 0.1)
    for t, t_prev in ((100, 66), (34, 33), (1, 0)):
        a, b = alphas[t].item(), alphas[t_prev].item()
        step = samplers.SAMPLERS[sampler]
        gain = samplers.noise_gain(step, a, b, options | {"clip": True})
        x, noise, h = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64), 1e-6
        ends = [step(x, noise + s * h, a, b, **options, clip=False)[0].item() for s in (1, -1)]
        assert gain == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)
        if sampler == "ddpm":
            alpha = a / b
            assert gain == pytest.approx(-(1 - alpha) / (math.sqrt(alpha) * math.sqrt(1 - a)))
        else:
            sigma = step(x, noise, a, b, **options, clip=False)[1]
            assert gain == pytest.approx(math.sqrt(1 - b - sigma**2) - math.sqrt(b * (1 - a) / a))


def test_the_sampler_adds_so_much_less_noise_as_is_in_the_prediction_already():
    alphas = linear_alphas_cumprod(100, 1e-3, 0.1)
    drawn = []

    def run(excess):
        torch.manual_seed(0)
        return samplers.sample(
            lambda x, t: torch.zeros_like(x),
            lambda: torch.ones(1, 1, 1, 1),
            alphas,
            sampler="ddpm",
            steps=2,
            eta=0.0,
            clip=False,
            excess=excess,
        )

    a, b = alphas[100].item(), alphas[1].item()
    step = samplers.SAMPLERS["ddpm"]
    mean, sigma = step(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), a, b, clip=False)
    gain = samplers.noise_gain(step, a, b, {"clip": False})
    for extra in (0.0, 1e-3, 1e9):
        kept = math.sqrt(max(0.0, sigma**2 - (gain * extra) ** 2))
        last = step(mean + kept, torch.zeros(1), b, 1.0, clip=False)[0]
        drawn.append((run(lambda t, e=extra: e).item(), last.item()))
    for got, wanted in drawn:
        assert got == pytest.approx(wanted, rel=1e-5)
    assert drawn[0][0] > drawn[1][0] > drawn[2][0]


def test_what_a_file_says_of_its_tables():
    about = Correction(timesteps=[9, 1], channels=3)
    assert {name: shape for name, (_, shape) in about.part_shapes().items()} == {
        SLOPE: (2,),
        BIAS: (2, 3),
        DEVIATION: (2,),
    }
    assert Inputs(ranges="dynamic", timesteps=[], layers=[Input(name="x", bits=8)]).part_shapes() == {}


@pytest.mark.parametrize("size", [1e-9, 1e9])
@pytest.mark.parametrize("ranges", ["static", "per_step", "tdq"])
def test_inputs_whose_steps_float16_does_not_hold_are_refused(network, found, ranges, size):
    network.middle.weight.mul_(size)
    network.middle.bias.zero_()
    with pytest.raises(LaqfiError, match="last: inputs are rounded in steps of"):
        measured_inputs(network, Activations(bits=8, ranges=ranges), found)


@pytest.mark.parametrize("ranges", ["static", "per_step", "tdq"])
def test_inputs_that_are_always_zero_stay_zero(network, found, ranges):
    network.middle.weight.zero_()
    network.middle.bias.zero_()
    about, tables = measured_inputs(network, Activations(bits=8, ranges=ranges), found)
    assert not tables["activation/scale"][-1].any()
    assert torch.isfinite(found.predictions(RoundedInputs(network, about, tables))).all()
