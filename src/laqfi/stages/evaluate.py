"""Stage: what one variant takes in bytes, and the quality of its images."""

from pathlib import Path

import numpy as np

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import from_uint8
from laqfi.diffusion.process import noise_error
from laqfi.quality.judge import Judge
from laqfi.quality.params import Evaluate
from laqfi.sampling.params import Drawn
from laqfi.stages import command
from laqfi.storage.model_file import model_of, read_model, stored_bytes
from laqfi.storage.stored_file import read_stored


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
    """Write the Evaluation of the variant `name`; the base is FP32, whose noise and images it is measured against."""
    draws = sample.images_of(name)
    base_drawn = read_images(base_samples, draws, len(sample.seeds))
    drawn = read_images(samples, draws, len(sample.seeds), base_drawn["images"].shape[2:])
    held_out = from_uint8(files.read_array(dataset, "test_images")[: evaluate.noise_images])
    tensors, metadata = read_stored(model)
    size, parameters = stored_bytes(tensors, metadata)
    denoiser, alphas_cumprod, _ = model_of(tensors, metadata, model, default_device())
    base, _, _ = read_model(base_model, default_device())
    noise_mse = noise_error(denoiser, base, held_out, alphas_cumprod, evaluate.noise_timesteps, evaluate.seed)
    judge = Judge(network, reference, evaluate.groups)
    quality = {key: judge.quality(drawn[key], base_drawn[key]) for key in draws}
    evaluation = records.Evaluation(
        **dict(quality.pop("images")),
        bytes=size,
        file_bytes=model.stat().st_size,
        parameters=parameters,
        seeds=sample.seeds,
        noise_mse=noise_mse,
        headlines=quality,
    )
    records.write(out, evaluation)


def read_images(
    path: Path, draws: dict[str, int], seeds: int, shape: tuple[int, ...] | None = None
) -> dict[str, np.ndarray]:
    """uint8 [seeds, images, *shape] of every draw, whose images per seed `draws` says; without `shape`, all have one.

    Raises LaqfiError if the file holds others.
    """
    found = files.read_arrays(path, *draws)
    for key, images in draws.items():
        wanted = (seeds, images, *(shape or found["images"].shape[2:]))
        if found[key].dtype != "uint8" or found[key].shape != wanted:
            raise LaqfiError(f"{path}: {key} is {found[key].dtype} {found[key].shape}, allowed is uint8 {wanted}")
    return found


if __name__ == "__main__":
    command.run(evaluate)
