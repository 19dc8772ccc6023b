"""Coded model files: the same tensors, in fewer bytes, and nothing else is taken for one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.diffusion.params import Diffusion
from laqfi.models.unet import UNet, Unet
from laqfi.storage.ans import Decoder, Encoder
from laqfi.storage.coded import decode, encode
from laqfi.storage.described import described, header, output_axes
from laqfi.storage.formats import FLOATS, Format
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import read_model
from laqfi.storage.pack import pack
from laqfi.storage.stored_file import Contents, digest, read_stored, write_stored
from stored import quantize

CPU = torch.device("cpu")


def coded(tensors: dict, layouts: dict, extra: dict) -> int:
    """Bytes of the code, which gives back every byte of the tensors."""
    code = encode(tensors, layouts, extra)
    found = decode(code, layouts, extra)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name
    return len(code)


@settings(deadline=None, derandomize=True, database=None, max_examples=40)
@given(
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    group_size=st.sampled_from([-1, 0, 5]),
    shape=st.sampled_from([(1, 1), (7, 3), (40, 2, 3, 3), (3, 200)]),
    spread=st.sampled_from([0.0, 0.3, 3.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_any_codes_come_back(bits, symmetric, group_size, shape, spread, seed):
    layout = Layout(Format(f"int{bits}", symmetric, group_size), shape)
    random = np.random.default_rng(seed)
    parts = {}
    for part, (dtype, size) in layout.part_shapes().items():
        drawn = random.standard_normal(size) if dtype == torch.float16 else random.integers(0, 1 << bits, size)
        parts[f"w{part}"] = torch.from_numpy(drawn).to(dtype)
    codes = (random.standard_normal((layout.groups, layout.group_width)) * spread).round() + (1 << bits - 1)
    grid = torch.from_numpy(codes.clip(0, (1 << bits) - 1)).float()
    parts["w.packed"] = pack(grid.to(torch.uint8), bits)
    coded(parts, {"w": layout}, {})


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("shape", [(1,), (300,), (20, 30)], ids=str)
def test_any_floats_come_back(name, shape):
    torch.manual_seed(0)
    for tensor in (torch.randn(shape), torch.zeros(shape), -torch.rand(shape) * 1e-4):
        coded({"b": tensor.to(FLOATS[name])}, {"b": Layout(Format(name), shape)}, {})


def test_tables_come_back():
    extra = {"one": (torch.float16, (2, 3)), "two": (torch.uint8, (2, 3)), "three": (torch.float32, (3,))}
    tensors = {"one": torch.randn(2, 3).half(), "two": torch.arange(6).byte().view(2, 3), "three": torch.randn(3)}
    coded(tensors, {}, extra)


def entropy(codes: torch.Tensor) -> float:
    """Bits of one code under the frequencies of all."""
    share = codes.unique(return_counts=True)[1].double() / codes.numel()
    return float(-(share * share.log2()).sum())


def test_codes_take_about_their_entropy_and_less_where_rows_and_columns_differ():
    torch.manual_seed(0)
    layout = Layout(Format("int5", group_size=-1), (128, 256))
    scale = {"w.scale": torch.ones(1).half()}
    sizes = {}
    for name, spread in (("alike", torch.ones(1)), ("unlike", torch.randn(128, 1).exp() * torch.randn(1, 256).exp())):
        codes = (2 * torch.randn(128, 256) * spread).round().clamp(-16, 15) + 16
        parts = scale | {"w.packed": pack(codes.to(torch.uint8), 5)}
        sizes[name] = 8 * coded(parts, {"w": layout}, {}) / codes.numel() - entropy(codes)
    assert abs(sizes["alike"]) < 0.05
    assert sizes["unlike"] < -0.4


def test_small_tensors_gain_by_what_was_seen_of_others():
    torch.manual_seed(0)
    layout = Layout(Format("int4"), (8, 8))
    parts = {}
    for place in range(40):
        found, _ = quantize(torch.randn(8, 8), layout, "mse")
        parts |= {f"{place:02}{part}": tensor for part, tensor in found.items()}
    layouts = {f"{place:02}": layout for place in range(40)}
    plain = sum(tensor.nbytes for tensor in parts.values())
    assert coded(parts, layouts, {}) < 0.95 * plain


@pytest.fixture
def file(tmp_path):
    """A coded model file, the same one plain, and the tensors of both."""
    torch.manual_seed(0)
    settings = Unet(family="unet", base_channels=4, attention=[2], heads=2, dropout=0.1)
    unet, stored, formats = UNet(settings, 1), {}, {}
    for name, tensor in unet.state_dict().items():
        layout = Layout(Format("int4" if tensor.dim() > 1 else "float16"), tuple(tensor.shape), output_axes(unet)[name])
        stored |= {f"{name}{part}": one for part, one in quantize(tensor, layout, "mse")[0].items()}
        formats |= {} if layout.format.is_float else {name: layout.to_json()}
    metadata = header(settings, Diffusion(timesteps=100, beta_start=0.001, beta_end=0.1), [1, 8, 8])
    write_stored(tmp_path / "plain", stored, metadata | {"formats": formats})
    write_stored(tmp_path / "coded", stored, metadata | {"formats": formats, "coding": "ans"})
    return tmp_path / "coded", tmp_path / "plain", stored


def test_a_coded_file_is_smaller_and_is_the_same_network(file):
    path, plain, stored = file
    assert path.stat().st_size < 0.92 * plain.stat().st_size
    tensors, metadata = read_stored(path)
    assert metadata == read_stored(plain)[1] | {"coding": "ans"}
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    one, other = (read_model(of, CPU)[0] for of in (path, plain))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 90])
    with torch.no_grad():
        assert torch.equal(one(x, t), other(x, t))
    assert sum(b.nbytes for b in one.buffers()) == sum(b.nbytes for b in other.buffers())
    before = path.read_bytes()
    write_stored(path, tensors, metadata)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda code: code[:-4], "code"),
        (lambda code: code[:-3], "allowed are whole words"),
        (lambda code: code[4:], "code"),
        (lambda code: torch.cat([code, code]), "does not end with the last code"),
        (lambda code: code.flip(0), "code"),
        (lambda code: torch.zeros(8).byte(), "code"),
        (lambda code: torch.zeros(0).byte(), "allowed are whole words"),
        (lambda code: code[None], r"code is .*, allowed is"),
        (lambda code: code.view(torch.int32), r"code is .*, allowed is"),
    ],
)
def test_a_code_of_something_else_is_refused_in_one_line(file, change, said):
    path = file[0]
    tensors, metadata = files.read_tensors(path)
    length = len(tensors["code"]) // 4 * 4
    files.write_tensors(path, {"code": change(tensors["code"][:length])}, metadata)
    with pytest.raises(LaqfiError, match=said) as caught:
        read_model(path, CPU)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"coding": "huffman"}, {"coding": None}, {"coding": 3}], ids=str)
def test_another_coding_is_refused(file, changes):
    tensors, metadata = files.read_tensors(file[0])
    files.write_tensors(file[0], tensors, metadata | changes)
    with pytest.raises(LaqfiError, match=r"coding|code is"):
        read_stored(file[0])


def test_what_was_not_coded_is_no_code():
    encoder = Encoder()
    encoder.adaptive(("x",), 5, 4, np.array([0, 4, 2, 2]))
    decoder = Decoder(encoder.finish())
    assert decoder.adaptive(("x",), 5, 2, None).tolist() == [0, 4]
    with pytest.raises(ValueError, match="does not end"):
        decoder.finish()


@pytest.mark.parametrize("channels", [64, 4096])
@pytest.mark.parametrize("code", [b"\xff" * 8, b"\1\0\0\0", None], ids=["ones", "short", "own"])
def test_a_header_that_promises_more_than_the_code_holds_is_refused_at_once(file, channels, code):
    """Of 152,000 M parameters no more is decoded than there are bytes for."""
    tensors, metadata = files.read_tensors(file[0])
    metadata["model"]["base_channels"] = channels
    network, _ = described(metadata, file[0])
    axes, kinds = output_axes(network), Contents.model_validate(metadata).kinds
    named = zip(metadata["places"], sorted(dict(network.named_parameters()).items()), strict=True)
    layouts = {name: kinds[place].layout(tuple(one.shape), axes[name]) for place, (name, one) in named}
    found = tensors["code"] if code is None else torch.tensor(list(code), dtype=torch.uint8)
    files.write_tensors(file[0], {"code": found}, metadata | {"network": digest(layouts)})
    with pytest.raises(LaqfiError, match=r"code (ends before the last tensor|holds a code beyond)"):
        read_stored(file[0])


def test_a_decoder_never_finds_more_than_the_code_holds():
    encoder = Encoder()
    encoder.adaptive(("x",), 5, 4, np.array([0, 4, 2, 2]))
    code = encoder.finish()
    with pytest.raises(ValueError, match="ends before the last tensor"):
        Decoder(code).even(8, 10**11, None)
