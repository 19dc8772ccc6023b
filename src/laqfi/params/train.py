"""The block `train`."""

from typing import Annotated

from pydantic import Field

from laqfi.params.block import Block, Count, Fraction, LearningRate, Seed, Steps


class Train(Block):
    steps: Steps
    batch_size: Count
    lr: LearningRate
    warmup: Annotated[int, Field(ge=0, le=10_000_000)]
    ema: Fraction
    grad_clip: Annotated[float, Field(gt=0, le=1e9)]
    seed: Seed
