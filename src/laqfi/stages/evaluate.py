"""Stage: what one variant costs in bytes, and in image quality against FP32 on the same noise."""

from pathlib import Path

from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import from_uint8
from laqfi.diffusion.process import noise_error
from laqfi.quality.judge import Judge, statistics
from laqfi.quality.params import Evaluate
from laqfi.sampling.params import Drawn
from laqfi.stages import command
from laqfi.storage.model_file import load_unet, stored_bytes


def evaluate(
    sample: Drawn,
    evaluate: Evaluate,
    name: str,
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
    held_out = files.read_array(dataset, "test_images")[: evaluate.noise_images]
    draws = sample.images_of(name)
    drawn, base_drawn = (files.read_arrays(path, *draws) for path in (samples, base_samples))
    for path, found in ((base_samples, base_drawn), (samples, drawn)):
        for key, images in draws.items():
            wanted = (len(sample.seeds), images, *base_drawn["images"].shape[2:])
            if found[key].dtype != "uint8" or found[key].shape != wanted:
                raise LaqfiError(f"{path}: {key} is {found[key].dtype} {found[key].shape}, allowed is uint8 {wanted}")
    (unet, alphas_cumprod, _), (base, _, _) = (load_unet(path, default_device()) for path in (model, base_model))
    noise_mse = noise_error(unet, base, from_uint8(held_out), alphas_cumprod, evaluate.noise_timesteps, evaluate.seed)
    size, dtypes = stored_bytes(*files.read_tensors(model))
    base_size, _ = stored_bytes(*files.read_tensors(base_model))
    judge = Judge(network, reference, evaluate.groups)
    quality = {key: judge.against_base(drawn[key], base_drawn[key]) for key in draws}
    summary = {
        "bytes": size,
        "file_bytes": model.stat().st_size,
        "parameters": dtypes,
        "reduction": 1 - size / base_size,
        "size_band": statistics.size_band(1 - size / base_size),
        "seeds": sample.seeds,
        "images": sample.images,
        "noise_mse": {str(timestep): value for timestep, value in noise_mse.items()},
    }
    summary |= quality.pop("images")
    again = {key: found | {"images": draws[key]} for key, found in quality.items()}
    files.write_json(out, summary | ({"headline": again} if again else {}))


if __name__ == "__main__":
    command.run(evaluate)
