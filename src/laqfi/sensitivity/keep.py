"""What is kept of a measured model, in files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from laqfi.base import files, streamed
from laqfi.sensitivity.compensation import Compensation
from laqfi.sensitivity.curvature import columns_of, layers_of
from laqfi.sensitivity.fisher import FisherMaps


def write_maps(path: Path, maps: FisherMaps, metadata: dict) -> None:
    """One number per weight in bfloat16, and the means of every tensor in each bin.

    bfloat16 has the range of float32, and more digits than a few hundred samples tell of a weight.
    """
    tensors = {f"weight/{name}": tensor.bfloat16() for name, tensor in maps.per_weight.items()}
    files.write_tensors(
        path, tensors | {f"bin/{name}": means.float() for name, means in maps.per_bin.items()}, metadata
    )


def write_compensations(path: Path, network: nn.Module, found: Iterable[tuple[str, Compensation | None]]) -> None:
    """What `compensations` yields for the network, one after the other."""
    columns = {name: columns_of(module) for name, module in layers_of(network).items()}
    shapes = {key: one for name, size in columns.items() for key, one in Compensation.shapes(name, size).items()}
    streamed.write_tensors(path, shapes, parts_of(found, columns))


def parts_of(found: Iterable[tuple[str, Compensation | None]], columns: dict[str, int]) -> Iterator[tuple[str, Tensor]]:
    for name, known in found:
        one = known or Compensation.of(torch.zeros(columns[name], columns[name]))  # with which GPTQ rounds to nearest
        yield from zip(Compensation.shapes(name, columns[name]), (one.order, one.pivots, one.feedback), strict=True)
