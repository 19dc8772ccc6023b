import pytest
import torch

from laqfi import io
from laqfi.errors import LaqfiError
from laqfi.quant.model import cast, is_quantizable, load_unet, stored_bytes

CPU = torch.device("cpu")


@pytest.fixture
def saved(unet, tmp_path):
    """A model file, and how to write it with changes."""
    metadata = {
        "unet": unet.config.to_json(),
        "diffusion": {"timesteps": 100, "beta_start": 0.001, "beta_end": 0.1},
        "image": [1, 8, 8],
    }

    def write(tensors=None, **changes):
        path = tmp_path / "model.safetensors"
        io.write_tensors(path, unet.state_dict() | (tensors or {}), metadata | changes)
        return path

    return write


def test_the_loaded_network_computes_what_the_saved_one_did(unet, saved):
    loaded, alphas_cumprod, metadata = load_unet(saved(), CPU)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 50, 100])
    with torch.no_grad():
        assert torch.equal(loaded(x, t), unet(x, t))
    assert len(alphas_cumprod) == 101
    assert metadata["image"] == [1, 8, 8]


def test_the_network_runs_on_the_stored_values(unet, saved):
    name = "layers.3.block1.conv1.weight"
    half = unet.state_dict()[name].half()
    loaded, _, _ = load_unet(saved({name: half}), CPU)
    assert torch.equal(loaded.state_dict()[name], half.float())
    assert not torch.equal(loaded.state_dict()[name], unet.state_dict()[name])


def test_only_matrices_of_the_six_layers_are_quantizable(unet):
    names = [name for name, tensor in unet.state_dict().items() if is_quantizable(name, tensor)]
    assert len(names) == 6 * 7 + 2 * 2  # two blocks of three and a resampling each; qkv and out of two attentions
    assert all(name.startswith("layers.") and name.endswith(".weight") for name in names)
    assert not any("norm" in name for name in names)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_cast_stores_the_dtype_it_says(dtype):
    stored = cast("w", torch.randn(4, 4), dtype)
    assert stored.dtype == getattr(torch, dtype)


def test_a_weight_beyond_the_format_is_refused_by_name():
    with pytest.raises(LaqfiError, match=r"w: holds values that are not finite in float16; largest \|w\| is 70000"):
        cast("w", torch.tensor([1.0, 7e4]), "float16")
    with pytest.raises(LaqfiError, match="w: holds values that are not finite; "):
        cast("w", torch.tensor([1.0, float("nan")]), "float32")


def test_size_is_the_bytes_of_the_tensors():
    tensors = {"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.float16), "c": torch.zeros(2).bfloat16()}
    assert stored_bytes(tensors) == (60 + 14 + 4, {"bfloat16": 2, "float16": 7, "float32": 15})


def test_size_is_the_size_of_the_file_within_its_header(unet, saved):
    path = saved({"conv_in.weight": unet.conv_in.weight.detach().half()})
    size, _ = stored_bytes(io.read_tensors(path)[0])
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    assert path.stat().st_size == header + size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensors": {"conv_in.weight": torch.zeros(4, 1, 5, 5)}}, r"conv_in\.weight is \(4, 1, 5, 5\), allowed is"),
        ({"tensors": {"surprise": torch.zeros(1)}}, r"surprise is \(1,\), allowed is None"),
        ({"unet": None}, "the metadata describes no model"),
        ({"unet": {"image_channels": 1}}, "the metadata describes no model"),
        ({"diffusion": {"timesteps": 100}}, "the metadata describes no model"),
    ],
)
def test_a_file_that_is_no_such_model_is_refused_by_name(saved, changes, message):
    path = saved(**changes)
    with pytest.raises(LaqfiError, match=message) as error:
        load_unet(path, CPU)
    assert str(error.value).startswith(str(path))


def test_a_missing_tensor_is_refused_by_name(unet, saved):
    path = saved()
    tensors, metadata = io.read_tensors(path)
    del tensors["conv_out.bias"]
    io.write_tensors(path, tensors, metadata)
    with pytest.raises(LaqfiError, match=r"conv_out\.bias is None, allowed is \(1,\)"):
        load_unet(path, CPU)
