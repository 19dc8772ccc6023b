"""Image quality of a quantized model, against the data and against the unquantized model on the same noise."""

from pathlib import Path

import numpy as np

from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.quality import features, statistics


class Judge:
    """The frozen feature network and the statistics of the real images.

    Raises LaqfiError if the two are not of one network. `groups`: of the jackknife.
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

    def against_base(self, images: np.ndarray, base_images: np.ndarray) -> dict:
        """FID and KID over all seeds, and the paired difference in FID to the base with its verdict.

        images, base_images: uint8 [seeds, N, C, H, W] from the same noise.
        """
        seeds = [self.extract(seed) for seed in images]
        runs = [self.jackknife(seed) for seed in seeds]
        base = [self.jackknife(self.extract(seed)) for seed in base_images]
        fid, low, high = statistics.interval(runs)
        difference, difference_low, difference_high = statistics.interval(statistics.paired_difference(runs, base))
        return {
            "fid": {"mean": fid, "low": low, "high": high} | statistics.as_json(runs),
            "fid_difference": {"mean": difference, "low": difference_low, "high": difference_high},
            "fid_band": statistics.fid_band(fid, statistics.interval(base)[0]),
            "kid": float(np.mean([statistics.kid(seed, self.real) for seed in seeds])),
            "verdict": statistics.verdict(difference_low, difference_high),
            "psnr": statistics.psnr(images, base_images),
        }
