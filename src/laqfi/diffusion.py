"""The diffusion process: schedule, forward noising, and the DDPM and DDIM samplers as pure functions.

Timesteps run from 1 (least noise, the last step of sampling) to T; index 0 is the clean image, so
`alphas_cumprod[0] = 1`.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from laqfi.device import default_device
from laqfi.rng import generator

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


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] to 0..255 by one fixed mapping, the same for every image."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_uint8(images: np.ndarray) -> Tensor:
    """uint8 [N, C, H, W] to float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1
