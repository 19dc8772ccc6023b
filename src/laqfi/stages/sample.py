"""Stage: images from one variant's stored model, the same noise for every variant."""

from pathlib import Path

from laqfi import cli, io, pictures
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.quant.model import load_unet
from laqfi.sampling import draw_images

SHEET = 100  # images in the picture, ten to a row


def sample(profile: Profile, *, model: Path, out: Path, sheet: Path) -> None:
    """Write uint8 images [seeds, N, C, H, W], more under the name of each headline, and a picture of the first ones."""
    unet, alphas_cumprod, metadata = load_unet(model, default_device())
    draws = {"images": profile.sample, **profile.sample.headlines_of(model.stem)}
    drawn = {
        name: draw_images(unet, alphas_cumprod, tuple(metadata["image"]), settings) for name, settings in draws.items()
    }
    io.write_arrays(out, **drawn)
    io.write_bytes(sheet, pictures.png(pictures.sheet(drawn["images"][0][:SHEET], min(10, profile.sample.images))))


if __name__ == "__main__":
    cli.run(sample)
