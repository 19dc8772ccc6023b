"""Networks that diffusers wrote: what is read of a folder, what the network predicts, and sampling by its scheduler."""

import json
import math
from pathlib import Path

import diffusers
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file

from diffusers_folder import SCHEDULE, small_unet, write_folder
from laqfi.base.errors import LaqfiError
from laqfi.models import families, pretrained, scheduler
from laqfi.models.diffusers_unet import Diffusers, weights
from laqfi.params import networks
from laqfi.sampling.network import raw
from laqfi.sampling.samplers import error_gains, sample

IMAGE = (1, 8, 8)
SETTINGS = TypeAdapter(families.Settings)


def settings_of(folder, **more) -> Diffusers:
    recorded = {str(folder): pretrained.listed(folder).model_dump()}
    return SETTINGS.validate_python(networks.settled({"family": "diffusers", "path": str(folder), **more}, recorded))


def loaded(settings: Diffusers) -> torch.nn.Module:
    network = families.build(settings, IMAGE)
    network.load_state_dict(weights(settings, Path(settings.path), IMAGE))
    return network.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "plain")


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_network_predicts_the_noise_whatever_its_output_is(tmp_path, kind):
    write_folder(tmp_path, scheduler=diffusers.DDPMScheduler(**SCHEDULE, prediction_type=kind))
    x, t = images(), torch.tensor([1, 50, 100])
    output = small_unet()(x, t - 1).sample
    alpha_bar = diffusers.DDPMScheduler(**SCHEDULE).alphas_cumprod[t - 1].view(-1, 1, 1, 1)
    # ε is what makes x_t of the clean image that the output stands for: x_t = √ᾱ x_0 + √(1 − ᾱ) ε.
    clean = {
        "epsilon": (x - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt(),
        "sample": output,
        "v_prediction": alpha_bar.sqrt() * x - (1 - alpha_bar).sqrt() * output,
    }[kind]
    noise = loaded(settings_of(tmp_path))(x, t)
    torch.testing.assert_close(alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise, x, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_learned_variance_is_no_noise(tmp_path):
    unet = small_unet(out_channels=2)
    write_folder(tmp_path, unet, diffusers.DDPMScheduler(**SCHEDULE, variance_type="learned_range"))
    network, x, t = loaded(settings_of(tmp_path)), images(), torch.tensor([1, 50, 100])
    assert torch.equal(network(x, t), unet(x, t - 1).sample[:, :1])
    with raw(network, True):
        assert torch.equal(network(x, t), unet(x, t - 1).sample)


@torch.no_grad()
def test_a_network_with_classes_is_asked_for_one(tmp_path):
    unet = small_unet(num_class_embeds=10)
    write_folder(tmp_path, unet)
    x, t = images(), torch.tensor([1, 50, 100])
    network = loaded(settings_of(tmp_path, class_label=7))
    assert torch.equal(network(x, t), unet(x, t - 1, class_labels=torch.full((3,), 7)).sample)
    for bad in ({}, {"class_label": 10}):
        with pytest.raises(ValidationError, match="allowed is 0 to 9"):
            settings_of(tmp_path, **bad)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_its_schedule_is_that_of_diffusers(schedule):
    made = diffusers.DDPMScheduler(**SCHEDULE | {"beta_schedule": schedule})
    found = scheduler.alphas_cumprod(dict(made.config) | {"_class_name": "DDPMScheduler"})
    assert found[0] == 1
    assert torch.equal(found[1:].float(), made.alphas_cumprod)


SAMPLED = {
    "DDPMScheduler": {},
    "DDIMScheduler": {"set_alpha_to_one": False, "clip_sample": False},
    "PNDMScheduler": {},
    "EulerAncestralDiscreteScheduler": {"timestep_spacing": "leading"},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++"},
    "UniPCMultistepScheduler": {},
}


@torch.no_grad()
@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_images_are_those_of_diffusers_from_the_same_noise(tmp_path, name, kind):
    """The reference is the loop that every pipeline has, with PyTorch's own noise in both."""
    made = getattr(diffusers, name)(**SCHEDULE, prediction_type=kind, **SAMPLED[name])
    write_folder(tmp_path, scheduler=made)
    settings, unet = settings_of(tmp_path), small_unet()
    made.set_timesteps(10)
    torch.manual_seed(5)
    expected = torch.randn(3, *IMAGE) * made.init_noise_sigma
    for t in made.timesteps:
        expected = made.step(unet(made.scale_model_input(expected, t), t).sample, t, expected).prev_sample

    torch.manual_seed(5)
    drawn = iter([torch.randn(3, *IMAGE) for _ in range(12)])
    network = loaded(settings)
    with raw(network, True):
        found = sample(
            network,
            lambda: next(drawn),
            scheduler.alphas_cumprod(settings.scheduler),
            sampler="scheduler",
            steps=10,
            eta=0.0,
            clip=None,
            scheduler=settings.scheduler,
        )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_gain_of_a_step_is_what_an_error_of_its_noise_does_to_the_image(name, kind):
    config = {"_class_name": name, "prediction_type": kind, **SCHEDULE}
    alphas_cumprod, step = scheduler.alphas_cumprod(config), 3
    called = scheduler.timesteps(config, 8)
    plain = config | {"prediction_type": "epsilon"} | ({} if "Solver" in name else {"clip_sample": False})

    def final(error: float) -> float:
        calls = iter(range(len(called)))
        made = sample(
            lambda x, t: torch.full_like(x, 0.1 + error * (next(calls) == step)),
            lambda: torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64),
            alphas_cumprod,
            sampler="scheduler",
            steps=8,
            eta=0.0,
            clip=None,
            scheduler=plain,
        )
        return made.item()

    gains = error_gains(alphas_cumprod, sampler="scheduler", steps=8, eta=0.0, scheduler=config)
    assert math.isclose(gains[called[step]], (final(1.0) - final(0.0)) ** 2, rel_tol=1e-6)


@pytest.mark.parametrize("name", scheduler.SCHEDULERS)
def test_a_schedule_has_numbers_where_networks_are_built_without_memory(name):
    """As those of model files are."""
    config = {"_class_name": name, **SCHEDULE}
    with torch.device("meta"):
        found = scheduler.alphas_cumprod(config)
    assert torch.equal(found, scheduler.alphas_cumprod(config))
    assert found.device.type == "cpu"


def test_timesteps_are_counted_from_one(folder):
    config = settings_of(folder).scheduler
    assert scheduler.timesteps(config, 10) == [91, 81, 71, 61, 51, 41, 31, 21, 11, 1]
    assert scheduler.timesteps(config, 100) == list(range(100, 0, -1))


def test_steps_between_timesteps_are_refused():
    config = {"_class_name": "EulerDiscreteScheduler", **SCHEDULE}
    assert scheduler.timesteps(config | {"timestep_spacing": "leading"}, 10)[-1] == 1
    with pytest.raises(ValueError, match=r"steps: found 7, .* no integers; allowed are steps that divide"):
        scheduler.timesteps(config, 7)


def test_weights_in_several_files_or_in_half_precision_are_read(folder, tmp_path):
    plain = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    small_unet().save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    (tmp_path / "sharded/scheduler_config.json").write_text((folder / "scheduler/scheduler_config.json").read_text())
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    small_unet().half().save_pretrained(tmp_path / "half", variant="fp16")
    (tmp_path / "half/scheduler_config.json").write_text((folder / "scheduler/scheduler_config.json").read_text())
    for name in plain:
        whole = weights(settings_of(tmp_path / "sharded"), tmp_path / "sharded", IMAGE)[name]
        half = weights(settings_of(tmp_path / "half"), tmp_path / "half", IMAGE)[name]
        assert torch.equal(whole, plain[name])
        assert torch.equal(half, plain[name].half().float())


def test_groups_are_the_blocks_of_the_network(folder, tmp_path):
    write_folder(tmp_path / "classes", small_unet(num_class_embeds=3))
    write_folder(tmp_path / "no_middle", small_unet(mid_block_type=None))
    for settings in (
        settings_of(folder),
        settings_of(tmp_path / "classes", class_label=0),
        settings_of(tmp_path / "no_middle"),
    ):
        named = dict(loaded(settings).named_parameters())
        scored = {
            families.group_of(settings, name) for name, p in named.items() if families.is_scored(settings, name, p)
        }
        assert sorted(families.groups(settings)) == sorted(scored)


def edited(folder: Path, tmp_path: Path, file: str, **change) -> Path:
    """A copy of the folder with another config."""
    write_folder(tmp_path)
    config = json.loads((folder / file).read_text()) | change
    (tmp_path / file).write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("unet/config.json", {"_class_name": "UNet1DModel"}, "allowed is UNet2DModel or UNet2DConditionModel"),
        ("unet/config.json", {"out_channels": 2}, "unet.out_channels is 2, allowed is 1"),
        ("unet/config.json", {"sample_size": None}, "unet.sample_size is None"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "found 'fourier', allowed is 'positional'"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "unet.class_embed_type: found 'timestep'"),
        ("unet/config.json", {"quantization_config": {}}, "the weights are quantized"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "allowed is one of DDIM",
        ),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "found 'flow', allowed is one of epsilon"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "cubic"}, "scheduler: cubic"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, 0.2]}, "trained_betas: found a list"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, "its pipeline has 'vae'"),
    ],
)
def test_what_cannot_be_taken_is_refused_when_params_are_checked(folder, tmp_path, file, change, message):
    with pytest.raises((LaqfiError, ValidationError), match=message):
        settings_of(edited(folder, tmp_path / "edited", file, **change))


def test_a_pickle_is_refused_by_name(folder, tmp_path):
    write_folder(tmp_path)
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").rename(tmp_path / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(LaqfiError, match=r"diffusion_pytorch_model\.bin: is a pickle, which is never read"):
        settings_of(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    before = settings_of(write_folder(tmp_path))
    file = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"][:4].contiguous()}, file)
    with pytest.raises(LaqfiError, match=r"conv_in\.bias is \(4,\), allowed is \(8,\)"):
        weights(settings_of(tmp_path), tmp_path, IMAGE)
    save_file({name: t for name, t in tensors.items() if name != "conv_in.bias"}, file)
    with pytest.raises(LaqfiError, match=r"conv_in\.bias is None, allowed is \(8,\)"):
        weights(settings_of(tmp_path), tmp_path, IMAGE)
    save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"] * math.nan}, file)
    with pytest.raises(LaqfiError, match=r"conv_in\.bias holds other than finite floats"):
        weights(settings_of(tmp_path), tmp_path, IMAGE)
    with pytest.raises(LaqfiError, match=r"holds other files than those recorded"):
        weights(before, tmp_path, IMAGE)


def test_a_folder_without_a_scheduler_needs_one_said(tmp_path):
    small_unet().save_pretrained(tmp_path)
    with pytest.raises(LaqfiError, match=r"model.scheduler: allowed is one, as the folder has none"):
        settings_of(tmp_path)
    said = {"_class_name": "DDPMScheduler", **SCHEDULE}
    assert settings_of(tmp_path, scheduler=said).scheduler == said


def test_images_of_another_size_are_refused(folder):
    with pytest.raises(ValueError, match=r"images are \(1, 16, 16\), allowed is \(1, 8, 8\)"):
        families.build(settings_of(folder), (1, 16, 16))
