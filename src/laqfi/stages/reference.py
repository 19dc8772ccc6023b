"""Stage: feature statistics of the real images, and the floor no generator can go below by more than noise."""

from pathlib import Path

import numpy as np

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.random import generator
from laqfi.quality import features, statistics
from laqfi.quality.judge import MOMENTS
from laqfi.quality.kernel import KernelReference, jackknife_kid, mean_within
from laqfi.quality.params import Groups
from laqfi.sampling.params import Draws
from laqfi.stages import command

KID_IMAGES = 10_000


def reference(sample: Draws, evaluate: Groups, *, dataset: Path, network: Path, out: Path, floor: Path) -> None:
    """Write mean and covariance of the training images, and FID and KID of as many held-out images as are drawn.

    mean, covariance and kid_features are of the first network, again_mean and again_covariance of a second one.
    """
    arrays = files.read_arrays(dataset, "train_images", "test_images")
    extractors = features.load(network, default_device())
    real = [extract(arrays["train_images"]) for extract in extractors]
    moments = [statistics.mean_and_covariance(one) for one in real]
    order = generator("kid").permutation(len(real[0]))
    kid_features = real[0][order[:KID_IMAGES]].astype(np.float32)
    kernel = KernelReference(kid_features.astype(np.float64), mean_within(kid_features.astype(np.float64)))
    pairs = zip(MOMENTS, moments, strict=False)  # the networks are one or two
    named = {name: part for names, parts in pairs for name, part in zip(names, parts, strict=True)}
    files.write_arrays(out, **named, kid_features=kid_features, kid_within=np.array([kernel.within]))

    draws = {"images": sample.images, **{name: again.images for name, again in sample.headline.items()}}
    order = generator("floor").permutation(len(arrays["test_images"]))
    held_out = [extract(arrays["test_images"][order[: max(draws.values())]]) for extract in extractors]
    targets = [statistics.Reference.of(mean, covariance) for mean, covariance in moments]

    def floor_of(images: int) -> records.Floor:
        fid, *again = [
            statistics.interval([statistics.jackknife_fid(one[:images], target, evaluate.groups)])
            for one, target in zip(held_out, targets, strict=True)
        ]
        kid = statistics.interval([jackknife_kid(held_out[0][:images], kernel, evaluate.groups)])
        counted = len(held_out[0][:images])
        return records.Floor(images=counted, fid=fid, fid_again=again[0] if again else None, kid=kid)

    floors = {name: floor_of(images) for name, images in draws.items()}
    records.write(floor, records.Floors(**dict(floors.pop("images")), headlines=floors))


if __name__ == "__main__":
    command.run(reference)
