"""`import laqfi` and its four calls, for a model of one's own and for one of diffusers."""

import subprocess
import sys
import warnings

import diffusers
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import laqfi
from diffusers_folder import SCHEDULE, packed_copy, small_unet
from laqfi.api import Measured, spread
from laqfi.base.errors import LaqfiError
from laqfi.diffusion.process import add_noise, linear_alphas_cumprod
from laqfi.models import scheduler
from laqfi.quant.apply import stored_size
from laqfi.quant.policies.budget import BEST, target_of
from laqfi.sensitivity.curvature import compensations
from laqfi.sensitivity.fisher import fisher_maps

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
HOW = {"timesteps": [1, 60], "chunk": 4}


def small_model() -> nn.Module:
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 1, 3)

        def forward(self, x, timestep):
            h = torch.tanh(self.norm(self.first(x)) + timestep[:, None, None, None] / 100)
            return nn.functional.pad(self.last(h), (1, 1, 1, 1))

    torch.manual_seed(0)
    return Small()


class Wrapped(nn.Module):
    """A network of diffusers as a model of one's own: the noise alone, timesteps from 1."""

    def __init__(self, unet: nn.Module, config: dict):
        super().__init__()
        self.unet, self.prediction, self.table = unet, config["prediction_type"], scheduler.alphas_cumprod(config)

    def forward(self, x, timestep):
        output = self.unet(x, timestep - 1).sample[:, :1]
        alpha_bar = self.table[timestep].view(-1, 1, 1, 1).float()
        v = alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * x
        return v if self.prediction == "v_prediction" else output


def configured(made) -> dict:
    return dict(made.config) | {"_class_name": type(made).__name__}


def test_four_calls_make_a_smaller_file_that_runs(alphas_cumprod, tmp_path):
    model = small_model()
    measured = laqfi.measure(model, IMAGES, alphas_cumprod, **HOW)
    stored = laqfi.quantize(model, measured, "5x")
    laqfi.save(stored, str(tmp_path / "smaller.safetensors"))
    packed = small_model()
    laqfi.load(packed, str(tmp_path / "smaller.safetensors"))
    assert stored_size(stored) <= 4 * sum(p.numel() for p in model.parameters()) / 5
    x, t = IMAGES, torch.tensor([1, 30, 60, 100])
    with torch.no_grad():
        change = (packed(x, t) - model(x, t)).square().mean() / model(x, t).square().mean()
    assert 0 < change < 0.1


def test_measured_is_what_the_pieces_measure(alphas_cumprod):
    model = small_model()
    found = laqfi.measure(model, IMAGES, alphas_cumprod, seed=3, **HOW)
    fisher = fisher_maps(model, IMAGES, alphas_cumprod, bins=[100], seed=3, **HOW).per_weight
    assert all(torch.equal(found.fisher[name], fisher[name]) for name, _ in model.named_parameters())
    for name, one in compensations(model, IMAGES, alphas_cumprod, seed=3, **HOW):
        assert torch.equal(found.compensations[name].feedback, one.feedback)


def test_without_a_policy_it_is_the_best_and_options_are_those_of_params_yaml(alphas_cumprod):
    model = small_model()
    measured = laqfi.measure(model, IMAGES, alphas_cumprod, **HOW)

    def layouts(stored):
        return {name: one.layout for name, one in stored.items()}

    best = layouts(laqfi.quantize(model, measured, "5x"))
    assert best == layouts(laqfi.quantize(model, measured, policy="budget", target={"ratio": 5.0}, **BEST))
    few = layouts(laqfi.quantize(model, measured, {"bytes": 500}, formats=["int4", "int8"], rest="float32"))
    assert {one.format.name for one in few.values()} <= {"int4", "int8", "float32"}
    bits = layouts(laqfi.quantize(model, measured, policy="bits", format="int3"))
    assert bits["last.weight"].format.name == "int3"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("8x", {"ratio": 8.0}),
        ("7.5x", {"ratio": 7.5}),
        ("300kB", {"bytes": 300_000}),
        ("1.5MiB", {"bytes": 1_572_864}),
        ("12B", {"bytes": 12}),
    ],
)
def test_a_target_is_written_as_a_factor_or_as_bytes(text, target):
    assert target_of(text) == target


@pytest.mark.parametrize("text", ["8", "x8", "8X", "-8x", "300 kB", "300kb", "", "1e3B", "8x\n"])
def test_another_target_is_refused_with_what_is_allowed(text):
    with pytest.raises(LaqfiError, match=r"^target: found .*, allowed is how many times smaller .* \(B, kB, MB"):
        target_of(text)


@pytest.mark.parametrize("target", ["9" * 400 + "GB", "9" * 400 + "x", {"bytes": 10**5000}, {"ratio": 10**5000}])
def test_a_target_of_hundreds_of_digits_is_refused_in_one_line(target):
    model = small_model()
    measured = Measured({name: torch.ones_like(one) for name, one in model.named_parameters()})
    with pytest.raises(LaqfiError, match=r"^budget\.target\.(bytes|ratio): found .{1,60}\. Input should be [^\n]*$"):
        laqfi.quantize(model, measured, target)


def test_a_target_out_of_reach_is_refused_with_the_smallest(alphas_cumprod):
    model = small_model()
    measured = laqfi.measure(model, IMAGES, alphas_cumprod, **HOW)
    for target, message in (("99x", "is too small, the smallest feasible is"), ("1x", r"budget\.target\.ratio: found")):
        with pytest.raises(LaqfiError, match=message):
            laqfi.quantize(model, measured, target)
    with pytest.raises(LaqfiError, match=r"^target: found none, allowed is one such as '8x'"):
        laqfi.quantize(model, measured)


@pytest.mark.parametrize(
    ("target", "options"),
    [("8x", {"policy": "rate"}), ({"ratio": 8.0, "of": "file"}, {}), (None, {"policy": "bits", "format": "int4"})],
)
def test_sizes_elsewhere_are_refused_where_the_policy_would_go_by_another_file(target, options):
    model = small_model()
    measured = Measured({name: torch.ones_like(one) for name, one in model.named_parameters()})
    with pytest.raises(LaqfiError, match=r"^sizes: found some, allowed is none but beside a target as text alone$"):
        laqfi.quantize(model, measured, target, sizes=lambda name, layout: 1_000_000, **options)


@pytest.mark.parametrize(
    ("settings", "more"),
    [({}, {"prediction_type": "v_prediction"}), ({"out_channels": 2}, {"variance_type": "learned_range"})],
)
def test_a_network_of_diffusers_needs_no_wrapper(settings, more, tmp_path):
    """Timesteps from 0, an object with a sample, and whatever that predicts: as if wrapped by hand."""
    unet, made = small_unet(**settings), diffusers.DDPMScheduler(**SCHEDULE, **more)
    found = laqfi.measure(unet, IMAGES, made, **HOW)
    by_hand = laqfi.measure(Wrapped(unet, configured(made)), IMAGES, scheduler.alphas_cumprod(configured(made)), **HOW)
    for name, one in found.fisher.items():
        torch.testing.assert_close(one, by_hand.fisher[f"unet.{name}"], rtol=1e-4, atol=1e-7)
    packed = packed_copy(unet, found, tmp_path / "smaller.safetensors")
    with torch.no_grad():
        x = add_noise(
            IMAGES, torch.randn(IMAGES.shape), torch.full((4,), 60), scheduler.alphas_cumprod(configured(made))
        )
        change = (packed(x, 59).sample - unet(x, 59).sample).abs().mean() / unet(x, 59).sample.abs().mean()
    assert 0 < change < 0.2


def test_what_says_nothing_of_the_prediction_is_refused(alphas_cumprod):
    with pytest.raises(LaqfiError, match=r"^schedule: found a tensor, allowed for a network of diffusers is its sched"):
        laqfi.measure(small_unet(), IMAGES, alphas_cumprod)
    with pytest.raises(LaqfiError, match=r"^schedule: found a list, allowed is alphas_cumprod"):
        laqfi.measure(small_model(), IMAGES, [0.5])
    with pytest.raises(LaqfiError, match=r"^scheduler\._class_name: found 'FlowMatchEulerDiscreteScheduler'"):
        laqfi.measure(small_unet(), IMAGES, diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(LaqfiError, match=r"prediction_type: found 'v_prediction', allowed for a model of one's own"):
        laqfi.measure(small_model(), IMAGES, diffusers.DDPMScheduler(**SCHEDULE, prediction_type="v_prediction"))


@pytest.mark.parametrize("key", ["timestep_type", "use_flow_sigmas"])
def test_a_scheduler_that_gives_the_network_other_times_is_refused(key):
    made = {
        "timestep_type": diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_type="continuous"),
        "use_flow_sigmas": diffusers.DPMSolverMultistepScheduler(**SCHEDULE, use_flow_sigmas=True),
    }[key]
    with pytest.raises(LaqfiError, match=rf"^scheduler\.{key}: found .*, allowed is "):
        laqfi.measure(small_unet(), IMAGES, made)


def test_what_is_no_model_is_refused(alphas_cumprod):
    pipeline = diffusers.DDPMPipeline(small_unet(), diffusers.DDPMScheduler(**SCHEDULE))
    with pytest.raises(LaqfiError, match=r"^model: found a DDPMPipeline, allowed is a module of PyTorch"):
        laqfi.measure(pipeline, IMAGES, alphas_cumprod)


def test_a_schedule_that_learns_and_timesteps_of_any_kind_are_taken(alphas_cumprod):
    model = small_model()
    found = laqfi.measure(model, IMAGES, alphas_cumprod.clone().requires_grad_(), timesteps=range(59, 61))
    expected = laqfi.measure(model, IMAGES, alphas_cumprod, timesteps=[59, 60])
    assert torch.equal(found.fisher["last.weight"], expected.fisher["last.weight"])
    with pytest.raises(LaqfiError, match=r"^timesteps: found \[\]"):
        laqfi.measure(model, IMAGES, alphas_cumprod, timesteps=[])


def test_images_of_another_scale_are_measured_with_a_warning(alphas_cumprod):
    with pytest.warns(UserWarning, match=r"^images: lie in \[0, 1\], expected is \[-1, 1\]"):
        laqfi.measure(small_model(), (IMAGES + 1) / 2, alphas_cumprod, **HOW)


class Ideal(nn.Module):
    """The noise that a network would predict that learned some digits by heart, each as likely as the others."""

    def __init__(self, digits, alphas):
        super().__init__()
        self.gain, self.digits, self.alphas = nn.Parameter(torch.ones(())), digits, alphas.float()

    def forward(self, x, timestep):
        root, noise = self.alphas[timestep].sqrt()[:, None], 1 - self.alphas[timestep]
        far = (x.flatten(1)[:, None] - root[:, None] * self.digits.flatten(1)).square().sum(2)
        clean = (-far / (2 * noise[:, None])).softmax(1) @ self.digits.flatten(1)
        return self.gain * ((x.flatten(1) - root * clean) / noise.sqrt()[:, None]).view_as(x)


def warnings_of(model, images, alphas):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        laqfi.measure(model, images, alphas, chunk=8)
    return [str(one.message) for one in found if "alphas_cumprod" in str(one.message)]


@pytest.mark.parametrize("last", [100, 1000])
def test_a_trained_model_tells_roots_and_squares_of_its_schedule(last):
    digits = torch.tensor(load_digits().images, dtype=torch.float32)[:100, None] / 8 - 1
    alphas = linear_alphas_cumprod(last, 0.1 / last, 20 / last)
    model = Ideal(digits, alphas)
    (roots,), (squares,) = (warnings_of(model, digits[:16], alphas**power) for power in (0.5, 2))
    assert roots.startswith("alphas_cumprod: look like the square roots of what it learned with: the model predicts")
    assert squares.startswith("alphas_cumprod: look like the squares of what it learned with: the model predicts")
    assert not warnings_of(model, digits[:16], alphas)


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_an_untrained_model_tells_nothing_of_its_schedule(power, alphas_cumprod):
    assert not warnings_of(small_model(), IMAGES, alphas_cumprod**power)


def test_a_weight_that_is_read_without_its_layer_has_no_curvature(alphas_cumprod):
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.last = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1)

        def forward(self, x, timestep):
            return self.last(nn.functional.conv2d(x, self.read.weight, self.read.bias))

    with pytest.warns(UserWarning, match="rounded to nearest, because no curvature is known of it: read.weight"):
        measured = laqfi.measure(Reading(), IMAGES, alphas_cumprod, **HOW)
    assert (measured.compensations["read.weight"], measured.compensations["last.weight"] is None) == (None, False)


def test_layers_without_a_curvature_are_named_and_rounded_to_nearest(alphas_cumprod):
    model = small_model()
    model.norm = nn.Conv2d(8, 8, 1, groups=2)
    with pytest.warns(UserWarning, match="rounded to nearest, because no curvature is known of it: norm.weight"):
        measured = laqfi.measure(model, IMAGES, alphas_cumprod, **HOW)
    assert measured.compensations["norm.weight"] is None
    assert set(laqfi.quantize(model, measured, "4x")) == dict(model.named_parameters()).keys()


def test_the_timesteps_are_the_middles_of_equal_stretches():
    assert spread(1000) == [63, 188, 313, 438, 563, 688, 813, 938]
    assert spread(8) == list(range(1, 9))
    assert spread(2) == [1, 2]


def test_importing_laqfi_loads_nothing():
    code = "import laqfi, sys; assert 'torch' not in sys.modules; laqfi.measure; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        laqfi.quantise  # noqa: B018
    assert Measured({}).compensations == {}
