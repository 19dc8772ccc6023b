"""How often intervals hold the truth, over replications."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from laqfi.quality import statistics
from laqfi.quality.statistics import CONFIDENCE, Jackknifed
from laqfi.records import Interval

Runs = list[Jackknifed]


@dataclass(frozen=True)
class Share:
    """A share of `of` replications, and its own 95 % interval (Wilson 1927), which the number of replications sets."""

    value: float
    low: float
    high: float
    of: int

    @classmethod
    def counted(cls, hits: Sequence[bool]) -> "Share":
        test = stats.binomtest(int(sum(hits)), len(hits))
        found = test.proportion_ci(CONFIDENCE, method="wilson")
        return cls(test.statistic, min(found.low, test.statistic), max(found.high, test.statistic), len(hits))


def holds(found: Interval, truth: float) -> bool:
    return found.low <= truth <= found.high


def coverage(families: Sequence[Runs], truth: float, interval: Callable[[Runs], Interval | None]) -> Share | None:
    """How often the interval of the runs of a replication holds the truth; None where each one is refused."""
    given = [found for runs in families if (found := interval(runs))]
    return Share.counted([holds(found, truth) for found in given]) if given else None


def over_seeds(runs: Runs, seeds: int) -> list[Runs]:
    """Runs in order as replications of so many seeds each."""
    return [runs[start : start + seeds] for start in range(0, len(runs) - seeds + 1, seeds)]


def mean(runs: Runs) -> float:
    return float(np.mean([run.value for run in runs]))


def too_wide(runs: Runs) -> float:
    """The jackknife's standard error of one run (root mean square) over the true spread of the runs."""
    errors = [statistics.standard_error([run]) for run in runs]
    return float(np.sqrt(np.mean(np.square(errors))) / np.std([run.value for run in runs], ddof=1))
