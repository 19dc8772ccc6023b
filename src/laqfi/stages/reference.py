"""Stage: feature statistics of the real images, and the floor no generator can go below by more than noise."""

from pathlib import Path

import numpy as np

from laqfi import cli, features, io, metrics
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.rng import generator

KID_IMAGES = 10_000


def reference(profile: Profile, *, dataset: Path, network: Path, out: Path, floor: Path) -> None:
    """Write mean and covariance of the training images, and the FID and KID of held-out real images."""
    arrays = io.read_arrays(dataset, "train_images", "test_images")
    extract = features.load(network, default_device())
    real = extract(arrays["train_images"])
    mean, covariance = metrics.mean_and_covariance(real)
    order = generator("kid").permutation(len(real))
    kid_features = real[order[:KID_IMAGES]].astype(np.float32)
    io.write_arrays(out, mean=mean, covariance=covariance, kid_features=kid_features)

    count = min(len(arrays["test_images"]), profile.sample.images_of("fp32"))
    chosen = generator("floor").permutation(len(arrays["test_images"]))[:count]
    held_out = extract(arrays["test_images"][chosen])
    run = metrics.jackknife_fid(held_out, metrics.Reference.of(mean, covariance), profile.evaluate.groups)
    fid, low, high = metrics.interval([run])
    kid = metrics.kid(held_out, kid_features.astype(np.float64))
    io.write_json(floor, {"fid": fid, "low": low, "high": high, "kid": kid, "images": count})


if __name__ == "__main__":
    cli.run(reference)
