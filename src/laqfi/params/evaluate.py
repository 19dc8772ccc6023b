"""The block `evaluate`."""

from typing import Annotated

from pydantic import Field

from laqfi.params.block import Block, Count, Seed, Timesteps


class Groups(Block):
    """Of it, the groups of images that confidence intervals leave out."""

    groups: Annotated[int, Field(ge=2, le=100_000)]


class Evaluate(Groups):
    noise_images: Count
    noise_timesteps: Timesteps
    seed: Seed
