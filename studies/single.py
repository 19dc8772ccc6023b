"""The intervals of one measure and of one paired difference: how often they hold, by population, images and groups."""

from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from counting import Runs, Share, coverage, mean, over_seeds, too_wide
from laqfi.base.random import generator
from laqfi.quality import statistics
from laqfi.quality.kernel import jackknife_kid
from laqfi.quality.statistics import Jackknifed, jackknife_fid
from laqfi.records import Interval
from populations import Population

SEEDS = (1, 3)
EQUAL = "none"  # the change after which the distribution is the same


@dataclass(frozen=True)
class Cell:
    """What is replicated: `runs` runs of so many images, whose jackknife has so many groups."""

    measure: str
    population: Population
    images: int
    groups: int
    runs: int

    def jackknife(self, features) -> Jackknifed:
        if self.measure == "KID":
            return jackknife_kid(features, self.population.kernel, self.groups)
        return jackknife_fid(features, self.population.reference, self.groups)


@dataclass(frozen=True)
class Row:
    """How often an interval of `measure` holds the truth, for samples of so many images and seeds.

    `change`: None for the measure itself, else what the difference is to. `truth`: of as many `images`, or `infinite`.
    `holds` is None where every interval is refused, `refused` the share of them. `too_wide`: the jackknife's standard
    error over the true one.
    """

    measure: str
    population: str
    change: str | None
    images: int
    groups: int
    seeds: int
    truth: str
    value: float
    extrapolated: bool
    holds: Share | None
    refused: float
    too_wide: float


def replicate(cell: Cell) -> list[Runs]:
    """By member of the population, its runs; run i is of the same samples whatever the measure and the groups."""
    found: list[Runs] = [[] for _ in cell.population.members]
    title = f"{cell.measure}, {cell.population.name}, {cell.images} images, {cell.groups} groups"
    for run in tqdm(range(cell.runs), title, leave=False):
        drawn = cell.population.draw(generator("coverage", cell.population.name, cell.images, run), cell.images)
        for runs, features in zip(found, drawn, strict=True):
            runs.append(cell.jackknife(features))
    return found


def rows(cell: Cell) -> Iterator[Row]:
    """Of the base by itself, and of each changed member less the base."""
    base, *changed = replicate(cell)
    fid, *fids = cell.population.fids
    yield from of_runs(cell, None, base, mean(base), fid)
    for name, runs, infinite in zip(cell.population.members[1:], changed, fids, strict=True):
        differences = statistics.paired_difference(runs, base)
        truth = 0.0 if name == EQUAL else mean(differences)
        yield from of_runs(cell, name, differences, truth, infinite - fid)


def of_runs(cell: Cell, change: str | None, runs: Runs, at_n: float, infinite: float) -> Iterator[Row]:
    """The interval as it is, and at infinity the extrapolated one, too. KID has no bias: it is the same at any N."""

    def extrapolated(replication: Runs) -> Interval | None:
        features = len(cell.population.reference.mean)
        return statistics.extrapolated(statistics.record_of(replication), cell.images, features)

    kinds = [("images", at_n, False, statistics.interval)]
    if cell.measure == "FID":
        kinds += [("infinite", infinite, False, statistics.interval), ("infinite", infinite, True, extrapolated)]
    where = (cell.measure, cell.population.name, change, cell.images, cell.groups)
    ratio = too_wide(runs)
    for seeds in SEEDS:
        replications = over_seeds(runs, seeds)
        for truth, value, corrected, interval in kinds:
            share = coverage(replications, value, interval)
            refused = 1 - (share.of if share else 0) / len(replications)
            yield Row(*where, seeds, truth, value, corrected, share, refused, ratio)
