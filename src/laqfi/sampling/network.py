"""The network as a sampler calls it, hundreds of times with the same weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from laqfi.base.device import captured, compiled, default_device
from laqfi.diffusion.process import Denoiser
from laqfi.records import Precision
from laqfi.storage.modules import restored

WORTH_COMPILING = 500_000  # evaluations; compiling takes a process 10 to 16 s, and saves as much from here on


@contextmanager
def raw(model: nn.Module, wanted: bool) -> Iterator[None]:
    """While open, a network that a scheduler steps from returns what it does by itself, not the noise in it."""
    inside = [module for module in model.modules() if wanted and hasattr(module, "raw")]
    try:
        for module in inside:
            module.raw = True
        yield
    finally:
        for module in inside:
            module.raw = False


def arithmetic(precision: Precision) -> Precision:
    """What products are made in here: on a CPU float32, whatever is asked for."""
    return precision if default_device().type == "cuda" else "float32"


def prepared(model: nn.Module, precision: Precision, evaluations: int) -> Denoiser:
    """`model`, made ready for many calls: on a CPU itself, on a GPU in CUDA graphs, its weights restored.

    `precision` is of the products on a GPU: with "float16" both factors are rounded to its 10 bits of mantissa and
    summed in float32, while norms and what the sampler does stay in float32. The weights are restored once, so stored
    ones are as fast as float32; while the images are drawn they take the memory of `precision` beside their own.
    `evaluations`: how many are to come, of one image at one timestep; from `WORTH_COMPILING` on the network is
    compiled, but not in float32, which gains nothing by it. What the denoiser returns is overwritten by its next call.
    """
    device = default_device()
    if device.type == "cpu":
        return model
    half = precision == "float16"
    network = restored(model, torch.float16 if half else torch.float32)
    if precision != "float32" and evaluations >= WORTH_COMPILING:
        network = compiled(network.to(memory_format=torch.channels_last))  # the layout of the tensor cores

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.float16, enabled=half, cache_enabled=False):
            return network(x, timestep).float()

    return captured(predict, device)
