"""Read and write artefacts: safetensors, npz, JSON and text, byte-stable and atomic; nothing is unpickled."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from laqfi.base import npz
from laqfi.base.errors import LaqfiError

JSON_LIMIT = 64 << 20  # bytes of a JSON or text file
# A safetensors file of ours begins with its header's length, these bytes, and the SHA-256 of all its other bytes.
SEAL = b'{"__metadata__":{"laqfi":"'
DIGEST = slice(8 + len(SEAL), 8 + len(SEAL) + 64)

Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]  # by the tensor's name
DTYPES = {  # by the names that they have in a safetensors file
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I32": torch.int32,
    "U8": torch.uint8,
}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to: `path` then holds all that was written, or is untouched if there was an error.

    What a killed run left of an earlier attempt is removed. Raises LaqfiError if the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.????????"):
            left.unlink(missing_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LaqfiError(f"{path}: cannot be written ({error.strerror})") from error


def write_bytes(path: Path, *parts: bytes) -> None:
    """Write `parts`, one after the other; errors as in `replacing`."""
    with replacing(path) as file:
        file.writelines(parts)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value) -> None:
    """Sorted JSON; NaN and infinity are refused (ValueError), JSON has no word for them."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """An npz that `numpy.load` reads; equal arrays are equal bytes."""
    write_bytes(path, npz.archive(arrays))


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping | None = None) -> None:
    """A safetensors file; `metadata` is a JSON object.

    It goes into one header entry, because safetensors writes several in random order. Before it stands the SHA-256 of
    the file without it: safetensors itself has no checksum, and a damaged weight looks like any other.
    """
    whole = memoryview(unsealed(tensors, metadata or {}))
    before, after = whole[: DIGEST.start], whole[DIGEST.stop :]
    digest = hashlib.sha256(before)
    digest.update(after)
    write_bytes(path, before, digest.hexdigest().encode(), after)


def unsealed(tensors: Mapping[str, torch.Tensor], metadata: Mapping) -> bytes:
    """The file of `write_tensors`, with zeros for its SHA-256."""
    told = json.dumps(metadata, sort_keys=True, allow_nan=False, separators=(",", ":"))
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, {"laqfi": "0" * 64 + told})


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """All of a file. Raises LaqfiError if it cannot be read, or is larger than `limit`, of which nothing is read."""
    try:
        if limit is not None and (found := Path(path).stat().st_size) > limit:
            raise LaqfiError(f"{path}: holds {found:,} bytes, allowed are {limit:,}")
        return Path(path).read_bytes()
    except OSError as error:
        raise LaqfiError(f"{path}: cannot be read ({error.strerror})") from error


def read_text(path: Path) -> str:
    try:
        return read_bytes(path, JSON_LIMIT).decode()
    except UnicodeDecodeError as error:
        raise LaqfiError(f"{path}: not a UTF-8 text ({error})") from error


def read_json(path: Path):
    """Raises LaqfiError for anything but JSON of finite numbers and distinct keys."""
    try:
        return parse_json(read_bytes(path, JSON_LIMIT))
    except (ValueError, RecursionError) as error:
        raise LaqfiError(f"{path}: not valid JSON ({error})") from error


def parse_json(text: str | bytes):
    """Stricter than Python's: NaN, infinity and an object with one key twice are ValueErrors."""

    def number(word: str) -> float:
        if not math.isfinite(float(word)):
            raise ValueError(f"{word} is no finite number")
        return float(word)

    def distinct(pairs: list[tuple]) -> dict:
        if len(dict(pairs)) < len(pairs):
            raise ValueError(f"a key is there twice among {[key for key, _ in pairs][:20]}")
        return dict(pairs)

    return json.loads(text, parse_float=number, parse_constant=number, object_pairs_hook=distinct)


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The named arrays of an npz file. Raises LaqfiError for anything that is not a whole, plain npz with them.

    Headers are checked before memory is taken: against the size of the file, and against `npz.ARRAYS`.
    """
    payload = read_bytes(path, npz.LIMIT)
    try:
        return npz.parse(payload, names)
    except KeyError as error:
        raise LaqfiError(f"{path}: holds no array {error.args[0]!r}") from error
    except npz.UNREADABLE as error:
        raise LaqfiError(f"{path}: not a readable npz file ({' '.join(str(error).split())})") from error


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of an npz file; errors as in `read_arrays`."""
    return read_arrays(path, name)[name]


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and metadata of a file that `write_tensors` made. Raises LaqfiError if it is missing or damaged."""
    check_seal(path)
    with opened(path) as (file, metadata):
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  it is no dictionary


@contextmanager
def opened(path: Path) -> Iterator[tuple[safe_open, dict]]:
    """A safetensors file of ours and its metadata. Raises LaqfiError for what cannot be read of it."""
    with readable(path) as file:
        metadata = parse_json(file.metadata()["laqfi"][64:])
        if not isinstance(metadata, dict):
            raise ValueError("the metadata is no object")
        yield file, metadata


@contextmanager
def readable(path: Path) -> Iterator[safe_open]:
    """A safetensors file of any program. Raises LaqfiError for what cannot be read of it while it is open."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise LaqfiError(f"{path}: not a readable safetensors file ({' '.join(str(error).split())})") from error


def check_seal(path: Path) -> None:
    """Raises LaqfiError if a safetensors file does not hold the SHA-256 of its own bytes."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(DIGEST.stop)
            digest = hashlib.sha256(start[: DIGEST.start])
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise LaqfiError(f"{path}: cannot be read ({error.strerror})") from error
    if start[8 : DIGEST.start] != SEAL:
        raise LaqfiError(f"{path}: not a safetensors file with a checksum, as laqfi.base.files.write_tensors makes it")
    if start[DIGEST] != digest.hexdigest().encode():
        raise LaqfiError(f"{path}: damaged, or changed by another program: its SHA-256 is not the one it holds")


def check_shapes(path: Path, found: Shapes, wanted: Shapes) -> None:
    """Raises LaqfiError unless there are exactly the tensors that are wanted."""
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            raise LaqfiError(f"{path}: {name} is {found.get(name)}, allowed is {wanted.get(name)}")


def check_tensors(path: Path, tensors: Mapping[str, torch.Tensor], wanted: Shapes) -> None:
    """Raises LaqfiError unless the tensors have exactly these names, dtypes and shapes, and all values are finite."""
    check_shapes(path, {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}, wanted)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise LaqfiError(f"{path}: {name} holds values that are not finite")


def sha256(path: Path) -> str:
    """Of a file of any size. Raises LaqfiError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LaqfiError(f"{path}: cannot be read ({error.strerror})") from error
