"""Layers that keep their tensors as stored and restore the weight inside forward, one layer at a time."""

from collections.abc import Callable, Mapping
from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laqfi.storage.layout import Layout

Call = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]

CALLS: dict[type[nn.Module], Call] = {
    nn.Conv2d: lambda m, x, weight, bias: F.conv2d(x, weight, bias, m.stride, m.padding, m.dilation, m.groups),
    nn.ConvTranspose2d: lambda m, x, weight, bias: F.conv_transpose2d(
        x, weight, bias, m.stride, m.padding, m.output_padding, m.groups, m.dilation
    ),
    nn.Linear: lambda m, x, weight, bias: F.linear(x, weight, bias),
    nn.GroupNorm: lambda m, x, weight, bias: F.group_norm(x, m.num_groups, weight, bias, m.eps),
}


def output_axis(module: nn.Module) -> int:
    """Axis of the output channels in the module's weight."""
    return 1 if isinstance(module, nn.ConvTranspose2d) else 0


class StoredTensor(nn.Module):
    """The parts of one stored tensor as buffers; calling it gives the weight."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.layout = layout
        for part, (dtype, shape) in layout.part_shapes().items():
            self.register_buffer(buffer_name(part), torch.empty(shape, dtype=dtype))

    def forward(self, dtype: torch.dtype) -> Tensor:
        parts = {part: getattr(self, buffer_name(part)) for part in self.layout.part_shapes()}
        return self.layout.restore(parts, dtype)


def buffer_name(part: str) -> str:
    """Of the part with this suffix in the file: "packed" for ".packed", "value" for a float tensor, which has none."""
    return part.removeprefix(".") or "value"


def buffers(layouts: Mapping[str, Layout], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file by the names they have in a network on stored tensors."""
    return {
        f"{name}.{buffer_name(part)}": tensors[f"{name}{part}"]
        for name, layout in layouts.items()
        for part in layout.part_shapes()
    }


class StoredLayer(nn.Module):
    """A convolution, linear layer or group norm on stored tensors; it computes in the dtype of its input."""

    def __init__(self, layer: nn.Module, layouts: dict[str, Layout]):
        super().__init__()
        self.call = CALLS[type(layer)]
        self.layer = [layer]  # its settings only: in a list, so that its tensors are not registered
        self.weight = StoredTensor(layouts["weight"])
        self.bias = StoredTensor(layouts["bias"]) if layer.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer[0], x, **self.restored(x.dtype))

    def restored(self, dtype: torch.dtype) -> dict[str, Tensor | None]:
        """Weight and bias."""
        return {"weight": self.weight(dtype), "bias": None if self.bias is None else self.bias(dtype)}


def store_layers(model: nn.Module, layouts: dict[str, Layout]) -> None:
    """Replace every layer of `model` that holds parameters by one on stored tensors, in place.

    `layouts` gives one layout per parameter name. Raises TypeError for a layer of an unknown kind.
    """
    for path, module in list(model.named_modules()):
        own = [name for name, _ in module.named_parameters(recurse=False)]
        if own and type(module) not in CALLS:
            raise TypeError(f"{path}: a {type(module).__name__} cannot be stored, only {[t.__name__ for t in CALLS]}")
        if own:
            parent, _, attribute = path.rpartition(".")
            stored = StoredLayer(module, {name: layouts[f"{path}.{name}"] for name in own})
            setattr(model.get_submodule(parent), attribute, stored)


def restored(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of `model` with ordinary layers, for many calls in a row: no weight is restored again in each of them.

    Weights of convolutions and linear layers are in `dtype`, which they are rounded to once; all else is float32.
    `model` and its tensors stay as they are.
    """
    if isinstance(model, StoredLayer):
        made, own, children = copy(model.layer[0]), model.restored(torch.float32), {}
    else:
        made, own, children = copy(model), model._parameters, model._modules
    made._parameters = {name: None if tensor is None else as_parameter(tensor, dtype) for name, tensor in own.items()}
    made._modules = {name: restored(child, dtype) for name, child in children.items()}
    return made


def as_parameter(tensor: Tensor, dtype: torch.dtype) -> nn.Parameter:
    tensor = tensor.detach().to(dtype if tensor.dim() > 1 else torch.float32)
    return nn.Parameter(tensor.contiguous(), requires_grad=False)
