"""Stage: the second-order error of every layer on its real inputs, for rounding that compensates."""

from pathlib import Path

from laqfi import cli, io
from laqfi.device import default_device
from laqfi.diffusion import from_uint8
from laqfi.params.curvature import Curvature
from laqfi.quant.curvature import curvatures
from laqfi.quant.model import load_unet
from laqfi.rng import generator


def curvature(curvature: Curvature, *, dataset: Path, model: Path, out: Path) -> None:
    """Write one matrix [columns, columns] per convolution and linear weight."""
    images = io.read_array(dataset, "train_images")
    chosen = generator("curvature", curvature.seed).permutation(len(images))[: curvature.images]
    unet, alphas_cumprod, _ = load_unet(model, default_device())
    matrices = curvatures(
        unet,
        from_uint8(images[chosen]),
        alphas_cumprod,
        timesteps=curvature.timesteps,
        chunk=curvature.chunk,
        seed=curvature.seed,
    )
    io.write_tensors(out, matrices)


if __name__ == "__main__":
    cli.run(curvature)
