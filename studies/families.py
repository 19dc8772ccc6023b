"""Whole tables of verdicts: how often every interval of a table holds, and how often a table says something false."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats
from tqdm import tqdm

from counting import Runs, Share, holds, mean
from laqfi.base.random import generator
from laqfi.quality import simultaneous, statistics
from laqfi.quality.statistics import CONFIDENCE, jackknife_fid
from laqfi.records import Interval
from populations import Change, Population, decaying, gaussian

TABLE = 18  # comparisons, as many as the variants of params.yaml beside fp32
APART = 0.3
EQUAL = Change(0.3, 0)


@dataclass(frozen=True)
class Setting:
    """Tables of `TABLE` comparisons of so many images; each has a base of its own, or all have the same."""

    name: str
    changes: tuple[Change, ...]
    one_base: bool
    images: int
    groups: int
    seeds: int


@dataclass(frozen=True)
class Verdicts:
    """What a way to judge tables came to.

    `all_hold`: the share of tables in which all intervals hold, None for a way without intervals; `false`: in which a
    comparison without a true difference is called different, None where each has one. `found`: the mean share of true
    differences that are told, None where there are none. `half_width`: mean of the intervals, in standard errors.
    """

    table: str
    images: int
    groups: int
    seeds: int
    way: str
    all_hold: Share | None
    false: Share | None
    found: float | None
    half_width: float | None


Table = list[Runs]
Intervals = list[Interval]


def settings(images: int, groups: int) -> list[Setting]:
    equal, mixed = (EQUAL,) * TABLE, (EQUAL, Change(0.1, 0.01), Change(0.5, 0.05)) * (TABLE // 3)
    return [
        Setting("nothing differs, one base", equal, True, images, groups, 3),
        Setting("nothing differs, a base each", equal, False, images, groups, 1),
        Setting("12 of 18 differ, one base", mixed, True, images, groups, 1),
    ]


@cache
def population_of(changes: tuple[Change, ...]) -> Population:
    return gaussian("table", decaying(), APART, {str(place): change for place, change in enumerate(changes)})


def draw_table(setting: Setting, replication: int) -> Table:
    """The paired differences of one table."""
    parts = [setting.changes] if setting.one_base else [(change,) for change in setting.changes]
    table: Table = []
    for place, changes in enumerate(parts):
        population, by_seed = population_of(changes), []
        for seed in range(setting.seeds):
            random = generator("coverage", setting.name, setting.images, replication, place, seed)
            drawn = population.draw(random, setting.images)
            by_seed.append([jackknife_fid(one, population.reference, setting.groups) for one in drawn])
        base, *changed = map(list, zip(*by_seed, strict=True))
        table += [statistics.paired_difference(runs, base) for runs in changed]
    return table


def plain(table: Table) -> Intervals:
    return [statistics.interval(runs) for runs in table]


def bonferroni(table: Table) -> Intervals:
    tail = (1 - CONFIDENCE) / 2 / len(table)
    quantile = float(stats.t.isf(tail, statistics.degrees_of_freedom(table[0])))
    return [statistics.around(runs, quantile) for runs in table]


def max_t(table: Table) -> Intervals:
    return list(simultaneous.intervals(dict(enumerate(table))).values())


def holm(table: Table) -> list[bool]:
    """Which differences Holm's (1979) step-down test tells from zero."""
    t = np.array([abs(mean(runs)) / statistics.standard_error(runs) for runs in table])
    p = 2 * stats.t.sf(t, statistics.degrees_of_freedom(table[0]))
    order = np.argsort(p)
    below = p[order] <= (1 - CONFIDENCE) / np.arange(len(p), 0, -1)
    told = np.zeros(len(p), bool)
    told[order] = np.logical_and.accumulate(below)
    return told.tolist()


WAYS: dict[str, Callable[[Table], Intervals]] = {
    "each by itself": plain,
    "Bonferroni": bonferroni,
    "max-t": max_t,
}


def verdicts(setting: Setting, tables: list[Table]) -> list[Verdicts]:
    """What each way says of the tables; a true difference is the mean over tables, or zero where nothing differs."""
    differs = [change.moved != 0 for change in setting.changes]
    by_comparison = zip(differs, zip(*tables, strict=True), strict=True)
    truth = [float(np.mean([mean(runs) for runs in column])) if differ else 0.0 for differ, column in by_comparison]
    found = []
    for name, way in WAYS.items():
        intervals = [way(table) for table in tqdm(tables, f"{setting.name}, {name}", leave=False)]
        hold = [all(map(holds, table, truth)) for table in intervals]
        told = [[not holds(one, 0) for one in table] for table in intervals]
        found.append(judged(setting, name, told, Share.counted(hold), width(intervals, tables)))
    return [*found, judged(setting, "Holm", [holm(table) for table in tables], None, None)]


def width(intervals: list[Intervals], tables: list[Table]) -> float:
    """Mean half-width in standard errors."""
    pairs = [pair for row in zip(intervals, tables, strict=True) for pair in zip(*row, strict=True)]
    return float(np.mean([(one.high - one.mean) / statistics.standard_error(runs) for one, runs in pairs]))


def judged(setting: Setting, way: str, told: list[list[bool]], hold: Share | None, half: float | None) -> Verdicts:
    """`told`: by table and comparison, whether it is called different."""
    differs = np.array([change.moved != 0 for change in setting.changes])
    told_ones = np.array(told)
    false = None if differs.all() else Share.counted(told_ones[:, ~differs].any(axis=1).tolist())
    share = float(told_ones[:, differs].mean()) if differs.any() else None
    where = (setting.name, setting.images, setting.groups, setting.seeds)
    return Verdicts(*where, way, hold, false, share, half)


def study(setting: Setting, tables: int) -> list[Verdicts]:
    drawn = [draw_table(setting, number) for number in tqdm(range(tables), setting.name, leave=False)]
    return verdicts(setting, drawn)
