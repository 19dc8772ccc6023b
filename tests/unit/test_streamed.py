"""Tensors written and read one at a time."""

import pytest
import torch

from laqfi.base import files, streamed
from laqfi.base.errors import LaqfiError

TENSORS = {
    "b": torch.randn(3, 4),
    "a": torch.randn(2, 4).half(),
    "c": torch.randn(8).bfloat16(),
    "d": torch.arange(5, dtype=torch.int32),
}
SHAPES = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()}


def test_what_is_written_is_read_by_either_reader(tmp_path):
    streamed.write_tensors(tmp_path / "x", SHAPES, iter(TENSORS.items()))
    shapes, read = streamed.open_tensors(tmp_path / "x")
    whole, metadata = files.read_tensors(tmp_path / "x")
    assert shapes == SHAPES
    assert metadata == {}
    for name, tensor in TENSORS.items():
        assert torch.equal(read(name), tensor)
        assert torch.equal(whole[name], tensor)


def test_what_the_other_writer_wrote_is_read(tmp_path):
    files.write_tensors(tmp_path / "x", TENSORS)
    shapes, read = streamed.open_tensors(tmp_path / "x")
    assert shapes == SHAPES
    assert all(torch.equal(read(name), tensor) for name, tensor in TENSORS.items())


def test_one_tensor_is_taken_at_a_time_and_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / ".x.abcdefgh").write_bytes(b"what a killed run left")
    streamed.write_tensors(tmp_path / "x", SHAPES, iter(TENSORS.items()))
    before = (tmp_path / "x").read_bytes()

    def failing():
        yield "b", torch.zeros(3, 4)
        raise LaqfiError("measured no further")

    with pytest.raises(LaqfiError, match="measured no further"):
        streamed.write_tensors(tmp_path / "x", SHAPES, failing())
    assert (tmp_path / "x").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    "tensors",
    [
        {"b": TENSORS["b"]},
        TENSORS | {"e": TENSORS["b"]},
        TENSORS | {"b": torch.zeros(4, 3)},
        TENSORS | {"b": torch.zeros(3, 4).double()},
        {"a": TENSORS["a"]} | TENSORS,
    ],
    ids=["too few", "too many", "another shape", "another dtype", "another order"],
)
def test_other_tensors_than_announced_are_an_error(tmp_path, tensors):
    with pytest.raises(ValueError, match=r"announced|zip\(\)"):
        streamed.write_tensors(tmp_path / "x", SHAPES, iter(tensors.items()))
    assert not (tmp_path / "x").exists()


def test_a_tensor_after_which_no_float32_can_begin_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="announced"):
        streamed.write_tensors(tmp_path / "x", {"a": (torch.float16, (3,))}, [("a", torch.zeros(3).half())])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(LaqfiError, match=r"cannot be written"):
        streamed.write_tensors(tmp_path / "f" / "x", SHAPES, iter(TENSORS.items()))
