"""The whole of `laqfi quantize`: from a folder that diffusers wrote to a smaller one, and what that cost."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from laqfi import api
from laqfi.base.device import default_device, deterministic
from laqfi.base.errors import LaqfiError, first_line
from laqfi.base.pictures import from_uint8
from laqfi.data import folder as pictures
from laqfi.diffusion.process import noise_error
from laqfi.models import conditioning, diffusers_unet, pretrained, scheduler
from laqfi.models.diffusers_unet import Diffusers
from laqfi.quality.fidelity import Median, median, psnr, squared_errors
from laqfi.quant.apply import as_file
from laqfi.sampling.drawing import draw_images
from laqfi.sampling.params import Drawing
from laqfi.storage.described import described, header
from laqfi.storage.exported import export_folder, frame_of_folder, sizes_in
from laqfi.storage.model_file import model_of

HELD_OUT = 16  # images that the predicted noise is compared on
PIXELS = 16 * 32 * 32  # at a time, where `chunk` is not given
LARGEST = torch.finfo(torch.float16).max
FEWEST = 6  # images whose median has an interval


@dataclass(frozen=True)
class Asked:
    """What the command line says. `draw`: images to compare, in `steps` steps of the model's own scheduler."""

    folder: Path
    target: str
    data: Path
    out: Path
    scheduler: Path | None = None
    class_label: int | None = None
    embeddings: Path | None = None
    images: int = 64
    draw: int = 16
    steps: int = 50
    chunk: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Cost:
    """What became smaller, and how far the noise and the images moved.

    parameters: how many. bytes: of all tensors as they are written. file_before, file_after: bytes of the files of
    weights. noise_mse: mean squared change of the predicted noise. psnr: of the median image, in dB. seconds: by part.
    """

    parameters: int
    bytes: int
    file_before: int
    file_after: int
    noise_mse: float
    psnr: Median
    seconds: dict[str, float]


def quantize_folder(asked: Asked) -> Cost:
    """Write the folder `asked.out`. Raises LaqfiError, before any work, for what cannot be done."""
    seconds: dict[str, float] = {}
    settings = settings_of(asked)
    image = diffusers_unet.image_of(settings)
    about = header(settings, None, image)
    sizes = sizes_in(outline := described(about, asked.folder)[0])
    check(asked, settings, image)
    api.check_target(outline, asked.target, sizes)
    with timed(seconds, "reading"):
        train, held_out = images_of(asked, image)
        weights = diffusers_unet.weights(settings, asked.folder, image)
        check_sizes(asked.folder, weights)
        given = {} if asked.embeddings is None else diffusers_unet.given(settings, asked.embeddings)
    base, alphas_cumprod, _ = model_of(weights | given, about, asked.folder, default_device())

    with timed(seconds, "measuring"), deterministic(default_device()):
        chunk = asked.chunk or max(1, min(16, PIXELS // (image[1] * image[2])))
        measured = api.measure(base, train, alphas_cumprod, chunk=chunk, seed=asked.seed)
    with timed(seconds, "quantizing"):
        stored = api.quantize(base, measured, asked.target, sizes=sizes)
        tensors, metadata = as_file(stored, about, given)
        packed, _, _ = model_of(tensors, metadata, asked.folder, default_device())
    with timed(seconds, "comparing"):
        timesteps = api.spread(len(alphas_cumprod) - 1)
        errors = noise_error(packed, base, held_out, alphas_cumprod, timesteps, asked.seed)
        drawn = [draw(network, alphas_cumprod, settings, asked) for network in (packed, base)]

    export_folder(frame_of_folder(asked.folder), tensors, metadata, asked.out, asked.folder)
    return Cost(
        parameters=sum(tensor.numel() for tensor in weights.values()),
        bytes=sum(sizes(name, one.layout) for name, one in stored.items()),
        file_before=files_size(asked.folder),
        file_after=files_size(asked.out),
        noise_mse=sum(errors.values()) / len(errors),
        psnr=median(psnr(squared_errors(*drawn).ravel(), math.prod(image))),
        seconds=seconds,
    )


def settings_of(asked: Asked) -> Diffusers:
    """The network and scheduler in the folder. Raises LaqfiError if they are none that can be taken."""
    found = pretrained.listed(asked.folder)
    if (found.scheduler is None) == (asked.scheduler is None):
        word = "none, as the folder has its own" if asked.scheduler else "the config of one, as the folder has none"
        raise LaqfiError(f"--scheduler: allowed is {word}: {asked.folder}")
    config = found.scheduler or pretrained.without_a_past(pretrained.read_config(asked.scheduler))
    try:
        return Diffusers(
            family="diffusers",
            sha256=found.sha256,
            unet=found.unet,
            scheduler=config,
            class_label=asked.class_label,
            embeddings=None if asked.embeddings is None else conditioning.listed(asked.embeddings),
        )
    except ValidationError as error:
        raise LaqfiError(f"{asked.folder}: {first_line(error)}") from error


def check(asked: Asked, settings: Diffusers, image: tuple[int, int, int]) -> None:
    """Raises LaqfiError for images of another kind, steps that cannot be made, and a folder that cannot be written."""
    channels, height, width = image
    if channels not in pictures.MODES or height != width:
        raise LaqfiError(f"{asked.folder}: is for images {image}, allowed are squares of 1 or 3 channels")
    try:
        scheduler.timesteps(settings.scheduler, asked.steps)
    except ValueError as error:
        raise LaqfiError(f"--{error}") from error
    if asked.draw < FEWEST:
        raise LaqfiError(f"--draw: found {asked.draw}, allowed is {FEWEST} and more: fewer have no interval")
    try:
        check_place(asked.out)
    except OSError as error:
        raise LaqfiError(f"{asked.out}: cannot be written ({error.strerror})") from error


def check_sizes(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Raises LaqfiError, with the name, for weights beyond float16, in which scales and norms are."""
    for name, weight in weights.items():
        if (found := weight.abs().max().item()) > LARGEST:
            raise LaqfiError(f"{folder}: {name} holds {found:g}, allowed is up to {LARGEST:g}, as float16 does")


def check_place(out: Path) -> None:
    """Raises LaqfiError for a folder that is there and not empty, OSError for one that cannot be made."""
    if out.is_file() or (out.is_symlink() and not out.exists()) or (out.is_dir() and any(out.iterdir())):
        raise LaqfiError(f"{out}: is there already, allowed is a new or an empty folder")
    with TemporaryDirectory(dir=next(place for place in out.absolute().parents if place.exists())):
        pass  # what permissions promise is not always so


def images_of(asked: Asked, image: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Images to measure on and held-out ones, float32 [N, C, H, W] in [-1, 1]. Raises LaqfiError if there are none."""
    found = pictures.read(asked.data, image[1], image[0], most=(asked.images, HELD_OUT))
    for part, kind, least in (("train_images", "to measure on", 2), ("test_images", "held out", 1)):
        if (count := len(found[part])) < least:
            raise LaqfiError(f"{asked.data}: {count} images are {kind}, allowed are {least} and more: add some")
    return from_uint8(found["train_images"]), from_uint8(found["test_images"])


def draw(network: nn.Module, alphas_cumprod: Tensor, settings: Diffusers, asked: Asked) -> np.ndarray:
    """uint8 [1, N, C, H, W], of the same noise for every network."""
    image = diffusers_unet.image_of(settings)
    batch = max(1, PIXELS // (image[1] * image[2]))
    how = Drawing(sampler="scheduler", steps=asked.steps, seeds=[asked.seed], batch_size=batch)
    return draw_images(network, alphas_cumprod, image, how, asked.draw, settings.scheduler)


@contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if default_device().type == "cuda":
        torch.cuda.synchronize()
    seconds[part] = time.perf_counter() - start


def files_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in pretrained.weight_files(folder))
