"""Stage: what one variant costs in bytes, and in image quality against FP32 on the same noise."""

from pathlib import Path

from laqfi import cli, io, metrics
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.diffusion import from_uint8, noise_error
from laqfi.errors import LaqfiError
from laqfi.quality import Judge
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
    quality = Judge(network, reference, profile.evaluate.groups).against_base(images, base_images)
    summary = {
        "bytes": size,
        "file_bytes": model.stat().st_size,
        "parameters": dtypes,
        "reduction": 1 - size / base_size,
        "size_band": metrics.size_band(1 - size / base_size),
        "seeds": profile.sample.seeds,
        "images": images.shape[1],
        "noise_mse": {str(timestep): value for timestep, value in noise_mse.items()},
    }
    io.write_json(out, summary | quality)


if __name__ == "__main__":
    cli.run(evaluate)
