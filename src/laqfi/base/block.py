"""What all blocks of parameters share: strictness, and the kinds of numbers, each with a finite range."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Timestep = Annotated[int, Field(ge=1, le=100_000)]
Timesteps = Annotated[list[Timestep], Field(min_length=1)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Block(BaseModel):
    """A part of params.yaml: unknown keys, wrong types, NaN and infinity are errors, never guesses."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
