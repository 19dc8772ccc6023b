"""Image-quality measures and their sampling errors, on features [N, D] in float64 and on uint8 images."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from laqfi.records import Fid, Interval

CONFIDENCE = 0.95


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


def interval(runs: list[Jackknifed]) -> Interval:
    """Mean over independent runs (seeds) and its confidence interval.

    Delete-a-group jackknife (Kott 2001): the variance of one run is (K-1)/K Σ_k (θ_(-k) - mean)², and the
    runs are independent, so the variance of their mean is the sum over runs divided by S².
    """
    mean = float(np.mean([run.value for run in runs]))
    groups = len(runs[0].left_out)
    variances = [(groups - 1) / groups * ((r.left_out - r.left_out.mean()) ** 2).sum() for r in runs]
    error = np.sqrt(np.sum(variances)) / len(runs)
    half = float(stdtrit(len(runs) * (groups - 1), (1 + CONFIDENCE) / 2) * error)
    return Interval(mean=mean, low=mean - half, high=mean + half)


def paired_difference(runs: list[Jackknifed], others: list[Jackknifed]) -> list[Jackknifed]:
    """Each run minus the other of the same seed, group by group."""
    return [Jackknifed(r.value - o.value, r.left_out - o.left_out) for r, o in zip(runs, others, strict=True)]


def fid_of(runs: list[Jackknifed]) -> Fid:
    """The runs as a record from which `runs_of` makes them again, to be paired with runs on the same noise."""
    return Fid(
        **interval(runs).model_dump(),
        per_seed=[run.value for run in runs],
        left_out=[run.left_out.tolist() for run in runs],
    )


def runs_of(fid: Fid) -> list[Jackknifed]:
    return [Jackknifed(value, np.array(rest)) for value, rest in zip(fid.per_seed, fid.left_out, strict=True)]


def kid(features: np.ndarray, reference: np.ndarray, block: int = 1000) -> float:
    """Kernel inception distance (Bińkowski et al. 2018): unbiased MMD² of the cubic kernel, mean over blocks."""
    blocks = max(1, min(len(features), len(reference)) // block)
    pairs = zip(np.array_split(features, blocks), np.array_split(reference, blocks), strict=True)
    return float(np.mean([polynomial_mmd2(x, y) for x, y in pairs]))


def polynomial_mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy under (x·y / D + 1)³."""

    def off_diagonal_mean(a: np.ndarray) -> float:
        kernel = (a @ a.T / a.shape[1] + 1) ** 3
        return (kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1))

    cross = ((x @ y.T / x.shape[1] + 1) ** 3).mean()
    return float(off_diagonal_mean(x) + off_diagonal_mean(y) - 2 * cross)


def psnr(images: np.ndarray, originals: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio in dB of all uint8 images together; None where they equal the originals."""
    mse = np.mean((images.astype(np.float64) - originals) ** 2)
    return None if mse == 0 else float(10 * np.log10(255**2 / mse))
