"""Images of a model for a list of seeds, batch by batch, each from its own stream of noise."""

from collections.abc import Mapping
from functools import partial
from itertools import groupby, product
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor, nn

from laqfi.base.device import default_device, tf32, upload
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

    A batch goes on from one seed to the next. `scheduler` is the config of the model's, for the sampler "scheduler".
    """

    def batch(start: int) -> np.ndarray:
        some = places[start : start + settings.batch_size]
        of_seeds = [(seed, [index for _, index in own]) for seed, own in groupby(some, key=itemgetter(0))]
        streams = [NoiseStreams(seed, indices, shape) for seed, indices in of_seeds]
        drawn = samplers.sample(
            denoiser,
            lambda: upload(torch.from_numpy(np.concatenate([one.draw() for one in streams])), default_device()),
            alphas_cumprod,
            **settings.model_dump(include={"sampler", "steps", "eta", "clip"}),
            excess=partial(excess_of, model),
            scheduler=scheduler,
            progress=f"images {start + 1}-{start + len(some)} of {len(places)}" if progress else None,
        )
        return to_uint8(drawn).cpu().numpy()

    places = list(product(settings.seeds, range(images)))
    with raw(model, settings.sampler == samplers.SCHEDULER), tf32(settings.precision == "tf32"):
        denoiser = prepared(model, settings.precision, len(places) * settings.steps)
        drawn = np.concatenate([batch(start) for start in range(0, len(places), settings.batch_size)])
    return drawn.reshape(len(settings.seeds), images, *drawn.shape[1:])
