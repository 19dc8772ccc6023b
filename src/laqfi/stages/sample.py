"""Stage: images from one variant's stored model, the same noise for every variant."""

from pathlib import Path

import numpy as np
import torch

from laqfi import cli, diffusion, io, pictures
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.quant.model import load_unet
from laqfi.rng import NoiseStreams

SHEET = 100  # images in the picture, ten to a row


def sample(profile: Profile, *, model: Path, out: Path, sheet: Path) -> None:
    """Write uint8 images [seeds, N, C, H, W] and a picture of the first ones."""
    settings, device = profile.sample, default_device()
    count = settings.images_of(model.stem)
    unet, alphas_cumprod, metadata = load_unet(model, device)

    def batch(seed: int, indices: range) -> np.ndarray:
        noise = NoiseStreams(seed, indices, tuple(metadata["image"]))
        images = diffusion.sample(
            unet,
            lambda: torch.from_numpy(noise.draw()).to(device),
            alphas_cumprod,
            **settings.model_dump(include={"sampler", "steps", "eta", "clip"}),
            progress=f"seed {seed}, images {indices.start}-{indices.stop - 1}",
        )
        return diffusion.to_uint8(images).cpu().numpy()

    starts = range(0, count, settings.batch_size)
    parts = [range(start, min(start + settings.batch_size, count)) for start in starts]
    images = np.stack([np.concatenate([batch(seed, part) for part in parts]) for seed in settings.seeds])
    io.write_arrays(out, images=images)
    io.write_bytes(sheet, pictures.png(pictures.sheet(images[0][:SHEET], min(10, count))))


if __name__ == "__main__":
    cli.run(sample)
