"""Sampling by a model's own scheduler, one of diffusers, from our streams of noise."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from laqfi.diffusion.process import Denoiser
from laqfi.models.scheduler import make_scheduler


class Noise(TorchFunctionMode):
    """While open, `torch.randn` gives what `draw` does: the schedulers of diffusers draw nothing in another way."""

    def __init__(self, draw: Callable[[], Tensor]):
        super().__init__()
        self.draw = draw

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return self.draw() if function is torch.randn else function(*args, **(kwargs or {}))


def scheduled(
    denoiser: Denoiser, draw: Callable[[], Tensor], config: Mapping, steps: int, progress: str | None
) -> Tensor:
    """x_0 [B, C, H, W] from x_T = draw(), by the scheduler's spacing of timesteps, clipping and noise.

    `denoiser` returns what the network itself does: noise, clean image or v, with the variance where it was learned.
    """
    scheduler = make_scheduler(config)
    scheduler.set_timesteps(steps)
    with Noise(draw):
        x = draw() * scheduler.init_noise_sigma
        for t in tqdm(scheduler.timesteps, progress, disable=progress is None):
            timestep = torch.full((len(x),), int(t) + 1, device=x.device)
            # A scheduler of several steps keeps what it was given, and a captured network writes over it.
            output = denoiser(scheduler.scale_model_input(x, t), timestep).clone()
            x = scheduler.step(output, t, x, return_dict=False)[0]
    return x


def unclipped(config: Mapping) -> dict:
    """The same scheduler where all is linear in the noise that the network predicts."""
    plain = {"clip_sample": False, "thresholding": False, "prediction_type": "epsilon"}
    fixed = {"variance_type": "fixed_small"} if config.get("variance_type") is not None else {}
    return {**config, **plain, **fixed}
