"""Networks of diffusers that are given embeddings: the whole chain, what the file of embeddings may be, and Python."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file

import folders
import laqfi
from diffusers_folder import (
    SCHEDULE,
    embeddings,
    packed_copy,
    small_conditional,
    small_unet,
    write_embeddings,
    write_folder,
)
from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import from_uint8, png, to_uint8
from laqfi.base.random import NoiseStreams
from laqfi.data.datasets import load
from laqfi.diffusion.process import noise_error
from laqfi.models import conditioning, families, pretrained
from laqfi.models.diffusers_unet import Diffusers
from laqfi.params import networks, whole
from laqfi.quant.policies.budget import BEST
from laqfi.shell.program import main
from laqfi.stages.calibrate import calibrate
from laqfi.stages.curvature import curvature
from laqfi.stages.dataset import dataset
from laqfi.stages.export import export
from laqfi.stages.fisher import fisher
from laqfi.stages.quantize import quantize
from laqfi.stages.recover import recover
from laqfi.stages.sample import sample
from laqfi.stages.train import train
from laqfi.storage.model_file import read_model, stored_bytes
from laqfi.storage.stored_file import read_stored
from tiny import tiny_params

IMAGE, CPU = (1, 8, 8), torch.device("cpu")
VERSIONS = {"numpy": np.__version__}
SETTINGS = TypeAdapter(families.Settings)
T = torch.tensor([1, 50, 100])


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(2))


def recorded(folder: Path, file: Path | None) -> dict:
    found = {str(folder): pretrained.listed(folder).model_dump()}
    return found if file is None else found | {str(file): conditioning.listed(file).model_dump()}


def settings_of(folder: Path, file: Path | None, **more) -> Diffusers:
    named = {"family": "diffusers", "path": str(folder)} | ({} if file is None else {"embeddings": str(file)})
    return SETTINGS.validate_python(networks.settled(named | more, recorded(folder, file)))


def loaded(settings: Diffusers, folder: Path, file: Path) -> torch.nn.Module:
    network = families.build(settings, IMAGE)
    network.load_state_dict(families.weights(settings, folder, IMAGE) | families.given(settings, file))
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(3, 6), (1, 3, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_all_images_are_given_the_embeddings(tmp_path, shape, dtype):
    folder, given = write_folder(tmp_path / "model", small_conditional()), embeddings(*shape).to(dtype)
    file = write_embeddings(tmp_path / "given.safetensors", given)
    expected = small_conditional()(images(), T - 1, given.float().view(1, 3, 6).expand(3, -1, -1)).sample
    assert torch.equal(loaded(settings_of(folder, file), folder, file)(images(), T), expected)
    assert not torch.equal(expected, small_conditional()(images(), T - 1, torch.zeros(3, 3, 6)).sample)


@torch.no_grad()
@pytest.mark.parametrize("labels", [{}, {"num_class_embeds": 4}])
def test_the_label_chooses_embeddings_and_class(tmp_path, labels):
    folder = write_folder(tmp_path / "model", small_conditional(**labels))
    file = write_embeddings(tmp_path / "given.safetensors", embeddings(4, 3, 6))
    network = loaded(settings_of(folder, file, class_label=2), folder, file)
    more = {"class_labels": torch.full((3,), 2)} if labels else {}
    expected = small_conditional(**labels)(images(), T - 1, embeddings(4, 3, 6)[2].expand(3, -1, -1), **more).sample
    assert torch.equal(network(images(), T), expected)
    for bad in ({}, {"class_label": 4}):
        with pytest.raises(ValidationError, match="allowed is 0 to 3: one class is measured"):
            settings_of(folder, file, **bad)


def test_embeddings_of_other_classes_than_the_networks_are_refused(tmp_path):
    folder = write_folder(tmp_path / "model", small_conditional(num_class_embeds=3))
    file = write_embeddings(tmp_path / "given.safetensors", embeddings(4, 3, 6))
    with pytest.raises(ValidationError, match="are those of 4 classes, allowed is 3 or 1"):
        settings_of(folder, file, class_label=2)


FILES = {
    "missing": (lambda path: None, "not a readable safetensors file"),
    "damaged": (lambda path: path.write_bytes(b"no"), "not a readable safetensors file"),
    "a mask": (lambda path: write_embeddings(path, attention_mask=torch.ones(3)), "holds 'attention_mask', allowed is"),
    "another tensor": (lambda path: save_file({"text": embeddings()}, path), "holds 'text', allowed is encoder_hidden"),
    "no tensor": (lambda path: save_file({}, path), "holds no encoder_hidden_states"),
    "integers": (lambda path: write_embeddings(path, torch.ones(3, 6).int()), r"is torch\.int32, allowed are"),
    "half of Google": (lambda path: write_embeddings(path, embeddings().bfloat16()), r"is torch\.bfloat16, allowed"),
    "one axis": (lambda path: write_embeddings(path, embeddings(6)), r"is \[6\], allowed is \[tokens, width\]"),
    "no tokens": (lambda path: write_embeddings(path, torch.ones(0, 6)), r"is \[0, 6\], allowed is \[tokens, width\]"),
    "NaN": (lambda path: write_embeddings(path, embeddings() * math.nan), "holds values that are not finite"),
}


@pytest.mark.parametrize("kind", FILES)
def test_another_file_is_refused_when_it_is_listed(tmp_path, kind):
    make, message = FILES[kind]
    make(tmp_path / "given.safetensors")
    with pytest.raises(LaqfiError, match=message):
        conditioning.listed(tmp_path / "given.safetensors")


def test_a_pickle_is_never_read(tmp_path):
    torch.save(embeddings(), tmp_path / "given.pt")
    with pytest.raises(LaqfiError, match=r"given\.pt: is no \.safetensors file"):
        conditioning.listed(tmp_path / "given.pt")


def test_a_file_that_was_changed_since_it_was_recorded_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model", small_conditional())
    file = write_embeddings(tmp_path / "given.safetensors")
    settings = settings_of(folder, file)
    write_embeddings(file, 2 * embeddings())
    with pytest.raises(LaqfiError, match=r"given\.safetensors: has the sha256 .*; `make folders` records it"):
        families.given(settings, file)


def test_embeddings_are_for_networks_that_are_given_some(tmp_path):
    file = write_embeddings(tmp_path / "given.safetensors")
    with pytest.raises(ValidationError, match=r"embeddings: found none, allowed is a \.safetensors file of them"):
        settings_of(write_folder(tmp_path / "conditional", small_conditional()), None)
    with pytest.raises(ValidationError, match="embeddings: found some, allowed is none: only a UNet2DConditionModel"):
        settings_of(write_folder(tmp_path / "plain"), file)
    with pytest.raises(LaqfiError, match=r"model\.embeddings: found no path, allowed is that of a safetensors file"):
        networks.settled({"family": "diffusers", "path": "x", "embeddings": {}}, {"x": pretrained_entry(tmp_path)})


def pretrained_entry(tmp_path: Path) -> dict:
    return pretrained.listed(write_folder(tmp_path / "other", small_conditional())).model_dump()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cross_attention_dim": 8}, "embeddings: are 6 wide, allowed is 8, the network's unet.cross_attention_dim"),
        ({"cross_attention_dim": [6, 8]}, r"unet\.cross_attention_dim: found \[6, 8\], allowed is one width"),
        ({"addition_embed_type": "text_time"}, "unet.addition_embed_type: found 'text_time', allowed is None"),
        ({"encoder_hid_dim_type": "image_proj"}, "unet.encoder_hid_dim_type: found 'image_proj'"),
        ({"encoder_hid_dim": 12}, "unet.encoder_hid_dim: found 12, allowed is None"),
        ({"time_cond_proj_dim": 256}, "unet.time_cond_proj_dim: found 256, allowed is None"),
        ({"dual_cross_attention": True}, "unet.dual_cross_attention: found True, allowed is False"),
        ({"attention_type": "gated"}, "unet.attention_type: found 'gated', allowed is 'default'"),
        ({"class_embed_type": "projection"}, "unet.class_embed_type: found 'projection'"),
        ({"time_embedding_type": "fourier"}, "unet.time_embedding_type: found 'fourier'"),
        ({"in_channels": 9}, "unet.out_channels is 1, allowed is 9"),
    ],
)
def test_a_network_that_is_given_other_things_is_refused_when_params_are_checked(tmp_path, change, message):
    folder = write_folder(tmp_path / "model", small_conditional())
    config = folder / "unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ValidationError, match=message):
        settings_of(folder, write_embeddings(tmp_path / "given.safetensors"))


@pytest.mark.parametrize("middle", ["UNetMidBlock2DCrossAttn", None])
def test_groups_are_the_blocks_of_the_network(tmp_path, middle):
    folder = write_folder(tmp_path / "model", small_conditional(num_class_embeds=3, mid_block_type=middle))
    settings = settings_of(folder, write_embeddings(tmp_path / "given.safetensors"), class_label=0)
    named = families.build(settings, IMAGE).named_parameters()
    scored = {families.group_of(settings, name) for name, p in named if families.is_scored(settings, name, p)}
    assert sorted(families.groups(settings)) == sorted(scored)


def test_latents_are_no_images(tmp_path):
    folder = write_folder(tmp_path / "model", small_conditional(in_channels=4, out_channels=4))
    settings = settings_of(folder, write_embeddings(tmp_path / "given.safetensors"))
    with pytest.raises(ValueError, match=r"images are \(1, 8, 8\), allowed is \(4, 8, 8\)"):
        families.check_image(settings, IMAGE)


WIDE = {"block_out_channels": (32, 32), "norm_num_groups": 8}
VARIANTS = {
    "fp32": {"policy": "fp32"},
    "int8": {"policy": "bits", "format": "int8", "rounding": "gptq"},
    "int4": {"policy": "bits", "format": "int4"},
    "budget": {"policy": "budget", "target": {"ratio": 8.0}, **BEST},
    "coded": {"policy": "bits", "format": "int4", "coding": "ans"},
    "all": {
        "policy": "bits",
        "format": "int8",
        "activations": {"bits": 8},
        "reconstruct": {"iterations": 2},
        "recover": {"iterations": 2, "batch_size": 4},
    },
}


def conditional_params(folder: Path, file: Path) -> whole.Params:
    params = tiny_params()
    params["variants"], tiny = VARIANTS, params["profiles"]["tiny"]
    del tiny["diffusion"], tiny["train"], tiny["sample"]["headline"], tiny["sample"]["clip"]
    tiny["model"] = {"family": "diffusers", "path": str(folder), "embeddings": str(file), "class_label": 1}
    tiny["sample"] |= {"sampler": "scheduler", "images": 16, "steps": 5}
    return whole.Params.model_validate(params, context=recorded(folder, file))


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> SimpleNamespace:
    """The stages that hold the model, one after the other; `trained` steps make its weights less random."""
    root = tmp_path_factory.mktemp("chain")
    file = write_embeddings(root / "given.safetensors", embeddings(2, 3, 6))
    folder = write_folder(root / "model", trained(embeddings(2, 3, 6)[1]))
    record = root / "folders.yaml"
    record.write_text(folders.text(recorded(folder, file)))
    params = conditional_params(folder, file)
    one = params.profiles["tiny"]
    at = {"dataset": root / "dataset.npz", "model": root / "model.safetensors"}
    dataset(one.dataset, folders=record, out=at["dataset"])
    train(None, one.model, None, 1, VERSIONS, dataset=at["dataset"], folders=record, out=at["model"], loss=root / "csv")
    measured = {name: root / name for name in ("table", "fisher", "curvature", "calibration")}
    fisher(one.fisher, **at, out=measured["fisher"], table=measured["table"])
    calibrate(one.calibration, one.sample, model=at["model"], out=measured["calibration"])
    curvature(one.curvature, one.calibration, **at, image=measured["calibration"], out=measured["curvature"])
    made = {name: root / f"quantize/{name}.safetensors" for name in params.variants}
    for name, variant in params.variants.items():
        how = {"model": at["model"], **measured, "out": made[name], "choices": root / f"choices/{name}.json"}
        quantize(one.quantize, one.sample, variant, 1, VERSIONS, **how)
    images = from_uint8(load("digits", {})["test_images"][:16])
    return SimpleNamespace(root=root, folder=folder, file=file, profile=one, params=params, made=made, images=images)


def trained(given: torch.Tensor) -> torch.nn.Module:
    """On digits, with the given embeddings, for some steps."""
    unet, digits = small_conditional(**WIDE), from_uint8(load("digits", {})["train_images"])
    table = diffusers.DDIMScheduler(**SCHEDULE)
    optimizer, random = torch.optim.Adam(unet.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for _ in range(30):
        x = digits[torch.randint(len(digits), (16,), generator=random)]
        noise, t = torch.randn(x.shape, generator=random), torch.randint(100, (16,), generator=random)
        predicted = unet(table.add_noise(x, noise, t), t, given.expand(16, -1, -1)).sample
        optimizer.zero_grad()
        (predicted - noise).square().mean().backward()
        optimizer.step()
    return unet.eval()


def error(ran: SimpleNamespace, name: str) -> float:
    (base, alphas_cumprod, _), (found, _, _) = (read_model(ran.made[one], CPU) for one in ("fp32", name))
    errors = noise_error(found, base, ran.images, alphas_cumprod, [10, 50, 90], 0)
    return sum(errors.values()) / len(errors)


def test_noise_moves_by_little_and_by_least_within_a_budget(ran):
    sizes = {name: stored_bytes(*read_stored(ran.made[name]))[0] for name in ("fp32", "int4", "budget")}
    assert sizes["budget"] <= sizes["fp32"] / 8 < sizes["int4"]
    errors = {name: error(ran, name) for name in ("int8", "int4", "budget")}
    assert 0 < errors["int8"] < 1e-4
    assert errors["budget"] < errors["int4"]


def test_every_matrix_and_kernel_was_measured_and_rounded(ran):
    """Cross-attention reads the embeddings through layers of its own, beside GEGLU and three norms in each block."""
    found, metadata = read_stored(ran.made["int8"])
    parameters = dict(small_conditional(**WIDE).named_parameters())
    matrices = {name for name, one in parameters.items() if one.dim() > 1}
    assert metadata["formats"].keys() == matrices
    assert {"attn2.to_k.weight", "ff.net.0.proj.weight"} <= {
        name.partition("transformer_blocks.0.")[2] for name in matrices
    }
    assert found["encoder_hidden_states"].shape == (3, 6)
    fisher = load_file(ran.root / "fisher")
    assert all(fisher[f"bin/{name}"].max() > 0 for name in parameters if not name.endswith("to_k.bias"))


@torch.no_grad()
@pytest.mark.parametrize("name", ["int8", "int4", "budget", "coded"])
def test_a_packed_run_is_that_of_the_rounded_weights(ran, name):
    network, _, _ = read_model(ran.made[name], CPU)
    tensors, _ = read_stored(ran.made["fp32"])
    unet = small_conditional(**WIDE)
    stored = {one: network.get_submodule(one) for one in dict(unet.named_parameters())}
    unet.load_state_dict({one: layer(torch.float32) for one, layer in stored.items()})
    assert any(not torch.equal(one, tensors[key]) for key, one in unet.state_dict().items())
    given = embeddings(2, 3, 6)[1].expand(3, -1, -1)
    assert (network(images(), T) - unet(images(), T - 1, given).sample).abs().max() <= 1e-5


def test_recipes_keep_the_embeddings(ran):
    """Learned rounding, rounded inputs and recovery."""
    made = recovered_of(ran)
    network, _, _ = read_model(made, CPU)
    assert torch.equal(read_stored(made)[0]["encoder_hidden_states"], embeddings(2, 3, 6)[1])
    base, alphas_cumprod, _ = read_model(ran.made["fp32"], CPU)
    assert 0 < noise_error(network, base, ran.images, alphas_cumprod, [50], 0)[50] < 0.01


def recovered_of(ran: SimpleNamespace) -> Path:
    out = ran.root / "recover/all.safetensors"
    paths = {"model": ran.made["all"], "base_model": ran.root / "model.safetensors", "out": out}
    paths |= {"dataset": ran.root / "dataset.npz", "calibration": ran.root / "calibration"}
    recover(ran.params.variants["all"].recover, 1, VERSIONS, **paths)
    return out


@torch.no_grad()
def test_diffusers_draws_the_same_images_with_the_export(ran, tmp_path):
    sample(ran.profile.sample, "budget", model=ran.made["budget"], out=tmp_path / "npz", sheet=tmp_path / "sheet.png")
    export(model=ran.made["budget"], out=tmp_path / "out")
    theirs = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    alone = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "out/unet")
    assert "encoder_hidden_states" not in load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    given, t = embeddings(2, 3, 6)[1], torch.tensor(7)
    ours, _, _ = read_model(ran.made["budget"], CPU)
    for unet in (theirs.unet, alone):
        assert (unet(images(), t, given.expand(3, -1, -1)).sample - ours(images(), t.expand(3) + 1)).abs().max() <= 1e-4
    streams = NoiseStreams(0, range(16), IMAGE)
    theirs.scheduler.set_timesteps(5)
    x = torch.from_numpy(streams.draw())
    for t in theirs.scheduler.timesteps:
        x = theirs.scheduler.step(theirs.unet(x, t, given.expand(16, -1, -1)).sample, t, x).prev_sample
    drawn = np.load(tmp_path / "npz")["images"][0].astype(int)
    assert np.abs(drawn - to_uint8(x).numpy()).max() <= 1
    assert drawn.std() > 10


def test_an_export_like_a_unet_alone(ran, tmp_path):
    command = ["export", str(ran.made["budget"]), "--source", str(ran.folder / "unet"), "--out", str(tmp_path / "out")]
    main(command)
    assert type(diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "out")) is diffusers.UNet2DConditionModel


def test_from_a_shell(ran, tmp_path, capsys):
    for number, image in enumerate(load("digits", {})["train_images"][:40]):
        (tmp_path / f"{number}.png").write_bytes(png(image.transpose(1, 2, 0)))
    words = [
        "quantize",
        ran.folder,
        "--data",
        tmp_path,
        "--target",
        "6x",
        "--images",
        "8",
        "--draw",
        "6",
        "--steps",
        "3",
    ]
    more = ["--class-label", "1", "--embeddings", ran.file]
    main([str(word) for word in (*words, *more, "--out", tmp_path / "out")])
    before = 4 * sum(p.numel() for p in small_conditional(**WIDE).parameters())
    assert f"{before:,} bytes in float32" in capsys.readouterr().out
    assert type(diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out").unet).__name__ == "UNet2DConditionModel"
    with pytest.raises(SystemExit, match="embeddings: found none, allowed is"):
        main([str(word) for word in (*words, "--out", tmp_path / "none")])


def test_python_takes_the_embeddings(tmp_path):
    """As if the network were called with them by hand."""
    unet, made, given = small_conditional(), diffusers.DDPMScheduler(**SCHEDULE), embeddings()
    x0, how = images().clamp(-1, 1), {"timesteps": [1, 60], "chunk": 4}

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = unet

        def forward(self, x, timestep):
            return self.unet(x, timestep - 1, given.expand(len(x), -1, -1)).sample

    found = laqfi.measure(unet, x0, made, embeddings=given, **how)
    table = torch.cat([torch.ones(1, dtype=torch.float64), made.alphas_cumprod.double()])
    by_hand = laqfi.measure(Wrapped(), x0, table, **how)
    for name, one in found.fisher.items():
        torch.testing.assert_close(one, by_hand.fisher[f"unet.{name}"], rtol=1e-4, atol=1e-7)
    packed = packed_copy(unet, found, tmp_path / "smaller.safetensors")
    with torch.no_grad():
        theirs, ours = (one(x0, 59, given.expand(3, -1, -1)).sample for one in (unet, packed))
    assert 0 < (ours - theirs).abs().mean() < 0.2 * theirs.abs().mean()


def test_python_loads_what_a_stage_stored(ran):
    unet = small_conditional(**WIDE)
    laqfi.load(unet, ran.made["int4"])
    ours, _, _ = read_model(ran.made["int4"], CPU)
    with torch.no_grad():
        given = embeddings(2, 3, 6)[1].expand(3, -1, -1)
        assert torch.equal(unet(images(), T - 1, given).sample, ours(images(), T))


CALLS = {
    "no embeddings": (small_conditional, {}, None, "embeddings: found none, allowed is"),
    "for none": (small_unet, {}, embeddings(), "embeddings: found some, allowed is none"),
    "another width": (small_conditional, {}, embeddings(3, 8), "embeddings: are 8 wide, allowed is 6"),
    "several": (small_conditional, {}, embeddings(2, 3, 6), r"allowed are those of one class, \[tokens, width\]"),
    "NaN": (small_conditional, {}, embeddings() * math.nan, "embeddings holds values that are not finite"),
    "labels": (small_conditional, {"num_class_embeds": 3}, embeddings(), "unet.num_class_embeds: found 3"),
    "labels of a plain one": (small_unet, {"num_class_embeds": 3}, None, "unet.num_class_embeds: found 3"),
    "a condition of time": (small_conditional, {"time_cond_proj_dim": 4}, embeddings(), "unet.time_cond_proj_dim"),
}


@pytest.mark.parametrize("kind", CALLS)
def test_python_refuses_what_the_network_is_not_given_so(kind):
    make, settings, given, message = CALLS[kind]
    with pytest.raises(LaqfiError, match=message):
        laqfi.measure(make(**settings), images(), diffusers.DDPMScheduler(**SCHEDULE), embeddings=given)


def test_a_model_of_ones_own_is_given_none(alphas_cumprod):
    with pytest.raises(LaqfiError, match="embeddings: found some, allowed for a model of one's own is none"):
        laqfi.measure(torch.nn.Conv2d(1, 1, 3), images(), alphas_cumprod, embeddings=embeddings())
