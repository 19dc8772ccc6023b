"""The networks of the head to head, and what everything that is made of them is measured by."""

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.pictures import from_uint8
from laqfi.diffusion.process import Denoiser, linear_alphas_cumprod, noise_error
from laqfi.quality.judge import Judge
from laqfi.sampling.drawing import draw_images
from laqfi.sampling.params import Drawing
from laqfi.storage.model_file import read_model
from train_digits_unet2d import SCHEDULE, TIMESTEPS, network_in, trained

MEASURED = [1, 2, 5, 10, 25, 50, 100, 200, 400, 600, 800, 1000]  # as the profile `quick` does
HOW = Drawing(sampler="ddim", steps=20, eta=0.0, clip=True, seeds=[0, 1, 2], batch_size=180)
TIMED, REPEATS = HOW.model_copy(update={"seeds": [0], "steps": 5}), 5


@dataclass
class Subject:
    """A network in FP32, called as model(x, timestep), and what everything is measured with.

    `source`: the folder of diffusers that it came from, None for the U-Net of laqfi.
    """

    title: str
    model: nn.Module
    alphas_cumprod: Tensor
    judge: Judge
    train_images: Tensor
    test_images: Tensor
    images: int
    source: Path | None = None
    base_images: np.ndarray = field(init=False)

    def __post_init__(self):
        self.base_images = self.draw(self.model)

    def draw(self, denoiser: Denoiser, how: Drawing = HOW) -> np.ndarray:
        shape = tuple(self.train_images.shape[1:])
        return draw_images(denoiser, self.alphas_cumprod, shape, how, self.images, progress=False)

    def rated(self, denoiser: Denoiser) -> dict:
        """Time of drawing by that of FP32, the error of the predicted noise, and the quality of the images."""
        errors = noise_error(denoiser, self.model, self.test_images, self.alphas_cumprod, MEASURED, 0)
        quality = self.judge.quality(self.draw(denoiser), self.base_images)
        return {
            "times_fp32": self.times_fp32(denoiser),
            "noise_mse": sum(errors.values()) / len(errors),
            "quality": quality,
        }

    def times_fp32(self, denoiser: Denoiser) -> float:
        """Median of a few runs, each beside one of FP32, so that another load slows both."""
        ratios = []
        for _ in range(REPEATS):
            seconds = []
            for one in (denoiser, self.model):
                start = time.perf_counter()
                self.draw(one, TIMED)
                seconds.append(time.perf_counter() - start)
            ratios.append(seconds[0] / seconds[1])
        return statistics.median(ratios)


def subjects(data: Path, folder: Path, images: int, steps: int) -> list[Subject]:
    """The U-Net of the profile `quick`, and one of diffusers, on the same digits."""
    arrays = files.read_arrays(data / "dataset.npz", "train_images", "test_images")
    judge = Judge(data / "features.safetensors", data / "reference.npz", groups=20)
    shown = from_uint8(arrays["train_images"]), from_uint8(arrays["test_images"][:128])
    quick, alphas_cumprod, _ = read_model(data / "model.safetensors", torch.device("cpu"))
    trained(steps).save_pretrained(folder / "source")
    unet = network_in(folder / "source/unet")
    linear = linear_alphas_cumprod(TIMESTEPS, **SCHEDULE)
    return [
        Subject("quick", quick, alphas_cumprod, judge, *shown, images),
        Subject("UNet2DModel", unet, linear, judge, *shown, images, folder / "source"),
    ]
