"""The diffusion process: its schedule, forward noising, and how two networks differ on noised images.

Timesteps run from 1 (least noise, the last step of sampling) to T; index 0 is the clean image, so
`alphas_cumprod[0] = 1`.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from laqfi.base.device import default_device
from laqfi.base.random import generator

Denoiser = Callable[[Tensor, Tensor], Tensor]


def linear_alphas_cumprod(timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """Cumulative product of 1 - beta for the linear schedule of DDPM (Ho et al. 2020): float64 [T + 1]."""
    betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, dim=0)])


def add_noise(x0: Tensor, noise: Tensor, timestep: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (DDPM eq. 4); timestep [B]."""
    alpha_bar = alphas_cumprod[timestep].view(-1, *[1] * (x0.dim() - 1))
    return square_root(alpha_bar).to(x0.dtype) * x0 + square_root(1 - alpha_bar).to(x0.dtype) * noise


def square_root(x: Tensor) -> Tensor:
    """Square root, element by element, with the same last digit on every processor.

    On a CPU `torch.sqrt` is MKL's, which does not round correctly and differs between processors; NumPy's does not.
    """
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


@torch.inference_mode()
def noise_error(
    denoiser: Denoiser, base: Denoiser, images: Tensor, alphas_cumprod: Tensor, timesteps: list[int], seed: int
) -> dict[int, float]:
    """Mean squared difference per pixel between what two networks predict on the same noised images, per timestep."""
    errors = {}
    for timestep in timesteps:
        random = generator("noise error", seed, timestep)
        noise = torch.from_numpy(random.standard_normal(images.shape, dtype="float32"))
        t = torch.full((len(images),), timestep)
        x = add_noise(images, noise, t, alphas_cumprod).to(default_device())
        t = t.to(x.device)
        errors[timestep] = (denoiser(x, t) - base(x, t)).square().mean().item()
    return errors
