"""Quality of a model's images: against the real images, and how far they are from FP32's of the same noise."""

from pathlib import Path

import numpy as np

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.quality import features, statistics
from laqfi.quality.fidelity import squared_errors
from laqfi.quality.kernel import KernelReference, jackknife_kid

MOMENTS = (("mean", "covariance"), ("again_mean", "again_covariance"))  # of the first network, and of a second one


class Judge:
    """The frozen feature networks and the statistics of the real images.

    The first network gives FID and KID, a second one, where there is one, an FID beside them. `groups`: of the
    jackknife. Raises LaqfiError if networks and statistics are not of one another.
    """

    def __init__(self, network: Path, reference: Path, groups: int):
        self.extractors = features.load(network, default_device())
        moments = MOMENTS[: len(self.extractors)]
        names = [name for pair in moments for name in pair]
        real = files.read_arrays(reference, *names, "kid_features", "kid_within")
        self.targets = [statistics.Reference.of(real[mean], real[covariance]) for mean, covariance in moments]
        self.kernel = KernelReference(real["kid_features"].astype(np.float64), float(real["kid_within"][0]))
        self.network, self.reference, self.groups = network, reference, groups

    def extract(self, images: np.ndarray) -> list[np.ndarray]:
        """Features [N, D] of uint8 images [N, C, H, W] by each network."""
        found = [extract(images) for extract in self.extractors]
        for one, target in zip(found, self.targets, strict=True):
            if one.shape[1] != len(target.mean):
                raise LaqfiError(
                    f"{self.reference}: has {len(target.mean)} features,"
                    f" allowed are the {one.shape[1]} of {self.network}"
                )
        return found

    def fids(self, seeds: list[list[np.ndarray]]) -> list[records.Jackknife]:
        """By each network, of the features of every seed."""
        return [
            statistics.record_of([statistics.jackknife_fid(one, target, self.groups) for one in by_seed])
            for target, by_seed in zip(self.targets, zip(*seeds, strict=True), strict=True)
        ]

    def quality(self, images: np.ndarray, base_images: np.ndarray) -> records.Quality:
        """What is measured of uint8 images [seeds, N, C, H, W], and how far they are from FP32's of the same noise."""
        seeds = [self.extract(seed) for seed in images]
        fid, *again = self.fids(seeds)
        kid = statistics.record_of([jackknife_kid(seed[0], self.kernel, self.groups) for seed in seeds])
        errors = squared_errors(images, base_images)
        return records.Quality(
            images=images.shape[1],
            pixels=int(np.prod(images.shape[2:])),
            fid=fid,
            fid_again=again[0] if again else None,
            kid=kid,
            squared_error=errors.tolist(),
        )
