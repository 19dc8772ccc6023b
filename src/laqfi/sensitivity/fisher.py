"""Fisher information of every weight at every timestep, from per-sample gradients.

Per-sample gradients are squared and then averaged: the square of a batch mean is a different, smaller thing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from laqfi.base.random import generator
from laqfi.diffusion.process import add_noise

KINDS = ("empirical", "gauss_newton")


@dataclass(frozen=True)
class FisherMap:
    """Fisher information of one kind.

    per_weight: timestep bin (named by its last timestep) -> weight name -> tensor of the weight's shape.
    per_sample: weight name -> [timesteps, samples], the mean over the weights of a tensor, for every sample.
    """

    per_weight: dict[int, dict[str, Tensor]]
    per_sample: dict[str, Tensor]


def empirical_loss(predicted: Tensor, noise: Tensor, probe: Tensor) -> Tensor:
    """½‖ε_θ(x_t, t) − ε‖², the loss whose squared derivative is the empirical Fisher."""
    return 0.5 * (predicted - noise).square().sum()


def gauss_newton_loss(predicted: Tensor, noise: Tensor, probe: Tensor) -> Tensor:
    """r·ε_θ with random signs r: E (∂/∂θ)² is the diagonal of JᵀJ, the Fisher of a unit-variance Gaussian."""
    return (probe * predicted).sum()


LOSSES = dict(zip(KINDS, (empirical_loss, gauss_newton_loss), strict=True))


def mean_and_error(per_sample: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the samples and its standard error: [..., samples] to twice [...]."""
    return per_sample.mean(-1), per_sample.std(-1) / math.sqrt(per_sample.shape[-1])


def squared_gradients(model: nn.Module, loss: Callable, x: Tensor, t: Tensor, noise: Tensor, probe: Tensor) -> dict:
    """Squared derivative of `loss` by every parameter, one row per sample: name -> [B, *shape]."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def sample_loss(parameters, x, t, noise, probe):
        predicted = functional_call(model, parameters, (x[None], t[None]))[0]
        return loss(predicted, noise, probe)

    # Only the plain attention kernel has a batching rule for its backward pass.
    with sdpa_kernel(SDPBackend.MATH):
        gradients = vmap(grad(sample_loss), in_dims=(None, 0, 0, 0, 0))(parameters, x, t, noise, probe)
    return {name: gradient.square() for name, gradient in gradients.items()}


def bin_of(timestep: int, bins: list[int]) -> int:
    """The bin is named by its last timestep: the first edge at or after `timestep`."""
    return next(edge for edge in bins if timestep <= edge)


def fisher_maps(
    model: nn.Module,
    images: Tensor,
    alphas_cumprod: Tensor,
    *,
    timesteps: list[int],
    bins: list[int],
    chunk: int,
    seed: int,
) -> dict[str, FisherMap]:
    """Empirical and Gauss–Newton Fisher of `model` (in eval mode, called as model(x, t)) on images [N, C, H, W].

    Both kinds see the same x_t. The result does not depend on `chunk`, the number of samples at a time, but for
    the order of float32 sums; `bins` are the last timesteps of the bins the per-weight maps are averaged over.
    """
    names = [name for name, _ in model.named_parameters()]
    device = next(model.parameters()).device
    alphas_cumprod = alphas_cumprod.to(device)
    sums = {kind: {b: {} for b in bins} for kind in KINDS}
    means = {
        kind: {name: torch.zeros(len(timesteps), len(images), dtype=torch.float64) for name in names} for kind in KINDS
    }
    members = {b: sum(bin_of(t, bins) == b for t in timesteps) for b in bins}
    for column, timestep in enumerate(tqdm(timesteps, "fisher", unit="timestep")):
        random = generator("fisher", seed, timestep)
        noise = torch.from_numpy(random.standard_normal(images.shape, dtype="float32"))
        probe = torch.from_numpy(random.integers(0, 2, images.shape)).float() * 2 - 1
        for part in torch.arange(len(images)).split(chunk):
            x0, e, r = (batch[part].to(device) for batch in (images, noise, probe))
            t = torch.full((len(part),), timestep, device=device)
            for kind, loss in LOSSES.items():
                squares = squared_gradients(model, loss, add_noise(x0, e, t, alphas_cumprod), t, e, r)
                total = sums[kind][bin_of(timestep, bins)]
                for name, square in squares.items():
                    means[kind][name][column, part] = square.flatten(1).mean(1).double().cpu()
                    summed = square.sum(0)
                    total[name] = total[name] + summed if name in total else summed
    return {
        kind: FisherMap(
            per_weight={
                b: {name: (t / (members[b] * len(images))).cpu() for name, t in sums[kind][b].items()} for b in bins
            },
            per_sample=means[kind],
        )
        for kind in KINDS
    }
