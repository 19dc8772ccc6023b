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

from laqfi.sensitivity.noised import noised_chunks

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


class Sums:
    """Squared gradients of one kind, summed as `FisherMap` holds them."""

    def __init__(self, names: list[str], timesteps: list[int], bins: list[int], images: int):
        self.timesteps, self.bins, self.images = timesteps, bins, images
        self.totals: dict[int, dict[str, Tensor]] = {b: {} for b in bins}
        self.per_sample = {name: torch.zeros(len(timesteps), images, dtype=torch.float64) for name in names}

    def add(self, column: int, part: Tensor, squares: dict[str, Tensor]) -> None:
        """`squares` [B, *shape] by name, of the images `part` at the timestep of that column."""
        total = self.totals[bin_of(self.timesteps[column], self.bins)]
        for name, square in squares.items():
            self.per_sample[name][column, part] = square.flatten(1).mean(1).double().cpu()
            summed = square.sum(0)
            total[name] = total[name] + summed if name in total else summed

    def as_map(self) -> FisherMap:
        counts = {b: self.images * sum(bin_of(t, self.bins) == b for t in self.timesteps) for b in self.bins}
        means = {b: {name: (t / counts[b]).cpu() for name, t in total.items()} for b, total in self.totals.items()}
        return FisherMap(means, self.per_sample)


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
    alphas_cumprod = alphas_cumprod.to(next(model.parameters()).device)
    sums = {kind: Sums(names, timesteps, bins, len(images)) for kind in KINDS}
    for column, timestep in enumerate(tqdm(timesteps, "fisher", unit="timestep")):
        for seen in noised_chunks("fisher", images, timestep, alphas_cumprod, chunk=chunk, seed=seed):
            for kind, loss in LOSSES.items():
                sums[kind].add(
                    column, seen.part, squared_gradients(model, loss, seen.x, seen.t, seen.noise, seen.probe)
                )
    return {kind: found.as_map() for kind, found in sums.items()}
