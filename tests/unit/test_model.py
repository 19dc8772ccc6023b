import pytest
import torch
from torch._dynamo.testing import CompileCounter

from laqfi.base.errors import LaqfiError
from laqfi.models import families
from laqfi.models.unet import UNet, Unet
from laqfi.storage.described import VERSION, output_axes
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import model_of, read_model, stored_bytes
from laqfi.storage.modules import restored
from laqfi.storage.stored_file import read_stored, write_stored
from stored import quantize

CPU = torch.device("cpu")
SETTINGS = {"family": "unet", "base_channels": 4, "attention": [2, 6], "heads": 2, "dropout": 0.1}


@pytest.fixture
def saved(unet, tmp_path):
    """A model file, and how to write it with changes."""
    metadata = {
        "version": VERSION,
        "model": SETTINGS,
        "diffusion": {"timesteps": 100, "beta_start": 0.001, "beta_end": 0.1},
        "image": [1, 8, 8],
    }

    def write(tensors=None, **changes):
        path = tmp_path / "model.safetensors"
        write_stored(path, unet.state_dict() | (tensors or {}), metadata | changes)
        return path

    return write


TAPPED = "layers.2.block1.conv1.weight"
MIXED = {
    "conv_in.weight": Format("int8"),
    "layers.1.resample.weight": Format("int2", symmetric=False),
    "layers.3.resample.weight": Format("float8_e4m3fn"),
    "layers.5.resample.weight": Format("int5", symmetric=False, group_size=-1),
    "layers.6.attention.qkv.weight": Format("int3", group_size=7),
    "conv_out.weight": Format("float32"),
}


def pack_unet(unet, formats):
    """Stored tensors, format map and restored weights; int4 for other matrices, float16 for the other tensors."""
    stored, described, values = {}, {}, {}
    axes = output_axes(unet)
    for name, tensor in unet.state_dict().items():
        format = formats.get(name, Format("int4" if tensor.dim() > 1 else "float16"))
        taps = (1, 3, 4, 5, 7) if name == TAPPED else None
        layout = Layout(format, tuple(tensor.shape), axes[name], taps)
        parts, values[name] = quantize(tensor, layout, "max")
        stored |= {f"{name}{part}": t for part, t in parts.items()}
        if not format.is_float:
            described[name] = layout.to_json()
    return stored, described, values


@pytest.fixture
def packed(unet, saved):
    """How to write the packed model."""

    def write(formats=MIXED):
        path = saved()
        stored, described, _ = pack_unet(unet, formats)
        write_stored(path, stored, read_stored(path)[1] | {"formats": described})
        return path

    return write


def resident_bytes(unet):
    return sum(t.numel() * t.element_size() for t in [*unet.parameters(), *unet.buffers()])


def test_the_loaded_network_computes_what_the_saved_one_did(unet, saved):
    loaded, alphas_cumprod, metadata = read_model(saved(), CPU)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 50, 100])
    with torch.no_grad():
        assert torch.equal(loaded(x, t), unet(x, t))
    assert len(alphas_cumprod) == 101
    assert metadata["image"] == [1, 8, 8]


def test_the_network_runs_on_the_stored_values(unet, saved):
    name = "layers.3.block1.conv1.weight"
    half = unet.state_dict()[name].half()
    loaded, _, _ = read_model(saved({name: half}), CPU)
    assert torch.equal(loaded.get_submodule(name)(torch.float32), half.float())
    assert not torch.equal(half.float(), unet.state_dict()[name])


@pytest.mark.parametrize("formats", [{}, MIXED], ids=["int4", "mixed"])
def test_a_packed_network_computes_what_the_plain_one_does_with_the_restored_weights(unet, packed, formats):
    loaded, _, _ = read_model(packed(formats=formats), CPU)
    plain = UNet(Unet(**SETTINGS), 1).eval()
    plain.load_state_dict(pack_unet(unet, formats)[2])
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 50, 100])
    with torch.no_grad():
        assert torch.equal(loaded(x, t), plain(x, t))
        assert not torch.equal(loaded(x, t), unet(x, t))


def test_a_packed_network_keeps_only_what_the_file_stores_resident(packed):
    path = packed()
    loaded, _, _ = read_model(path, CPU)
    payload = path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")
    with torch.no_grad():
        for _ in range(2):
            assert list(loaded.parameters()) == []
            assert resident_bytes(loaded) <= 1.05 * payload
            loaded(torch.randn(1, 1, 8, 8), torch.tensor([1]))


@pytest.mark.parametrize("formats", [{}, MIXED], ids=["int4", "mixed"])
def test_a_restored_network_computes_the_same_and_leaves_the_stored_one_as_it_is(packed, formats):
    stored, _, _ = read_model(packed(formats=formats), CPU)
    before, ordinary = resident_bytes(stored), restored(stored, torch.float32)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 50, 100])
    with torch.no_grad():
        assert torch.equal(ordinary(x, t), stored(x, t))
    assert resident_bytes(stored) == before < resident_bytes(ordinary)
    assert list(stored.parameters()) == []


def test_a_network_restored_in_half_precision_has_its_matrices_so_and_the_original_does_not(unet, saved):
    loaded, _, _ = read_model(saved(), CPU)
    halved = restored(loaded, torch.float16)
    for name, parameter in halved.named_parameters():
        assert parameter.dtype == (torch.float16 if parameter.dim() > 1 else torch.float32), name
        assert torch.equal(loaded.get_parameter(name), unet.get_parameter(name)), name


def test_half_precision_of_a_stored_network_is_autocast_of_it(packed):
    """Weights rounded once are the weights that autocast rounds in every call."""
    stored, _, _ = read_model(packed(), CPU)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 50, 100])
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        once, always = (restored(stored, dtype)(x, t) for dtype in (torch.float16, torch.float32))
    assert torch.equal(once, always)


def test_one_compilation_serves_all_variants(packed, saved):
    """Whatever the formats, a restored network is the same program: each variant would else be compiled for itself."""
    torch.compiler.reset()
    counter, x, t = CompileCounter(), torch.randn(3, 1, 8, 8), torch.tensor([1, 50, 100])
    for path in (lambda: packed(formats=MIXED), packed, saved):
        network = restored(read_model(path(), CPU)[0], torch.float32).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            torch.compile(network, backend=counter, dynamic=False)(x, t)
    assert counter.frame_count == 1


def test_a_float32_network_is_an_ordinary_one(unet, saved):
    loaded, _, _ = read_model(saved(), CPU)
    assert dict(loaded.named_parameters()).keys() == dict(unet.named_parameters()).keys()


def test_only_matrices_of_the_six_layers_are_scored(unet):
    names = [name for name, tensor in unet.state_dict().items() if families.is_scored(Unet(**SETTINGS), name, tensor)]
    assert len(names) == 6 * 7 + 2 * 2  # two blocks of three and a resampling each; qkv and out of two attentions
    assert all(name.startswith("layers.") and name.endswith(".weight") for name in names)
    assert not any("norm" in name for name in names)


def test_the_second_axis_holds_the_output_channels_of_transposed_convolutions_only(unet):
    axes = output_axes(unet)
    assert axes.keys() == dict(unet.named_parameters()).keys()
    assert {name for name, axis in axes.items() if axis} == {f"layers.{i}.resample.weight" for i in (4, 5, 6)}


def test_size_is_the_bytes_of_the_tensors():
    tensors = {"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.float16), "c": torch.zeros(2).bfloat16()}
    assert stored_bytes(tensors, {}) == (60 + 14 + 4, {"bfloat16": 2, "float16": 7, "float32": 15})


def test_size_counts_the_parameters_behind_packed_codes():
    layouts = {
        "a": Layout(Format("int3"), (4, 10)),
        "b": Layout(Format("int8", symmetric=False), (2, 3, 3, 3), 0, (4,)),
    }
    tensors = {"c": torch.zeros(5)}
    for name, layout in layouts.items():
        tensors |= {f"{name}{part}": t for part, t in quantize(torch.ones(layout.shape), layout, "max")[0].items()}
    formats = {name: layout.to_json() for name, layout in layouts.items()}
    size, counts = stored_bytes(tensors, {"formats": formats})
    assert size == (15 + 4 * 2) + (8 + 2 * 2 + 2) + 20
    assert counts == {"float32": 5, "int3": 40, "int8": 54}


@pytest.mark.parametrize("kind", ["float32", "float16", "int4"])
def test_size_is_the_size_of_the_file_within_its_header(saved, kind, packed):
    path = {
        "float32": saved,
        "float16": lambda: saved({"conv_in.weight": torch.zeros(4, 1, 3, 3).half()}),
        "int4": packed,
    }[kind]()
    size, _ = stored_bytes(*read_stored(path))
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    assert path.stat().st_size == header + size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensors": {"conv_in.weight": torch.zeros(4, 1, 5, 5)}}, "is of another network"),
        ({"tensors": {"surprise": torch.zeros(1)}}, r"holds \d+ parameters, allowed are the network's"),
        ({"model": None}, "the metadata describes no model"),
        ({"model": {"family": "unet"}}, "the metadata describes no model"),
        ({"model": SETTINGS | {"family": "vit"}}, "the metadata describes no model"),
        ({"image": [1, 12, 8]}, r"image is \[1, 12, 8\], allowed is"),
        ({"image": [3, 8, 8]}, "is of another network"),
        ({"version": 1}, "is of format version 1, allowed is 2"),
        ({"version": None}, "is of format version None, allowed is 2"),
        ({"diffusion": {"timesteps": 100}}, "the metadata describes no model"),
    ],
)
def test_a_file_that_is_no_such_model_is_refused_by_name(saved, changes, message):
    path = saved(**changes)
    with pytest.raises(LaqfiError, match=message) as error:
        read_model(path, CPU)
    assert str(error.value).startswith(str(path))


def test_a_missing_tensor_is_refused_by_name(unet, saved):
    path = saved()
    tensors, metadata = read_stored(path)
    del tensors["conv_out.bias"]
    with pytest.raises(LaqfiError, match=r"conv_out\.bias is neither among the tensors nor in the format map"):
        model_of(tensors, metadata, path, CPU)


PACKED = "layers.1.resample.weight"  # int2, affine


def without(key):
    def damage(tensors, formats):
        (tensors if key in tensors else formats).pop(key)

    return damage


def with_tensor(name, change):
    def damage(tensors, formats):
        tensors[name] = change(tensors.get(name))

    return damage


def with_layout(**changes):
    def damage(tensors, formats):
        formats[PACKED] = formats[PACKED] | changes

    return damage


def exchanged(tensors, formats):
    other = "layers.5.resample.weight"
    for part in (".packed", ".scale", ".zero_point"):
        tensors[f"{PACKED}{part}"], tensors[f"{other}{part}"] = tensors[f"{other}{part}"], tensors[f"{PACKED}{part}"]


def plain_beside_packed(tensors, formats):
    tensors[PACKED] = torch.zeros(8, 4, 3, 3)


DAMAGES = {
    "shape in the map": (with_layout(shape=[8, 4, 9]), rf"{PACKED} is \(8, 4, 9\), allowed is \(8, 4, 3, 3\)"),
    "entry missing": (without(PACKED), PACKED),
    "packed missing": (without(f"{PACKED}.packed"), rf"{PACKED}\.packed is None, allowed is"),
    "scale missing": (without(f"{PACKED}.scale"), rf"{PACKED}\.scale is None, allowed is"),
    "zero point missing": (without(f"{PACKED}.zero_point"), rf"{PACKED}\.zero_point is None, allowed is"),
    "zero point too many": (with_layout(symmetric=True), rf"{PACKED}\.zero_point is .*, allowed is None"),
    "truncated": (with_tensor(f"{PACKED}.packed", lambda t: t[:-1]), rf"{PACKED}\.packed is"),
    "too long": (with_tensor(f"{PACKED}.packed", lambda t: torch.cat([t, t])), rf"{PACKED}\.packed is"),
    "packed in two dimensions": (with_tensor(f"{PACKED}.packed", lambda t: t[None]), rf"{PACKED}\.packed is"),
    "codes of another dtype": (with_tensor(f"{PACKED}.packed", lambda t: t.to(torch.int8)), rf"{PACKED}\.packed is"),
    "scale of another dtype": (with_tensor(f"{PACKED}.scale", lambda t: t.float()), rf"{PACKED}\.scale is"),
    "scale too short": (with_tensor(f"{PACKED}.scale", lambda t: t[1:]), rf"{PACKED}\.scale is"),
    "other bits": (with_layout(name="int3"), rf"{PACKED}\.packed is"),
    "other groups": (with_layout(group_size=-1), rf"{PACKED}\.scale is"),
    "other axis": (with_layout(axis=1), rf"{PACKED}\.scale is"),
    "other taps": (with_layout(taps=[0, 4]), rf"{PACKED}\.packed is"),
    "parts of another tensor": (exchanged, r"layers\.\d\.resample\.weight\.\w+ is"),
    "plain tensor beside the packed one": (plain_beside_packed, rf"{PACKED} is .*, allowed is None"),
    "foreign part": (with_tensor("other.packed", lambda _: torch.zeros(3).byte()), r"other\.packed is"),
    "foreign float": (with_tensor("conv_in.bias", lambda t: t.to(torch.float64)), r"conv_in\.bias"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_parts_that_do_not_fit_the_format_map_are_refused_by_name(packed, damage, message):
    path = packed()
    tensors, metadata = read_stored(path)
    damage(tensors, metadata["formats"])
    with pytest.raises(LaqfiError, match=message) as error:
        model_of(tensors, metadata, path, CPU)
    assert str(error.value).startswith(str(path))


def test_a_format_map_without_its_packed_tensors_is_refused_by_name(unet, saved):
    layout = Layout(Format("int4"), (4, 1, 3, 3)).to_json()
    path = saved()
    tensors, metadata = read_stored(path)
    with pytest.raises(LaqfiError, match=r"conv_in\.weight.* is ") as error:
        model_of(tensors, metadata | {"formats": {"conv_in.weight": layout}}, path, CPU)
    assert "model.safetensors" in str(error.value)


@pytest.mark.parametrize("bad", [None, 4, [], {}, {"name": "int4"}], ids=str)
def test_an_entry_that_is_no_layout_is_refused(packed, bad):
    path = packed()
    tensors, metadata = read_stored(path)
    with pytest.raises(LaqfiError, match="not a tensor layout"):
        model_of(tensors, metadata | {"formats": metadata["formats"] | {PACKED: bad}}, path, CPU)


@pytest.mark.parametrize("formats", [{}, MIXED], ids=["int4", "mixed"])
def test_what_is_read_is_what_was_written(unet, packed, formats):
    stored, described, _ = pack_unet(unet, formats)
    path = packed(formats)
    tensors, metadata = read_stored(path)
    assert metadata["formats"] == described
    assert tensors.keys() == stored.keys()
    for name, tensor in stored.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name].view(torch.uint8), tensor.view(torch.uint8)), name
    before = path.read_bytes()
    write_stored(path, dict(reversed(tensors.items())), metadata)
    assert path.read_bytes() == before


def test_the_header_is_short_because_it_repeats_nothing_that_follows_from_the_network(packed):
    path = packed(MIXED)
    header = int.from_bytes(path.read_bytes()[:8], "little")
    parameters = len(read_stored(path)[0])
    assert parameters > 200
    assert header < 2500
    assert b"conv_in" not in path.read_bytes()[: 8 + header]
