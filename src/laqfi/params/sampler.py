"""Of the block `sample`, what decides how much each timestep counts."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from laqfi.params.block import Block, Timestep


class Sampler(Block):
    sampler: Literal["ddpm", "ddim"]
    steps: Timestep
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def eta_is_of_ddim(self):
        if self.sampler == "ddpm" and self.eta != 0:
            raise ValueError("eta belongs to the sampler ddim; ddpm is always ancestral")
        return self
