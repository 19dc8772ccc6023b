"""Policies: which tensor is stored in which format, and why.

A policy is a function of the tensors and of its own options, which are keyword-only. To add one, write it here
under `@policy` and name it in a block of params.yaml: its annotations are what the block may say. A tensor the
policy does not name stays in float32.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from typing import Annotated, Literal, get_type_hints

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, create_model, model_validator
from torch import Tensor

from laqfi.base.block import Block, Seed
from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.quant.grid import Search
from laqfi.quant.knapsack import BudgetTooSmallError, allocate
from laqfi.quant.rounding import quantize
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout

Dtype = Literal["float32", "float16", "bfloat16"]
Storage = Literal["float32", "float16", "bfloat16", "float8_e4m3fn"]
Integer = Literal["int2", "int3", "int4", "int5", "int6", "int7", "int8"]
Weighting = Literal["last", "uniform", "sampler"]
Rounding = Literal["nearest", "gptq"]
GroupSize = Annotated[int, Field(ge=-1, le=65536)]  # groups are filled up: larger ones take more than they save
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False)
class WeightTensor:
    """A tensor of the model.

    `layer` is 1 to 6 for the weight tensors the seed report decides on, else None; `score` is its mean Fisher over the
    largest of those at one timestep (eq. 2). `fisher` holds Σ_t w_t F_t of every weight, for each timestep weighting.
    """

    name: str
    layer: int | None
    score: float
    weight: Tensor | None = None
    axis: int = 0
    fisher: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def is_matrix(self) -> bool:
        """Weights of convolutions and linear layers, not biases and norms."""
        return self.weight.dim() >= 2

    def layout(self, format: Format) -> Layout:
        """Integer formats leave out the kernel positions without Fisher information: they only ever meet padding."""
        return Layout(format, tuple(self.weight.shape), self.axis, None if format.is_float else self.live_taps)

    @cached_property
    def live_taps(self) -> tuple[int, ...] | None:
        """Kernel positions that move the output at some timestep, None if all do (or none, or there is no kernel)."""
        if self.weight.dim() < 3 or "uniform" not in self.fisher:
            return None
        live = self.fisher["uniform"].flatten(2).sum((0, 1)).nonzero().flatten().tolist()
        return tuple(live) if 0 < len(live) < self.weight[0, 0].numel() else None


@dataclass(frozen=True)
class Choice:
    """The format a tensor is stored in, how its scale is searched, and the threshold its score met (None: none)."""

    format: Format
    threshold: float | None = None
    search: Search = "mse"
    weighting: Weighting = "uniform"
    rounding: Rounding = "nearest"


Choices = dict[str, Choice]
POLICIES: dict[str, Callable[..., Choices]] = {}


def policy(function: Callable[..., Choices]) -> Callable[..., Choices]:
    """Register `function` under its name."""
    POLICIES[function.__name__] = function
    return function


def check(name: str, options: dict) -> BaseModel:
    """The options of the policy `name`, checked against the function's annotations, defaults filled in.

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
    return create_model(name, __base__=Block, **fields).model_validate(options)


def bind(name: str, options: dict) -> Callable[[list[WeightTensor]], Choices]:
    """The policy `name` with its options; errors as in `check`."""
    checked = check(name, options)
    return lambda tensors: POLICIES[name](tensors, **dict(checked))


def below(tensors: Iterable[WeightTensor], threshold: float, dtype: str) -> Choices:
    """`dtype` for the tensors with a score under the threshold; the others stay as they are."""
    return {t.name: Choice(Format(dtype if t.score < threshold else "float32"), threshold) for t in tensors}


def in_layers(tensors: Iterable[WeightTensor]) -> list[WeightTensor]:
    """The weight tensors of layers 1 to 6, on which the seed report's policies decide."""
    return [t for t in tensors if t.layer is not None]


def by_layer(tensors: list[WeightTensor]) -> list[list[WeightTensor]]:
    ordered = sorted(in_layers(tensors), key=lambda t: t.layer)
    return [list(members) for _, members in groupby(ordered, key=lambda t: t.layer)]


@policy
def fp32(tensors: list[WeightTensor]) -> Choices:
    """Control: nothing is quantized."""
    return {}


@policy
def uniform(tensors: list[WeightTensor], *, dtype: Dtype = "float16") -> Choices:
    """Control: every weight tensor of layers 1 to 6."""
    return {t.name: Choice(Format(dtype)) for t in in_layers(tensors)}


@policy
def threshold(tensors: list[WeightTensor], *, tau: Share, dtype: Dtype = "float16") -> Choices:
    """One threshold on the score for the whole model."""
    return below(in_layers(tensors), tau, dtype)


class Group(Block):
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
    alpha: Annotated[float, Field(gt=0, le=1e6)],
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
                choices[t.name] = Choice(Format(below), lower)
            elif t.score > upper:
                choices[t.name] = Choice(Format(above), upper)
            else:
                choices[t.name] = Choice(Format(between), lower)
    return choices


@policy
def bits(
    tensors: list[WeightTensor],
    *,
    format: Integer,
    symmetric: bool = True,
    group_size: GroupSize = 0,
    search: Search = "mse",
    rounding: Rounding = "nearest",
    rest: Storage = "float16",
) -> Choices:
    """Control: one integer format for every convolution and linear layer of the model, `rest` for the others."""
    integer = Format(format, symmetric, group_size)
    return {t.name: Choice(integer if t.is_matrix else Format(rest), search=search, rounding=rounding) for t in tensors}


class Target(Block):
    """The size of all tensors together: bytes, how many times smaller than float32, or mean bits per parameter."""

    bytes: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    ratio: Annotated[float, Field(gt=1, le=1000)] | None = None
    mean_bits: Annotated[float, Field(gt=0, lt=32)] | None = None

    @model_validator(mode="after")
    def one_of_them(self):
        given = [key for key, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"found {given or 'nothing'}, allowed is exactly one of bytes, ratio, mean_bits")
        return self

    def limit(self, parameters: int) -> int:
        """In bytes, for a model of so many parameters."""
        if self.bytes is not None:
            return self.bytes
        return int(parameters * (4 / self.ratio if self.ratio is not None else self.mean_bits / 8))


Importance = Literal["fisher", "none", "magnitude", "inverse", "random", "uniform"]


@policy
def budget(
    tensors: list[WeightTensor],
    *,
    target: Target,
    formats: Annotated[list[Integer | Storage], Field(min_length=1)],
    importance: Importance = "fisher",
    weighting: Weighting = "uniform",
    symmetric: bool = True,
    group_size: GroupSize = 0,
    search: Search = "fisher",
    rounding: Rounding = "nearest",
    rest: Storage = "float16",
    keep: list[str] = [],  # noqa: B006 read as the default of a field, never changed
    seed: Seed = 0,
) -> Choices:
    """Formats under a size limit that minimise the predicted change of the output, Σ_t w_t Σ_j F_t[j] (q_j − w_j)².

    `keep` names tensors that stay in float32; biases and norms get `rest`. `importance` other than "fisher" makes the
    controls: plain squared error; times the tensor's mean |w|; over its mean Fisher; times the mean Fisher of another
    tensor, drawn with `seed`; or the widest integer format that fits, the same for all.
    """
    if unknown := sorted(set(keep) - {t.name for t in tensors}):
        raise LaqfiError(f"keep: the model has no tensor {unknown[0]!r}")
    options = [
        [Format("float32")]
        if t.name in keep
        else [Format(name, symmetric, group_size) for name in formats]
        if t.is_matrix
        else [Format(rest)]
        for t in tensors
    ]
    sizes = [[t.layout(one).bytes() for one in some] for t, some in zip(tensors, options, strict=True)]
    limit = target.limit(sum(t.weight.numel() for t in tensors))
    if importance == "uniform":
        chosen = widest(options, sizes, limit)
    else:
        factors = importances(tensors, importance, weighting, seed)
        costs = [
            [predicted_error(t, one, search, weighting, factor) for one in some] if len(some) > 1 else [0.0]
            for t, some, factor in zip(tensors, options, factors, strict=True)
        ]
        chosen = allocate(costs, sizes, limit)
    return {
        t.name: Choice(some[j], None, search, weighting, rounding)
        for t, some, j in zip(tensors, options, chosen, strict=True)
    }


def widest(options: list[list[Format]], sizes: list[list[int]], limit: int) -> list[int]:
    """The place in `options` of the one integer format that is the largest to fit, for all tensors that may have it.

    Raises BudgetTooSmallError, with the smallest feasible size, if none fits, LaqfiError if there is no integer format.
    """
    names = sorted({format.name for some in options for format in some if not format.is_float})
    feasible = {}
    for name in names:
        places = [next((j for j, one in enumerate(some) if one.name == name), 0) for some in options]
        feasible[sum(size[j] for size, j in zip(sizes, places, strict=True))] = places
    if not feasible:
        raise LaqfiError("importance: found 'uniform' and no integer format in formats, allowed is at least one")
    fitting = [size for size in feasible if size <= limit]
    if not fitting:
        raise BudgetTooSmallError(
            f"a budget of {limit} bytes is too small for one format for all, the smallest feasible is {min(feasible)}"
        )
    return feasible[max(fitting)]


def importances(tensors: list[WeightTensor], kind: Importance, weighting: Weighting, seed: int) -> list[Tensor | float]:
    """What the squared error of each tensor's weights counts: a number, or one for every weight."""
    means = [float(t.fisher[weighting].mean()) for t in tensors]
    if kind == "random":
        return [means[i] for i in generator("random importance", seed).permutation(len(means))]
    return {
        "fisher": [t.fisher[weighting] for t in tensors],
        "none": [1.0] * len(tensors),
        "magnitude": [float(t.weight.abs().mean()) for t in tensors],
        "inverse": [1 / mean if mean > 0 else 0.0 for mean in means],
    }[kind]


def predicted_error(
    t: WeightTensor, format: Format, search: Search, weighting: Weighting, importance: Tensor | float
) -> float:
    """Σ_j importance_j (q_j − w_j)² for one tensor in one format. Raises LaqfiError if that is no finite number."""
    found = float((importance * squared_error(t, format, search, weighting).double()).sum())
    if not math.isfinite(found):
        raise LaqfiError(f"{t.name}: the error predicted for {format.name} is {found}, allowed is a finite number")
    return found


@cache
def squared_error(t: WeightTensor, format: Format, search: Search, weighting: Weighting) -> Tensor:
    """(q_j − w_j)² of every weight, rounded to nearest."""
    _, restored = quantize(t.weight, t.layout(format), search, t.fisher[weighting])
    return (restored - t.weight).square()
