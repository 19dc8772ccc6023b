"""Stage: what one variant costs in bytes, and in image quality against FP32 on the same noise."""

from pathlib import Path

import numpy as np

from laqfi import cli, features, io, metrics
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.diffusion import from_uint8, noise_error
from laqfi.errors import LaqfiError
from laqfi.quant.model import load_unet, stored_bytes


def evaluate(
    profile: Profile,
    *,
    model: Path,
    samples: Path,
    base_model: Path,
    base_samples: Path,
    dataset: Path,
    network: Path,
    reference: Path,
    out: Path,
) -> None:
    """Write size, FID with its interval and its paired difference, KID, PSNR and noise error as JSON."""
    images, base_images = (io.read_array(path, "images") for path in (samples, base_samples))
    for variant, path, found in ((base_model, base_samples, base_images), (model, samples, images)):
        wanted = (len(profile.sample.seeds), profile.sample.images_of(variant.stem), *base_images.shape[2:])
        if found.shape != wanted:
            raise LaqfiError(f"{path}: images is {found.shape}, allowed is {wanted}")
    base_images = base_images[:, : images.shape[1]]
    held_out = io.read_array(dataset, "test_images")[: profile.evaluate.noise_images]
    (unet, alphas_cumprod, _), (base, _, _) = (load_unet(path, default_device()) for path in (model, base_model))
    noise_mse = noise_error(
        unet, base, from_uint8(held_out), alphas_cumprod, profile.evaluate.noise_timesteps, profile.evaluate.seed
    )
    size, dtypes = stored_bytes(*io.read_tensors(model))
    base_size, _ = stored_bytes(*io.read_tensors(base_model))
    fid = fid_against_base(profile, images, base_images, network, reference)
    summary = {
        "bytes": size,
        "file_bytes": model.stat().st_size,
        "parameters": dtypes,
        "reduction": 1 - size / base_size,
        "size_band": metrics.size_band(1 - size / base_size),
        "seeds": profile.sample.seeds,
        "images": images.shape[1],
        "psnr": metrics.psnr(images, base_images),
        "noise_mse": {str(timestep): value for timestep, value in noise_mse.items()},
    }
    io.write_json(out, summary | fid)


def fid_against_base(
    profile: Profile, images: np.ndarray, base_images: np.ndarray, network: Path, reference: Path
) -> dict:
    """FID and KID over all seeds, and the paired difference in FID to the base with its verdict."""
    extract = features.load(network, default_device())
    real = io.read_arrays(reference, "mean", "covariance", "kid_features")
    target = metrics.Reference.of(real["mean"], real["covariance"])
    seeds = [extract(seed) for seed in images]
    if (size := seeds[0].shape[1]) != len(target.mean):
        raise LaqfiError(f"{reference}: has {len(target.mean)} features, allowed are the {size} of {network}")
    runs = [metrics.jackknife_fid(seed, target, profile.evaluate.groups) for seed in seeds]
    base = [metrics.jackknife_fid(extract(seed), target, profile.evaluate.groups) for seed in base_images]
    fid, low, high = metrics.interval(runs)
    difference, difference_low, difference_high = metrics.interval(metrics.paired_difference(runs, base))
    return {
        "fid": {"mean": fid, "low": low, "high": high, "per_seed": [run.value for run in runs]},
        "fid_difference": {"mean": difference, "low": difference_low, "high": difference_high},
        "fid_band": metrics.fid_band(fid, metrics.interval(base)[0]),
        "kid": float(np.mean([metrics.kid(seed, real["kid_features"].astype(np.float64)) for seed in seeds])),
        "verdict": metrics.verdict(difference_low, difference_high),
    }


if __name__ == "__main__":
    cli.run(evaluate)
