"""Image sets as uint8 arrays on the canvas the model works on, which is the only canvas anything is measured on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from laqfi.base.errors import LaqfiError, first_line
from laqfi.base.registry import Registry
from laqfi.data import cifar
from laqfi.data import folder as images_of

CANVAS = 32  # the U-Net halves the image three times: 28 x 28 is padded with its background
HELD_OUT = 360  # digits kept for testing, a fifth of the 1,797

Arrays = dict[str, np.ndarray]
# A data set's keyword-only parameters are what the block `dataset` of params.yaml may say beside its name.
DATASETS: Registry = Registry()
# Training and test images, and what one is [C, H, W], by name: params.yaml is checked against them. Those of a folder
# are recorded with it.
IMAGES: dict[str, tuple[int, int]] = {}
SHAPES: dict[str, tuple[int, int, int]] = {}


def data_set(
    train: int, test: int, image: tuple[int, int, int]
) -> Callable[[Callable[..., Arrays]], Callable[..., Arrays]]:
    """Register a function under its name, with how many images [C, H, W] it gives."""

    def register(function: Callable[..., Arrays]) -> Callable[..., Arrays]:
        IMAGES[function.__name__], SHAPES[function.__name__] = (train, test), image
        return DATASETS(function)

    return register


def check(name: str, options: Mapping) -> BaseModel:
    """The options of a data set, checked, defaults filled in. Raises LaqfiError for others, or an unknown name."""
    try:
        return DATASETS.check(name, options)
    except ValidationError as error:
        raise LaqfiError(first_line(error, "dataset")) from error
    except LaqfiError as error:
        raise LaqfiError(f"dataset.name: {error}") from error


def load(name: str, options: Mapping) -> Arrays:
    """`train_images`, `test_images` uint8 [N, C, H, W]; `train_labels`, `test_labels` int64 [N] where there are any.

    Raises LaqfiError as `check` does, and if the data cannot be had.
    """
    checked = check(name, options)
    found = DATASETS[name](**dict(checked))
    counts = len(found["train_images"]), len(found["test_images"])
    if counts != IMAGES.get(name, counts):
        raise LaqfiError(f"dataset: {name} gives {counts} training and test images, it says {IMAGES[name]}")
    shape = found["train_images"].shape[1:]
    if shape != SHAPES.get(name, shape):
        raise LaqfiError(f"dataset: {name} gives images {shape}, it says {SHAPES[name]}")
    return found


@data_set(train=1437, test=360, image=(1, 8, 8))
def digits() -> Arrays:
    """The 1,797 digits of scikit-learn at their own 8 x 8, intensities 0..16 stretched to 0..255."""
    from sklearn.datasets import load_digits  # takes seconds to load
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    split = train_test_split(
        images, bunch.target.astype(np.int64), test_size=HELD_OUT, stratify=bunch.target, random_state=0
    )
    return dict(zip(("train_images", "test_images", "train_labels", "test_labels"), split, strict=True))


@data_set(train=60_000, test=10_000, image=(1, CANVAS, CANVAS))
def mnist() -> Arrays:
    """LeCun et al. 1998, 28 x 28 on the canvas."""
    return from_torchvision("MNIST")


@data_set(train=60_000, test=10_000, image=(1, CANVAS, CANVAS))
def fashion_mnist() -> Arrays:
    """Xiao et al. 2017, likewise."""
    return from_torchvision("FashionMNIST")


@data_set(train=60_000, test=10_000, image=(1, CANVAS, CANVAS))
def kmnist() -> Arrays:
    """Clanuwat et al. 2018, likewise."""
    return from_torchvision("KMNIST")


@data_set(train=50_000, test=10_000, image=(3, 32, 32))
def cifar10() -> Arrays:
    """Krizhevsky 2009, 32 x 32 in colour."""
    return cifar.read()


@DATASETS
def folder(
    *,
    path: Annotated[str, StringConstraints(min_length=1)],
    side: Annotated[int, Field(ge=4, le=1024)],
    channels: Literal[1, 3] | None = None,
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None,
) -> Arrays:
    """The images in a folder, cut and resized to `side`; with `sha256` of no other content than that."""
    return images_of.read(Path(path).expanduser(), side, channels, sha256)


def from_torchvision(name: str) -> Arrays:
    from laqfi.data import fetched  # takes seconds to load

    return fetched.arrays(name, CANVAS)
