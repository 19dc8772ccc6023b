"""Samplers of the reverse process, one function each.

A sampler takes x_t, the predicted noise, and alphas_cumprod at t and at the next timestep; it returns mean and standard
deviation of x at that next one. `clip` keeps the clean image that the noise implies within [-1, 1]. A sampler that has
the parameter `eta` gets it; others do not.
"""

import inspect
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from laqfi.base.registry import Registry
from laqfi.diffusion.process import Denoiser
from laqfi.models.scheduler import timesteps as called_at
from laqfi.sampling.scheduled import scheduled, unclipped

SAMPLERS = Registry()
SCHEDULER = "scheduler"  # in a sampler's place: the own one of a model that brings one


def predict_x0(x: Tensor, noise: Tensor, alpha_bar: float, clip: bool) -> Tensor:
    """The clean image the predicted noise implies (DDIM eq. 9)."""
    x0 = (x - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar)
    return x0.clamp(-1, 1) if clip else x0


@SAMPLERS
def ddim(
    x: Tensor, noise: Tensor, alpha_bar: float, alpha_bar_prev: float, *, clip: bool, eta: float
) -> tuple[Tensor, float]:
    """DDIM (Song et al. 2021, eq. 12 and 16); eta 0 adds no noise, eta 1 as much as DDPM."""
    x0 = predict_x0(x, noise, alpha_bar, clip)
    direction = (x - math.sqrt(alpha_bar) * x0) / math.sqrt(1 - alpha_bar)  # equals `noise` where nothing was clipped
    sigma = eta * math.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev))
    return math.sqrt(alpha_bar_prev) * x0 + math.sqrt(1 - alpha_bar_prev - sigma**2) * direction, sigma


@SAMPLERS
def ddpm(x: Tensor, noise: Tensor, alpha_bar: float, alpha_bar_prev: float, *, clip: bool) -> tuple[Tensor, float]:
    """Ancestral sampling: the posterior q(x_prev | x_t, x_0) (DDPM, Ho et al. 2020, eq. 6 and 7)."""
    x0 = predict_x0(x, noise, alpha_bar, clip)
    alpha = alpha_bar / alpha_bar_prev
    weighted = math.sqrt(alpha_bar_prev) * (1 - alpha) * x0 + math.sqrt(alpha) * (1 - alpha_bar_prev) * x
    return weighted / (1 - alpha_bar), math.sqrt((1 - alpha) * (1 - alpha_bar_prev) / (1 - alpha_bar))


def takes_eta(sampler: str) -> bool:
    """Raises LaqfiError for an unknown sampler."""
    return sampler != SCHEDULER and "eta" in inspect.signature(SAMPLERS.find(sampler)).parameters


def trajectory(timesteps: int, sampler: str, steps: int, scheduler: Mapping | None) -> list[int]:
    """The timesteps at which the network is called in sampling. Raises ValueError as `scheduled.timesteps` does."""
    return spaced_timesteps(timesteps, steps) if sampler != SCHEDULER else called_at(scheduler, steps)


def spaced_timesteps(timesteps: int, steps: int) -> list[int]:
    """`steps` timesteps from T down to 1, evenly spaced; a single step is T."""
    return [int(t) for t in np.linspace(timesteps, 1, steps).round()]


def reverse(
    denoiser: Denoiser,
    draw: Callable[[], Tensor],
    alphas_cumprod: Tensor,
    *,
    sampler: str,
    steps: int,
    eta: float,
    clip: bool,
    excess: Callable[[int], float] = lambda timestep: 0.0,
    scheduler: Mapping | None = None,
    progress: str | None = None,
) -> Tensor:
    """Run the reverse process from x_T = draw() to x_0 [B, C, H, W], with gradients where they are on.

    `draw` gives standard normal noise of the batch's shape; it is called once for x_T and once for every step that adds
    noise. `eta` is for samplers that take it. `excess` is the deviation, by timestep, of noise that is in a prediction
    already: its variance is taken off that of the step. For the sampler "scheduler" that of diffusers with the config
    `scheduler` makes the steps, of what the network returns while it is `raw`. Raises LaqfiError for an unknown
    sampler.
    """
    if sampler == SCHEDULER:
        return scheduled(denoiser, draw, scheduler, steps, progress)
    step = SAMPLERS.find(sampler)
    options = {"clip": clip} | ({"eta": eta} if takes_eta(sampler) else {})
    x = draw()
    timesteps = spaced_timesteps(len(alphas_cumprod) - 1, steps)
    for t, t_prev in tqdm([*zip(timesteps, [*timesteps[1:], 0], strict=True)], progress, disable=progress is None):
        noise = denoiser(x, torch.full((len(x),), t, device=x.device))
        alpha_bars = alphas_cumprod[t].item(), alphas_cumprod[t_prev].item()
        mean, sigma = step(x, noise, *alpha_bars, **options)
        if sigma > 0 and (extra := excess(t)) > 0:
            sigma = math.sqrt(max(0.0, sigma**2 - (noise_gain(step, *alpha_bars, options) * extra) ** 2))
        x = mean + sigma * draw() if sigma > 0 else mean
    return x


sample = torch.inference_mode()(reverse)  # which is faster


def noise_gain(step: Callable, alpha_bar: float, alpha_bar_prev: float, options: dict) -> float:
    """C_t: what a step adds to x for a unit of predicted noise (PTQD, He et al. 2023), clipping left out."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    means = [step(zero, noise, alpha_bar, alpha_bar_prev, **options | {"clip": False})[0] for noise in (one, zero)]
    return (means[0] - means[1]).item()


def error_gains(
    alphas_cumprod: Tensor, *, sampler: str, steps: int, eta: float, scheduler: Mapping | None = None
) -> dict[int, float]:
    """Squared gain from an error in the predicted noise at each step's timestep to the final image.

    Without clipping, what a sampler makes is linear in the predicted noise: row i of one run without any other noise,
    in which the noise predicted at step i is 1, ends in the gain of that step. Clipping, which only lowers it, is left
    out. The gains of steps at the same timestep add up.
    """
    timesteps = trajectory(len(alphas_cumprod) - 1, sampler, steps, scheduler)
    unit, asked = torch.eye(len(timesteps), dtype=torch.float64), iter(range(len(timesteps)))
    final = sample(
        lambda x, t: unit[:, next(asked)].view(x.shape),
        lambda: torch.zeros(len(timesteps), 1, 1, 1, dtype=torch.float64),
        alphas_cumprod,
        sampler=sampler,
        steps=steps,
        eta=eta,
        clip=False,
        scheduler=None if scheduler is None else unclipped(scheduler),
    )
    gains: dict[int, float] = {}
    for timestep, gain in zip(timesteps, final.flatten().tolist(), strict=True):
        gains[timestep] = gains.get(timestep, 0.0) + gain**2
    return gains
