"""How far images are from FP32's of the same noise, image by image: no single one can move what is said of all."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from laqfi.quality.statistics import CONFIDENCE
from laqfi.records import Interval

ROUNDING_SHARE = 0.1  # of a squared error: what coarse products may make up of it
ANOTHER_IMAGE = 20.0  # dB; below it an image shows something else than FP32's, not the same with some noise


def squared_errors(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Sum over the pixels of each image of its squared difference: uint8 [..., C, H, W] to int64 [...], exact."""
    difference = images.astype(np.int64) - originals
    return (difference * difference).sum(axis=(-3, -2, -1))


def psnr(squared_error: np.ndarray, pixels: int) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of images of `pixels` values from 0 to 255; infinite where the error is zero."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 * pixels / np.asarray(squared_error, np.float64))


@dataclass(frozen=True)
class Median:
    """A median and its confidence interval; ends may be infinite."""

    value: float
    low: float
    high: float


def median(values: np.ndarray, confidence: float = CONFIDENCE) -> Median:
    """The median of independent values [N] with an interval that holds for every distribution.

    Its ends are order statistics (David and Nagaraja 2003, Order Statistics, section 7.1): the k-th smallest and the
    k-th largest value, with the largest k for which fewer than k of N fair coins fall on one side with a probability
    of at most (1 - confidence) / 2. For N too small for any k the ends are infinite.
    """
    ordered, n = np.sort(values), len(values)
    k = int(stats.binom.ppf((1 - confidence) / 2, n, 0.5))  # P(X <= k) >= tail, so P(X <= k - 1) < tail
    low, high = (ordered[k - 1], ordered[n - k]) if k else (-np.inf, np.inf)
    below, above = ordered[(n - 1) // 2], ordered[n // 2]
    value = (below + above) / 2 if np.isfinite([below, above]).all() else below
    return Median(float(value), float(low), float(high))


@dataclass(frozen=True)
class Fidelity:
    """PSNR to FP32's images in dB: of the median image, and of all images together (infinite: identical).

    `tipped` is the share of images that became other ones, with its interval.
    """

    median: Median
    pooled: float
    tipped: Interval


def fidelity(squared_error: list[list[int]], pixels: int) -> Fidelity:
    """Of the squared errors [seeds, images]; the interval of the share is Wilson's (1927)."""
    errors = np.array(squared_error, np.int64)
    each = psnr(errors.ravel(), pixels)
    test = stats.binomtest(int((each < ANOTHER_IMAGE).sum()), each.size)
    found = test.proportion_ci(CONFIDENCE, method="wilson")
    share = test.statistic
    tipped = Interval(mean=share, low=min(found.low, share), high=max(found.high, share))
    return Fidelity(median(each), float(psnr(errors.mean(), pixels)), tipped)


def carries(rounding: list[list[int]], found: list[list[int]]) -> bool:
    """Whether images drawn with coarse products tell how far a model's are from FP32's.

    Squared errors [seeds, images] of the median image: `rounding` of FP32's coarse images to its own fine ones, `found`
    of the model's coarse images to FP32's coarse ones. The errors of the products of both, as large as `rounding` each
    and independent, make up at most `ROUNDING_SHARE` of what is found: of its PSNR they hide at most 0.46 dB.
    """
    return 2 * float(np.median(rounding)) <= ROUNDING_SHARE * float(np.median(found))


def median_gain(ours: list[list[int]], others: list[list[int]], pixels: int, confidence: float = CONFIDENCE) -> Median:
    """By how many dB the median image is nearer to FP32's in `ours` than in `others` of the same noise.

    Formed image by image; two images that both equal FP32's differ by zero.
    """
    one, other = (psnr(np.array(errors, np.int64).ravel(), pixels) for errors in (ours, others))
    with np.errstate(invalid="ignore"):
        return median(np.where(one == other, 0.0, one - other), confidence)
