"""Tensors that together are larger than memory should be: written to a file, and read, one at a time.

The files are those of `laqfi.base.files`, with the same seal.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from laqfi.base import files
from laqfi.base.errors import LaqfiError

Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNED = 8  # bytes of the header are a multiple of it, as the format asks


def write_tensors(path: Path, shapes: Shapes, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """The tensors of `shapes`, which come in that order; atomic, and never two of them in memory.

    What a killed run left of an earlier attempt is removed. Raises LaqfiError if the file cannot be written, ValueError
    for other tensors than announced, and for one whose bytes are no multiple of four: the next would not begin where a
    float32 can be read.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.????????"):
            left.unlink(missing_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write_sealed(file, shapes, tensors)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LaqfiError(f"{path}: cannot be written ({error.strerror})") from error


def write_sealed(file: BinaryIO, shapes: Shapes, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Header and tensors, and at last, over the zeros in the header, the digest of all other bytes."""
    start = header(shapes)
    digest = hashlib.sha256(start[: files.DIGEST.start] + start[files.DIGEST.stop :])
    file.write(start)
    for (name, wanted), (given, tensor) in zip(shapes.items(), tensors, strict=True):
        payload = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        if (given, tensor.dtype, tuple(tensor.shape)) != (name, *wanted) or len(payload) % 4:
            raise ValueError(f"{given} is {tensor.dtype} {tuple(tensor.shape)}, announced were {name} {wanted}")
        digest.update(payload)
        file.write(payload)
    file.seek(files.DIGEST.start)
    file.write(digest.hexdigest().encode())


def header(shapes: Shapes) -> bytes:
    """What stands before the numbers, with zeros for the digest."""
    found, offset = {"__metadata__": {"laqfi": "0" * 64 + "{}"}}, 0
    for name, (dtype, shape) in shapes.items():
        end = offset + dtype.itemsize * torch.Size(shape).numel()
        found[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(found, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(8, "little") + text


def open_tensors(path: Path) -> tuple[Shapes, Callable[[str], Tensor]]:
    """What a file of `write_tensors` holds, and a function that reads one of them.

    Raises LaqfiError if it is missing or damaged, of which all bytes are looked at first.
    """
    files.check_seal(path)
    try:
        file = safe_open(path, framework="pt")
        if (metadata := files.parse_json(file.metadata()["laqfi"][64:])) != {}:
            raise ValueError(f"the metadata is {metadata!r:.80}, allowed is an empty object")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
        shapes = {name: (DTYPES[one.get_dtype()], tuple(one.get_shape())) for name, one in slices.items()}
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise LaqfiError(f"{path}: not a readable safetensors file ({' '.join(str(error).split())})") from error
    return shapes, file.get_tensor
