"""Inputs of layers rounded to few bits, by ranges that the model file holds: for all timesteps alike, or for each.

Values are rounded and computed with in float32: this says what few bits do to the images, not how fast they would be.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError
from laqfi.storage.layout import affine_grid

Ranges = Literal["static", "per_step", "dynamic", "tdq"]
PARTS = ("activation/scale", "activation/zero_point")  # in the file: float16 and uint8 [quantizers, steps]


class Input(BaseModel):
    """A layer whose input is rounded to `bits`; at a `seam`, channels before and after it each by their own range."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: str
    bits: Annotated[int, Field(ge=2, le=8)]
    seam: Annotated[int, Field(ge=1)] | None = None

    @property
    def quantizers(self) -> int:
        return 1 if self.seam is None else 2

    def parts(self, x: Tensor) -> list[Tensor]:
        """What each quantizer gets of the layer's input."""
        return [x] if self.seam is None else [x[:, : self.seam], x[:, self.seam :]]


class Inputs(BaseModel):
    """What a file says of it. `timesteps` are those of the columns of its tables; dynamic ranges have none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    ranges: Ranges
    timesteps: list[Annotated[int, Field(ge=1, le=100_000)]]
    layers: Annotated[list[Input], Field(min_length=1)]

    @property
    def quantizers(self) -> int:
        return sum(one.quantizers for one in self.layers)

    def part_shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Dtype and shape of every part in the file."""
        if self.ranges == "dynamic":
            return {}
        shape = (self.quantizers, len(self.timesteps))
        return dict(zip(PARTS, ((torch.float16, shape), (torch.uint8, shape)), strict=True))


def levels_of(layers: list[Input]) -> Tensor:
    """How many codes every quantizer of the layers has: float32 [quantizers]."""
    return torch.tensor([2.0**one.bits for one in layers for _ in range(one.quantizers)])


def rounded(x: Tensor, scale: Tensor, zero_point: Tensor, levels: Tensor, round: Callable = torch.round) -> Tensor:
    """x on the grid scale · (code − zero_point) with codes 0 to levels − 1; a scale of 0 stands for zeros only."""
    safe = scale.where(scale != 0, torch.ones_like(scale))
    codes = round(x / safe + zero_point).clamp(min=0).minimum(levels - 1)
    return (codes - zero_point) * scale


def straight_through(x: Tensor) -> Tensor:
    """Rounded, with the derivative of x itself: for fitting."""
    return x + (x.round() - x).detach()


def per_sample(row: Tensor, x: Tensor) -> Tensor:
    """[B] as [B, 1, …] beside x [B, …]."""
    return row.view(-1, *[1] * (x.dim() - 1))


class Clock:
    """Which column of the tables the samples of the running call stand in: int64 [B]."""

    columns: Tensor


class RoundedInput(nn.Module):
    """A layer behind the quantizers of its input."""

    round = staticmethod(torch.round)

    def __init__(self, layer: nn.Module, about: Input, clock: Clock, scale: Tensor | None, zero_point: Tensor | None):
        """scale, zero_point: [quantizers of this layer, steps]; None for ranges of what is seen."""
        super().__init__()
        self.layer, self.about, self.clock = layer, about, clock
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] != self.clock.columns.shape[0]:
            raise LaqfiError(
                f"{self.about.name}: got {x.shape[0]} rows for {self.clock.columns.shape[0]} samples, "
                "allowed is one row per sample where activations are rounded"
            )
        return self.layer(torch.cat([self.quantized(i, part) for i, part in enumerate(self.about.parts(x))], dim=1))

    def quantized(self, quantizer: int, x: Tensor) -> Tensor:
        levels = torch.full((), 2**self.about.bits, dtype=x.dtype, device=x.device)
        if self.scale is None:
            flat = x.flatten(1)
            scale, zero_point = affine_grid(flat.amin(1), flat.amax(1), 2**self.about.bits)
        else:
            scale, zero_point = (table[quantizer][self.clock.columns] for table in (self.scale, self.zero_point))
        return rounded(x, per_sample(scale.to(x.dtype), x), per_sample(zero_point.to(x.dtype), x), levels, self.round)


class RoundedInputs(nn.Module):
    """A network, called as model(x, timestep), whose layers round their inputs; `network` is changed in place."""

    def __init__(self, network: nn.Module, about: Inputs, tables: Mapping[str, Tensor]):
        super().__init__()
        self.clock, first = Clock(), 0
        for one in about.layers:
            own = [tables[part][first : first + one.quantizers] if tables else None for part in PARTS]
            parent, _, attribute = one.name.rpartition(".")
            holder = network.get_submodule(parent)
            setattr(holder, attribute, RoundedInput(getattr(holder, attribute), one, self.clock, *own))
            first += one.quantizers
        self.network = network
        self.register_buffer("column", nearest_columns(about.timesteps or [1]), persistent=False)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        self.clock.columns = self.columns_of(timestep)
        return self.network(x, timestep)

    def columns_of(self, timestep: Tensor) -> Tensor:
        """Where in the tables what was measured nearest to each timestep stands."""
        return self.column[timestep.clamp(max=len(self.column) - 1)]


def nearest_columns(timesteps: list[int]) -> Tensor:
    """By timestep from 0 to the last of `timesteps`, the place of the nearest of them: int64."""
    measured = torch.tensor(timesteps)
    return (torch.arange(max(timesteps) + 1)[:, None] - measured).abs().argmin(1)


def check_layers(about: Inputs, network: nn.Module) -> None:
    """Raises LaqfiError for layers that the network does not have, or that stand there twice."""
    names = [one.name for one in about.layers]
    known = {name for name, _ in network.named_modules() if name}
    if unknown := [name for name in names if name not in known]:
        raise LaqfiError(f"rounds the input of {unknown[0]!r}, which the network does not have")
    if len(set(names)) < len(names):
        raise LaqfiError("rounds the input of a layer twice")
