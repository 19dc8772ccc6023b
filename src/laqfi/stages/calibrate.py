"""Stage: what FP32's own sampling shows a network, for recipes that are fitted to it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from laqfi.base import files
from laqfi.base.device import default_device, deterministic
from laqfi.base.random import NoiseStreams, derive_seed
from laqfi.diffusion.process import Denoiser
from laqfi.models import families
from laqfi.quant.recipe import Calibration
from laqfi.sampling import samplers
from laqfi.sampling.network import raw
from laqfi.sampling.params import Trajectory
from laqfi.sensitivity.image import image_importance
from laqfi.stages import command
from laqfi.storage.described import settings_of
from laqfi.storage.model_file import read_model


def calibrate(calibration: Calibration, sample: Trajectory, *, model: Path, out: Path) -> None:
    """Write x_t, float32 [steps, images, C, H, W], at evenly spaced steps of the sampler, and their timesteps.

    With the weighting "image" also what matters for the final images, as `ImageImportance.arrays` has it. The noise is
    other than that of the images that variants are judged by.
    """
    network, alphas_cumprod, metadata = read_model(model, default_device())
    shape = tuple(metadata["image"])
    scheduler = families.scheduler_of(settings_of(metadata))
    called = samplers.trajectory(len(alphas_cumprod) - 1, sample.sampler, sample.steps, scheduler)
    kept = {int(step) for step in np.linspace(0, len(called) - 1, calibration.steps).round()}
    seen: list[tuple[int, np.ndarray]] = []
    calls = iter(range(len(called)))

    def watched(x: Tensor, t: Tensor) -> Tensor:
        if next(calls) in kept:
            seen.append((int(t[0]), x.cpu().numpy()))
        return network(x, t)

    def sampled(denoiser: Denoiser, part: range) -> Tensor:
        streams = NoiseStreams(derive_seed("calibration", calibration.seed), part, shape)
        return samplers.reverse(
            denoiser,
            lambda: torch.from_numpy(streams.draw()).to(default_device()),
            alphas_cumprod,
            **sample.model_dump(include=set(Trajectory.model_fields)),
            scheduler=scheduler,
            progress="calibrate" if denoiser is watched else None,
        )

    found: dict[str, np.ndarray] = {}
    with raw(network, sample.sampler == samplers.SCHEDULER):
        with torch.inference_mode():
            sampled(watched, range(calibration.images))
        if calibration.weighting == "image":
            with deterministic(default_device()):
                found = image_importance(network, sampled, called, calibration.images, calibration.seed).arrays()
    timesteps, x = zip(*seen, strict=True)
    files.write_arrays(out, x=np.stack(x), timesteps=np.array(timesteps), **found)


if __name__ == "__main__":
    command.run(calibrate)
