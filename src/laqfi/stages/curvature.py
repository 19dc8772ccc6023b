"""Stage: the second-order error of every layer on its real inputs, for rounding that compensates."""

from pathlib import Path

from laqfi import cli, io
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.diffusion import from_uint8
from laqfi.quant.curvature import curvatures
from laqfi.quant.model import load_unet
from laqfi.rng import generator


def curvature(profile: Profile, *, dataset: Path, model: Path, out: Path) -> None:
    """Write one matrix [columns, columns] per convolution and linear weight."""
    settings = profile.curvature
    images = io.read_array(dataset, "train_images")
    chosen = generator("curvature", settings.seed).permutation(len(images))[: settings.images]
    unet, alphas_cumprod, _ = load_unet(model, default_device())
    matrices = curvatures(
        unet,
        from_uint8(images[chosen]),
        alphas_cumprod,
        timesteps=settings.timesteps,
        chunk=settings.chunk,
        seed=settings.seed,
    )
    io.write_tensors(out, matrices)


if __name__ == "__main__":
    cli.run(curvature)
