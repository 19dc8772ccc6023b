"""What a layer got, and what the loss says of what it gave: watched while gradients flow back through a model."""

from collections.abc import Callable, Mapping
from types import TracebackType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NORMS = (nn.GroupNorm, nn.LayerNorm)

Seen = Callable[[str, nn.Module, Tensor, Tensor], None]


def is_plain(module: nn.Module) -> bool:
    """Whether `patches` and `channels_first` know all that the layer does."""
    if type(module) not in (*LAYERS, *NORMS) or module._forward_hooks:
        return False
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) == 1
    if isinstance(module, nn.ConvTranspose2d):
        return module.groups == 1 and is_square(module) and module.padding[0] < module.kernel_size[0]
    return not isinstance(module, nn.Conv2d) or module.groups == 1


def is_square(module: nn.ConvTranspose2d) -> bool:
    """Alike in both directions, without holes, and with no output beyond what the kernel reaches."""
    alike = all(len(set(pair)) == 1 for pair in (module.stride, module.kernel_size, module.padding))
    return alike and set(module.dilation) == {1} and set(module.output_padding) == {0}


def patches(module: nn.Module, x: Tensor) -> Tensor:
    """Inputs of every output position, in the column order of `Layout.matrix`: [B, columns, positions]."""
    if isinstance(module, nn.Linear):
        return x.flatten(1, -2).transpose(1, 2) if x.dim() > 2 else x[:, :, None]
    if isinstance(module, nn.Conv2d):
        padding = module.padding
        if module.padding_mode != "zeros" or isinstance(padding, str):
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            x, padding = F.pad(x, module._reversed_padding_repeated_twice, mode), 0
        return F.unfold(x, module.kernel_size, module.dilation, padding, module.stride)
    # A transposed convolution is a convolution of the input, spread out by the stride, with the kernel turned around.
    (rows, columns), (stride, _), (kernel, _) = x.shape[2:], module.stride, module.kernel_size
    spread = x.new_zeros(*x.shape[:2], (rows - 1) * stride + 1, (columns - 1) * stride + 1)
    spread[:, :, ::stride, ::stride] = x
    unfolded = F.unfold(spread, module.kernel_size, padding=kernel - 1 - module.padding[0])
    return unfolded.unflatten(1, (-1, kernel * kernel)).flip(2).flatten(1, 2)


def channels_first(module: nn.Module, outputs: Tensor) -> Tensor:
    """What a layer gave, or a gradient by it: [B, channels, positions]."""
    if isinstance(module, (nn.Linear, nn.LayerNorm)):
        return outputs.flatten(1, -2).transpose(1, 2) if outputs.dim() > 2 else outputs[:, :, None]
    return outputs.flatten(2)


class Watch:
    """While open, calls `seen(name, module, x, gradient)` for every call of `modules`, as gradients flow back.

    Calls with more than an input are left out, and those without gradients. x: what the module got. gradient: the
    derivative of the loss by what it gave. No parameter of the model gets a gradient of its own meanwhile, so that a
    pass takes no memory for them. Raises LaqfiError, in the backward pass, if x was overwritten by then.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module], seen: Seen):
        self.model, self.modules, self.seen = model, modules, seen
        self.dtype = next(model.parameters()).dtype  # in which all is told, also from inside of autocast

    def __enter__(self) -> None:
        self.learning = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self.learning:
            parameter.requires_grad_(False)
        self.hooks = [
            module.register_forward_hook(self.hook(name), with_kwargs=True) for name, module in self.modules.items()
        ]

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self.hooks:
            hook.remove()
        for parameter in self.learning:
            parameter.requires_grad_(True)

    def hook(self, name: str) -> Callable:
        def watch(module: nn.Module, arguments: tuple, more: dict, output: Tensor) -> Tensor | None:
            given = [*arguments, *more.values()]
            if len(given) > 1 or not torch.is_grad_enabled():  # not by its input alone, or nothing flows back to there
                return None
            x = given[0].detach()
            version = x._version
            if not output.requires_grad:  # nothing before this module does
                output = output.detach().requires_grad_(True).clone()

            def tell(gradient: Tensor) -> None:
                if x._version != version:
                    raise LaqfiError(
                        f"{name}: its input was overwritten by a later operation, so it cannot be measured"
                    )
                self.seen(name, module, x.to(self.dtype), gradient.to(self.dtype))

            output.register_hook(tell)
            return output

        return watch


def flow_back(loss: Tensor, **how: bool) -> None:
    """Gradients, where anything that is watched moves the loss."""
    if loss.requires_grad:
        loss.backward(**how)


def called_once(model: nn.Module, kinds: tuple[type, ...], x: Tensor, t: Tensor) -> dict[str, nn.Module]:
    """The modules of these kinds that a call of the model calls once, with each sample in a row of its own, no more.

    x [1, C, H, W] and t [1] are put into the model two and three times over.
    """
    modules = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    rows: dict[str, list[int]] = {name: [] for name in modules}

    def remember(name: str) -> Callable:
        def note(module: nn.Module, arguments: tuple, more: dict, output: Tensor) -> None:
            rows[name].append(output.shape[0] if len(arguments) + len(more) == 1 else -1)

        return note

    hooks = [module.register_forward_hook(remember(name), with_kwargs=True) for name, module in modules.items()]
    try:
        with torch.no_grad():
            for samples in (2, 3):
                model(x.repeat_interleave(samples, 0), t.repeat_interleave(samples, 0))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: module for name, module in modules.items() if rows[name] == [2, 3]}
