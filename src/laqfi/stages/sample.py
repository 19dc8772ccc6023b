"""Stage: images from one variant's stored model, the same noise for every variant."""

from pathlib import Path

from laqfi import cli, io, pictures
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.quant.model import load_unet
from laqfi.sampling import draw_images

SHEET = 100  # images in the picture, ten to a row


def sample(profile: Profile, *, model: Path, out: Path, sheet: Path) -> None:
    """Write uint8 images [seeds, N, C, H, W] and a picture of the first ones."""
    unet, alphas_cumprod, metadata = load_unet(model, default_device())
    count = profile.sample.images_of(model.stem)
    images = draw_images(unet, alphas_cumprod, tuple(metadata["image"]), profile.sample, count)
    io.write_arrays(out, images=images)
    io.write_bytes(sheet, pictures.png(pictures.sheet(images[0][:SHEET], min(10, count))))


if __name__ == "__main__":
    cli.run(sample)
