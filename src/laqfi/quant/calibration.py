"""The calibration set, and how a network's layers are watched while it runs on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.sensitivity.layers import LAYERS
from laqfi.storage.activations import Input

EDGE_BITS = 8  # of the inputs of the first and the last layer, where they have fewer otherwise


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """x_t [steps, images, C, H, W] of FP32's sampling at `timesteps` [steps], from the noisiest on."""

    x: Tensor
    timesteps: list[int]

    @classmethod
    def read(cls, path: Path, image: tuple[int, ...]) -> "CalibrationSet":
        """Raises LaqfiError if the file holds no such images."""
        found = files.read_arrays(path, "x", "timesteps")
        x, timesteps = torch.from_numpy(found["x"]), found["timesteps"].tolist()
        if x.dtype != torch.float32 or x.shape[0] != len(timesteps) or tuple(x.shape[2:]) != tuple(image):
            raise LaqfiError(f"{path}: x is {x.dtype} {tuple(x.shape)}, allowed is float32 [steps, images, *{image}]")
        return cls(x.to(default_device()), timesteps)

    @property
    def t(self) -> Tensor:
        """Timesteps of all samples, one step after the other: int64 [steps · images]."""
        return torch.tensor(self.timesteps, device=self.x.device).repeat_interleave(self.x.shape[1])

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """x [images, C, H, W] and t [images] of every step."""
        for x, timestep in zip(self.x, self.timesteps, strict=True):
            yield x, torch.full((len(x),), timestep, device=x.device)

    def first(self) -> tuple[Tensor, Tensor]:
        """x [1, C, H, W] and t [1]: what a network may be called with, to see how it calls its layers."""
        return self.x[0, :1], torch.tensor(self.timesteps[:1], device=self.x.device)

    @torch.no_grad()
    def predictions(self, network: nn.Module) -> Tensor:
        """ε_θ of all samples: [steps, images, C, H, W]."""
        return torch.stack([network(x, t) for x, t in self.batches()])


class Concatenations(TorchFunctionMode):
    """While open, remembers what `torch.cat` made of two tensors along the channels, and where the second begins."""

    def __init__(self):
        super().__init__()
        self.made: list[tuple[Tensor, int]] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if function is torch.cat:
            tensors, dim = args[0], (args[1] if len(args) > 1 else (kwargs or {}).get("dim", 0))
            if len(tensors) == 2 and dim in (1, 1 - made.dim()):
                self.made.append((made, tensors[0].shape[1]))
        return made

    def seam_of(self, x: Tensor) -> int | None:
        return next((seam for made, seam in self.made if made is x), None)


@torch.no_grad()
def inputs_of(network: nn.Module, x: Tensor, t: Tensor, bits: int) -> list[Input]:
    """The layers with weights in the order in which a call of the network calls them, as inputs to be rounded.

    A layer that reads the raw concatenation of two tensors has a seam between them. Raises LaqfiError for a layer that
    is called twice, whose inputs one range cannot stand for.
    """
    found: list[Input] = []
    with Concatenations() as concatenations:

        def look(name: str) -> Callable:
            def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                reads_image = arguments[0] is x
                own = max(bits, EDGE_BITS) if reads_image else bits
                found.append(Input(name=name, bits=own, seam=concatenations.seam_of(arguments[0])))

            return hook

        layers = [(name, module) for name, module in network.named_modules() if isinstance(module, LAYERS)]
        hooks = [module.register_forward_pre_hook(look(name)) for name, module in layers]
        try:
            network(x, t)
        finally:
            for hook in hooks:
                hook.remove()
    names = [one.name for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise LaqfiError(f"{twice[0]}: is called twice, and its inputs cannot be rounded by one range")
    return [*found[:-1], found[-1].model_copy(update={"bits": max(bits, EDGE_BITS)})]


@torch.no_grad()
def watch(
    network: nn.Module, layers: list[Input], found: CalibrationSet, see: Callable[[int, int, Tensor], None]
) -> None:
    """Runs the network on the set and calls see(quantizer, column, x) with what each quantizer would get.

    Quantizers count as in the tables of `RoundedInputs`: a layer with a seam has two.
    """
    hooks, first, now = [], 0, 0

    def look(quantizer: int, layer: Input) -> Callable:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            for place, part in enumerate(layer.parts(arguments[0])):
                see(quantizer + place, now, part)

        return hook

    for one in layers:
        hooks.append(network.get_submodule(one.name).register_forward_pre_hook(look(first, one)))
        first += one.quantizers
    try:
        for now, (x, t) in enumerate(found.batches()):  # noqa: B007 read by the hooks
            network(x, t)
    finally:
        for hook in hooks:
            hook.remove()
