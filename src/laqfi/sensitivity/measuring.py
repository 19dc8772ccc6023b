"""How a model is set while it is measured, and that it is left as it was."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules import module as every


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
    try:
        model.eval()
        for parameter, _ in learning:
            parameter.requires_grad_(True)
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
