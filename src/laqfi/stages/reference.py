"""Stage: feature statistics of the real images, and the floor no generator can go below by more than noise."""

from pathlib import Path

import numpy as np

from laqfi import cli, features, io, metrics
from laqfi.device import default_device
from laqfi.params.evaluate import Groups
from laqfi.params.sample import Draws
from laqfi.rng import generator

KID_IMAGES = 10_000


def reference(sample: Draws, evaluate: Groups, *, dataset: Path, network: Path, out: Path, floor: Path) -> None:
    """Write mean and covariance of the training images, and FID and KID of as many held-out images as are drawn."""
    arrays = io.read_arrays(dataset, "train_images", "test_images")
    extract = features.load(network, default_device())
    real = extract(arrays["train_images"])
    mean, covariance = metrics.mean_and_covariance(real)
    order = generator("kid").permutation(len(real))
    kid_features = real[order[:KID_IMAGES]].astype(np.float32)
    io.write_arrays(out, mean=mean, covariance=covariance, kid_features=kid_features)

    target = metrics.Reference.of(mean, covariance)
    draws = {"images": sample.images, **{name: again.images for name, again in sample.headline.items()}}
    order = generator("floor").permutation(len(arrays["test_images"]))
    held_out = extract(arrays["test_images"][order[: max(draws.values())]])

    def floor_of(images: int) -> dict:
        run = metrics.jackknife_fid(held_out[:images], target, evaluate.groups)
        fid, low, high = metrics.interval([run])
        kid = metrics.kid(held_out[:images], kid_features.astype(np.float64))
        return {"fid": fid, "low": low, "high": high, "kid": kid, "images": len(held_out[:images])}

    floors = {name: floor_of(images) for name, images in draws.items()}
    io.write_json(floor, floors.pop("images") | ({"headline": floors} if floors else {}))


if __name__ == "__main__":
    cli.run(reference)
