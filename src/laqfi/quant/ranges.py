"""The ranges of rounded inputs, measured on the calibration set: one for all of its steps, or one for each."""

import torch
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError
from laqfi.quant.calibration import CalibrationSet, inputs_of, watch
from laqfi.quant.recipe import Activations
from laqfi.quant.tdq import fitted_scales
from laqfi.storage.activations import PARTS, Input, Inputs, levels_of
from laqfi.storage.layout import affine_grid


def measured_inputs(
    network: nn.Module, settings: Activations, found: CalibrationSet
) -> tuple[Inputs, dict[str, Tensor]]:
    """What the file says of rounded inputs, and its tables, for a network whose weights are rounded already."""
    layers = inputs_of(network, *found.first(), settings.bits)
    timesteps = {"dynamic": [], "static": [found.timesteps[0]]}.get(settings.ranges, found.timesteps)
    about = Inputs(ranges=settings.ranges, timesteps=timesteps, layers=layers)
    if settings.ranges == "dynamic":
        return about, {}
    if settings.ranges == "tdq":
        return about, as_tables(layers, *fitted_scales(network, layers, found))
    low, high = extremes(network, layers, found)
    if settings.ranges == "static":
        low, high = low.amin(1, keepdim=True), high.amax(1, keepdim=True)
    levels = levels_of(layers)
    check_widths(layers, (high - low) / (levels[:, None] - 1))
    grids = [affine_grid(*ends, int(count)) for *ends, count in zip(low, high, levels, strict=True)]
    return about, as_tables(layers, *(torch.stack(parts) for parts in zip(*grids, strict=True)))


def check_widths(layers: list[Input], steps: Tensor) -> None:
    """Raises LaqfiError, with the layer's name, for a step [quantizers, steps] that float16 takes for 0 or infinite."""
    names = [one.name for one in layers for _ in range(one.quantizers)]
    for name, row in zip(names, steps, strict=True):
        kept = row.half()
        if not kept.isfinite().all() or ((kept == 0) & (row != 0)).any():
            raise LaqfiError(
                f"{name}: inputs are rounded in steps of {row.min():g} to {row.max():g}, which float16 does not hold; "
                "allowed is 6e-8 to 65504"
            )


def as_tables(layers: list[Input], scale: Tensor, zero_point: Tensor) -> dict[str, Tensor]:
    check_widths(layers, scale)
    return dict(zip(PARTS, (scale.half().cpu(), zero_point.to(torch.uint8).cpu()), strict=True))


def extremes(network: nn.Module, layers: list[Input], found: CalibrationSet) -> tuple[Tensor, Tensor]:
    """Smallest and largest input of every quantizer at every step of the set: twice [quantizers, steps]."""
    shape = (sum(one.quantizers for one in layers), len(found.timesteps))
    low, high = torch.zeros(shape), torch.zeros(shape)

    def see(quantizer: int, column: int, x: Tensor) -> None:
        low[quantizer, column], high[quantizer, column] = x.amin().cpu(), x.amax().cpu()

    watch(network, layers, found, see)
    return low, high
