"""The DDPM and DDIM samplers as pure functions."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from laqfi.diffusion.process import Denoiser


def spaced_timesteps(timesteps: int, steps: int) -> list[int]:
    """`steps` timesteps from T down to 1, evenly spaced; a single step is T."""
    return [int(t) for t in np.linspace(timesteps, 1, steps).round()]


def predict_x0(x: Tensor, noise: Tensor, alpha_bar: float, clip: bool) -> Tensor:
    """The clean image the predicted noise implies (DDIM eq. 9)."""
    x0 = (x - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar)
    return x0.clamp(-1, 1) if clip else x0


def ddim_step(
    x: Tensor, noise: Tensor, alpha_bar: float, alpha_bar_prev: float, eta: float, clip: bool
) -> tuple[Tensor, float]:
    """Mean and standard deviation of x_prev given x_t (DDIM, Song et al. 2021, eq. 12 and 16)."""
    x0 = predict_x0(x, noise, alpha_bar, clip)
    direction = (x - math.sqrt(alpha_bar) * x0) / math.sqrt(1 - alpha_bar)  # equals `noise` where nothing was clipped
    sigma = eta * math.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev))
    return math.sqrt(alpha_bar_prev) * x0 + math.sqrt(1 - alpha_bar_prev - sigma**2) * direction, sigma


def ddpm_step(x: Tensor, noise: Tensor, alpha_bar: float, alpha_bar_prev: float, clip: bool) -> tuple[Tensor, float]:
    """Mean and standard deviation of the posterior q(x_prev | x_t, x_0) (DDPM eq. 6 and 7)."""
    x0 = predict_x0(x, noise, alpha_bar, clip)
    alpha = alpha_bar / alpha_bar_prev
    weighted = math.sqrt(alpha_bar_prev) * (1 - alpha) * x0 + math.sqrt(alpha) * (1 - alpha_bar_prev) * x
    return weighted / (1 - alpha_bar), math.sqrt((1 - alpha) * (1 - alpha_bar_prev) / (1 - alpha_bar))


def error_gains(alphas_cumprod: Tensor, *, sampler: str, steps: int, eta: float) -> dict[int, float]:
    """Squared gain from an error in the predicted noise at each step's timestep to the final image.

    A step is x_prev = a x + b ε + noise, and all later steps together multiply x_prev by 1/√ᾱ_prev (their a telescope),
    so the gain is b²/ᾱ_prev. Clipping, which only lowers it, is left out.
    """
    timesteps = spaced_timesteps(len(alphas_cumprod) - 1, steps)
    gains = {}
    for t, t_prev in zip(timesteps, [*timesteps[1:], 0], strict=True):
        alpha_bar, alpha_bar_prev = alphas_cumprod[t].item(), alphas_cumprod[t_prev].item()
        variance = (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
        kept = 1 - alpha_bar_prev - (1.0 if sampler == "ddpm" else eta**2) * variance
        b = math.sqrt(max(kept, 0.0)) - math.sqrt(alpha_bar_prev * (1 - alpha_bar) / alpha_bar)
        gains[t] = b**2 / alpha_bar_prev
    return gains


@torch.inference_mode()
def sample(
    denoiser: Denoiser,
    draw: Callable[[], Tensor],
    alphas_cumprod: Tensor,
    *,
    sampler: str,
    steps: int,
    eta: float,
    clip: bool,
    progress: str | None = None,
) -> Tensor:
    """Run the reverse process from x_T = draw() to x_0 [B, C, H, W].

    `draw` gives standard normal noise of the batch's shape; it is called once for x_T and once for every
    step that adds noise. `sampler` is "ddpm" (ancestral; `eta` is not used) or "ddim".
    """
    x = draw()
    last = len(alphas_cumprod) - 1
    timesteps = spaced_timesteps(last, steps)
    for t, t_prev in tqdm([*zip(timesteps, [*timesteps[1:], 0], strict=True)], progress, disable=progress is None):
        noise = denoiser(x, torch.full((len(x),), t, device=x.device))
        alpha_bar, alpha_bar_prev = alphas_cumprod[t].item(), alphas_cumprod[t_prev].item()
        if sampler == "ddpm":
            mean, sigma = ddpm_step(x, noise, alpha_bar, alpha_bar_prev, clip)
        else:
            mean, sigma = ddim_step(x, noise, alpha_bar, alpha_bar_prev, eta, clip)
        x = mean + sigma * draw() if sigma > 0 else mean
    return x
