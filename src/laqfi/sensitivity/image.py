"""What matters for the final image: its derivative through the whole sampler, by each step's noise and each weight."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.sensitivity.inputs import measuring

TOGETHER = 4  # images whose derivative by a weight is squared as one: signs of their own keep them apart on the mean

# The final images [B, C, H, W] of `part` by a denoiser, with gradients where they are on.
Sampled = Callable[[Callable[[Tensor, Tensor], Tensor], range], Tensor]


@dataclass(frozen=True, eq=False)
class ImageImportance:
    """What an error matters for the final image, where every image counts alike, however much it is moved by errors.

    timesteps: those at which the sampler calls the network. shares: float64 [steps], how much of what an image is moved
    by equal errors of all steps is due to each; their sum is 1. tensors: by parameter, the mean over its weights of the
    squared derivative of an image, over what that image is moved by a unit error of every step.
    """

    timesteps: list[int]
    shares: np.ndarray
    tensors: dict[str, float]

    def at(self, timesteps: Sequence[int]) -> dict[int, float]:
        """What each of `timesteps` counts, on the mean 1: the shares of the steps to which it is the nearest."""
        found = dict.fromkeys(timesteps, 0.0)
        for step, share in zip(self.timesteps, self.shares.tolist(), strict=True):
            found[min(timesteps, key=lambda one: abs(one - step))] += len(timesteps) * share
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """As `read` finds it in an npz file: the parameters have the order of the network."""
        return {
            "image_steps": np.array(self.timesteps),
            "image_shares": self.shares,
            "image_tensors": np.array([*self.tensors.values()]),
        }

    @classmethod
    def read(cls, path: Path, names: Sequence[str]) -> "ImageImportance":
        """For the parameters `names` of a network. Raises LaqfiError for a file without it, or of another network."""
        steps, shares, tensors = files.read_arrays(path, "image_steps", "image_shares", "image_tensors").values()
        if len(shares) != len(steps) or len(tensors) != len(names):
            found = f"{len(steps)}, {len(shares)} and {len(tensors)}"
            raise LaqfiError(f"{path}: has {found} steps, shares and tensors, allowed are {len(names)} tensors")
        if not all((array >= 0).all() and array.sum() > 0 for array in (shares, tensors)):  # NaN is not, either
            raise LaqfiError(f"{path}: holds an importance for the image that is below 0, or none")
        return cls(steps.tolist(), shares, dict(zip(names, tensors.tolist(), strict=True)))


def image_importance(
    model: nn.Module, sampled: Sampled, timesteps: list[int], images: int, seed: int
) -> ImageImportance:
    """Of `images` that `sampled` makes of model(x, t), which it calls at `timesteps`, one after the other.

    With signs r = ±1 of their own for every pixel, E (∂(r·x_0)/∂θ)² = Σ_i (∂x_0i/∂θ)², as for the Gauss–Newton Fisher;
    one backward pass goes through all steps, the network's insides being made again for each. The derivatives of an
    image are divided by what errors of the predicted noise move it, or the few that could become another image would
    decide for all: it is the mean of log errors that is to be small. The model is left as it was.
    """
    random, names = generator("image importance", seed), [name for name, _ in model.named_parameters()]
    shares, squares = [], np.zeros(len(names))
    for start in tqdm(range(0, images, TOGETHER), "image", unit="batch"):
        part, errors = range(start, min(start + TOGETHER, images)), []

        def watched(x: Tensor, t: Tensor, errors: list[Tensor] = errors) -> Tensor:
            predicted = checkpoint(model, x, t, use_reentrant=False)
            errors.append(torch.zeros_like(predicted, requires_grad=True))
            return predicted + errors[-1]

        with measuring(model):
            final = sampled(watched, part)
            signs = torch.from_numpy(random.integers(0, 2, tuple(final.shape))).to(final) * 2 - 1
            by_step = torch.autograd.grad((signs * final).sum(), errors, retain_graph=True)
            gains = torch.stack([gradient.square().flatten(1).sum(1) for gradient in by_step]).double()
            moved = gains.sum(0).clamp(min=torch.finfo(final.dtype).tiny)
            scale = moved.rsqrt().to(final).view(-1, *[1] * (final.dim() - 1))
            by_weight = torch.autograd.grad(
                (scale * signs * final).sum(), [*model.parameters()], allow_unused=True, materialize_grads=True
            )
        shares.append((gains / moved).cpu())
        squares += [gradient.square().mean(dtype=torch.float64).item() for gradient in by_weight]
    whole = torch.cat(shares, 1).mean(1).numpy()
    return ImageImportance(timesteps, whole, dict(zip(names, (squares / images).tolist(), strict=True)))
