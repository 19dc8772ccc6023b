"""MNIST and its kin, fetched by torchvision and laid on a larger canvas."""

import hashlib
import os
import shutil
import tempfile
from http.client import HTTPException
from pathlib import Path

import numpy as np
from torchvision import datasets

from laqfi.base.errors import LaqfiError
from laqfi.data.mirror import MIRROR, folder_of, urls


def arrays(name: str, side: int) -> dict[str, np.ndarray]:
    """Of a class of torchvision, fetched from the folder or URL in LAQFI_DATA_MIRROR first.

    Images in the middle of a canvas, uint8 [N, 1, side, side], and labels int64 [N]. Raises LaqfiError if a checksum
    differs.
    """
    with tempfile.TemporaryDirectory() as folder:
        train, test = download(getattr(datasets, name), Path(folder))
    return {
        "train_images": pad(train.data.numpy(), side),
        "train_labels": train.targets.numpy(),
        "test_images": pad(test.data.numpy(), side),
        "test_labels": test.targets.numpy(),
    }


def pad(images: np.ndarray, side: int) -> np.ndarray:
    """[N, H, W] centred on the canvas, [N, 1, side, side]."""
    margin = (side - images.shape[-1]) // 2
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin)))[:, None]


def download(source: type[datasets.MNIST], folder: Path) -> tuple[datasets.MNIST, datasets.MNIST]:
    """Training and test set, fetched by torchvision and checked against its MD5 sums."""
    mirror = os.environ.get(MIRROR, "")
    # The class keeps its name, from which torchvision derives the folder of the raw files.
    mirrored = type(source.__name__, (source,), {"mirrors": [*urls(mirror), *source.mirrors]})
    try:
        if mirror and not urls(mirror):
            copy_files(source, folder_of(mirror), folder)
        return mirrored(folder, train=True, download=True), mirrored(folder, train=False, download=True)
    except (OSError, RuntimeError, EOFError, ValueError, HTTPException) as error:
        hint = f"{MIRROR}={mirror!r}" if mirror else f"set {MIRROR}"
        raise LaqfiError(
            f"dataset: {source.__name__} could not be fetched ({' '.join(str(error).split())});"
            f" {hint}: allowed is a folder or URL that holds {', '.join(file for file, _ in source.resources)}"
        ) from error


def copy_files(source: type[datasets.MNIST], mirror: Path, folder: Path) -> None:
    """Lay the files of a mirror folder where torchvision looks before it downloads; what is missing it downloads.

    Raises LaqfiError for a file whose checksum differs, so that a damaged mirror is never passed over.
    """
    raw = folder / source.__name__ / "raw"
    raw.mkdir(parents=True)
    for name, md5 in source.resources:
        if (mirror / name).is_file():
            found = hashlib.md5((mirror / name).read_bytes(), usedforsecurity=False).hexdigest()
            if found != md5:
                raise LaqfiError(f"{mirror / name}: MD5 is {found}, allowed is {md5}")
            shutil.copyfile(mirror / name, raw / name)
