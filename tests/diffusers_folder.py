"""A pipeline of diffusers with random weights, so small that every stage takes seconds."""

import copy
import sys
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

import laqfi
from laqfi.api import Measured

SCHEDULE = {"num_train_timesteps": 100, "beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.1}
SMALL = {  # for digits: 8 x 8 with one channel
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
PLAIN = SMALL | {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
CONDITIONAL = SMALL | {  # given embeddings of width 6 by cross-attention
    "cross_attention_dim": 6,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def small_unet(**settings) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(**PLAIN | settings).eval()


def small_conditional(**settings) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**CONDITIONAL | settings).eval()


def packed_copy(unet: nn.Module, measured: Measured, path: Path) -> nn.Module:
    """The network at a quarter of its bytes, by way of a file."""
    laqfi.save(laqfi.quantize(unet, measured, "4x"), path)
    packed = copy.deepcopy(unet)
    laqfi.load(packed, path)
    return packed


def embeddings(*shape: int) -> Tensor:
    """Standard normal, three tokens where no shape is named."""
    return torch.randn(shape or (3, 6), generator=torch.Generator().manual_seed(1))


def write_embeddings(path: Path, found: Tensor | None = None, **others: Tensor) -> Path:
    save_file({"encoder_hidden_states": embeddings() if found is None else found} | others, path)
    return path


def write_folder(folder: Path, unet: UNet2DModel | UNet2DConditionModel | None = None, scheduler=None) -> Path:
    scheduler = DDIMScheduler(**SCHEDULE) if scheduler is None else scheduler
    DDPMPipeline(unet or small_unet(), scheduler).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]))
