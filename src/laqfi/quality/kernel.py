"""Kernel inception distance (Bińkowski et al. 2018), whole and without each group of images."""

from dataclasses import dataclass

import numpy as np

from laqfi.quality.statistics import Jackknifed


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x·y / D + 1)³ of features x [N, D] and y [M, D]: [N, M]."""
    base = x @ y.T / x.shape[1] + 1
    return base * base * base


def mean_within(features: np.ndarray, rows: int = 500) -> float:
    """Mean kernel of all pairs of two different samples of [N, D], `rows` of the matrix at a time."""
    total = sum(float(kernel(some, features).sum()) for some in np.split(features, range(rows, len(features), rows)))
    return (total - float(diagonal(features).sum())) / (len(features) * (len(features) - 1))


def diagonal(features: np.ndarray) -> np.ndarray:
    """The kernel of every sample with itself: [N]."""
    return ((features**2).sum(axis=1) / features.shape[1] + 1) ** 3


@dataclass(frozen=True)
class KernelReference:
    """Real images: their features [M, D], and the mean kernel of two different ones."""

    features: np.ndarray
    within: float


def jackknife_kid(features: np.ndarray, reference: KernelReference, groups: int) -> Jackknifed:
    """Unbiased squared maximum mean discrepancy of features [N, D], whole and without each group of samples.

    The groups are the consecutive ones of `jackknife_fid`, so that differences between variants of the same noise stay
    paired. All samples stand in one block, which has less variance than the mean over blocks of the paper.
    """
    parts = np.array_split(features, groups)
    counts = np.array([len(part) for part in parts])
    starts = np.concatenate([[0], counts[:-1].cumsum()])
    pairs = np.stack([np.add.reduceat(kernel(part, features).sum(axis=0), starts) for part in parts])
    pairs -= np.diag([diagonal(part).sum() for part in parts])
    across = np.array([kernel(part, reference.features).sum() for part in parts])

    def distance(count: int, pair: float, cross: float) -> float:
        return float(pair / (count * (count - 1)) + reference.within - 2 * cross / (count * len(reference.features)))

    n, pair, cross = counts.sum(), pairs.sum(), across.sum()
    without = pair - 2 * pairs.sum(axis=1) + np.diag(pairs)
    rest = [distance(n - c, p, cross - a) for c, p, a in zip(counts, without, across, strict=True)]
    return Jackknifed(distance(n, pair, cross), np.array(rest))
