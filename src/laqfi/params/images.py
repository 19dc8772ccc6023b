"""The user's own images as they are recorded, and whether the settings of a profile fit them."""

import math

from pydantic import ValidationError

from laqfi.base import npz
from laqfi.base.errors import LaqfiError, first_line
from laqfi.data import datasets
from laqfi.data.folder import ImageFolder
from laqfi.data.params import Dataset
from laqfi.models import families
from laqfi.params.folders import Recorded, entry
from laqfi.quality.classifier import check_classes
from laqfi.quality.params import Features


def recorded_images(dataset: Dataset, recorded: Recorded | None) -> ImageFolder | None:
    """What is recorded of a data set's folder, None for one that has no folder. Raises LaqfiError as `entry` does."""
    if dataset.name != "folder":
        return None
    path = dataset.model_extra["path"]
    try:
        return ImageFolder.model_validate(dict(entry(recorded, path, "dataset.path")))
    except ValidationError as error:
        raise LaqfiError(f"workflow/folders.yaml: {first_line(error, path)}; `make folders` writes it") from error


def settled(dataset: Dataset, recorded: Recorded | None) -> Dataset:
    """With the hash of its folder, and the channels of its images. Raises LaqfiError for images that do not fit."""
    if (found := recorded_images(dataset, recorded)) is None:
        return dataset
    options = dataset.model_extra
    if options["sha256"] not in (None, found.sha256):
        raise LaqfiError(f"dataset.sha256 is {options['sha256']}, allowed is that of {options['path']}: {found.sha256}")
    if found.shortest < options["side"]:
        raise LaqfiError(
            f"dataset.side is {options['side']}, allowed is up to {found.shortest}, the shortest side of an image in"
            f" {options['path']}"
        )
    channels = options["channels"] or found.channels
    if channels is None:
        raise LaqfiError(
            f"dataset.channels: found none, allowed is 1 or 3: {found.grey} images in {options['path']} are grey,"
            f" {found.colour} are not"
        )
    return dataset.model_copy(update={"sha256": found.sha256, "channels": channels})


def counts(dataset: Dataset, recorded: Recorded | None) -> tuple[int, int]:
    """Training and test images."""
    found = recorded_images(dataset, recorded)
    return datasets.IMAGES[dataset.name] if found is None else (found.train, found.test)


def check_networks(dataset: Dataset, model: families.Settings, features: Features, recorded: Recorded | None) -> None:
    """Raises LaqfiError if the model cannot take the images, or the classifier that judges it those of a folder."""
    found, options = recorded_images(dataset, recorded), dataset.model_extra
    if found is None:
        check_image(model, datasets.SHAPES[dataset.name], f"dataset.name: {dataset.name}: ")
        return
    shape = options["channels"], options["side"], options["side"]
    if (size := found.files * math.prod(shape)) > npz.LIMIT:
        raise LaqfiError(f"dataset: {found.files} images {shape} are {size:,} bytes, allowed are {npz.LIMIT:,}")
    check_image(model, shape, "dataset.side: ")
    if features.network == "classifier":
        check_classes(found.labels, options["side"])


def check_image(model: families.Settings, shape: tuple[int, int, int], where: str) -> None:
    try:
        families.check_image(model, shape)
    except ValueError as error:
        raise LaqfiError(f"{where}{error}") from error
