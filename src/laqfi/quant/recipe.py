"""What a variant may do beside its policy: rounded inputs, learned rounding, corrected noise."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from laqfi.base.block import Block, Count, LearningRate, Seed, Timestep
from laqfi.storage.activations import Ranges


class Weighted(Block):
    """With "image" what matters for the final images is measured, too, and timesteps of the curvature count by it."""

    weighting: Literal["noise", "image"] = "noise"


class Calibration(Weighted):
    """x_t of FP32's own sampling: `images` of them at `steps` of the sampler's steps, evenly spaced."""

    steps: Timestep
    images: Annotated[int, Field(ge=2, le=100_000)]
    seed: Seed


class Activations(Block):
    """Inputs of layers in `bits` (the first and the last layer's in 8, as published).

    `ranges`: the extremes over the calibration set, those of each of its steps, those of every input as it comes, or
    TDQ's.
    `learn`: iterations in which the step sizes of each block are fitted (Q-Diffusion); not for dynamic ranges.
    """

    bits: Annotated[int, Field(ge=2, le=8)]
    ranges: Ranges = "static"
    learn: Annotated[int, Field(ge=0, le=1_000_000)] = 0

    @model_validator(mode="after")
    def there_are_steps_to_learn(self):
        if self.learn and self.ranges == "dynamic":
            raise ValueError(f"learn is {self.learn}, allowed with ranges dynamic is 0")
        return self


class Reconstruct(Block):
    """AdaRound, block by block: iterations of a block, images at a time, and Adam's rate for what is rounded up."""

    iterations: Count
    batch_size: Count = 32
    lr: LearningRate = 0.02


Learn = Literal["norms", "scales", "codes"]


class Recover(Block):
    """What is stored learns to predict FP32's noise, in `iterations` of `batch_size` images.

    `learn`: norms and biases alone ("norms"), scales too ("scales"), or all that is stored ("codes"). `lr`: Adam's
    rate for values and for logarithms of scales, `code_lr` for codes, in units of codes. `data`: noised training images
    ("images"), or x_t of the calibration set ("samples"), which needs no data.
    """

    iterations: Count
    batch_size: Count = 64
    lr: LearningRate = 0.001
    code_lr: LearningRate = 0.02
    learn: Learn = "codes"
    data: Literal["images", "samples"] = "images"
    seed: Seed = 0


class Recipe(BaseModel):
    """All three; what is not given is not done."""

    model_config = ConfigDict(frozen=True, strict=True)

    activations: Activations | None = None
    reconstruct: Reconstruct | None = None
    correct: Literal["ptqd"] | None = None

    def given(self) -> dict:
        """What is done, as JSON."""
        found = {key: getattr(self, key) for key in Recipe.model_fields}
        return {
            key: value.model_dump() if isinstance(value, Block) else value
            for key, value in found.items()
            if value is not None
        }
