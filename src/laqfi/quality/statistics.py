"""The Fréchet distance of images and its sampling error, on features [N, D] in float64."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from laqfi.records import Interval, Jackknife

CONFIDENCE = 0.95
BIAS_ALLOWED = 0.25  # half-widths of the interval; by as much an interval of 95 % still covers 92 %


def mean_and_covariance(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and unbiased covariance [D, D]."""
    return features.mean(axis=0), np.cov(features, rowvar=False)


def matrix_sqrt(covariance: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


@dataclass(frozen=True)
class Reference:
    """Statistics of the real images, with the root of the covariance that every Fréchet distance needs."""

    mean: np.ndarray
    covariance: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, covariance: np.ndarray) -> "Reference":
        return cls(mean, covariance, matrix_sqrt(covariance))

    def frechet_distance(self, mean: np.ndarray, covariance: np.ndarray) -> float:
        """|m1 - m2|² + Tr(C1 + C2 - 2 (C1 C2)^½) (Heusel et al. 2017, eq. 6).

        The trace of the root is taken from the eigenvalues of C1^½ C2 C1^½, which are those of C1 C2.
        """
        eigenvalues = np.linalg.eigvalsh(self.root @ covariance @ self.root).clip(0)
        spread = np.trace(self.covariance) + np.trace(covariance) - 2 * np.sqrt(eigenvalues).sum()
        return float(((self.mean - mean) ** 2).sum() + spread)


@dataclass(frozen=True)
class Jackknifed:
    """A statistic of one set of samples, and its values with each of K groups of samples left out."""

    value: float
    left_out: np.ndarray  # [K]


def jackknife_fid(features: np.ndarray, reference: Reference, groups: int) -> Jackknifed:
    """FID of features [N, D], whole and without each group of consecutive samples in turn.

    Sample i belongs to the same group for every variant, so that differences between variants made from the
    same noise stay paired.
    """
    centred = features - reference.mean
    parts = np.array_split(centred, groups)
    counts = np.array([len(part) for part in parts])
    sums = np.stack([part.sum(axis=0) for part in parts])
    products = np.stack([part.T @ part for part in parts])

    def fid(count: int, total: np.ndarray, product: np.ndarray) -> float:
        mean = total / count
        covariance = (product - count * np.outer(mean, mean)) / (count - 1)
        return reference.frechet_distance(reference.mean + mean, covariance)

    n, total, product = counts.sum(), sums.sum(axis=0), products.sum(axis=0)
    rest = [fid(n - c, total - s, product - p) for c, s, p in zip(counts, sums, products, strict=True)]
    return Jackknifed(fid(n, total, product), np.array(rest))


def standard_error(runs: list[Jackknifed]) -> float:
    """Of the mean over independent runs (seeds).

    Delete-a-group jackknife (Kott 2001): the variance of one run is (K-1)/K Σ_k (θ_(-k) - mean)², and the
    runs are independent, so the variance of their mean is the sum over runs divided by S².
    """
    return float(np.sqrt((deviations(runs) ** 2).sum()))


def deviations(runs: list[Jackknifed]) -> np.ndarray:
    """[S * K]: what each group adds to the error of the mean over runs; their squares add up to its variance."""
    groups = len(runs[0].left_out)
    scale = np.sqrt((groups - 1) / groups) / len(runs)
    return np.concatenate([scale * (run.left_out - run.left_out.mean()) for run in runs])


def degrees_of_freedom(runs: list[Jackknifed]) -> int:
    return len(runs) * (len(runs[0].left_out) - 1)


def around(runs: list[Jackknifed], quantile: float) -> Interval:
    """Mean over independent runs, and so many standard errors to both sides."""
    mean, half = float(np.mean([run.value for run in runs])), quantile * standard_error(runs)
    return Interval(mean=mean, low=mean - half, high=mean + half)


def interval(runs: list[Jackknifed]) -> Interval:
    """Mean over independent runs (seeds) and its confidence interval by Student's t."""
    return around(runs, float(stdtrit(degrees_of_freedom(runs), (1 + CONFIDENCE) / 2)))


def paired_difference(runs: list[Jackknifed], others: list[Jackknifed]) -> list[Jackknifed]:
    """Each run minus the other of the same seed, group by group."""
    return [Jackknifed(r.value - o.value, r.left_out - o.left_out) for r, o in zip(runs, others, strict=True)]


def record_of(runs: list[Jackknifed]) -> Jackknife:
    """The runs as a record from which `runs_of` makes them again, to be paired with runs on the same noise."""
    return Jackknife(
        **interval(runs).model_dump(),
        per_seed=[run.value for run in runs],
        left_out=[run.left_out.tolist() for run in runs],
    )


def runs_of(record: Jackknife) -> list[Jackknifed]:
    return [Jackknifed(value, np.array(rest)) for value, rest in zip(record.per_seed, record.left_out, strict=True)]


def without_bias(run: Jackknifed) -> Jackknifed:
    """The run with the part of its bias taken off that falls as one over the number of images (Quenouille 1956).

    K θ - (K-1) mean_k θ_(-k). Groups that are left out move it as before, to first order. For groups of equal size.
    """
    groups = len(run.left_out)
    return Jackknifed(float(groups * run.value - (groups - 1) * run.left_out.mean()), run.left_out)


def extrapolated(record: Jackknife, images: int, features: int) -> Interval | None:
    """The FID at infinitely many images from runs of `images` each, D = `features`; None where they are too few.

    The FID of N images is too large by about b / N (Chong and Forsyth 2020), which the left-out groups tell without
    drawing more. Of what is taken off, about a share of (D / N)² / 2 is too much at normal features of every spectrum
    tried (docs/coverage.md): where that is more than BIAS_ALLOWED, there is no interval that holds. The FID of images
    like the real ones may come out below zero. A paired difference is extrapolated like an FID.
    """
    found = interval([without_bias(run) for run in runs_of(record)])
    too_much = abs(record.mean - found.mean) * (features / images) ** 2 / 2
    return found if too_much <= BIAS_ALLOWED * (found.high - found.low) / 2 else None
