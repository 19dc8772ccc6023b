"""Arrays to and from the bytes of an npz file.

Every header is checked before memory is taken; nothing is pickled or unpickled.
"""

import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping

import numpy as np

# All that NumPy and zipfile were seen to raise on damaged archives.
UNREADABLE = (ValueError, EOFError, OSError, RuntimeError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error)
LIMIT = 4 << 30  # bytes of a file, and of the arrays read from it
EXPANSION = 1032  # bytes that DEFLATE makes of one at most: a small file cannot ask for much memory
# The only .npy header that files.write_arrays makes: version 1.0, a plain number type, C order.
NPY = re.compile(
    rb"\x93NUMPY\x01\x00(?s:..){'descr': '([<|][buif][1248])', 'fortran_order': False, 'shape': \(([\d, ]*)\), } *\n"
)
# Dtype and sizes of the arrays that stages hand to each other; a letter is one size throughout a file.
ARRAYS = {
    "train_images": ("uint8", "N C H H"),
    "train_labels": ("int64", "N"),
    "test_images": ("uint8", "M C H H"),
    "test_labels": ("int64", "M"),
    "images": ("uint8", "S I C H H"),
    "mean": ("float64", "D"),
    "covariance": ("float64", "D D"),
    "again_mean": ("float64", "E"),
    "again_covariance": ("float64", "E E"),
    "kid_features": ("float32", "K D"),
    "kid_within": ("float64", "W"),
}


def archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as an npz whose bytes follow from them alone. Raises ValueError for arrays of objects.

    Not compressed: the bytes that DEFLATE makes differ between the zlib and the zlib-ng a Python was built with. Every
    field of a member's header is fixed, because `numpy.savez` leaves some to zipfile, where Python versions differ.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            member.create_system, member.external_attr = 3, 0o600 << 16
            payload = io.BytesIO()
            np.lib.format.write_array(payload, np.asarray(array, order="C"), allow_pickle=False)
            file.writestr(member, payload.getbuffer())
    return buffer.getvalue()


def parse(payload: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays. Raises KeyError for a missing one, one of UNREADABLE if the archive is not whole and plain."""
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("two members have one name")
        if missing := [name for name in names if f"{name}.npy" not in members]:
            raise KeyError(missing[0])
        wanted = {name: members[f"{name}.npy"] for name in names}
        if sum(member.file_size for member in wanted.values()) > min(LIMIT, EXPANSION * len(payload)):
            raise ValueError("its members declare more bytes than can be in it")
        return {name: read_member(archive, member, name, sizes) for name, member in wanted.items()}


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, sizes: dict[str, int]) -> np.ndarray:
    """One array of an npz file; ValueError and others of UNREADABLE if it is not as declared."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} has a compression other than DEFLATE")
    with archive.open(member) as file:
        start = file.read(10)
        start += file.read(int.from_bytes(start[8:], "little"))
        header = NPY.fullmatch(start)
        if not header:
            raise ValueError(f"{name} does not begin like a plain array")
        dtype = np.dtype(header[1].decode())
        shape = tuple(int(size) for size in header[2].split(b",") if size)
        check_declared(name, dtype, shape, sizes)
        if len(start) + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{name} is {dtype} {shape}, which is not its {member.file_size:,} bytes")
        array = np.frombuffer(bytearray(file.read()), dtype).reshape(shape)  # read to its end: zipfile checks its CRC
    if name in ARRAYS and not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def check_declared(name: str, dtype: np.dtype, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    """ValueError if an array of `ARRAYS` has another dtype or shape; `sizes` collects what its letters stand for."""
    wanted, letters = ARRAYS.get(name, (dtype.name, ""))
    axes = letters.split() or [f"{name} {axis}" for axis in range(len(shape))]
    fits = len(shape) == len(axes) and all(
        sizes.setdefault(axis, size) == size and (size > 0 or not letters)
        for axis, size in zip(axes, shape, strict=True)
    )
    if dtype.name != wanted or not fits:
        raise ValueError(f"{name} is {dtype} {shape}, allowed is {wanted} [{', '.join(axes)}], {sizes or 'any sizes'}")
