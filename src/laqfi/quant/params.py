"""What params.yaml may say of quantizing."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from laqfi.base.block import Block, Timestep


class Quantize(Block):
    fisher: Literal["empirical", "gauss_newton"]
    timestep: Timestep


class Variant(BaseModel):
    """A quantization policy with its options, which the policy itself declares."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    policy: str


class Budget(Block):
    """A size limit: how many times smaller than float32; `rest` is for biases and norms."""

    ratio: Annotated[float, Field(gt=1, le=1000)]
    rest: Literal["float16", "float8_e4m3fn"] = "float16"


class Controls(Block):
    budgets: Annotated[list[Budget], Field(min_length=1)]
    images: Annotated[int, Field(ge=2, le=1_000_000)]
