"""The parts of a network that are fitted one after the other, and what each gets and should give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from laqfi.quant.calibration import CalibrationSet


class ReachedError(Exception):
    """Ends a call of the network at the block that was waited for."""


def blocks_of(network: nn.Module, kinds: tuple[type[nn.Module], ...], layers: list[str]) -> dict[str, list[str]]:
    """Layers, in the order of their calls, by what holds them: the outermost module of these kinds, or themselves."""
    whole = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    found: dict[str, list[str]] = {}
    for layer in layers:
        block = next((name for name in whole if f"{layer}.".startswith(f"{name}.")), layer)
        found.setdefault(block, []).append(layer)
    return found


@dataclass
class Calls:
    """What a block got of all samples of the calibration set: tensors [samples, …] among other arguments."""

    arguments: tuple[Any, ...]
    output: Tensor

    def of(self, samples: Tensor) -> tuple[Any, ...]:
        """The arguments of some samples."""
        return tuple(one[samples] if isinstance(one, Tensor) else one for one in self.arguments)


@torch.no_grad()
def calls_of(network: nn.Module, name: str, found: CalibrationSet) -> Calls:
    """Every call of one block while `network` runs on the set, as one."""
    seen: list[tuple[tuple, Tensor]] = []

    def hook(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        seen.append((arguments, output))
        raise ReachedError

    handle = network.get_submodule(name).register_forward_hook(hook)
    try:
        for x, t in found.batches():
            try:
                network(x, t)
            except ReachedError:
                continue
    finally:
        handle.remove()
    columns = zip(*(arguments for arguments, _ in seen), strict=True)
    joined = tuple(torch.cat(some) if isinstance(some[0], Tensor) else some[0] for some in columns)
    return Calls(joined, torch.cat([output for _, output in seen]))


def run(block: nn.Module, weights: dict[str, Tensor], arguments: tuple) -> Tensor:
    """The block with other weights in place of some of its own."""
    return functional_call(block, weights, arguments)


@torch.no_grad()
def whole_error(predict: Callable[[Tensor], Tensor], expected: Tensor, at_a_time: int = 256) -> float:
    """Mean squared error over all samples of a block's calls."""
    parts = torch.arange(len(expected), device=expected.device).split(at_a_time)
    return sum((predict(part) - expected[part]).square().double().sum().item() for part in parts) / expected.numel()
