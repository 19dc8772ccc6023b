"""How a model is set while it is measured, and that it is left as it was."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as every

from laqfi.storage.attributes import OWN, attributes


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """In eval mode, every parameter learning, gradients on and as they are; afterwards all is as it was found."""
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    modes = [(module, module.training) for module in model.modules()]
    learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    aside = [one for one in attributes(model).values() if isinstance(one, Tensor) and one.is_leaf and one.requires_grad]
    found = Found(model)
    try:
        model.eval()
        for parameter, _ in learning:
            parameter.requires_grad_(True)
        for one in aside:
            one.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad(), unchanged_gradients(model):
            yield
    finally:
        for module, name, buffer, values in buffers:
            if module._buffers[name] is not buffer or not torch.equal(buffer, values):
                module._buffers[name] = buffer.detach().copy_(values)
        for module, mode in modes:
            module.training = mode
        for parameter, learns in learning:
            parameter.requires_grad_(learns)
        found.put_back()
        for one in aside:
            one.requires_grad_(True)


@contextmanager
def unchanged_gradients(model: nn.Module) -> Iterator[None]:
    """Without what makes other gradients of the derivatives: hooks of the backward pass, scales of embeddings."""
    everywhere = [every._global_backward_hooks, every._global_backward_pre_hooks]
    own = [hooks for module in model.modules() for hooks in (module._backward_hooks, module._backward_pre_hooks)]
    emptied: list[tuple[MutableMapping, dict]] = [(hooks, dict(hooks)) for hooks in (*everywhere, *own) if hooks]
    parameters = [(parameter, parameter._backward_hooks) for parameter in model.parameters()]
    scaled = [module for module in model.modules() if isinstance(module, nn.Embedding) and module.scale_grad_by_freq]
    try:
        for hooks, _ in emptied:
            hooks.clear()
        for parameter, _ in parameters:
            parameter._backward_hooks = None
        for module in scaled:
            module.scale_grad_by_freq = False
        yield
    finally:
        for hooks, found in emptied:
            hooks.update(found)
        for parameter, found in parameters:
            parameter._backward_hooks = found
        for module in scaled:
            module.scale_grad_by_freq = True


class Found:
    """What attributes of modules hold: themselves, the items of lists and dictionaries in them, and all numbers."""

    def __init__(self, model: nn.Module):
        self.attributes = [(vars(module), own(vars(module))) for module in model.modules()]
        self.items: list[tuple[list | MutableMapping, list | dict]] = []
        self.numbers: list[tuple[Tensor | np.ndarray, Tensor | np.ndarray]] = []
        for _, values in self.attributes:
            self.note(values.values())

    def note(self, values: Iterable) -> None:
        for one in values:
            if isinstance(one, Tensor) and not isinstance(one, nn.Parameter):
                self.numbers.append((one, one.detach().clone()))
            elif isinstance(one, np.ndarray):
                self.numbers.append((one, one.copy()))
            elif type(one) in (list, tuple):
                self.note(one)
            elif type(one) in (dict, OrderedDict, defaultdict):
                self.note(one.values())
            if type(one) in (list, dict, OrderedDict, defaultdict):
                self.items.append((one, copy(one)))

    @torch.no_grad()
    def put_back(self) -> None:
        for place, values in self.attributes:
            for key in own(place).keys() - values.keys():
                del place[key]
            place.update(values)
        for some, items in self.items:
            some.clear()
            (some.extend if isinstance(some, list) else some.update)(items)
        for one, values in self.numbers:
            if isinstance(one, np.ndarray):
                np.copyto(one, values)
            elif not torch.equal(one, values):
                one.detach().copy_(values)


def own(place: dict[str, Any]) -> dict[str, Any]:
    """A module's attributes, without those that PyTorch keeps there."""
    return {key: value for key, value in place.items() if key not in OWN}
