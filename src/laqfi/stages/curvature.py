"""Stage: the second-order error of every layer on its real inputs, for rounding that compensates."""

from pathlib import Path

from laqfi.base import files
from laqfi.base.device import default_device, deterministic
from laqfi.base.pictures import from_uint8
from laqfi.base.random import generator
from laqfi.quant.recipe import Weighted
from laqfi.sensitivity.curvature import compensations
from laqfi.sensitivity.image import ImageImportance
from laqfi.sensitivity.keep import write_compensations
from laqfi.sensitivity.params import Curvature
from laqfi.stages import command
from laqfi.storage.model_file import read_model


def curvature(
    curvature: Curvature, calibration: Weighted, *, dataset: Path, model: Path, image: Path, out: Path
) -> None:
    """Write what compensates for rounding errors, for each convolution and linear weight.

    image: what the stage `calibrate` wrote, for the weighting "image".
    """
    images = files.read_array(dataset, "train_images")
    chosen = generator("curvature", curvature.seed).permutation(len(images))[: curvature.images]
    network, alphas_cumprod, _ = read_model(model, default_device())
    weights = None
    if calibration.weighting == "image":
        names = [name for name, _ in network.named_parameters()]
        weights = ImageImportance.read(image, names).at(curvature.timesteps)
    found = compensations(
        network,
        from_uint8(images[chosen]),
        alphas_cumprod,
        timesteps=curvature.timesteps,
        chunk=curvature.chunk,
        seed=curvature.seed,
        weights=weights,
    )
    with deterministic(default_device()):
        write_compensations(out, network, found)


if __name__ == "__main__":
    command.run(curvature)
