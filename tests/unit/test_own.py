"""A network that is not this package's U-Net: to packed weights in one file, and back."""

import pytest
import torch
from torch import nn

import laqfi
from laqfi.api import Measured
from laqfi.base.errors import LaqfiError
from laqfi.diffusion.process import add_noise
from laqfi.quant.apply import stored_size
from laqfi.quant.prediction import predicted_change
from laqfi.sensitivity.curvature import compensations, curvatures, layers_of
from laqfi.sensitivity.fisher import fisher_maps
from laqfi.storage.described import VERSION
from laqfi.storage.stored_file import read_stored, write_stored

FORMATS = ["int2", "int3", "int4", "int6", "int8", "float16"]


class Own(nn.Module):
    """Every kind of layer that can be stored, and a buffer."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.time = nn.Linear(1, 8)
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1)
        self.register_buffer("last", torch.tensor(100.0))

    def forward(self, x, timestep):
        time = self.time(timestep[:, None] / self.last)[:, :, None, None]
        return self.up(torch.tanh(self.norm(self.down(x) + time)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Own().eval()


@pytest.fixture
def images():
    coarse = torch.rand(16, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.fixture
def fisher(model, images, alphas_cumprod):
    return fisher_maps(model, images, alphas_cumprod, timesteps=[1, 50, 100], bins=[100], chunk=8, seed=0).per_weight


@pytest.fixture
def seen(images, alphas_cumprod):
    """What the model is called with."""
    timestep = torch.tensor([1, 50, 100, 100]).repeat(4)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return add_noise(images, noise, timestep, alphas_cumprod), timestep


def restored(model, stored):
    """An ordinary model with the weights that are stored."""
    weights = {name: p.detach() + stored[name].delta for name, p in model.named_parameters()}
    made = Own().eval()
    made.load_state_dict(model.state_dict() | weights)
    return made


def budget(ratio, **more):
    return {"target": {"ratio": ratio}, "formats": FORMATS, **more}


def test_the_loaded_model_computes_on_the_packed_weights(model, fisher, seen, tmp_path):
    stored = laqfi.quantize(model, Measured(fisher), policy="budget", **budget(6))
    laqfi.save(stored, tmp_path / "own.safetensors")
    packed = Own().eval()
    laqfi.load(packed, tmp_path / "own.safetensors")
    assert torch.equal(packed(*seen), restored(model, stored)(*seen))
    assert not list(packed.parameters())
    kept = sum(buffer.numel() * buffer.element_size() for buffer in packed.buffers()) - packed.last.element_size()
    assert kept == stored_size(stored) <= 4 * sum(p.numel() for p in model.parameters()) / 6


def test_what_the_file_holds_is_what_runs(model, fisher, seen, tmp_path):
    stored = laqfi.quantize(model, Measured(fisher), policy="bits", format="int4")
    wanted = restored(model, stored)
    stored["up.weight"].parts[".scale"].mul_(2)
    laqfi.save(stored, tmp_path / "own.safetensors")
    packed = Own().eval()
    laqfi.load(packed, tmp_path / "own.safetensors")
    assert not torch.allclose(packed(*seen), wanted(*seen))


def test_smaller_files_change_the_output_more_as_predicted(model, fisher, seen):
    predicted, measured = [], []
    for ratio in (3, 4.5, 6):
        stored = laqfi.quantize(model, Measured(fisher), policy="budget", **budget(ratio))
        predicted.append(sum(predicted_change(one.delta, fisher[name]) for name, one in stored.items()))
        changed = restored(model, stored)(*seen) - model(*seen)
        measured.append(changed.square().flatten(1).sum(1).mean().item())
    assert predicted == sorted(predicted)
    assert measured == sorted(measured)
    assert all(p / 5 < m < 5 * p for p, m in zip(predicted, measured, strict=True))


def test_gptq_rounds_by_the_curvature_it_is_given(model, images, fisher, alphas_cumprod):
    settings = {"timesteps": [1, 50], "chunk": 8, "seed": 0}
    measured = dict(compensations(model, images, alphas_cumprod, **settings))
    curvature, order = curvatures(model, layers_of(model), images, alphas_cumprod, **settings)["down.weight"].ordered(1)
    nearest = laqfi.quantize(model, Measured(fisher), policy="bits", format="int3")
    options = {"format": "int3", "rounding": "gptq"}
    rounded = laqfi.quantize(model, Measured(fisher, measured), policy="bits", **options)

    def second_order(stored):
        delta = stored["down.weight"].delta.flatten(1)[:, order]
        return (delta @ curvature * delta).sum()

    assert second_order(rounded) < second_order(nearest)


def test_a_file_of_another_network_is_refused(model, fisher, tmp_path):
    laqfi.save(laqfi.quantize(model, Measured(fisher), policy="bits", format="int8"), tmp_path / "own.safetensors")
    with pytest.raises(LaqfiError, match="holds 8 parameters, allowed are the network's 2"):
        laqfi.load(nn.Conv2d(1, 8, 3), tmp_path / "own.safetensors")


def test_a_layer_that_cannot_be_stored_is_named(tmp_path):
    model = nn.Sequential(nn.Bilinear(2, 2, 2))
    write_stored(tmp_path / "own.safetensors", dict(model.named_parameters()), {"version": VERSION})
    with pytest.raises(LaqfiError, match="0: a Bilinear cannot be stored, allowed are Conv1d, "):
        laqfi.load(model, tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("uniform", {}),
        ("threshold", {"tau": 0.5}),
        ("group", {"groups": [{"layers": ["1"], "threshold": "mean"}]}),
        ("ratio", {"p": 0.5}),
        ("mean_std", {"alpha": 1.0}),
    ],
)
def test_a_policy_that_goes_by_the_groups_of_a_family_is_refused(model, fisher, policy, options):
    """It would leave everything in float32."""
    with pytest.raises(LaqfiError, match="goes by the groups of a model's family, and this model has none"):
        laqfi.quantize(model, Measured(fisher), policy=policy, **options)


def test_options_that_do_not_fit_are_refused_in_one_line(model, fisher):
    with pytest.raises(LaqfiError, match=r"^bits\.format: found 'int9'"):
        laqfi.quantize(model, Measured(fisher), policy="bits", format="int9")


def test_gptq_without_a_curvature_is_refused(model, fisher):
    with pytest.raises(LaqfiError, match="has no curvature, by which the rounding gptq works"):
        laqfi.quantize(model, Measured(fisher), policy="bits", format="int3", rounding="gptq")


def test_a_file_of_another_format_version_is_refused(model, fisher, tmp_path):
    path = tmp_path / "own.safetensors"
    laqfi.save(laqfi.quantize(model, Measured(fisher), policy="bits", format="int4"), path)
    tensors, metadata = read_stored(path, model)
    write_stored(path, tensors, metadata | {"version": 1})
    with pytest.raises(LaqfiError, match="is of format version 1, allowed is 2"):
        laqfi.load(model, path)
