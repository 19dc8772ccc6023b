"""The block `features`."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from laqfi.params.block import Block, Count, LearningRate, Seed


class Classifier(Block):
    network: Literal["classifier"]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Count
    lr: LearningRate
    seed: Seed


class Inception(Block):
    network: Literal["inception"]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


Features = Annotated[Classifier | Inception, Field(discriminator="network")]
