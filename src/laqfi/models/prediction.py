"""The noise in what networks of diffusers predict, and such a network as this package calls networks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError
from laqfi.models import conditioning, scheduler


class NoiseIn:
    """ε of x_t = √ᾱ x_0 + √(1 − ᾱ) ε, from what a network with this scheduler's config predicts.

    Of a learned variance, the second half of the channels, nothing is taken.
    """

    def __init__(self, config: Mapping):
        self.prediction = scheduler.prediction_type(config)
        self.halved = scheduler.has_learned_variance(config)
        # A plain attribute: a buffer would be one of the tensors to store, and have no values on the device "meta".
        self.tables = {torch.device("cpu"): scheduler.alphas_cumprod(config)}

    def __call__(self, output: Tensor, x: Tensor, timestep: Tensor) -> Tensor:
        """output [B, C or 2 C, H, W] of x [B, C, H, W] at timestep [B], from 1 to T (Salimans and Ho 2022, D)."""
        if self.halved:
            output = output[:, : x.shape[1]]
        if self.prediction == "epsilon":
            return output
        alpha_bar = self.table(x.device)[timestep].view(-1, 1, 1, 1)
        signal, noise = alpha_bar.sqrt().to(x.dtype), (1 - alpha_bar).sqrt().to(x.dtype)
        if self.prediction == "sample":
            return (x - signal * output) / noise
        return noise * x + signal * output

    def table(self, device: torch.device) -> Tensor:
        if device not in self.tables:
            self.tables[device] = self.tables[torch.device("cpu")].to(device)
        return self.tables[device]


class Counted:
    """A network of diffusers called as model(x, timestep), with timesteps from 1, for the noise in what it predicts.

    In all else it is the network itself: its layers and parameters have the names that they have there.
    """

    def __init__(self, network: nn.Module, noise_in: NoiseIn, given: Mapping[str, Tensor]):
        """`given`: what it is called with besides, for one image, as `conditioning.given_to` tells it."""
        self.network, self.noise_in, self.given = network, noise_in, given

    def __call__(self, x: Tensor, timestep: Tensor) -> Tensor:
        given = {name: one.to(x).expand(len(x), -1, -1) for name, one in self.given.items()}
        return self.noise_in(self.network(x, timestep - 1, **given).sample, x, timestep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)


def is_of_diffusers(model: nn.Module) -> bool:
    """Whether it is called as diffusers calls networks: with timesteps from 0, for an object that has a `sample`."""
    forward = getattr(type(model), "forward", None)  # which those of TorchScript do not tell
    return getattr(forward, "__module__", "").startswith("diffusers.")


def called(model: nn.Module, schedule: Any, embeddings: Tensor | None = None) -> tuple[nn.Module | Counted, Tensor]:
    """The model called as model(x, timestep) with timesteps from 1 for the noise, and its `alphas_cumprod` [T + 1].

    `schedule` is that table, or a scheduler of diffusers; `embeddings` are those of a conditional network. Raises
    LaqfiError for what is no module, for a scheduler that is not known, for a network of diffusers without one, which
    says what the network predicts, for embeddings that are not for it, and for a model of one's own that is said to
    predict something else than the noise.
    """
    if not isinstance(model, nn.Module):
        raise LaqfiError(f"model: found a {type(model).__name__}, allowed is a module of PyTorch, as a pipeline's unet")
    if embeddings is not None and not is_of_diffusers(model):
        raise LaqfiError("embeddings: found some, allowed for a model of one's own is none: it is called without any")
    if isinstance(schedule, Tensor):
        if is_of_diffusers(model):
            raise LaqfiError("schedule: found a tensor, allowed for a network of diffusers is its scheduler")
        return model, schedule.detach()
    if not isinstance(getattr(schedule, "config", None), Mapping):
        found = type(schedule).__name__
        raise LaqfiError(f"schedule: found a {found}, allowed is alphas_cumprod [T + 1], or a scheduler of diffusers")
    config = {**schedule.config, "_class_name": type(schedule).__name__}
    try:
        scheduler.check_scheduler(config)
    except ValueError as error:
        raise LaqfiError(str(error)) from error
    if is_of_diffusers(model):
        given = conditioning.given_to(model, embeddings)
        return Counted(model, NoiseIn(config), given), scheduler.alphas_cumprod(config)
    if (found := scheduler.prediction_type(config)) != "epsilon":
        raise LaqfiError(f"scheduler.prediction_type: found {found!r}, allowed for a model of one's own is 'epsilon'")
    return model, scheduler.alphas_cumprod(config)
