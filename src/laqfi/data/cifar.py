"""CIFAR-10 from its binary archive, in memory: nothing is unpickled, no file is unpacked."""

import hashlib
import io
import os
import tarfile
import urllib.request
from http.client import HTTPException

import numpy as np

from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.data.mirror import MIRROR, folder_of, urls

ARCHIVE = "cifar-10-binary.tar.gz"
SERVER = "https://www.cs.toronto.edu/~kriz/"
BYTES = 170_052_171
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
IMAGE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # label, then red, green and blue, each row by row
TIMEOUT = 60  # seconds without a byte
PARTS = {"train": [f"data_batch_{part}.bin" for part in range(1, 6)], "test": ["test_batch.bin"]}


def read() -> dict[str, np.ndarray]:
    """`train_images`, `test_images` uint8 [N, 3, 32, 32] and their labels int64 [N].

    Raises LaqfiError if the archive cannot be had, or is another one than the published.
    """
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive()), mode="r:gz") as tar:
            for part, members in PARTS.items():
                payload = b"".join(tar.extractfile(f"cifar-10-batches-bin/{name}").read() for name in members)
                records = np.frombuffer(payload, np.uint8).reshape(-1, RECORD)
                found[f"{part}_images"] = records[:, 1:].reshape(-1, *IMAGE)
                found[f"{part}_labels"] = records[:, 0].astype(np.int64)
    except (tarfile.TarError, OSError, EOFError, KeyError, AttributeError, ValueError) as error:
        raise LaqfiError(f"{ARCHIVE}: not CIFAR-10's binary records ({' '.join(str(error).split())})") from error
    return found


def archive() -> bytes:
    """The bytes of the archive, checked: from the folder or URL in LAQFI_DATA_MIRROR first, then from its server.

    Raises LaqfiError if it cannot be had; one of a mirror with another checksum is never passed over.
    """
    mirror = os.environ.get(MIRROR, "")
    servers = urls(mirror)
    if mirror and not servers and (path := folder_of(mirror) / ARCHIVE).is_file():
        return checked(files.read_bytes(path, BYTES), str(path))
    refusals = []
    for server in (*servers, SERVER):
        try:
            with urllib.request.urlopen(server + ARCHIVE, timeout=TIMEOUT) as answer:
                return checked(answer.read(BYTES + 1), server + ARCHIVE)
        except (OSError, ValueError, HTTPException) as error:
            refusals.append(f"{server}: {' '.join(str(error).split())}")
    hint = f"{MIRROR}={mirror!r}" if mirror else f"set {MIRROR}"
    raise LaqfiError(
        f"dataset: cifar10 could not be fetched ({'; '.join(refusals)});"
        f" {hint}: allowed is a folder or URL that holds {ARCHIVE}"
    )


def checked(payload: bytes, place: str) -> bytes:
    found = hashlib.sha256(payload).hexdigest()
    if found != SHA256:
        raise LaqfiError(f"{place}: SHA-256 is {found}, allowed is {SHA256}")
    return payload
