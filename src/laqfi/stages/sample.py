"""Stage: images from one variant's stored model, the same noise for every variant."""

from pathlib import Path

from laqfi.base import files, pictures
from laqfi.base.device import default_device
from laqfi.sampling.drawing import draw_images
from laqfi.sampling.params import Sample
from laqfi.stages import command
from laqfi.storage.model_file import load_unet

SHEET = 100  # images in the picture, ten to a row


def sample(sample: Sample, *, model: Path, out: Path, sheet: Path) -> None:
    """Write uint8 images [seeds, N, C, H, W], more under the name of each headline, and a picture of the first ones."""
    unet, alphas_cumprod, metadata = load_unet(model, default_device())
    draws = {"images": sample, **sample.headlines_of(model.stem)}
    shape = tuple(metadata["image"])
    drawn = {name: draw_images(unet, alphas_cumprod, shape, how, how.images) for name, how in draws.items()}
    files.write_arrays(out, **drawn)
    files.write_bytes(sheet, pictures.png(pictures.sheet(drawn["images"][0][:SHEET], min(10, sample.images))))


if __name__ == "__main__":
    command.run(sample)
