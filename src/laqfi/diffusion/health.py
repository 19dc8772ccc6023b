"""Whether training works: a network that has died must not become the model that everything else is measured on."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from laqfi.base.device import upload
from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.diffusion.process import add_noise

IMAGES = 256  # that the finished network is tried on
STRETCH = 50  # steps that a loss is averaged over
LOST, FAR = 20, 10.0  # so many stretches, all so many times above the lowest
SPIKE = 2.0  # times the lowest loss that is still the noise of a loss
LEARNT = 0.999  # of the error of predicting zero: a dead network ends within 0.0001 of it, one step of training below


def check_finite(losses: Tensor) -> None:
    """Raises LaqfiError if the latest loss is not a number: nothing after it could be."""
    if len(losses) and not torch.isfinite(losses[-1]):
        raise LaqfiError(
            f"train: the loss is {losses[-1].item()} at step {len(losses)}; lower train.lr or train.grad_clip"
        )


def check_alive(losses: Tensor) -> None:
    """Raises LaqfiError if the loss has been far above its lowest for many steps: it will not come back."""
    whole = losses[: len(losses) // STRETCH * STRETCH].view(-1, STRETCH).mean(dim=1)
    if len(whole) > LOST and whole[-LOST:].min() > FAR * whole.min():
        raise LaqfiError(
            f"train: the loss is {whole[-1].item():.3g} at step {len(losses)} and was {whole.min().item():.3g}:"
            " the network has died; lower train.lr or train.beta2, or lengthen train.warmup"
        )


def check_kept(losses: Tensor) -> None:
    """Raises LaqfiError if training lost again what it had learnt: its last loss is far above its lowest."""
    means = torch.stack([part.mean() for part in losses.split(STRETCH)]).cpu()
    if means[-1] > SPIKE * means.min():
        lowest = int(means.argmin())
        raise LaqfiError(
            f"train: the loss ends at {means[-1]:.3g} and was {means[lowest]:.3g} by step {(lowest + 1) * STRETCH}:"
            " the network has died; lower train.lr or train.beta2, or lengthen train.warmup"
        )


@torch.no_grad()
def check_learnt(
    network: nn.Module, weights: dict[str, Tensor], images: Tensor, alphas_cumprod: Tensor, seed: int
) -> None:
    """Raises LaqfiError if `network` with `weights` predicts noise no better than one that always says zero.

    images [N, C, H, W] and weights on one device. Every timestep counts alike, on one draw of noise for both.
    """
    tried = images[:IMAGES]
    noise = torch.from_numpy(generator("health", seed).standard_normal(tuple(tried.shape), dtype="float32"))
    noise = upload(noise, images.device)
    timestep = torch.linspace(1, len(alphas_cumprod) - 1, len(tried), device=images.device).long()
    x = add_noise(tried, noise, timestep, alphas_cumprod)
    error = (functional_call(network.eval(), weights, (x, timestep)) - noise).square().mean().item()
    nothing = noise.square().mean().item()
    if not error < LEARNT * nothing:
        raise LaqfiError(
            f"train: the network's squared error is {error:.3g}, and that of predicting no noise at all {nothing:.3g}:"
            " it has learnt nothing; lower train.lr or lengthen train.warmup"
        )
