"""What the pipeline does not do, measured beside what it does: other number formats and layouts, and diffusers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from laqfi.base.device import captured, compiled
from laqfi.diffusion.process import Denoiser
from laqfi.storage.modules import restored

DIFFUSERS = {  # U-Nets of diffusers with about as many parameters as those of cases.SCALES; the first is that of DDPM
    32: {"block_out_channels": (128, 256, 256, 256), "attention": 1, "norm_num_groups": 32},  # 35.7 M
    8: {"block_out_channels": (16, 16, 32, 48), "attention": 1, "norm_num_groups": 8},  # 0.7 M
}


def in_graphs(network: Denoiser, half: torch.dtype | None, device: torch.device) -> Denoiser:
    """As `laqfi.sampling.network.prepared` calls its own."""

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None, cache_enabled=False):
            return network(x, timestep).float()

    return captured(predict, device)


def bfloat16(model: nn.Module, device: torch.device) -> Denoiser:
    """As the stage draws in float16, with three bits of mantissa less and its exponents more."""
    network = restored(model, torch.bfloat16).to(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.compiler.reset()  # it keeps eight forms of one network, and would not compile a ninth
        network = compiled(network)
    return in_graphs(network, torch.bfloat16, device)


def nchw(model: nn.Module, device: torch.device) -> Denoiser:
    """In float32, compiled, images by channels first: the layout of units that are no tensor cores."""
    network = restored(model, torch.float32)
    if device.type == "cuda":
        torch.compiler.reset()
        network = torch.compile(network, dynamic=False, options={"layout_optimization": False})
    return in_graphs(network, None, device)


def nchw_eager(model: nn.Module, device: torch.device) -> Denoiser:
    """The same, not compiled."""
    return in_graphs(restored(model, torch.float32), None, device)


WAYS: dict[str, Callable[[nn.Module, torch.device], Denoiser]] = {
    "bf16": bfloat16,
    "float32, NCHW": nchw,
    "float32, NCHW, eager": nchw_eager,
}


def pipeline(side: int, diffusion: dict, dtype: torch.dtype, device: torch.device):
    """The `DDIMPipeline` of diffusers with a U-Net of about as many parameters, as its users call it."""
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    shape = dict(DIFFUSERS[side])
    channels, attention = shape["block_out_channels"], shape.pop("attention")
    kinds = ["Attn" if place == attention else "" for place in range(len(channels))]
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=side,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        **shape,
    )
    scheduler = DDIMScheduler(
        num_train_timesteps=diffusion["timesteps"],
        beta_start=diffusion["beta_start"],
        beta_end=diffusion["beta_end"],
    )
    made = DDIMPipeline(unet=unet.to(device, dtype).eval(), scheduler=scheduler)
    made.set_progress_bar_config(disable=True)
    return made
