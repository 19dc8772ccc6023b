"""A small `UNet2DModel` of diffusers, trained on handwritten digits and saved as a pipeline of diffusers.

`python bench/train_digits_unet2d.py --out FOLDER --steps N`; the same steps give the same bytes.
"""

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before NumPy is loaded

import argparse
import tempfile
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor

from laqfi.base.pictures import from_uint8
from laqfi.base.random import derive_seed
from laqfi.data.datasets import load
from laqfi.diffusion.params import Train
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.diffusion.training import Trainer, train
from laqfi.stages.command import limit_threads

CONFIG = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 16,
    "norm_num_groups": 4,
}
SCHEDULE = {"beta_start": 0.0001, "beta_end": 0.02}
TIMESTEPS = 1000


# With as few layers as there can be.
SMALLEST = {
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "block_out_channels": (8,),
    "attention_head_dim": 8,
}


class CountedFromOne(UNet2DModel):
    """The network called as model(x, timestep), with timesteps that begin at 1 instead of 0."""

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return super().forward(x, timestep - 1, return_dict=False)[0]


def trained(steps: int, **other) -> DDPMPipeline:
    """The pipeline after so many steps of 64 digits; its weights are the average of the training's.

    `other` settings than those of `CONFIG` may be given.
    """
    config = CONFIG | other
    torch.manual_seed(derive_seed("digits", "unet2d"))
    images = from_uint8(load("digits", {})["train_images"])
    how = Train(
        steps=steps, batch_size=64, lr=0.002, warmup=min(100, steps), beta2=0.999, ema=0.995, grad_clip=1, seed=0
    )
    trainer = Trainer(CountedFromOne(**config), linear_alphas_cumprod(TIMESTEPS, **SCHEDULE), how)
    with tempfile.TemporaryDirectory() as folder:
        train(trainer, images, Path(folder) / "resume.safetensors")
    unet = UNet2DModel(**config)
    unet.load_state_dict(trainer.ema)
    scheduler = DDPMScheduler(num_train_timesteps=TIMESTEPS, beta_schedule="linear", **SCHEDULE)
    return DDPMPipeline(unet.eval(), scheduler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    limit_threads(1)
    trained(arguments.steps).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
