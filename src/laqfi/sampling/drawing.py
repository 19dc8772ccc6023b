"""Images of a model for a list of seeds, batch by batch, each from its own stream of noise."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from laqfi.base.device import allow_tf32, default_device, upload
from laqfi.base.pictures import to_uint8
from laqfi.base.random import NoiseStreams
from laqfi.sampling import samplers
from laqfi.sampling.network import prepared, raw
from laqfi.sampling.params import Drawing
from laqfi.storage.correction import excess_of


def draw_images(
    model: nn.Module,
    alphas_cumprod: Tensor,
    shape: tuple[int, int, int],
    settings: Drawing,
    images: int,
    scheduler: Mapping | None = None,
    progress: bool = True,
) -> np.ndarray:
    """uint8 [seeds, images, C, H, W]: `images` for each seed; image i of a seed is the same however many are drawn.

    `scheduler` is the config of the model's own, for the sampler "scheduler".
    """

    def batch(seed: int, indices: range) -> np.ndarray:
        noise = NoiseStreams(seed, indices, shape)
        drawn = samplers.sample(
            denoiser,
            lambda: upload(torch.from_numpy(noise.draw()), default_device()),
            alphas_cumprod,
            **settings.model_dump(include={"sampler", "steps", "eta", "clip"}),
            excess=partial(excess_of, model),
            scheduler=scheduler,
            progress=f"seed {seed}, images {indices.start}-{indices.stop - 1}" if progress else None,
        )
        return to_uint8(drawn).cpu().numpy()

    starts = range(0, images, settings.batch_size)
    parts = [range(start, min(start + settings.batch_size, images)) for start in starts]
    allow_tf32(settings.precision == "tf32")
    with raw(model, settings.sampler == samplers.SCHEDULER):
        denoiser = prepared(model, settings.precision, len(settings.seeds) * images * settings.steps)
        drawn = [np.concatenate([batch(seed, part) for part in parts]) for seed in settings.seeds]
    allow_tf32(False)
    return np.stack(drawn)
