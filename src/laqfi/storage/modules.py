"""Layers that keep their tensors as stored and restore the weight inside forward, one layer at a time."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from laqfi.storage.kinds import CALLS, TRANSPOSED
from laqfi.storage.layout import Layout

INPUTS = ("input", "x")  # what PyTorch's layers call what they get


def output_axis(module: nn.Module) -> int:
    """Axis of the output channels in the module's weight."""
    return 1 if isinstance(module, tuple(TRANSPOSED)) else 0


class StoredTensor(nn.Module):
    """The parts of one stored tensor as buffers; calling it gives the weight.

    It stands where a layer's parameter stood: `dtype`, `shape` and `device` are those of the weight that it stands for,
    and a function of PyTorch that is given it gets that weight.
    """

    def __init__(self, layout: Layout, dtype: torch.dtype = torch.float32, device: torch.device | None = None):
        super().__init__()
        self.layout, self.dtype, self.requires_grad = layout, dtype, False
        for part, (kind, shape) in layout.part_shapes().items():
            self.register_buffer(buffer_name(part), torch.empty(shape, dtype=kind, device=device))

    def forward(self, dtype: torch.dtype) -> Tensor:
        parts = {part: getattr(self, buffer_name(part)) for part in self.layout.part_shapes()}
        return self.layout.restore(parts, dtype)

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.layout.shape)

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return self.shape.numel()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "StoredTensor":
        """What `to`, `half` and their like do. What is stored keeps its dtype: its scales would lose digits."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.device)).dtype
        for name, buffer in self._buffers.items():
            moved = fn(buffer)
            self._buffers[name] = moved if moved.dtype == buffer.dtype else buffer.to(moved.device)
        return self

    def __getattr__(self, name: str) -> Any:
        """What else a tensor has is that of the weight."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or not hasattr(Tensor, name):
                raise
            return getattr(self(self.dtype), name)

    @classmethod
    def __torch_function__(cls, function: Callable, types: Sequence, arguments: tuple = (), more: dict | None = None):
        weights = tree_map_only(cls, lambda one: one(one.dtype), (arguments, more or {}))
        return function(*weights[0], **weights[1])


def as_tensor(name: str) -> Callable:
    """A method of tensors, of the weight."""
    return lambda self, *arguments, **more: getattr(self(self.dtype), name)(*arguments, **more)


OPERATORS = ("add", "sub", "mul", "truediv", "matmul", "pow")
CASTS = ("to", "type", "float", "double", "half", "bfloat16", "cpu", "cuda")  # which modules have, too
for method in (*CASTS, "__getitem__", "__neg__", *(f"__{way}{name}__" for name in OPERATORS for way in ("", "r"))):
    setattr(StoredTensor, method, as_tensor(method))


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
    """A layer of `CALLS` on stored tensors, with all other attributes of the layer that it stands for.

    It computes in the dtype of its input, or, where that holds integers, in the one that its weight had.
    """

    def __init__(self, layer: nn.Module, layouts: Mapping[str, Layout], shared: dict[int, StoredTensor] | None = None):
        """`shared`: the stored tensors of other layers by the id of the parameter that they stand for."""
        super().__init__()
        self.call, self.training = CALLS[type(layer)], layer.training
        self._buffers = layer._buffers  # one dictionary for both: statistics move with the model, and are read there
        for hooks in ("_forward_pre_hooks", "_forward_hooks"):
            for kind in (hooks, f"{hooks}_with_kwargs"):
                setattr(self, kind, getattr(layer, kind))
        shared = {} if shared is None else shared
        for name, p in (("weight", layer.weight), ("bias", getattr(layer, "bias", None))):
            if p is not None and id(p) not in shared:
                shared[id(p)] = StoredTensor(layouts[name], p.dtype, p.device)
            self.add_module(name, None if p is None else shared[id(p)])
        self.layer = [without_parameters(layer)]  # in a list, so that it is not part of the model

    def forward(self, *arguments: Any, **more: Any) -> Tensor:
        """With the input first, or by its name, which is not the same for all kinds of layers."""
        x, *arguments = arguments or [more.pop(name) for name in INPUTS if name in more]
        dtype = x.dtype if x.is_floating_point() else self.weight.dtype
        return self.call(self.layer[0], x, **self.restored(dtype), **output_size(arguments, more))

    def restored(self, dtype: torch.dtype) -> dict[str, Tensor | None]:
        """Weight and bias."""
        return {"weight": self.weight(dtype), "bias": None if self.bias is None else self.bias(dtype)}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "layer" not in self.__dict__:  # while it is unpickled
                raise
            return getattr(self.layer[0], name)


def output_size(arguments: Sequence, more: dict) -> dict:
    """What a transposed convolution may be called with beside its input."""
    return dict(zip(("output_size",), arguments, strict=False)) | more


def without_parameters(layer: nn.Module) -> nn.Module:
    """A copy of the layer's settings, which keeps no weight in memory."""
    settings = copy(layer)
    settings._parameters = dict.fromkeys(layer._parameters)
    return settings


def store_layers(model: nn.Module, layouts: Mapping[str, Layout]) -> dict[str, StoredTensor]:
    """Make every layer of `model` that holds parameters one on stored tensors, in place; these, by parameter name.

    The layers stay the same objects, so that whoever else holds one sees it stored: a second name, a list. Parameters
    that layers share are stored once, and those outside of layers stay. `layouts` gives one layout per parameter name.
    Which models this is for, `check_storable` tells.
    """
    names, shared = {id(p): name for name, p in model.named_parameters()}, {}
    for module in list(model.modules()):
        own = dict(module.named_parameters(recurse=False))
        if own and type(module) in CALLS:
            stored = StoredLayer(module, {name: layouts[names[id(p)]] for name, p in own.items()}, shared)
            module.__class__ = StoredLayer
            module.__dict__.clear()
            module.__dict__.update(stored.__dict__)
    return {names[key]: tensor for key, tensor in shared.items()}


@torch.no_grad()
def load_stored(model: nn.Module, layouts: Mapping[str, Layout], tensors: Mapping[str, Tensor]) -> None:
    """`store_layers` with the tensors of a file, each on its parameter's device.

    Parameters outside of layers take over what is stored of them, in their own dtype.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    for name, one in store_layers(model, layouts).items():
        for part in one.layout.part_shapes():
            setattr(one, buffer_name(part), tensors[f"{name}{part}"].to(one.device))
    for parameter in model.parameters():
        name = names[id(parameter)]
        parts = {part: tensors[f"{name}{part}"] for part in layouts[name].part_shapes()}
        parameter.copy_(layouts[name].restore(parts, parameter.dtype))


def restored(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of `model` with ordinary layers, for many calls in a row: no weight is restored again in each of them.

    Weights of convolutions and linear layers are in `dtype`, which they are rounded to once; all else is float32.
    `model` and its tensors stay as they are.
    """
    if isinstance(model, StoredLayer):
        made, own, children = copy(model.layer[0]), model.restored(torch.float32), {}
        own = {name: own[name] for name in made._parameters}
    else:
        made, own, children = copy(model), model._parameters, model._modules
    made._buffers = dict(made._buffers)
    made._parameters = {name: None if tensor is None else as_parameter(tensor, dtype) for name, tensor in own.items()}
    made._modules = {name: None if child is None else restored(child, dtype) for name, child in children.items()}
    return made


def as_parameter(tensor: Tensor, dtype: torch.dtype) -> nn.Parameter:
    tensor = tensor.detach().to(dtype if tensor.dim() > 1 else torch.float32)
    return nn.Parameter(tensor.contiguous(), requires_grad=False)
