"""Rounding: from a weight to what is stored of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laqfi.base.errors import LaqfiError
from laqfi.base.registry import Registry
from laqfi.quant.gptq import gptq_codes
from laqfi.quant.grid import Search, fit_grid, round_to_grid
from laqfi.sensitivity.compensation import Compensation
from laqfi.storage.formats import FLOATS, LEAST, MOST
from laqfi.storage.layout import Codes, Layout

# A method gets the weight, its layout, its grid with the nearest codes, and what errors are made good by (None: nothing
# is known of it); it returns codes on the same grid.
ROUNDINGS = Registry()


@ROUNDINGS
def nearest(weight: Tensor, layout: Layout, grid: Codes, compensation: Compensation | None) -> Codes:
    """The nearest code for every weight by itself."""
    return grid


@ROUNDINGS
def gptq(weight: Tensor, layout: Layout, grid: Codes, compensation: Compensation | None) -> Codes:
    """Codes whose errors make up for each other (`laqfi.quant.gptq`).

    Raises LaqfiError without a curvature, or with one of another layer.
    """
    return gptq_together(weight, {layout: grid}, compensation)[layout]


def gptq_together(
    weight: Tensor, grids: Mapping[Layout, Codes], compensation: Compensation | None
) -> dict[Layout, Codes]:
    """The same in several formats at once: columns follow one another, formats stand side by side, as rows do."""
    if compensation is None:
        raise LaqfiError("has no curvature, by which the rounding gptq works")
    first = next(iter(grids))
    check_size(compensation, weight.numel() // first.rows)
    scale = torch.cat([layout.ungrouped(grid.scale) for layout, grid in grids.items()])
    zero_point = torch.cat([layout.ungrouped(grid.zero_point) for layout, grid in grids.items()])
    levels = torch.tensor([layout.format.levels for layout in grids]).repeat_interleave(first.rows)
    order, feedback = compensation.unpacked(first.stored_columns(), weight.device)
    matrix = first.matrix(weight).repeat(len(grids), 1)
    codes = gptq_codes(matrix, order, feedback, scale, zero_point, levels).split(first.rows)
    return {
        layout: Codes(layout.grouped(found), grid.scale, grid.zero_point)
        for (layout, grid), found in zip(grids.items(), codes, strict=True)
    }


def check_size(compensation: Compensation, columns: int) -> None:
    """Raises LaqfiError for a compensation that is not of so many columns, the weights of one output channel."""
    sizes = {key: len(getattr(compensation, key.split("/")[0])) for key in Compensation.shapes("", columns)}
    for key, (_, (wanted,)) in Compensation.shapes("", columns).items():
        if sizes[key] != wanted:
            found = len(compensation.order)
            raise LaqfiError(f"has a curvature of {found} columns ({key[:-1]}: {sizes[key]}), allowed are {columns}")


@dataclass(frozen=True, eq=False)
class Stored:
    """One stored tensor: its layout, its parts by their suffix, and the weight they stand for."""

    layout: Layout
    parts: dict[str, Tensor]
    weight: Tensor

    @property
    def delta(self) -> Tensor:
        """What rounding added to the weight; restored anew each time, because it takes as much memory as the weight."""
        return self.layout.restore(self.parts) - self.weight


def store(
    weight: Tensor,
    layout: Layout,
    search: Search,
    importance: Tensor | None = None,
    rounding: str = "nearest",
    compensation: Compensation | None = None,
    step: float | None = None,
) -> Stored:
    """`weight` as it is stored in `layout`, or with a `step`, that of importance 1, on an open grid.

    `importance` (of the weight's shape) is what the search "fisher" weighs errors by; `compensation`, of the columns of
    the whole weight, is for rounding methods that compensate. Raises LaqfiError for weights that are not finite, before
    or after a cast.
    """
    check_values(weight)
    if layout.format.is_float:
        return Stored(layout, float_parts(weight, layout), weight)
    if importance is None and (search == "fisher" or step is not None):
        raise LaqfiError("has no Fisher information, which the search fisher and open grids work by")
    method = ROUNDINGS.find(rounding)
    if step is not None:
        layout, parts = open_parts(weight.float(), layout, step, importance, method, compensation)
    else:
        grid = grid_of(weight, layout, search, importance)
        parts = grid_parts(weight, layout, method(weight.float(), layout, grid, compensation))
    return Stored(layout, parts, weight)


def store_together(
    weight: Tensor, layouts: list[Layout], search: Search, importance: Tensor | None, compensation: Compensation | None
) -> list[Stored]:
    """`weight` rounded by GPTQ in several integer layouts of the same columns at once; all else as of `store`."""
    check_values(weight)
    grids = {layout: grid_of(weight, layout, search, importance) for layout in layouts}
    found = gptq_together(weight.float(), grids, compensation)
    return [Stored(layout, grid_parts(weight, layout, found[layout]), weight) for layout in layouts]


def check_values(weight: Tensor) -> None:
    if not weight.numel():
        raise LaqfiError("holds no values")
    if not weight.isfinite().all():
        raise LaqfiError("holds values that are not finite")


def grid_of(weight: Tensor, layout: Layout, search: Search, importance: Tensor | None) -> Codes:
    """The grid of every group, with the nearest codes."""
    groups = layout.grouped(layout.matrix(weight.float()))
    weights = None if importance is None else layout.grouped(layout.matrix(importance.float()))
    return fit_grid(groups, layout.format, search, weights)


def grid_parts(weight: Tensor, layout: Layout, codes: Codes) -> dict[str, Tensor]:
    if not codes.scale.isfinite().all():
        raise LaqfiError(f"does not fit scales in float16; largest |w| is {weight.abs().max().item():g}")
    return layout.parts(codes)


def open_parts(
    weight: Tensor,
    layout: Layout,
    step: float,
    importance: Tensor,
    rounding: Callable,
    compensation: Compensation | None,
) -> tuple[Layout, dict[str, Tensor]]:
    """The weight on symmetric grids without ends, in the fewest bits that hold its codes; `layout` has the widest.

    Raises LaqfiError for steps beyond float16.
    """
    middle = layout.format.levels // 2
    groups = layout.grouped(layout.matrix(weight))
    scales = open_scales(groups, step, layout.grouped(layout.matrix(importance)), middle)
    grid = round_to_grid(groups, scales, torch.full_like(scales, middle), layout.format.levels)
    codes = rounding(weight, layout, grid, compensation).codes - middle
    low, high = int(codes.min()), int(codes.max())
    bits = next(bits for bits in range(2, layout.format.bits + 1) if -(1 << bits - 1) <= low and high < 1 << bits - 1)
    narrow = replace(layout, format=replace(layout.format, name=f"int{bits}"))
    return narrow, narrow.parts(Codes(codes + (1 << bits - 1), scales, 1 << bits - 1))


def open_scales(groups: Tensor, step: float, importance: Tensor, middle: int) -> Tensor:
    """Steps of weights [groups, n] as they are stored: float32 [groups, 1], all of one sign.

    That of a group is `step` / √(mean importance), to the nearest half of a power of two times that of the whole
    tensor: two mantissas serve all groups. It is no smaller than keeps all weights within `middle` codes, and no larger
    than makes zeros of all, as where nothing is important, or than float16 holds. Raises LaqfiError for weights that
    lie beyond.
    """
    means, largest = importance.double().mean(1, keepdim=True), groups.abs().max().item()
    most = 2.01 * largest or 1.0  # a little over twice the largest, as float16 may round it down
    whole = means.mean().item()
    base = min(step / math.sqrt(whole), most) if whole else most
    least = (groups.abs().amax(1, keepdim=True).double() / (middle - 1) / base).clamp(min=1e-30)
    beside = whole / means.clamp(min=1e-30) if whole else torch.ones_like(means)
    places = beside.log2().round().clamp(max=math.floor(2 * math.log2(most / base)))
    places = places.maximum((2 * least.log2()).ceil())
    scales = (base * 2 ** (places / 2)).clamp(LEAST, MOST).float().half()
    # Of the few digits below the normal numbers of float16 the last may be one too few.
    cut = groups.abs().amax(1, keepdim=True) > (middle - 0.5) * scales.float()
    scales = scales.where(~cut, (scales.view(torch.int16) + 1).view(torch.float16)).float()
    if not scales.isfinite().all():
        raise LaqfiError(f"does not fit steps in float16; the step is {base:g}, largest |w| is {largest:g}")
    return scales


def float_parts(weight: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The weight in a float format. Raises LaqfiError for values beyond its range."""
    stored = weight.to(FLOATS[layout.format.name])
    if not stored.float().isfinite().all():
        raise LaqfiError(f"does not fit {layout.format.name}; largest |w| is {weight.abs().max().item():g}")
    return {"": stored}
