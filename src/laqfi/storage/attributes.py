"""Tensors that a model holds as plain attributes, not as parameters or buffers: what a state_dict does not tell of."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_leaves, tree_map_with_path

from laqfi.base.errors import LaqfiError
from laqfi.storage.kinds import full_name

OWN = frozenset(vars(nn.Module()))  # what PyTorch itself keeps there

Array = Tensor | np.ndarray


def attributes(model: nn.Module) -> dict[str, Array]:
    """Every tensor and array of numbers in attributes, or in lists, tuples and dictionaries there, by its name.

    Left out is what shares memory with a buffer that a state_dict holds, as it is that buffer.
    """
    found: dict[str, Array] = {}
    kept = {memory(one) for one in model.state_dict(keep_vars=True).values() if isinstance(one, Tensor)}
    kept -= {memory(parameter) for parameter in model.parameters()}

    def note(name: str, one: Array) -> Array:
        if memory(one) is None or memory(one) not in kept:
            found[name] = one
        return one

    for path, module in model.named_modules():
        for key, value in plain(module).items():
            mapped(full_name(path, key), value, note)
    return found


def plain(module: nn.Module) -> dict[str, Any]:
    """Its attributes that hold tensors or arrays."""
    return {
        key: value
        for key, value in vars(module).items()
        if key not in OWN and any(is_array(leaf) for leaf in tree_leaves(value))
    }


def mapped(name: str, value: Any, change: Callable[[str, Array], Array]) -> Any:
    """The value with other tensors and arrays: `change` is given the name of each, and it."""
    return tree_map_with_path(lambda path, leaf: change(name + keystr(path), leaf) if is_array(leaf) else leaf, value)


def is_array(one: Any) -> bool:
    return isinstance(one, Tensor) or (isinstance(one, np.ndarray) and one.dtype.kind in "biufc")


def memory(one: Array) -> tuple[torch.device, int] | None:
    """Where its numbers are; None where that is nowhere, or not in one place."""
    if not isinstance(one, Tensor) or one.layout != torch.strided or one.is_meta or not one.numel():
        return None
    return one.device, one.untyped_storage().data_ptr()


def check_attributes(model: nn.Module) -> None:
    """Raises LaqfiError, with the name, for tensors that cannot be kept, and for other views of a parameter's numbers.

    Such a view, or the parameter itself in a list, would go on with the numbers that the parameter had.
    """
    names = {memory(parameter): name for name, parameter in model.named_parameters()}
    names.pop(None, None)
    saved = model.state_dict().keys()
    unsaved = {name: one for name, one in model.named_buffers() if name not in saved}
    for name, one in (attributes(model) | unsaved).items():
        if memory(one) in names:
            raise LaqfiError(
                f"{name}: shares its numbers with the parameter {names[memory(one)]}, allowed is to read that itself"
            )
        if isinstance(one, Tensor) and (one.layout != torch.strided or one.is_meta):
            found = "on the device meta" if one.is_meta else str(one.layout)
            raise LaqfiError(f"{name}: is {found}, allowed is a dense tensor that holds values")


def attributes_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies in main memory by name; what has several names is one tensor."""
    copies: dict[int, Tensor] = {}
    found = attributes(model)
    for one in found.values():
        if id(one) not in copies:
            copies[id(one)] = torch.as_tensor(one).detach().cpu().resolve_conj().resolve_neg().clone()
    return {name: copies[id(found[name])] for name in sorted(found)}


def put_attributes(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """The inverse of `attributes_of`, in place of what the model holds, in its dtypes and on its devices.

    An attribute that it does not hold, as one that is made in the first call, it then has; in lists, tuples and
    dictionaries, nothing is added.
    """
    made: dict[tuple, Array] = {}

    def put(name: str, one: Array) -> Array:
        if name not in kept:
            return one
        key = (id(kept[name]), type(one), str(one.dtype), getattr(one, "device", None))
        return made.setdefault(key, like(one, kept[name]))

    device = next(model.parameters()).device
    for path, module in model.named_modules():
        for key, value in plain(module).items():
            vars(module)[key] = mapped(full_name(path, key), value, put)
        for name in [name for name in kept if name.rpartition(".")[0] == path and "[" not in name]:
            key = name.rpartition(".")[2]
            if vars(module).get(key) is None and key not in (*module._buffers, *module._parameters, *module._modules):
                vars(module)[key] = kept[name].to(device)


def like(one: Array, values: Tensor) -> Array:
    """The values, as `one` holds its own."""
    if isinstance(one, np.ndarray):
        return values.numpy().astype(one.dtype)
    return values.to(one.device, one.dtype, copy=True).requires_grad_(one.requires_grad and one.is_leaf)
