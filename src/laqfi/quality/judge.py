"""Quality of a model's images: against the real images, and how far they are from FP32's of the same noise."""

from pathlib import Path

import numpy as np

from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.quality import features, statistics
from laqfi.records import Quality


class Judge:
    """The frozen feature network and the statistics of the real images.

    `groups`: of the jackknife. That the two are of one network is seen when the first images are judged: LaqfiError.
    """

    def __init__(self, network: Path, reference: Path, groups: int):
        self.extract = features.load(network, default_device())
        real = files.read_arrays(reference, "mean", "covariance", "kid_features")
        self.target = statistics.Reference.of(real["mean"], real["covariance"])
        self.real = real["kid_features"].astype(np.float64)
        self.network, self.reference, self.groups = network, reference, groups

    def jackknife(self, features: np.ndarray) -> statistics.Jackknifed:
        if features.shape[1] != len(self.target.mean):
            raise LaqfiError(
                f"{self.reference}: has {len(self.target.mean)} features,"
                f" allowed are the {features.shape[1]} of {self.network}"
            )
        return statistics.jackknife_fid(features, self.target, self.groups)

    def quality(self, images: np.ndarray, base_images: np.ndarray) -> Quality:
        """FID and KID of the images over all seeds, and their PSNR to FP32's.

        images, base_images: uint8 [seeds, N, C, H, W] from the same noise.
        """
        seeds = [self.extract(seed) for seed in images]
        return Quality(
            images=images.shape[1],
            fid=statistics.fid_of([self.jackknife(seed) for seed in seeds]),
            kid=float(np.mean([statistics.kid(seed, self.real) for seed in seeds])),
            psnr=statistics.psnr(images, base_images),
        )
