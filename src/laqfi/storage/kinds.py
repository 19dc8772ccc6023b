"""The layers whose weights can be stored, and how each computes with a weight that it is given."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Call = Callable[..., Tensor]  # of the layer's settings, its input, weight, bias, and what else it was called with

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = {
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def convolution(m: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return m._conv_forward(x, weight, bias)  # PyTorch's own, which knows every padding mode


def transposed(
    m: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None, output_size: list[int] | None = None
) -> Tensor:
    extra = m.output_padding
    if output_size is not None:
        sizes = m.stride, m.padding, m.kernel_size
        extra = m._output_padding(x, output_size, *sizes, len(m.kernel_size), m.dilation)
    return TRANSPOSED[type(m)](x, weight, bias, m.stride, m.padding, extra, m.groups, m.dilation)


def linear(m: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def embedding(m: nn.Module, x: Tensor, weight: Tensor, bias: None) -> Tensor:
    return F.embedding(x, weight, m.padding_idx, m.max_norm, m.norm_type, m.scale_grad_by_freq, m.sparse)


def group_norm(m: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.group_norm(x, m.num_groups, weight, bias, m.eps)


def layer_norm(m: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.layer_norm(x, m.normalized_shape, weight, bias, m.eps)


def rms_norm(m: nn.Module, x: Tensor, weight: Tensor, bias: None) -> Tensor:
    return F.rms_norm(x, m.normalized_shape, weight, m.eps)


def batch_norm(m: nn.Module, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """With the running statistics that were learned, in training mode too: nothing learns on stored weights."""
    return F.batch_norm(x, m.running_mean, m.running_var, weight, bias, False, 0.0, m.eps)


CALLS: dict[type[nn.Module], Call] = {
    **dict.fromkeys(CONVOLUTIONS, convolution),
    **dict.fromkeys(TRANSPOSED, transposed),
    nn.Linear: linear,
    nn.Embedding: embedding,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
    **dict.fromkeys(BATCH_NORMS, batch_norm),
}
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, *BATCH_NORMS)


def full_name(path: str, name: str) -> str:
    """Of something in the module at `path`, which is "" for the model itself."""
    return f"{path}.{name}" if path else name
