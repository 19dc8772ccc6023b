"""What params.yaml may say of the diffusion process and of training."""

import math
from typing import Annotated

from pydantic import Field, model_validator

from laqfi.base.block import Block, Count, Fraction, LearningRate, Seed, Steps


class Diffusion(Block):
    timesteps: Annotated[int, Field(ge=2, le=100_000)]
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def some_signal_remains(self):
        last = self.timesteps - 1
        betas = (self.beta_start + (self.beta_end - self.beta_start) * i / last for i in range(self.timesteps))
        remaining = math.fsum(math.log10(1 - beta) for beta in betas)
        if remaining < -12:
            raise ValueError(
                f"these betas leave 1e{remaining:.0f} of the image's power at the last step, allowed is 1e-12"
            )
        return self


class Train(Block):
    """AdamW with a linear warm-up and a cosine decay.

    `beta2` is how long squared gradients are remembered. No step of a weight is longer than lr / √(1 - beta2), 32 lr
    for 0.999 and 10 lr for 0.99, with which a large network survives a gradient that suddenly grows.
    """

    steps: Steps
    batch_size: Count
    lr: LearningRate
    warmup: Annotated[int, Field(ge=0, le=10_000_000)]
    beta2: Fraction
    ema: Fraction
    grad_clip: Annotated[float, Field(gt=0, le=1e9)]
    seed: Seed
