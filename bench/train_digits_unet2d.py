"""A small `UNet2DModel` of diffusers, trained on handwritten digits and saved as a pipeline of diffusers.

`python bench/train_digits_unet2d.py --out FOLDER --steps N`; the same steps give the same bytes.
"""

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before NumPy is loaded

import argparse
import tempfile
from pathlib import Path

import torch
from diffusers import DDPMPipeline, UNet2DModel

from laqfi.base.pictures import from_uint8
from laqfi.base.random import derive_seed
from laqfi.data.datasets import load
from laqfi.diffusion.params import Train
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.diffusion.training import Trainer, train
from laqfi.models.diffusers_network import NoiseUNet
from laqfi.models.scheduler import make_scheduler
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
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": TIMESTEPS, "beta_schedule": "linear", **SCHEDULE}
SMALLEST = {  # with as few layers as there can be
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "block_out_channels": (8,),
    "attention_head_dim": 8,
}


def network(**other) -> NoiseUNet:
    """A new one, called as model(x, timestep) with timesteps from 1; `other` settings than those of `CONFIG`."""
    return NoiseUNet(**CONFIG | other).adapt(SCHEDULER, None)


def network_in(folder: Path) -> NoiseUNet:
    """The same from the folder of a U-Net."""
    return NoiseUNet.from_pretrained(folder).adapt(SCHEDULER, None)


def trained(steps: int, **other) -> DDPMPipeline:
    """The pipeline after so many steps of 64 digits; its weights are the average of the training's.

    `other` settings than those of `CONFIG` may be given.
    """
    torch.manual_seed(derive_seed("digits", "unet2d"))
    images = from_uint8(load("digits", {})["train_images"])
    how = Train(
        steps=steps, batch_size=64, lr=0.002, warmup=min(100, steps), beta2=0.999, ema=0.995, grad_clip=1, seed=0
    )
    trainer = Trainer(network(**other), linear_alphas_cumprod(TIMESTEPS, **SCHEDULE), how)
    with tempfile.TemporaryDirectory() as folder:
        train(trainer, images, Path(folder) / "resume.safetensors")
    unet = UNet2DModel(**CONFIG | other)
    unet.load_state_dict(trainer.ema)
    return DDPMPipeline(unet.eval(), make_scheduler(SCHEDULER))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    limit_threads(1)
    trained(arguments.steps).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
