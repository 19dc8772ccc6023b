"""Formats under a limit of bytes, and the controls that spend as many by another idea of what matters."""

import math
import re
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from tqdm import tqdm

from laqfi.base.block import Block, Seed
from laqfi.base.errors import SHORT, LaqfiError
from laqfi.base.random import generator
from laqfi.quant.choice import Choice, Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.fitting import finest
from laqfi.quant.grid import Search
from laqfi.quant.knapsack import BudgetTooSmallError, allocate
from laqfi.quant.policies.registry import (
    FileSize,
    FloatFormat,
    GroupSize,
    IntegerFormat,
    Rounding,
    Weighting,
    policy,
)
from laqfi.storage.formats import Format


class Target(Block):
    """A size: bytes, how many times smaller than float32, mean bits per parameter, or as many bytes as the model takes
    with every matrix in one integer format.

    `of` says of what: all tensors together as they are in memory, or the whole file, its header included, which is no
    larger then.
    """

    bytes: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    ratio: Annotated[float, Field(gt=1, le=1000)] | None = None
    mean_bits: Annotated[float, Field(gt=0, lt=32)] | None = None
    format: IntegerFormat | None = None
    of: Literal["file", "resident"] = "resident"

    @model_validator(mode="after")
    def one_of_them(self):
        given = [key for key, value in self if key != "of" and value is not None]
        if len(given) != 1:
            raise ValueError(f"found {given or 'nothing'}, allowed is exactly one of bytes, ratio, mean_bits, format")
        if self.format is not None and self.of == "file":
            raise ValueError("of: found 'file', allowed with format is 'resident'")
        return self

    def limit(self, parameters: int, size_in: Callable[[str], int] | None = None) -> int:
        """In bytes, for a model of so many parameters; `size_in` says how many it takes in a `format`."""
        if self.bytes is not None:
            return self.bytes
        if self.format is not None:
            return size_in(self.format)
        return int(parameters * (4 / self.ratio if self.ratio is not None else self.mean_bits / 8))


SIZE = re.compile(r"(\d+(?:\.\d+)?)(x|B|kB|MB|GB|KiB|MiB|GiB)")
UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def target_of(text: str) -> dict:
    """A target as text, as params.yaml has it: "8x" or "300kB". Raises LaqfiError for any other text."""
    found = SIZE.fullmatch(text)
    if found is None:
        raise LaqfiError(
            f"target: found {SHORT.repr(text)}, allowed is how many times smaller than float32, such as 8x, or bytes,"
            f" such as 300kB ({', '.join(UNITS)})"
        )
    number, unit = float(found[1]), found[2]
    if unit == "x":
        return {"ratio": number}
    return {"bytes": int(number * UNITS[unit]) if math.isfinite(number) else 2**63}  # which is too large, too


# What the method is best with, by its results: formats for bytes by Fisher information, rounded by GPTQ.
BEST = {"formats": ["int2", "int3", "int4", "int5", "int6", "int7", "int8", "float16"], "rounding": "gptq"}
Importance = Literal["fisher", "none", "magnitude", "inverse", "random", "uniform"]


@policy
def budget(
    tensors: list[Evidence],
    file_size: FileSize | None = None,
    *,
    target: Target,
    formats: Annotated[list[IntegerFormat | FloatFormat], Field(min_length=1)],
    importance: Importance = "fisher",
    weighting: Weighting = "uniform",
    symmetric: bool = True,
    group_size: GroupSize = 0,
    search: Search = "fisher",
    rounding: Rounding = "nearest",
    rest: FloatFormat = "float16",
    keep: list[str] = [],  # noqa: B006 read as the default of a field, never changed
    seed: Seed = 0,
) -> Choices:
    """Formats under a size limit that minimise the predicted change of the output, Σ_t w_t Σ_j F_t[j] (q_j − w_j)².

    `keep` names tensors that stay in float32; biases and norms get `rest`. `importance` other than "fisher" makes the
    controls: plain squared error; times the tensor's mean |w|; divided by its mean Fisher; times the mean Fisher of
    another tensor, drawn with `seed`; or the widest integer format that fits, the same for all. For a target of the
    file, tensors get the bytes in memory with which the file comes nearest to it. Raises BudgetTooSmallError, with the
    smallest feasible size, for a target that no choice meets, LaqfiError for a name in `keep` that is no tensor's.
    """
    if unknown := sorted(set(keep) - {t.name for t in tensors}):
        raise LaqfiError(f"keep: the model has no tensor {unknown[0]!r}")
    matrices = [Format(name, symmetric, group_size) for name in formats]
    options = [[Format("float32")] if t.name in keep else matrices if t.is_matrix else [Format(rest)] for t in tensors]
    sizes = [[t.bytes(one) for one in some] for t, some in zip(tensors, options, strict=True)]
    limit = target.limit(
        sum(t.weight.numel() for t in tensors), lambda name: size_in(tensors, Format(name, symmetric, group_size), rest)
    )
    costs = costs_of(tensors, options, search, importances(tensors, importance, weighting, seed))

    def within(limit: int) -> Choices:
        chosen = allocate(costs, sizes, limit) if costs else widest(options, sizes, limit)
        return {
            t.name: Choice(some[j], None, search, rounding) for t, some, j in zip(tensors, options, chosen, strict=True)
        }

    if target.of == "resident":
        return within(limit)
    most, least = (sum(map(end, sizes)) for end in (max, min))
    saved = finest(lambda saved: file_size(within(most - saved)), limit, most - limit, 1.0, (0, most - least))
    return within(most - saved)


def size_in(tensors: list[Evidence], matrices: Format, rest: FloatFormat) -> int:
    """Bytes with all matrices in one format and the other tensors in another."""
    return sum(t.bytes(matrices if t.is_matrix else Format(rest)) for t in tensors)


def smallest(tensors: list[Evidence], formats: list[str], rest: FloatFormat) -> int:
    """The fewest bytes that `budget` can be asked for with these formats."""
    return sum(min(t.bytes(Format(one)) for one in (formats if t.is_matrix else [rest])) for t in tensors)


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


def importances(
    tensors: list[Evidence], kind: Importance, weighting: Weighting, seed: int
) -> list[tuple[float, float]]:
    """What the errors of each tensor count: those weighted by Fisher information, and the plain squared ones.

    None for "uniform", which goes by no error.
    """
    if kind == "uniform":
        return []
    if kind == "fisher":
        return [(t.counts[weighting], 0.0) for t in tensors]
    means = [t.counts[weighting] * float(t.fisher.mean(dtype=torch.float64)) for t in tensors]
    if kind == "random":
        return [(0.0, means[i]) for i in generator("random importance", seed).permutation(len(means))]
    plain = {
        "none": [1.0] * len(tensors),
        "magnitude": [float(t.weight.abs().mean()) for t in tensors],
        "inverse": [1 / mean if mean > 0 else 0.0 for mean in means],
    }[kind]
    return [(0.0, factor) for factor in plain]


def costs_of(
    tensors: list[Evidence], options: list[list[Format]], search: Search, factors: list[tuple[float, float]]
) -> list[list[float]]:
    """What every option of every tensor adds to the predicted change; none without `factors`. Errors as below."""
    if not factors:
        return []
    shown = tqdm(tensors, "formats", unit="tensor", disable=None, leave=False)  # on a terminal alone
    return [
        [predicted_error(t, one, search, *factor) for one in some] if len(some) > 1 else [0.0]
        for t, some, factor in zip(shown, options, factors, strict=True)
    ]


def predicted_error(t: Evidence, format: Format, search: Search, weighted: float, plain: float) -> float:
    """What one tensor in one format adds to the predicted change. Raises LaqfiError if that is no finite number."""
    found = sum(
        count * error for count, error in zip((weighted, plain), t.errors(format, search), strict=True) if count
    )
    if not math.isfinite(found):
        raise LaqfiError(f"{t.name}: the error predicted for {format.name} is {found}, allowed is a finite number")
    return found
