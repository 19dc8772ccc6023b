"""Whether a schedule is the one that a network learned with: what the network itself tells of the noise it meets."""

import math
import warnings

import torch
from torch import Tensor, nn

from laqfi.sensitivity.measuring import measuring
from laqfi.sensitivity.noised import noised_chunks

IMAGES, TIMESTEPS = 16, 8  # at most: some hundred samples tell what a network that learned something sees
LEARNED = 0.5  # of the noise's variance 1: what predicts no better has not learned, and tells nothing
CLEARLY, SIGNIFICANT = 1.04, 5.0  # times the error, and standard errors; trained networks were 1.08 to 1.22 and 6 to 17
OTHERS = {2.0: "the square roots of what it learned with", 0.5: "the squares of what it learned with"}  # by the power


@torch.no_grad()
def warn_of_levels(model: nn.Module, images: Tensor, alphas_cumprod: Tensor, timesteps: list[int]) -> None:
    """A UserWarning if the model predicts noise clearly better when it is told another timestep than that of x_t.

    The same x_t are shown to it at t and at the timestep s where the schedule to a power is what it is at t; it learned
    with that power if it does better there. A model that has not learned to predict noise is said nothing of. All
    arguments as `check_inputs` allows them; the model is left as it was.
    """
    first = next(model.parameters())
    some = images[:IMAGES].detach().to(first.dtype)
    table = alphas_cumprod.detach().to(first.device)
    with measuring(model), torch.no_grad():
        for power, what in OTHERS.items():
            told, otherwise = errors(model, some, table, spread_over(timesteps), power)
            better = told - otherwise
            significant = better.mean() > SIGNIFICANT * better.std() / math.sqrt(len(better))
            if otherwise.mean() < LEARNED and told.mean() > CLEARLY * otherwise.mean() and significant:
                warnings.warn(
                    f"alphas_cumprod: look like {what}: the model predicts the noise with a squared error of "
                    f"{otherwise.mean():.3g} if told the timesteps of those, of {told.mean():.3g} if told its own",
                    stacklevel=3,
                )
                return


def spread_over(timesteps: list[int]) -> list[int]:
    return timesteps[:: math.ceil(len(timesteps) / TIMESTEPS)]


def errors(
    model: nn.Module, images: Tensor, alphas_cumprod: Tensor, timesteps: list[int], power: float
) -> tuple[Tensor, Tensor]:
    """Squared error of every noised image, float64 [samples]: with its timestep, and with that of the power."""
    found: tuple[list[Tensor], list[Tensor]] = [], []
    for timestep in timesteps:
        # Within the timesteps that are to be measured: of others the model may know nothing.
        inside = alphas_cumprod[min(timesteps) : max(timesteps) + 1]
        other = min(timesteps) + int((inside**power - alphas_cumprod[timestep]).abs().argmin())
        for seen in noised_chunks("schedule", images, timestep, alphas_cumprod, chunk=IMAGES, seed=0):
            for errors_of, t in zip(found, (seen.t, torch.full_like(seen.t, other)), strict=True):
                error = (model(seen.x.clone(), t) - seen.noise).double().square().flatten(1).mean(1)
                errors_of.append(error.cpu())
    return torch.cat(found[0]), torch.cat(found[1])
