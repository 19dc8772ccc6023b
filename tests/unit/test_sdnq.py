"""What is exported for diffusers, held against SDNQ itself, which loads it."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from diffusers import ConfigMixin, DDPMPipeline, DDPMScheduler, DiffusionPipeline, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sdnq import packed_int
from torch import nn

import laqfi
from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.diffusion.params import Diffusion
from laqfi.models.unet import UNet, Unet
from laqfi.quant.apply import as_file, stored_size
from laqfi.quant.rounding import Stored, store
from laqfi.shell.program import main
from laqfi.stages.export import export
from laqfi.storage.described import VERSION, header, output_axes
from laqfi.storage.exported import export_folder, frame_of_folder, sizes_in
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout
from laqfi.storage.sdnq import block_of, form_of, pack, quantization_config
from laqfi.storage.stored_file import write_stored

WIDTHS = range(1, 9)
FLOATS = ("float8_e4m3fn", "bfloat16", "float16", "float32")


def theirs(codes: torch.Tensor, bits: int) -> torch.Tensor:
    return codes if bits == 8 else getattr(packed_int, f"pack_uint{bits}")(codes)


@given(bits=st.sampled_from(WIDTHS), blocks=st.integers(1, 40), data=st.data())
def test_codes_are_packed_as_sdnq_packs_them(bits, blocks, data):
    count = blocks * block_of(bits)
    codes = torch.tensor(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count)))
    assert torch.equal(pack(codes.to(torch.uint8), bits), theirs(codes.to(torch.uint8), bits))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7])
def test_part_of_a_block_is_refused(bits):
    with pytest.raises(ValueError, match="no whole blocks"):
        pack(torch.zeros(block_of(bits) + 1, dtype=torch.uint8), bits)


class One(ModelMixin, ConfigMixin):
    """One layer, as diffusers loads it."""

    @register_to_config
    def __init__(self, kind: str, sizes: list):
        super().__init__()
        self.layer = getattr(nn, kind)(*sizes)


def loaded(kind: str, sizes: list[int], layout: Layout, weight: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """The layer as SDNQ loads what `form_of` makes of `weight`, and the values that are stored of it."""
    stored = store(weight, layout, "max")
    form = form_of("layer.weight", layout, stored.parts, getattr(nn, kind)(*sizes))
    tensors = {name: tensor.contiguous() for name, tensor in form.tensors.items()}
    bias = {} if kind == "Embedding" else {"layer.bias": torch.zeros(layout.rows)}
    config = {"_class_name": "One", "kind": kind, "sizes": sizes}
    with tempfile.TemporaryDirectory() as folder:
        about = config | {"quantization_config": quantization_config({"layer.weight": form})}
        (Path(folder) / "config.json").write_text(json.dumps(about))
        save_file(tensors | bias, Path(folder) / "diffusion_pytorch_model.safetensors")
        return One.from_pretrained(folder).layer, layout.restore(stored.parts)


def weight_of(layer: nn.Module) -> torch.Tensor:
    if not hasattr(layer, "sdnq_dequantizer"):
        return layer.weight.detach()
    return layer.sdnq_dequantizer(layer.weight, layer.scale, zero_point=getattr(layer, "zero_point", None)).detach()


LAYERS = {
    "Linear": 0,
    "Embedding": 0,
    "Conv1d": 1,
    "Conv2d": 2,
    "Conv3d": 3,
    "ConvTranspose1d": 1,
    "ConvTranspose2d": 2,
}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(LAYERS)),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    kernel=st.integers(1, 3),
    format=st.builds(
        Format, st.sampled_from([f"int{b}" for b in range(2, 9)] + [*FLOATS]), st.booleans(), st.sampled_from([0, -1])
    ),
    seed=st.integers(0, 1000),
)
def test_every_kind_of_layer_has_the_stored_values(kind, inputs, outputs, kernel, format, seed):
    sizes = [inputs, outputs, *([kernel] if LAYERS[kind] else [])]
    shape = tuple(getattr(nn, kind)(*sizes).weight.shape)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.3
    positions = torch.Size(shape[2:]).numel()
    taps = tuple(range(0, positions, 2)) if LAYERS[kind] and seed % 2 and format.name not in FLOATS else None
    layer, wanted = loaded(kind, sizes, Layout(format, shape, int("Transpose" in kind), taps), weight)
    assert torch.equal(weight_of(layer), wanted)
    assert hasattr(layer, "sdnq_dequantizer") == (format.name != "float32")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize(
    ("kind", "sizes", "group", "taps"),
    [
        ("Linear", [8, 3], 4, None),
        ("Embedding", [6, 8], 2, None),
        ("Conv2d", [8, 5, 3], 18, None),
        ("Conv2d", [8, 5, 3], 9, None),
        ("Linear", [8, 4], 1, None),
        ("Conv2d", [8, 4, 3], 16, (1, 3, 4, 5)),
        ("Conv1d", [6, 4, 2], 6, None),
    ],
)
def test_groups_of_whole_input_channels_are_exact(kind, sizes, group, taps, bits, symmetric):
    shape = tuple(getattr(nn, kind)(*sizes).weight.shape)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(bits))
    layer, wanted = loaded(kind, sizes, Layout(Format(f"int{bits}", symmetric, group), shape, 0, taps), weight)
    assert layer.scale.numel() > shape[0]
    assert torch.equal(weight_of(layer), wanted)


@pytest.mark.parametrize(
    ("kind", "sizes", "group"),
    [("Linear", [8, 3], 3), ("Conv2d", [8, 5, 3], 8), ("Conv2d", [8, 4, 3], 27), ("ConvTranspose2d", [4, 4, 3], 9)],
)
def test_other_groups_are_refused_by_name(kind, sizes, group):
    module = getattr(nn, kind)(*sizes)
    layout = Layout(Format("int4", group_size=group), tuple(module.weight.shape), int("Transpose" in kind))
    stored = store(module.weight.detach(), layout, "max")
    with pytest.raises(LaqfiError, match=rf"up\.weight: {group} weights share a scale, allowed is a whole"):
        form_of("up.weight", layout, stored.parts, module)


CONFIG = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}
STEPS = (999, 700, 400, 100, 0)


def network(**other) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(**CONFIG | other).eval()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    DDPMPipeline(network(), DDPMScheduler(beta_schedule="linear")).save_pretrained(folder)
    return folder


def stored_as(model: nn.Module, formats: list[Format], rest: str = "float16", taps=None) -> dict[str, Stored]:
    """Matrices in the formats, in turn; kernels of nine positions without those not in `taps`."""
    found, axes = {}, output_axes(model)
    for place, (name, parameter) in enumerate(model.named_parameters()):
        format = formats[place // 2 % len(formats)] if parameter.dim() > 1 else Format(rest)
        kept = taps if parameter.shape[2:] == (3, 3) and not format.is_float else None
        layout = Layout(format, tuple(parameter.shape), axes[name], kept)
        found[name] = store(parameter.detach(), layout, "max")
    return found


def exported(source: Path, stored: dict[str, Stored], out: Path, **metadata) -> Path:
    export_folder(frame_of_folder(source), *as_file(stored, metadata), out, Path("model.safetensors"))
    return out


def packed(stored: dict[str, Stored], folder: Path, **other) -> nn.Module:
    """Our own network on the stored tensors."""
    laqfi.save(stored, folder / "own.safetensors")
    model = network(**other)
    laqfi.load(model, folder / "own.safetensors")
    return model


@torch.no_grad()
def image(model: nn.Module, scheduler: DDPMScheduler, **labels) -> torch.Tensor:
    random = torch.Generator().manual_seed(7)
    x = torch.randn(2, 1, 8, 8, generator=random)
    scheduler.set_timesteps(timesteps=list(STEPS))
    for t in STEPS:
        x = scheduler.step(model(x, t, **labels).sample, t, x, generator=random).prev_sample
    return x


EVERY = [
    Format(f"int{bits}", symmetric, size) for bits in range(2, 9) for symmetric in (True, False) for size in (0, -1)
]


@pytest.mark.parametrize(
    ("formats", "rest", "taps"),
    [
        (EVERY, "float16", None),
        ([Format(name) for name in FLOATS], "float8_e4m3fn", None),
        ([Format("int4"), Format("int3", False)], "bfloat16", (1, 3, 4, 5)),
    ],
    ids=["integers", "floats", "dead positions"],
)
def test_an_exported_pipeline_draws_the_same_images(pipeline, tmp_path, formats, rest, taps):
    stored = stored_as(network(), formats, rest, taps)
    theirs = DDPMPipeline.from_pretrained(exported(pipeline, stored, tmp_path / "out"))
    written, size = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors"), sizes_in(network())
    assert sum(t.nbytes for t in written.values()) == sum(size(name, one.layout) for name, one in stored.items())
    ours = image(packed(stored, tmp_path), theirs.scheduler)
    assert ours.std() > 0.1
    assert (image(theirs.unet, theirs.scheduler) - ours).abs().max() <= 1e-4


def test_a_unet_with_classes_alone(tmp_path):
    with_classes = {"num_class_embeds": 10}
    network(**with_classes).save_pretrained(tmp_path / "source")
    stored = stored_as(network(**with_classes), [Format("int5", False)])
    theirs = UNet2DModel.from_pretrained(exported(tmp_path / "source", stored, tmp_path / "out"))
    assert theirs.class_embedding.weight.dtype == torch.uint8
    labels = {"class_labels": torch.tensor([3, 9])}
    ours = image(packed(stored, tmp_path, **with_classes), DDPMScheduler(), **labels)
    assert (image(theirs, DDPMScheduler(), **labels) - ours).abs().max() <= 1e-4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in (tmp_path / "source").iterdir()
    )


def test_a_loaded_export_stays_packed_in_memory(tmp_path):
    wide = {"block_out_channels": (32, 64)}
    network(**wide).save_pretrained(tmp_path / "source")
    stored = stored_as(network(**wide), [Format("int8"), Format("int4"), Format("int3", False)])
    theirs = UNet2DModel.from_pretrained(exported(tmp_path / "source", stored, tmp_path / "out"))
    resident = sum(t.numel() * t.element_size() for t in [*theirs.parameters(), *theirs.buffers()])
    assert resident <= 1.1 * stored_size(stored)


def test_the_same_tensors_are_the_same_bytes_in_place_of_an_earlier_export(pipeline, tmp_path):
    first = exported(pipeline, stored_as(network(), [Format("int8")]), tmp_path / "out")
    (tmp_path / ".out.abcdefgh/new").mkdir(parents=True)  # of a killed run
    stored = stored_as(network(), [Format("int3")])
    exported(pipeline, stored, first)
    again = exported(pipeline, stored, tmp_path / "again")
    found = [{path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")} for out in (first, again)]
    assert found[0] == found[1]
    assert {str(path) for path in found[0]} == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "out"]


def test_what_is_no_earlier_export_stays(pipeline, tmp_path):
    stored = stored_as(network(), [Format("int8")])
    shutil.copytree(pipeline, tmp_path / "mine")
    before = files.sha256(tmp_path / "mine/unet/diffusion_pytorch_model.safetensors")
    for source, out in ((pipeline, tmp_path / "mine"), (tmp_path / "mine", tmp_path)):
        with pytest.raises(LaqfiError, match="is no earlier export"):
            exported(source, stored, out)
    assert files.sha256(tmp_path / "mine/unet/diffusion_pytorch_model.safetensors") == before
    done = exported(pipeline, stored, tmp_path / "done")
    (done / "notes.txt").write_text("mine")
    with pytest.raises(LaqfiError, match="is no earlier export"):
        exported(pipeline, stored, done)
    with pytest.raises(LaqfiError, match="the weights are quantized"):
        exported(done, stored, done)


@pytest.mark.parametrize("key", ["activations", "correction"])
def test_what_a_folder_cannot_hold_is_refused_before_anything_is_written(pipeline, tmp_path, key):
    with pytest.raises(LaqfiError, match=f"model.safetensors: .*{key[:7]}.*no form"):
        exported(pipeline, stored_as(network(), [Format("int8")]), tmp_path / "out", **{key: {}})
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_network_is_refused(pipeline, tmp_path):
    other = stored_as(network(block_out_channels=(8, 8)), [Format("int8")])
    with pytest.raises(LaqfiError, match=r"model.safetensors: .*allowed is \("):
        exported(pipeline, other, tmp_path / "out")
    described = json.loads((pipeline / "unet/config.json").read_text()) | {"norm_eps": 0.1}
    with pytest.raises(LaqfiError, match=r"norm_eps is 1e-05, allowed is 0\.1"):
        exported(pipeline, stored_as(network(), [Format("int8")]), tmp_path / "out", model={"unet": described})
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_class_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(
        LaqfiError, match="_class_name is 'AutoencoderKL', allowed is UNet2DModel or UNet2DConditionModel"
    ):
        exported(tmp_path, {}, tmp_path / "out")


def model_file(path: Path, pipeline: str | None, scheduler: str = "DDPMScheduler") -> Path:
    """As the stage `quantize` writes it."""
    unet = json.loads(json.dumps(dict(network().config)))
    described = {"family": "diffusers", "sha256": "0", "unet": unet | {"_class_name": "UNet2DModel"}}
    described |= {"scheduler": {"_class_name": scheduler, "beta_schedule": "linear"}, "pipeline": pipeline}
    tensors, metadata = as_file(stored_as(network(), [Format("int4")]), {"version": VERSION})
    write_stored(path, tensors, metadata | {"model": described, "diffusion": None, "image": [1, 8, 8]})
    return path


@pytest.mark.parametrize(("named", "kind"), [("DDIMPipeline", "DDIMPipeline"), (None, "DDPMPipeline")])
def test_the_stage_exports_a_pipeline_of_what_the_file_says(tmp_path, named, kind):
    export(model=model_file(tmp_path / "a.safetensors", named), out=tmp_path / "out")
    made = DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert (type(made).__name__, type(made.scheduler).__name__) == (kind, kind.replace("Pipeline", "Scheduler"))
    assert made.unet.conv_in.weight.dtype == torch.uint8


def test_a_file_is_exported_like_the_folder_it_came_from(pipeline, tmp_path):
    main(["export", str(model_file(tmp_path / "a.safetensors", None)), "--out", str(tmp_path / "out")])
    source = str(pipeline / "unet")
    main(["export", str(tmp_path / "a.safetensors"), "--source", source, "--out", str(tmp_path / "alone")])
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "out/unet" / name).read_bytes()
    assert not (tmp_path / "alone/model_index.json").exists()


def test_the_stage_refuses_what_has_no_form(tmp_path):
    euler = model_file(tmp_path / "a.safetensors", None, "EulerDiscreteScheduler")
    with pytest.raises(LaqfiError, match="a U-Net alone with EulerDiscreteScheduler is no pipeline of diffusers, all"):
        export(model=euler, out=tmp_path / "out")
    settings = Unet(family="unet", base_channels=4, attention=[2], heads=2, dropout=0.1)
    other = header(settings, Diffusion(timesteps=100, beta_start=0.001, beta_end=0.1), [1, 8, 8])
    write_stored(tmp_path / "b.safetensors", UNet(settings, 1).state_dict(), other)
    with pytest.raises(LaqfiError, match="family is 'unet', exports are for models of the diffusers family"):
        export(model=tmp_path / "b.safetensors", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
