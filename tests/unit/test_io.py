import hashlib
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import load_file, save_file

from laqfi.base import files
from laqfi.base.errors import LaqfiError

steady = settings(deadline=None, derandomize=True, max_examples=50)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
METADATA = {
    "profile": "quick",
    "seeds": [0, 1, 2],
    "unet": {"heads": 4, "attention": [2, 6]},
    "loss": 0.5,
    "none": None,
}
READERS = {
    "json": files.read_json,
    "npz": lambda path: files.read_arrays(path, "pixels", "labels"),
    "safetensors": files.read_tensors,
}


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def some_tensors() -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(3, 4, generator=numbers),
        "half": torch.randn(5, generator=numbers).half(),
        "bfloat": torch.randn(2, 2, generator=numbers).bfloat16(),
        "steps": torch.arange(4),
    }


def write_any(path: Path) -> bytes:
    if path.suffix == ".json":
        files.write_json(path, METADATA)
    elif path.suffix == ".npz":
        files.write_arrays(path, pixels=np.arange(40, dtype=np.uint8).reshape(2, 20), labels=np.linspace(0, 1, 7))
    else:
        files.write_tensors(path, some_tensors(), METADATA)
    return path.read_bytes()


def complaint(path: Path) -> str:
    with pytest.raises(LaqfiError) as caught:
        READERS[path.suffix[1:]](path)
    return str(caught.value)


def says_on_one_line_what_is_wrong_with(path: Path) -> bool:
    message = complaint(path)
    return message.startswith(f"{path}: ") and len(message.splitlines()) == 1


@steady
@given(value=json_values)
def test_json_survives_the_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


@steady
@given(
    array=arrays.arrays(st.sampled_from([np.uint8, np.int64, np.float32, np.float64]), arrays.array_shapes(min_dims=0))
)
def test_arrays_survive_the_round_trip(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("npz") / "array.npz"
    files.write_arrays(path, array=array, empty=np.empty((0, 3)))
    read = files.read_arrays(path, "array", "empty")
    assert read["array"].dtype == array.dtype
    np.testing.assert_array_equal(read["array"], array, strict=True)
    assert read["empty"].shape == (0, 3)


def test_tensors_and_metadata_survive_the_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    files.write_tensors(path, some_tensors(), METADATA)
    tensors, metadata = files.read_tensors(path)
    assert metadata == METADATA
    assert tensors.keys() == some_tensors().keys()
    for name, tensor in some_tensors().items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)


def test_tensors_are_written_whatever_their_layout_or_gradient(tmp_path):
    path = tmp_path / "model.safetensors"
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    files.write_tensors(path, {"turned": weight.T, "column": weight[:, 1]})
    tensors, metadata = files.read_tensors(path)
    assert tensors["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert tensors["column"].tolist() == [1, 4]
    assert metadata == {}


def test_tensors_of_another_program_have_no_checksum_and_are_refused(tmp_path):
    path = tmp_path / "plain.safetensors"
    for entry in (None, {"laqfi": "{}"}, {"laqfi": "0" * 64 + "{}"}, {"other": "{}"}):
        save_file({"weight": torch.ones(2)}, path, entry)
        assert says_on_one_line_what_is_wrong_with(path)
    files.write_tensors(path, load_file(path))
    assert files.read_tensors(path)[0]["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("suffix", READERS)
def test_equal_content_is_equal_bytes(tmp_path, suffix):
    assert len({write_any(tmp_path / f"{number}.{suffix}") for number in range(5)}) == 1


def test_order_of_keys_does_not_change_the_bytes(tmp_path):
    payloads = set()
    for seed in range(5):
        keys, names = list(METADATA), list(some_tensors())
        random.Random(seed).shuffle(keys)
        random.Random(seed).shuffle(names)
        metadata, tensors = {key: METADATA[key] for key in keys}, some_tensors()
        files.write_tensors(tmp_path / "a.safetensors", {name: tensors[name] for name in names}, metadata)
        files.write_json(tmp_path / "a.json", metadata)
        payloads.add((tmp_path / "a.safetensors").read_bytes() + (tmp_path / "a.json").read_bytes())
    assert len(payloads) == 1


def test_json_ends_with_a_newline_and_is_sorted(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": [True, None]})
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n")
    assert text.index('"a"') < text.index('"b"')


def test_text_is_written_as_utf8_without_translation(tmp_path):
    files.write_text(tmp_path / "a.md", "Fréchet −\r\n")
    assert (tmp_path / "a.md").read_bytes() == "Fréchet −\r\n".encode()


def test_writing_makes_missing_folders(tmp_path):
    files.write_bytes(tmp_path / "a" / "b" / "c.bin", b"abc")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"abc"


def test_written_files_are_readable_by_everyone(tmp_path):
    files.write_bytes(tmp_path / "a.bin", b"abc")
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


def test_writing_replaces_the_whole_old_file(tmp_path):
    files.write_bytes(tmp_path / "a.bin", b"a long old payload")
    files.write_bytes(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")]])
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(tmp_path, value):
    old = write_any(tmp_path / "a.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"fid": value})
    assert (tmp_path / "a.json").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_object_arrays_are_refused_and_the_old_file_kept(tmp_path):
    old = write_any(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="allow_pickle"):
        files.write_arrays(tmp_path / "a.npz", things=np.array([{}], dtype=object))
    assert (tmp_path / "a.npz").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), LaqfiError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["full disk", "interrupt"],
)
@pytest.mark.parametrize("broken", ["fsync", "fdopen", "replace"])
def test_interrupted_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, broken, error, raised):
    files.write_bytes(tmp_path / "a.bin", b"old")

    def fail(*args):
        raise error

    monkeypatch.setattr(Path if broken == "replace" else os, broken, fail)
    with pytest.raises(raised, match="No space left on device" if raised is LaqfiError else None):
        files.write_bytes(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("suffix", READERS)
def test_missing_file_is_named(tmp_path, suffix):
    assert says_on_one_line_what_is_wrong_with(tmp_path / f"missing.{suffix}")


@pytest.mark.parametrize("suffix", READERS)
def test_folder_in_place_of_a_file_is_named(tmp_path, suffix):
    path = tmp_path / f"folder.{suffix}"
    path.mkdir()
    assert says_on_one_line_what_is_wrong_with(path)


@pytest.mark.parametrize(
    "payload", [b"", b"\n\n", b"{", b"\xff\xfe\x00", b"not any\nof these\nformats", b"PK\x03\x04", b"\x93NUMPY"]
)
@pytest.mark.parametrize("suffix", READERS)
def test_file_of_another_format_is_named(tmp_path, suffix, payload):
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(payload)
    assert says_on_one_line_what_is_wrong_with(path)


@pytest.mark.parametrize("suffix", READERS)
def test_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"short.{suffix}"
    payload = write_any(path).rstrip()
    for length in range(0, len(payload), 7):
        path.write_bytes(payload[:length])
        assert says_on_one_line_what_is_wrong_with(path)


def test_single_array_in_place_of_an_npz_is_named(tmp_path):
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.arange(3))
    assert says_on_one_line_what_is_wrong_with(tmp_path / "single.npz")


def test_pickled_objects_in_an_npz_are_refused_unopened(tmp_path):
    path, trap = tmp_path / "objects.npz", tmp_path / "sprung"
    np.savez(path, images=np.array([Trap(trap)], dtype=object))
    assert says_on_one_line_what_is_wrong_with(path)
    assert not trap.exists()


def test_plain_pickle_is_refused_unopened(tmp_path):
    path, trap = tmp_path / "pickle.npz", tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(trap)))
    assert says_on_one_line_what_is_wrong_with(path)
    assert not trap.exists()


def test_sha256_is_that_of_the_bytes(tmp_path):
    files.write_bytes(tmp_path / "a.bin", b"abc")
    assert files.sha256(tmp_path / "a.bin") == hashlib.sha256(b"abc").hexdigest()


def test_sha256_of_a_missing_file_names_it(tmp_path):
    with pytest.raises(LaqfiError, match=r"missing\.bin: cannot be read"):
        files.sha256(tmp_path / "missing.bin")


@steady
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_npz_with_a_flipped_bit_is_named_or_reads_the_same(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("flip") / "flipped.npz"
    files.write_arrays(path, pixels=np.arange(40, dtype=np.uint8))
    payload = bytearray(path.read_bytes())
    payload[place % len(payload)] ^= 1 << bit
    path.write_bytes(payload)
    try:
        same = np.array_equal(files.read_array(path, "pixels"), np.arange(40))
    except LaqfiError:
        same = False
    assert same or says_on_one_line_what_is_wrong_with(path)
