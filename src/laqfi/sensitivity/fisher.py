"""Fisher information of every weight, and of every tensor at every timestep, from per-sample gradients.

Per-sample gradients are squared and then averaged: the square of a batch mean is a different, smaller thing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from laqfi.sensitivity.gradients import Found, SampleGradients
from laqfi.sensitivity.inputs import check_inputs, checked
from laqfi.sensitivity.measuring import measuring
from laqfi.sensitivity.noised import noised_chunks
from laqfi.sensitivity.params import Fisher

KINDS = ("empirical", "gauss_newton")


@dataclass(frozen=True)
class FisherMaps:
    """What every weight matters, and how much that changes along the timesteps.

    per_weight: weight name -> tensor of the weight's shape: the Gauss–Newton Fisher, mean over all timesteps of the
    diffusion, of which those of one bin count alike. per_bin: weight name -> [bins], the mean over the weights of a
    tensor in each bin. per_sample: kind -> weight name -> [timesteps, samples], that mean for every sample.
    """

    per_weight: dict[str, Tensor]
    per_bin: dict[str, Tensor]
    per_sample: dict[str, dict[str, Tensor]]


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


def bin_of(timestep: int, bins: list[int]) -> int:
    """The bin is named by its last timestep: the first edge at or after `timestep`."""
    return next(edge for edge in bins if timestep <= edge)


def bin_shares(bins: list[int]) -> dict[int, float]:
    """The share of all timesteps that lies in each bin."""
    return {edge: (edge - start) / bins[-1] for start, edge in zip([0, *bins], bins, strict=False)}


class Sums:
    """Squared gradients, summed as `FisherMaps` holds them."""

    def __init__(self, model: nn.Module, timesteps: list[int], bins: list[int], images: int):
        self.timesteps, self.bins, self.images = timesteps, bins, images
        self.per_weight = {name: torch.zeros_like(parameter.detach()) for name, parameter in model.named_parameters()}
        self.per_sample = {
            kind: {name: torch.zeros(len(timesteps), images, dtype=torch.float64) for name in self.per_weight}
            for kind in KINDS
        }

    def share(self, timestep: int) -> float:
        """What a sample at that timestep counts in the mean over all."""
        edge = bin_of(timestep, self.bins)
        members = sum(bin_of(t, self.bins) == edge for t in self.timesteps)
        return bin_shares(self.bins)[edge] / (members * self.images)

    def adder(self, kind: str, column: int, first: int) -> Found:
        """Adds gradients of samples, counted from the image `first`, at the timestep of that column."""
        rows, share = self.per_sample[kind], self.share(self.timesteps[column])

        def add(name: str, part: slice, gradients: Tensor) -> None:
            squares = gradients.square()
            images = slice(first + part.start, first + part.stop)
            rows[name][column, images] = squares.reshape(len(squares), -1).mean(1).double().cpu()
            if kind == "gauss_newton":
                self.per_weight[name].add_(squares.sum(0), alpha=share)

        return add

    def per_bin(self) -> dict[str, Tensor]:
        columns = [[i for i, t in enumerate(self.timesteps) if bin_of(t, self.bins) == edge] for edge in self.bins]
        rows = self.per_sample["gauss_newton"]
        return {name: torch.stack([row[some].mean() for some in columns]) for name, row in rows.items()}


def fisher_maps(
    model: nn.Module,
    images: Tensor,
    alphas_cumprod: Tensor,
    *,
    timesteps: list[int],
    bins: list[int],
    chunk: int,
    seed: int,
) -> FisherMaps:
    """Fisher information of `model` (called as model(x, t), in eval mode) on images [N, C, H, W] in [-1, 1].

    alphas_cumprod [T + 1] begins with timestep 0. Both kinds see the same x_t. The result does not depend on `chunk`,
    the number of samples at a time, but for the order of float32 sums; `bins` are the last timesteps of bins that cover
    the diffusion. Beside the activations this takes twice the model's memory. The model is left as it was. Raises
    LaqfiError, before anything is measured, for what `check_inputs` and the block `fisher` of params.yaml do not allow,
    and for a model that overwrites what its layers got.
    """
    settings = checked(
        Fisher, timesteps=list(timesteps), bins=list(bins), images=max(2, len(images)), chunk=chunk, seed=seed
    )
    images = check_inputs(model, images, alphas_cumprod, settings)
    with measuring(model):
        return summed(model, images, alphas_cumprod, settings)


def summed(model: nn.Module, images: Tensor, alphas_cumprod: Tensor, settings: Fisher) -> FisherMaps:
    alphas_cumprod = alphas_cumprod.to(next(model.parameters()).device)
    sums = Sums(model, settings.timesteps, settings.bins, len(images))
    for column, timestep in enumerate(tqdm(settings.timesteps, "fisher", unit="timestep")):
        gradients, how = None, {"chunk": settings.chunk, "seed": settings.seed}  # layers may be called by the timestep
        for seen in noised_chunks("fisher", images, timestep, alphas_cumprod, **how):
            gradients = gradients or SampleGradients(model, seen.x[:1], seen.t[:1])
            first = int(seen.part[0])
            losses = [
                (of(loss, seen.noise, seen.probe), sums.adder(kind, column, first)) for kind, loss in LOSSES.items()
            ]
            gradients.measure(seen.x, seen.t, losses)
    per_weight = {name: total.cpu() for name, total in sums.per_weight.items()}
    return FisherMaps(per_weight, sums.per_bin(), sums.per_sample)


def of(loss: Callable, noise: Tensor, probe: Tensor) -> Callable[[Tensor, slice], Tensor]:
    return lambda predicted, part: loss(predicted, noise[part], probe[part])
