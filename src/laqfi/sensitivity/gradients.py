"""Derivatives of the loss of every sample by every parameter, without a model's memory for each sample.

The gradient of a layer's weight is, for one sample, the product of what the layer gave back and what it got. One layer
at a time, and few samples of it at a time, this takes no more memory than a batch's gradient (the idea of Rochette et
al. 2019, and of Goodfellow 2015 for the norms alone).
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laqfi.sensitivity.inputs import reads
from laqfi.sensitivity.layers import LAYERS, NORMS, Watch, called_once, channels_first, flow_back, is_plain, patches
from laqfi.storage.kinds import full_name

AT_ONCE = 1 << 22  # numbers of a weight's gradients that are held at a time

Found = Callable[[str, slice, Tensor], None]  # of the parameter's name, which samples, and [samples, *shape]
Loss = Callable[[Tensor, slice], Tensor]  # of the predicted noise of some samples, and which: the sum of their losses


class SampleGradients:
    """Tells the derivative of each sample's loss by every parameter of `model`.

    Parameters of convolutions, linear layers and norms that a sample passes once, and that nothing else reads, are
    measured with a whole batch; all others, which only a call of the model for that sample alone can tell apart, one
    sample after the other.
    """

    def __init__(self, model: nn.Module, x: Tensor, t: Tensor):
        """x [1, C, H, W] and t [1]: what the model may be called with, to see how it calls its layers."""
        self.model = model
        once = called_once(model, (*LAYERS, *NORMS), x, t)
        self.layers = {path: module for path, module in once.items() if is_plain(module)}
        in_layers = {
            full_name(path, name) for path, module in self.layers.items() for name, _ in module.named_parameters()
        }
        self.together = in_layers - {name for names in shared(model) for name in names} - read_often(model, x, t)
        self.alone = {name: p for name, p in model.named_parameters() if name not in self.together}

    def measure(self, x: Tensor, t: Tensor, losses: list[tuple[Loss, Found]]) -> None:
        """Every loss of a batch x [B, C, H, W], t [B], with one call of the model for all of them."""

        batch, parted = len(x), set()

        def seen(path: str, module: nn.Module, x: Tensor, gradient: Tensor) -> None:
            if len(x) != batch:  # a layer that some samples pass, and others do not
                parted.add(path)
                return
            for name, part, gradients in gradients_of(module, x, gradient):
                if full_name(path, name) in self.together:
                    self.found(full_name(path, name), part, gradients)

        if self.together:
            with Watch(self.model, self.layers, seen):
                predicted = self.model(x, t)
                for loss, self.found in losses:
                    flow_back(loss(predicted, slice(0, len(x))), retain_graph=True)
        for name in [name for name in self.together if name.rpartition(".")[0] in parted]:
            self.together.remove(name)
            self.alone[name] = self.model.get_parameter(name)
        for i in range(len(x)) if self.alone else ():
            self.measure_alone(x, t, slice(i, i + 1), losses)

    def measure_alone(self, x: Tensor, t: Tensor, sample: slice, losses: list[tuple[Loss, Found]]) -> None:
        predicted, parameters = self.model(x[sample], t[sample]), list(self.alone.values())
        for loss, found in losses:
            gradients = torch.autograd.grad(
                loss(predicted, sample), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for name, gradient in zip(self.alone, gradients, strict=True):
                found(name, sample, gradient.to_dense()[None])  # those of an embedding may be sparse


def shared(model: nn.Module) -> list[list[str]]:
    """All names of every parameter that several modules share."""
    found: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), []).append(name)
    return [names for names in found.values() if len(names) > 1]


def read_often(model: nn.Module, x: Tensor, t: Tensor) -> set[str]:
    """Names of the parameters that several operations of a call read: a layer, and who uses its weight besides."""
    with torch.enable_grad():
        _, read = reads(model, x, t)
    return {name for name, parameter in model.named_parameters() if read[id(parameter)] > 1}


def gradients_of(module: nn.Module, x: Tensor, gradient: Tensor) -> Iterator[tuple[str, slice, Tensor]]:
    """Name, samples, and [samples, *shape], for every parameter of a layer; one sample's loss is moved by one row."""
    outer = channels_first(module, gradient)
    whole = slice(0, len(x))
    if module.bias is not None:
        yield "bias", whole, shaped(outer.sum(-1), module.bias)
    if isinstance(module, NORMS):
        if module.weight is not None:
            yield (
                "weight",
                whole,
                shaped((outer * channels_first(module, normalized(module, x))).sum(-1), module.weight),
            )
        return
    inner, shape = patches(module, x), module.weight.shape
    at_once = max(1, AT_ONCE // module.weight.numel())
    for start in range(0, len(x), at_once):
        part = slice(start, min(start + at_once, len(x)))
        product = outer[part] @ inner[part].transpose(1, 2)  # [samples, rows, columns]
        if isinstance(module, nn.ConvTranspose2d):
            yield "weight", part, product.view(len(product), shape[1], shape[0], *shape[2:]).transpose(1, 2)
        else:
            yield "weight", part, product.view(len(product), *shape)


def shaped(rows: Tensor, parameter: Tensor) -> Tensor:
    return rows.reshape(len(rows), *parameter.shape)


def normalized(module: nn.Module, x: Tensor) -> Tensor:
    """What a norm gives before its own scale and shift."""
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    return F.layer_norm(x, module.normalized_shape, eps=module.eps)
