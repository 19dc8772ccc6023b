"""Policies by name.

A policy is a function of the tensors and of its own options, which are keyword-only; one that goes by the size of the
file has `file_size` (a `FileSize`) for a second argument. To add one, write it in a file of this folder under `@policy`
and name it in a block of params.yaml: its annotations are what the block may say. A tensor that the policy does not
name stays in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from laqfi.base.registry import Registry
from laqfi.quant.choice import Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.rounding import ROUNDINGS

FloatFormat = Literal["float32", "float16", "bfloat16", "float8_e4m3fn"]
IntegerFormat = Literal["int2", "int3", "int4", "int5", "int6", "int7", "int8"]
Weighting = Literal["last", "uniform", "sampler", "image"]
Rounding = Annotated[str, AfterValidator(ROUNDINGS.known)]
Share = Annotated[float, Field(ge=0, le=1)]
GroupSize = Annotated[int, Field(ge=-1, le=65536)]  # groups are filled up: larger ones take more than they save

policy = POLICIES = Registry()
FLOATS_ALONE = Registry()  # those of the policies that have no integer formats


def stores_codes(name: str, options: Mapping) -> bool:
    """Whether a policy may store integers, as far as its options tell."""
    formats = options.get("formats")
    return name not in FLOATS_ALONE and (formats is None or any(one.startswith("int") for one in formats))


def check(name: str, options: Mapping, groups: Sequence[str] | None = None) -> BaseModel:
    """The options of the policy `name`, checked, defaults filled in; `groups` are those of the model, if it is known.

    Raises LaqfiError for an unknown policy, pydantic.ValidationError for options that do not fit.
    """
    return POLICIES.check(name, options, {"groups": groups})


FileSize = Callable[[Choices], int]  # bytes of the whole model file with the tensors stored so


def bind(name: str, options: Mapping) -> Callable[..., Choices]:
    """The policy `name` with its options, as a function of the tensors and of a `FileSize`; errors as in `check`.

    Policies that do not go by the size of the file are not given it.
    """
    checked, function = check(name, options), POLICIES[name]
    measures = "file_size" in signature(function).parameters

    def decide(tensors: list[Evidence], file_size: FileSize | None = None) -> Choices:
        return function(tensors, *([file_size] if measures else []), **dict(checked))

    return decide
