"""Stage: the second-order error of every layer on its real inputs, for rounding that compensates."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor, nn

from laqfi.base import files, streamed
from laqfi.base.device import default_device
from laqfi.base.pictures import from_uint8
from laqfi.base.random import generator
from laqfi.sensitivity.compensation import Compensation
from laqfi.sensitivity.curvature import columns_of, compensations, layers_of
from laqfi.sensitivity.params import Curvature
from laqfi.stages import command
from laqfi.storage.model_file import read_model


def curvature(curvature: Curvature, *, dataset: Path, model: Path, out: Path) -> None:
    """Write what compensates for rounding errors, for each convolution and linear weight."""
    images = files.read_array(dataset, "train_images")
    chosen = generator("curvature", curvature.seed).permutation(len(images))[: curvature.images]
    network, alphas_cumprod, _ = read_model(model, default_device())
    found = compensations(
        network,
        from_uint8(images[chosen]),
        alphas_cumprod,
        timesteps=curvature.timesteps,
        chunk=curvature.chunk,
        seed=curvature.seed,
    )
    write_compensations(out, network, found)


def write_compensations(path: Path, network: nn.Module, found: Iterable[tuple[str, Compensation]]) -> None:
    """What `compensations` yields for the network, one after the other."""
    columns = {name: columns_of(module) for name, module in layers_of(network).items()}
    shapes = {key: one for name, size in columns.items() for key, one in Compensation.shapes(name, size).items()}
    streamed.write_tensors(path, shapes, parts_of(found, columns))


def parts_of(found: Iterable[tuple[str, Compensation]], columns: dict[str, int]) -> Iterator[tuple[str, Tensor]]:
    for name, one in found:
        yield from zip(Compensation.shapes(name, columns[name]), (one.order, one.pivots, one.feedback), strict=True)


if __name__ == "__main__":
    command.run(curvature)
