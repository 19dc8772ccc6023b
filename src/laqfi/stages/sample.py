"""Stage: images from one variant's stored model, the same noise for every variant."""

from pathlib import Path

from laqfi.base import files, pictures
from laqfi.base.device import default_device
from laqfi.models import families
from laqfi.sampling.drawing import draw_images
from laqfi.sampling.params import Sample
from laqfi.stages import command
from laqfi.storage.described import settings_of
from laqfi.storage.model_file import read_model

SHEET = 100  # images in the picture, ten to a row


def sample(sample: Sample, name: str, *, model: Path, out: Path, sheet: Path) -> None:
    """Write uint8 images [seeds, N, C, H, W] of the variant `name`, and a picture of the first ones.

    Under the name of each headline with this variant stand the images that it draws again.
    """
    network, alphas_cumprod, metadata = read_model(model, default_device())
    draws = {"images": sample, **sample.headlines_of(name)}
    shape, scheduler = tuple(metadata["image"]), families.scheduler_of(settings_of(metadata))
    drawn = {key: draw_images(network, alphas_cumprod, shape, how, how.images, scheduler) for key, how in draws.items()}
    files.write_arrays(out, **drawn)
    files.write_bytes(sheet, pictures.png(pictures.sheet(drawn["images"][0][:SHEET], min(10, sample.images))))


if __name__ == "__main__":
    command.run(sample)
