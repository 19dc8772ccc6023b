"""The interval of the median PSNR, on errors whose true median is known."""

from dataclasses import dataclass

import numpy as np

from counting import Share, holds
from laqfi.base.random import generator
from laqfi.quality import fidelity

PIXELS = 1024
MIDDLE = 10_000.0  # median squared error of an image, summed over its pixels


@dataclass(frozen=True)
class MedianRow:
    errors: str
    images: int
    holds: Share


def errors(kind: str, random: np.random.Generator, images: int) -> np.ndarray:
    """Squared errors of log-normal distribution; of `tipped` images 45 % have a much larger one."""
    found = MIDDLE * np.exp(random.standard_normal(images))
    if kind == "tipped":
        magnitude = np.abs(random.standard_normal(images))
        below = random.random(images) < 0.5
        found = MIDDLE * np.exp(np.where(below, -magnitude, magnitude))
        found[~below & (random.random(images) < 0.9)] *= 100
    return found


def study(replications: int) -> list[MedianRow]:
    truth = float(fidelity.psnr(np.array(MIDDLE), PIXELS))
    rows = []
    for kind in ("log-normal", "tipped"):
        for images in (20, 360, 900):
            hits = []
            for replication in range(replications):
                random = generator("coverage", "median", kind, images, replication)
                hits.append(holds(fidelity.median(fidelity.psnr(errors(kind, random, images), PIXELS)), truth))
            rows.append(MedianRow(kind, images, Share.counted(hits)))
    return rows
