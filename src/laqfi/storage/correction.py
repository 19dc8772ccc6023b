"""What the predicted noise of a quantized network is corrected by at every step, as the model file holds it (PTQD)."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from laqfi.storage.activations import nearest_columns

SLOPE, BIAS, DEVIATION = "correction/slope", "correction/bias", "correction/deviation"


class Correction(BaseModel):
    """What a file says of it: the timesteps of its columns, and the channels of the noise."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    timesteps: Annotated[list[Annotated[int, Field(ge=1, le=100_000)]], Field(min_length=1)]
    channels: Annotated[int, Field(ge=1)]

    def part_shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        steps = len(self.timesteps)
        return {
            SLOPE: (torch.float32, (steps,)),
            BIAS: (torch.float32, (steps, self.channels)),
            DEVIATION: (torch.float32, (steps,)),
        }


class Corrected(nn.Module):
    """ε̃ = (ε_q − b_t) / (1 + k_t) (PTQD, He et al. 2023).

    slope k [steps], bias b [steps, C], deviation σ_q [steps] of what is left. `excess` is the deviation of the noise
    that stays in ε̃, σ_q / (1 + k), by timestep: the sampler takes its variance off the noise that it adds.
    """

    def __init__(self, network: nn.Module, about: Correction, tables: Mapping[str, Tensor]):
        super().__init__()
        self.network = network
        self.register_buffer("slope", tables[SLOPE])
        self.register_buffer("bias", tables[BIAS])
        self.register_buffer("column", nearest_columns(about.timesteps), persistent=False)
        self.deviations = (tables[DEVIATION] / (1 + tables[SLOPE])).tolist()
        self.columns = self.column.tolist()

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        column = self.column[timestep.clamp(max=len(self.column) - 1)]
        predicted = self.network(x, timestep)
        return (predicted - self.bias[column][:, :, None, None]) / (1 + self.slope[column])[:, None, None, None]

    def excess(self, timestep: int) -> float:
        return self.deviations[self.columns[min(timestep, len(self.columns) - 1)]]


def excess_of(network: nn.Module, timestep: int) -> float:
    """The deviation of the noise that quantization leaves in a prediction, as far as its file knows; else 0."""
    return network.excess(timestep) if isinstance(network, Corrected) else 0.0
