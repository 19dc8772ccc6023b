"""Read and write artefacts: safetensors, npz, JSON and text, byte-stable and atomic; nothing is unpickled."""

import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from laqfi.errors import LaqfiError

# All that NumPy and zipfile were seen to raise on damaged archives.
UNREADABLE = (ValueError, EOFError, OSError, RuntimeError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error)


def write_bytes(path: Path, payload: bytes) -> None:
    """Write `payload` so that `path` either holds all of it or is untouched."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value) -> None:
    """Sorted JSON; NaN and infinity are refused (ValueError), JSON has no word for them."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """An npz; NumPy stamps every member with the same fixed date, so equal arrays are equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{k: np.asarray(v, order="C") for k, v in arrays.items()})
    write_bytes(path, buffer.getvalue())


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping | None = None) -> None:
    """A safetensors file; `metadata` is a JSON object.

    It goes into one header entry, because safetensors writes several in random order.
    """
    header = {"laqfi": json.dumps(metadata or {}, sort_keys=True, allow_nan=False)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, header))


def read_bytes(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise LaqfiError(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: Path):
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise LaqfiError(f"{path}: not valid JSON ({error})") from error


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The named arrays of an npz file. Raises LaqfiError for anything that is not a whole, plain npz with them."""
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names}
    except KeyError as error:
        raise LaqfiError(f"{path}: holds no array {error.args[0]!r}") from error
    except UNREADABLE as error:
        raise LaqfiError(f"{path}: not a readable npz file ({' '.join(str(error).split())})") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise LaqfiError(f"{path}: {name} is not an array")
    return arrays


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of an npz file; errors as in `read_arrays`."""
    return read_arrays(path, name)[name]


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and metadata of a safetensors file. Raises LaqfiError if it is missing or damaged."""
    if not Path(path).is_file():
        raise LaqfiError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("laqfi", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise LaqfiError(f"{path}: not a readable safetensors file ({error})") from error


def sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()
