"""Intervals of a whole family of comparisons that hold together: with 95 % confidence none of them is wrong."""

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import TypeVar

import numpy as np
from scipy.special import stdtrit

from laqfi.base.random import generator
from laqfi.quality import statistics
from laqfi.quality.statistics import CONFIDENCE, Jackknifed
from laqfi.records import Interval

DRAWS = 100_000  # the quantile of the largest of 20 is then known to a quarter of a percent

Name = TypeVar("Name", bound=Hashable)


def intervals(family: Mapping[Name, list[Jackknifed]]) -> dict[Name, Interval]:
    """By name, the interval that holds for all comparisons of the family at once (max-t).

    Each is as many standard errors wide as the largest |t| of the family stays below with 95 % probability (Westfall
    and Young 1993; Hothorn, Bretz and Westfall 2008, section 3), so comparisons that move together cost little. All
    must be of the same seeds and groups: which group moves which comparison tells how they move together.
    """
    uncertain = [runs for runs in family.values() if statistics.standard_error(runs) > 0]
    if not uncertain:
        return {name: statistics.interval(runs) for name, runs in family.items()}
    quantile = largest_t(np.stack([statistics.deviations(runs) for runs in uncertain]), uncertain[0])
    return {name: statistics.around(runs, quantile) for name, runs in family.items()}


def largest_t(deviations: np.ndarray, runs: list[Jackknifed]) -> float:
    """The 95 % quantile of max |t| of comparisons whose errors have the `deviations` [comparisons, groups].

    Normal errors of that covariance are drawn as sums over groups with random normal weights, and divided by a common
    χ of the jackknife's degrees of freedom. One comparison alone gives Student's t.
    """
    freedom = statistics.degrees_of_freedom(runs)
    least = float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    if len(deviations) == 1:
        return least
    weights, scale = draws(DRAWS, deviations.shape[1], freedom)
    unit = deviations / np.sqrt((deviations**2).sum(axis=1, keepdims=True))
    largest = np.abs(weights @ unit.T).max(axis=1) / scale
    return max(least, float(np.quantile(largest, CONFIDENCE)))


@lru_cache(maxsize=1)  # all tables of a report have as many groups
def draws(count: int, groups: int, freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal weights [count, groups], and what to divide by for Student's t [count]."""
    random = generator("max-t")
    weights = random.standard_normal((count, groups))
    return weights, np.sqrt(random.chisquare(freedom, count) / freedom)
