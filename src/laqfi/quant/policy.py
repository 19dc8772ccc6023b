"""Policies: which weight tensor of layers 1 to 6 is stored in which format, decided from its Fisher score.

A policy is a function of the tensors and of its own options, which are keyword-only. To add one, write it here
under `@policy` and name it in a block of params.yaml: its annotations are what the block may say.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Literal, get_type_hints

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from laqfi.errors import LaqfiError

Dtype = Literal["float32", "float16", "bfloat16"]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class WeightTensor:
    """A weight tensor; `score` is its mean Fisher over the largest of all tensors at that timestep (eq. 2)."""

    name: str
    layer: int
    score: float


@dataclass(frozen=True)
class Choice:
    """The format a tensor is stored in, and the threshold its score was compared with (None: no threshold)."""

    dtype: str
    threshold: float | None = None


Choices = dict[str, Choice]
POLICIES: dict[str, Callable[..., Choices]] = {}


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def policy(function: Callable[..., Choices]) -> Callable[..., Choices]:
    """Register `function` under its name."""
    POLICIES[function.__name__] = function
    return function


def bind(name: str, options: dict) -> Callable[[list[WeightTensor]], Choices]:
    """The policy `name` with its options checked against the function's annotations.

    Raises LaqfiError for an unknown policy, pydantic.ValidationError for options that do not fit.
    """
    if name not in POLICIES:
        raise LaqfiError(f"found {name!r}, allowed is one of {sorted(POLICIES)}")
    function = POLICIES[name]
    hints = get_type_hints(function, include_extras=True)
    fields = {
        parameter.name: (
            hints[parameter.name],
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    checked = create_model(name, __base__=Options, **fields).model_validate(options)
    return lambda tensors: function(tensors, **{key: getattr(checked, key) for key in fields})


def below(tensors: Iterable[WeightTensor], threshold: float, dtype: str) -> Choices:
    """`dtype` for the tensors with a score under the threshold; the others stay as they are."""
    return {t.name: Choice(dtype if t.score < threshold else "float32", threshold) for t in tensors}


def by_layer(tensors: list[WeightTensor]) -> list[list[WeightTensor]]:
    ordered = sorted(tensors, key=lambda t: t.layer)
    return [list(members) for _, members in groupby(ordered, key=lambda t: t.layer)]


@policy
def fp32(tensors: list[WeightTensor]) -> Choices:
    """Control: nothing is quantized."""
    return {t.name: Choice("float32") for t in tensors}


@policy
def uniform(tensors: list[WeightTensor], *, dtype: Dtype = "float16") -> Choices:
    """Control: every weight tensor of layers 1 to 6."""
    return {t.name: Choice(dtype) for t in tensors}


@policy
def threshold(tensors: list[WeightTensor], *, tau: Share, dtype: Dtype = "float16") -> Choices:
    """One threshold on the score for the whole model."""
    return below(tensors, tau, dtype)


class Group(Options):
    """Layers that share a threshold: a number, or the mean score of the group's tensors."""

    layers: Annotated[list[Annotated[int, Field(ge=1, le=6)]], Field(min_length=1)]
    threshold: Share | Literal["mean"]


def partition(groups: list[Group]) -> list[Group]:
    found = sorted(layer for group in groups for layer in group.layers)
    if found != [1, 2, 3, 4, 5, 6]:
        raise ValueError(f"the groups hold layers {found}, allowed is each of 1 to 6 once")
    return groups


@policy
def group(
    tensors: list[WeightTensor],
    *,
    groups: Annotated[list[Group], AfterValidator(partition)],
    dtype: Dtype = "float16",
) -> Choices:
    """One threshold for each group of layers."""
    choices = {}
    for one in groups:
        members = [t for t in tensors if t.layer in one.layers]
        level = float(np.mean([t.score for t in members])) if one.threshold == "mean" else one.threshold
        choices |= below(members, level, dtype)
    return choices


@policy
def ratio(tensors: list[WeightTensor], *, p: Share, dtype: Dtype = "float16") -> Choices:
    """In every layer the top share p of its tensors stays: those at or above the (1 - p) quantile of its scores."""
    choices = {}
    for members in by_layer(tensors):
        level = float(np.quantile([t.score for t in members], 1 - p)) if p > 0 else float("inf")
        choices |= below(members, level, dtype)
    return choices


@policy
def mean_std(
    tensors: list[WeightTensor],
    *,
    alpha: Annotated[float, Field(gt=0)],
    below: Dtype = "float16",
    between: Dtype = "float32",
    above: Dtype = "float32",
) -> Choices:
    """In every layer three classes, cut at mean ± k·std of its scores with k = clamp(alpha·mean/std, 0.1, 2)."""
    choices = {}
    for members in by_layer(tensors):
        scores = np.array([t.score for t in members])
        mean, std = float(scores.mean()), float(scores.std())
        k = float(np.clip(alpha * mean / std, 0.1, 2)) if std > 0 else 2.0
        lower, upper = mean - k * std, mean + k * std
        for t in members:
            if t.score < lower:
                choices[t.name] = Choice(below, lower)
            elif t.score > upper:
                choices[t.name] = Choice(above, upper)
            else:
                choices[t.name] = Choice(between, lower)
    return choices
