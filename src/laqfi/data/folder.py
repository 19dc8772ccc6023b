"""A folder of one's own images: which files count, what they show, and which are held out."""

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from laqfi.base import files, folders
from laqfi.base.block import Block
from laqfi.base.errors import LaqfiError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
FORMATS = ("PNG", "JPEG", "WEBP")
KINDS = {"1": "grey", "L": "grey", "LA": "grey", "P": "colour", "RGB": "colour", "RGBA": "colour"}  # by Pillow's mode
MODES = {1: "L", 3: "RGB"}
PNG_DEPTH = 24  # where a PNG says how many bits a channel has
HELD_OUT = 5  # one image of so many is for testing
# All that Pillow was seen to raise on damaged files.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, OverflowError, TypeError, KeyError, IndexError, MemoryError)
BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


class ImageFolder(Block):
    """What is recorded of a folder: params.yaml is checked against it.

    `labels` is how many there are, 0 for images without; `shortest` the shortest side of all images, in pixels.
    """

    sha256: str
    files: int
    train: int
    test: int
    labels: int
    grey: int
    colour: int
    shortest: int

    @property
    def channels(self) -> int | None:
        """Of the images as they are; None for grey ones among coloured ones."""
        return None if self.grey and self.colour else 1 if self.grey else 3


def listed(folder: Path) -> ImageFolder:
    """What is recorded of a folder; of every image the header is read.

    Raises LaqfiError for what `folders.hashes` and `opened` refuse, images at other depths than one, or too few for one
    to be held out.
    """
    found = folders.hashes(folder, SUFFIXES)
    labels = labels_of(folder, found)
    kinds, sides = Counter(), []
    for name, sha256 in found.items():
        with opened(folder / name, sha256) as image:
            kinds[KINDS[image.mode]] += 1
            sides.append(min(image.size))
    test = sum(map(is_held_out, found.values()))
    if not 0 < test < len(found):
        raise LaqfiError(f"{folder}: of {len(found)} images {test} are held out, allowed is at least one for each part")
    return ImageFolder(
        sha256=folders.digest(found),
        files=len(found),
        train=len(found) - test,
        test=test,
        labels=len(set(labels.values())) if labels else 0,
        grey=kinds["grey"],
        colour=kinds["colour"],
        shortest=min(sides),
    )


def is_held_out(sha256: str) -> bool:
    """By the image's own hash: neither its name nor the other images decide, and equal files are on the same side."""
    return int(sha256[:8], 16) % HELD_OUT == 0


def labels_of(folder: Path, names: Collection[str]) -> dict[str, int]:
    """The label of every file: the place of its sub-folder's name among all, sorted. Empty if there are not two."""
    depths = {name.count("/"): name for name in names}
    if depths.keys() not in ({0}, {1}):
        raise LaqfiError(
            f"{folder}: holds images as {' and '.join(sorted(depths.values()))}, allowed is all in the folder itself,"
            " or all in its sub-folders, which are their labels"
        )
    labels = {label: place for place, label in enumerate(sorted({name.rpartition("/")[0] for name in names}))}
    return {name: labels[name.rpartition("/")[0]] for name in names} if len(labels) > 1 else {}


def read(
    folder: Path,
    side: int,
    channels: int | None = None,
    sha256: str | None = None,
    most: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """`train_images`, `test_images` uint8 [N, C, side, side], and labels int64 [N] where there are any.

    In the order of the files' hashes; of each part only the first, if `most` says how many at most. Raises LaqfiError
    as `listed` does, for a folder that is not the one `sha256` was made of, for an image that is smaller or damaged,
    and without `channels` for grey images among coloured ones.
    """
    found = folders.hashes(folder, SUFFIXES)
    if sha256:
        folders.check(folder, found, sha256)
    channels = channels or listed(folder).channels
    if channels is None:
        raise LaqfiError(f"{folder}: some images are grey and some are not; allowed is one kind, or `channels`: 1 or 3")
    labels = labels_of(folder, found)
    order = sorted(found, key=lambda name: (found[name], name))
    if most is not None:
        order = [name for part in zip((False, True), most, strict=True) for name in first(order, found, *part)]
    images = np.empty((len(order), channels, side, side), np.uint8)
    for name, place in zip(order, images, strict=True):
        with opened(folder / name, found[name]) as image:
            if min(image.size) < side:
                raise LaqfiError(f"{folder / name}: is {image.width} x {image.height}, allowed is {side} and more")
            place[:] = pixels(image, side, channels)
    test = np.array([is_held_out(found[name]) for name in order])
    arrays = {"train_images": images[~test], "test_images": images[test]}
    if labels:
        given = np.array([labels[name] for name in order], np.int64)
        arrays |= {"train_labels": given[~test], "test_labels": given[test]}
    return arrays


def first(order: list[str], found: Mapping[str, str], held_out: bool, count: int) -> list[str]:
    """So many of the files, by their hashes, that are held out or not."""
    return [name for name in order if is_held_out(found[name]) == held_out][:count]


@contextmanager
def opened(path: Path, sha256: str) -> Iterator[Image.Image]:
    """The image in a file, by its content, whatever its suffix; of several photographs in one JPEG the first.

    Raises LaqfiError, also for what the block inside meets, if the file is not the one with this hash or is damaged,
    and for what 8 bits of grey or RGB would not show as it is: 16 bits, CMYK, more pictures than one.
    """
    payload = files.read_bytes(path)
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise LaqfiError(f"{path}: was changed while the folder was read; run again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(payload), formats=FORMATS)
        bits = 16 if image.format == "PNG" and payload[PNG_DEPTH] == 16 else 8
        if image.mode not in KINDS or bits == 16:
            found = "16 bits a channel" if bits == 16 else image.mode
            raise LaqfiError(f"{path}: is {found}, allowed is grey, palette or RGB of up to 8 bits, with alpha or not")
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise LaqfiError(f"{path}: holds {image.n_frames} pictures, allowed is one that does not move")
        yield image
    except BOMBS as error:
        raise LaqfiError(f"{path}: holds more pixels than the {Image.MAX_IMAGE_PIXELS:,} that are allowed") from error
    except UNREADABLE as error:
        raise LaqfiError(f"{path}: not a readable PNG, JPEG or WebP file ({' '.join(str(error).split())})") from error


def pixels(image: Image.Image, side: int, channels: int) -> np.ndarray:
    """uint8 [C, side, side]: turned as its EXIF data say, on white where it is transparent, of that the centre square,
    resized by Pillow's bicubic filter, which averages where it shrinks (Parmar et al. 2022, On Aliased Resizing).

    Colour becomes grey by ITU-R 601-2, grey three equal channels; colour profiles are not applied.
    """
    edge = min(image.size)
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    square = image.convert(MODES[channels]).crop((left, top, left + edge, top + edge))
    resized = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))
    return resized.reshape(side, side, channels).transpose(2, 0, 1)
