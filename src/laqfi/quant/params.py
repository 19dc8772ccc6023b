"""What params.yaml may say of quantizing."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from laqfi.base.block import Block, Name, Timestep
from laqfi.quant.recipe import Recipe, Recover
from laqfi.records import Precision


class Quantize(Block):
    fisher: Literal["empirical", "gauss_newton"]
    timestep: Timestep


class Variant(Recipe):
    """A quantization policy with its options, which the policy itself declares, and what is done beside it.

    `coding`: how the file is coded, without loss.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    policy: str
    coding: Literal["ans"] | None = None

    @property
    def coded(self) -> dict:
        """What the metadata of the model file say of it."""
        return {} if self.coding is None else {"coding": self.coding}

    @property
    def by_image(self) -> bool:
        """Whether its policy weighs tensors by what they matter for the final image."""
        return (self.model_extra or {}).get("weighting") == "image"

    @property
    def recipe(self) -> dict:
        """The keys that are no options of the policy."""
        return {key: getattr(self, key) for key in Recipe.model_fields}


class Listed(Variant):
    """A variant as params.yaml has it, with what the stage `quantize` does not read.

    `recover` is what its tensors learn once they are stored. `profiles` are those that it is for; None: all that do not
    list others.
    """

    recover: Recover | None = None
    profiles: list[Name] | None = None


class Budget(Block):
    """A size limit: how many times smaller than float32; `rest` is for biases and norms."""

    ratio: Annotated[float, Field(gt=1, le=1000)]
    rest: Literal["float16", "float8_e4m3fn"] = "float16"


class Controls(Block):
    """`precision`: what is drawn in first, and again in that of the rows where it does not carry; None: those alone."""

    budgets: Annotated[list[Budget], Field(min_length=1)]
    images: Annotated[int, Field(ge=2, le=1_000_000)]
    precision: Precision | None = None
