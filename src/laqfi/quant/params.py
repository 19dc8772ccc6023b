"""What params.yaml may say of quantizing."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

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
    """A size limit: how many times smaller than float32; `rest` is for biases and norms.

    `of` says of what: all tensors together as they are in memory, or the whole file, its header included, which
    `coding` codes.
    """

    ratio: Annotated[float, Field(gt=1, le=1000)]
    of: Literal["file", "resident"] = "resident"
    coding: Literal["ans"] | None = None
    rest: Literal["float16", "float8_e4m3fn"] = "float16"

    @model_validator(mode="after")
    def only_files_are_coded(self):
        if self.coding is not None and self.of != "file":
            raise ValueError(f"coding: found {self.coding!r}, allowed with of: {self.of} is none")
        return self


class Controls(Block):
    """`precision`: what is drawn in first, and again in that of the rows where it does not carry; None: those alone."""

    budgets: Annotated[list[Budget], Field(min_length=1)]
    images: Annotated[int, Field(ge=2, le=1_000_000)]
    precision: Precision | None = None

    @model_validator(mode="after")
    def budgets_differ(self):
        sizes = [(f"{one.ratio:g}", one.of, one.coding) for one in self.budgets]
        for ratio, of, _ in (size for place, size in enumerate(sizes) if size in sizes[:place]):
            raise ValueError(f"budgets: found {ratio} twice of: {of}, allowed is each ratio once of the same bytes")
        return self
