"""The policies of the seed report (`laqfi.report.verdicts` cites it): a float format for some weight tensors.

They decide on the weight tensors that belong to a group of the model's family: layers 1 to 6 of the U-Net.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from laqfi.base.block import Block
from laqfi.base.errors import LaqfiError
from laqfi.quant.choice import Choice, Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.policies.registry import FLOATS_ALONE, Share, policy
from laqfi.storage.formats import Format

Dtype = Literal["float32", "float16", "bfloat16"]


def below(tensors: Iterable[Evidence], threshold: float, dtype: str) -> Choices:
    """`dtype` for the tensors with a score under the threshold; the others stay as they are."""
    return {t.name: Choice(Format(dtype if t.score < threshold else "float32"), threshold) for t in tensors}


def in_groups(tensors: Iterable[Evidence]) -> list[Evidence]:
    """The weight tensors that belong to a group. Raises LaqfiError if none does: there is nothing to decide on."""
    found = [t for t in tensors if t.group is not None]
    if not found:
        raise LaqfiError("policy: goes by the groups of a model's family, and this model has none")
    return found


def by_group(tensors: list[Evidence]) -> list[list[Evidence]]:
    ordered = sorted(in_groups(tensors), key=lambda t: t.group)
    return [list(members) for _, members in groupby(ordered, key=lambda t: t.group)]


@FLOATS_ALONE
@policy
def uniform(tensors: list[Evidence], *, dtype: Dtype = "float16") -> Choices:
    """Control: every weight tensor that belongs to a group."""
    return {t.name: Choice(Format(dtype)) for t in in_groups(tensors)}


@FLOATS_ALONE
@policy
def threshold(tensors: list[Evidence], *, tau: Share, dtype: Dtype = "float16") -> Choices:
    """One threshold on the score for the whole model."""
    return below(in_groups(tensors), tau, dtype)


GroupName = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]


class Group(Block):
    """Layers that share a threshold: a number, or the mean score of the group's tensors."""

    layers: Annotated[list[GroupName], Field(min_length=1)]
    threshold: Share | Literal["mean"]


def partition(groups: list[Group], info: ValidationInfo) -> list[Group]:
    """Each of the model's groups once, where the model is known."""
    found = sorted(layer for group in groups for layer in group.layers)
    allowed = (info.context or {}).get("groups")
    if len(set(found)) < len(found) or (allowed is not None and found != sorted(allowed)):
        raise ValueError(f"the groups hold layers {found}, allowed is each of {allowed or 'them'} once")
    return groups


@FLOATS_ALONE
@policy
def group(
    tensors: list[Evidence],
    *,
    groups: Annotated[list[Group], AfterValidator(partition)],
    dtype: Dtype = "float16",
) -> Choices:
    """One threshold for each group of layers. Raises LaqfiError for a layer of the model that is in none of them."""
    members = in_groups(tensors)
    named = [layer for one in groups for layer in one.layers]
    if unnamed := sorted({t.group for t in members} - set(named)):
        raise LaqfiError(f"groups: hold the layers {named}, and the model has {unnamed[0]!r} too")
    choices = {}
    for one in groups:
        if found := [t for t in members if t.group in one.layers]:
            level = float(np.mean([t.score for t in found])) if one.threshold == "mean" else one.threshold
            choices |= below(found, level, dtype)
    return choices


@FLOATS_ALONE
@policy
def ratio(tensors: list[Evidence], *, p: Share, dtype: Dtype = "float16") -> Choices:
    """In every layer the top share p of its tensors stays: those at or above the (1 - p) quantile of its scores."""
    choices = {}
    for members in by_group(tensors):
        level = float(np.quantile([t.score for t in members], 1 - p)) if p > 0 else float("inf")
        choices |= below(members, level, dtype)
    return choices


@FLOATS_ALONE
@policy
def mean_std(
    tensors: list[Evidence],
    *,
    alpha: Annotated[float, Field(gt=0, le=1e6)],
    below: Dtype = "float16",
    between: Dtype = "float32",
    above: Dtype = "float32",
) -> Choices:
    """In every layer three classes, cut at mean ± k·std of its scores with k = clamp(alpha·mean/std, 0.1, 2)."""
    choices = {}
    for members in by_group(tensors):
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
