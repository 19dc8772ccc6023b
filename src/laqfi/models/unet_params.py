"""The block `unet`."""

from typing import Annotated

from pydantic import Field, model_validator

from laqfi.base.block import Block, Fraction


class Unet(Block):
    base_channels: Annotated[int, Field(ge=4, le=4096, multiple_of=4)]
    attention: list[Annotated[int, Field(ge=1, le=6)]]
    heads: Annotated[int, Field(ge=1, le=4096)]
    dropout: Fraction

    @model_validator(mode="after")
    def heads_divide_channels(self):
        if self.base_channels % self.heads:
            raise ValueError(f"heads is {self.heads}, allowed is a divisor of base_channels = {self.base_channels}")
        return self
