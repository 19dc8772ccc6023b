"""Tensors that together are larger than memory should be: written to a file, and read, one at a time.

The files are those of `laqfi.base.files`, with the same seal.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from laqfi.base import files

NAMES = {dtype: name for name, dtype in files.DTYPES.items()}
ALIGNED = 8  # bytes of the header are a multiple of it, as the format asks


def write_tensors(path: Path, shapes: files.Shapes, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """The tensors of `shapes`, which come in that order; never two of them in memory, and atomic as all files are.

    Raises LaqfiError if the file cannot be written, ValueError for other tensors than announced, and for one whose
    bytes are no multiple of four: the next would not begin where a float32 can be read.
    """
    start = header(shapes)
    digest = hashlib.sha256(start[: files.DIGEST.start] + start[files.DIGEST.stop :])
    with files.replacing(path) as file:
        file.write(start)
        for (name, wanted), (given, tensor) in zip(shapes.items(), tensors, strict=True):
            payload = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            if (given, tensor.dtype, tuple(tensor.shape)) != (name, *wanted) or len(payload) % 4:
                raise ValueError(f"{given} is {tensor.dtype} {tuple(tensor.shape)}, announced were {name} {wanted}")
            digest.update(payload)
            file.write(payload)
        file.seek(files.DIGEST.start)  # over the zeros of the header
        file.write(digest.hexdigest().encode())


def header(shapes: files.Shapes) -> bytes:
    """What stands before the numbers, with zeros for the digest."""
    found, offset = {"__metadata__": {"laqfi": "0" * 64 + "{}"}}, 0
    for name, (dtype, shape) in shapes.items():
        end = offset + dtype.itemsize * torch.Size(shape).numel()
        found[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(found, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(8, "little") + text


def open_tensors(path: Path) -> tuple[files.Shapes, Callable[[str], Tensor]]:
    """What a file holds, and a function that reads one tensor of it.

    Raises LaqfiError if it is missing or damaged, of which all bytes are looked at first.
    """
    files.check_seal(path)
    with files.opened(path) as (file, _):
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
        shapes = {name: (files.DTYPES[one.get_dtype()], tuple(one.get_shape())) for name, one in slices.items()}

    def read(name: str) -> Tensor:
        with files.opened(path) as (file, _):
            return file.get_tensor(name)

    return shapes, read
