"""What params.yaml may say of measuring a model."""

from typing import Annotated

from pydantic import Field, model_validator

from laqfi.base.block import Block, Count, Seed, Timesteps


class Fisher(Block):
    timesteps: Timesteps
    bins: Timesteps
    images: Annotated[int, Field(ge=2, le=1_000_000)]
    chunk: Count
    seed: Seed

    @model_validator(mode="after")
    def bins_cover_timesteps(self):
        for key, values in (("timesteps", self.timesteps), ("bins", self.bins)):
            if values != sorted(set(values)):
                raise ValueError(f"{key} must increase")
        if self.timesteps[-1] > self.bins[-1]:
            raise ValueError(f"the last bin ends at {self.bins[-1]}, before timestep {self.timesteps[-1]}")
        for low, high in zip([0, *self.bins], self.bins, strict=False):
            if not any(low < t <= high for t in self.timesteps):
                raise ValueError(f"no timestep in the bin {low} < t <= {high}")
        return self


class Curvature(Block):
    timesteps: Timesteps
    images: Count
    chunk: Count
    seed: Seed
