"""Rows of a table that say the same, as one row: variants of float formats that no reader can tell from FP32."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from laqfi.records import Allocation, Interval
from laqfi.report.differences import JudgedVariant
from laqfi.report.tables import Row

SHARE = 0.01  # of the half-width of FP32's own interval
LEAST = 3  # rows that are worth folding
NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Alike:
    """Variants whose rows are one that opens, what they are, and the rule that chose them; it may be none."""

    variants: tuple[str, ...]
    kind: str
    rule: str


def alike(variants: Mapping[str, JudgedVariant], allocations: Mapping[str, Allocation]) -> Alike:
    """Those of float formats whose difference in FID to FP32 is a hundredth of what a single FID is uncertain by."""
    base = variants["fp32"].measured.fid
    limit = SHARE * (base.high - base.low) / 2
    found = tuple(
        name
        for name, one in variants.items()
        if in_float_formats(allocations[name]) and within(one.images.simultaneous, limit)
    )
    rule = (
        f"In one row: variants in float formats alone whose interval of FID − FP32, the one that holds for the whole"
        f" table, lies within ± {limit:.2g}, {SHARE:.0%} of the half-width of FP32's own interval."
    )
    if len(found) < LEAST:
        return Alike((), "", "")
    return Alike(found, "variants in float formats", rule)


def in_float_formats(allocation: Allocation) -> bool:
    return bool(allocation.tensors) and allocation.bits_per_weight is None and not allocation.recipe.done


def within(found: Interval, limit: float) -> bool:
    return -limit <= found.low and found.high <= limit


def summary(rows: Sequence[Row], column: str, title: str) -> Row:
    """One row for several: `title` under `column`, elsewhere what all say, or from the least to the most of it."""
    return {key: title if key == column else span([row[key] for row in rows]) for key in rows[0]}


def span(cells: Sequence[str]) -> str:
    """Cells of one column as one: equal ones as they are, numbers from the least to the most, words counted.

    Intervals, in brackets, become the narrowest that holds them all.
    """
    if len(set(cells)) == 1:
        return cells[0]
    heads = [cell.partition("[")[0].strip() for cell in cells]
    ends = [NUMBER.findall(cell.partition("[")[2]) for cell in cells]
    parts = []
    if any(heads):
        parts.append(from_least_to_most(heads) if all(map(NUMBER.search, heads)) else counted(heads))
    if all(len(found) == 2 for found in ends):
        low = min((found[0] for found in ends), key=number)
        high = max((found[1] for found in ends), key=number)
        parts.append(f"[{low}, {high}]")
    return " ".join(parts)


def from_least_to_most(cells: Sequence[str]) -> str:
    ordered = sorted((cell.partition("(")[0].strip() for cell in cells), key=number)
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} … {ordered[-1]}"


def counted(cells: Sequence[str]) -> str:
    found = Counter(cells)
    return ", ".join(f"{word} ({count})" for word, count in found.most_common())


def number(cell: str) -> float:
    return float(NUMBER.search(cell)[0].replace(",", "").replace("−", "-"))
