"""Stage: feature statistics of the real images, and the floor no generator can go below by more than noise."""

from pathlib import Path

import numpy as np

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.random import generator
from laqfi.quality import features, statistics
from laqfi.quality.params import Groups
from laqfi.sampling.params import Draws
from laqfi.stages import command

KID_IMAGES = 10_000


def reference(sample: Draws, evaluate: Groups, *, dataset: Path, network: Path, out: Path, floor: Path) -> None:
    """Write mean and covariance of the training images, and FID and KID of as many held-out images as are drawn."""
    arrays = files.read_arrays(dataset, "train_images", "test_images")
    extract = features.load(network, default_device())
    real = extract(arrays["train_images"])
    mean, covariance = statistics.mean_and_covariance(real)
    order = generator("kid").permutation(len(real))
    kid_features = real[order[:KID_IMAGES]].astype(np.float32)
    files.write_arrays(out, mean=mean, covariance=covariance, kid_features=kid_features)

    target = statistics.Reference.of(mean, covariance)
    draws = {"images": sample.images, **{name: again.images for name, again in sample.headline.items()}}
    order = generator("floor").permutation(len(arrays["test_images"]))
    held_out = extract(arrays["test_images"][order[: max(draws.values())]])

    def floor_of(images: int) -> records.Floor:
        chosen = held_out[:images]
        fid = statistics.interval([statistics.jackknife_fid(chosen, target, evaluate.groups)])
        kid = statistics.kid(chosen, kid_features.astype(np.float64))
        return records.Floor(images=len(chosen), fid=fid, kid=kid)

    floors = {name: floor_of(images) for name, images in draws.items()}
    records.write(floor, records.Floors(**dict(floors.pop("images")), headlines=floors))


if __name__ == "__main__":
    command.run(reference)
