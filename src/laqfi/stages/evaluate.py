"""Stage: what one variant costs in bytes, and in image quality against FP32 on the same noise."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from laqfi import cli, features, io, metrics
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.diffusion import add_noise, from_uint8
from laqfi.quant.model import load_unet, stored_bytes
from laqfi.rng import generator


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
    noise_mse = predicted_noise_mse(profile, model, base_model, io.read_array(dataset, "test_images"))
    size, dtypes = stored_bytes(io.read_tensors(model)[0])
    base_size, _ = stored_bytes(io.read_tensors(base_model)[0])
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
        "noise_mse": noise_mse,
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


@torch.inference_mode()
def predicted_noise_mse(profile: Profile, model: Path, base_model: Path, test_images: np.ndarray) -> dict:
    """Mean squared difference of the predicted noise to the base's, per timestep, on held-out images."""
    settings, device = profile.evaluate, default_device()
    (unet, alphas_cumprod, _), (base, _, _) = (load_unet(path, device) for path in (model, base_model))
    x0 = from_uint8(test_images[: settings.noise_images])

    def error(timestep: int) -> float:
        random = generator("noise", settings.seed, timestep)
        noise = torch.from_numpy(random.standard_normal(x0.shape, dtype="float32"))
        t = torch.full((len(x0),), timestep)
        x = add_noise(x0, noise, t, alphas_cumprod).to(device)
        return nn.functional.mse_loss(unet(x, t.to(device)), base(x, t.to(device))).item()

    return {str(timestep): error(timestep) for timestep in settings.noise_timesteps}


if __name__ == "__main__":
    cli.run(evaluate)
