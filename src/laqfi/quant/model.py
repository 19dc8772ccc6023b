"""Model files: the stored tensors with their real dtypes, and the network that runs on exactly those values."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from laqfi import io
from laqfi.diffusion import linear_alphas_cumprod
from laqfi.errors import LaqfiError
from laqfi.unet import UNet, UNetConfig, layer_of


def is_quantizable(name: str, tensor: Tensor) -> bool:
    """The weight tensors policies decide on: convolution and linear weights of layers 1 to 6."""
    return layer_of(name) is not None and name.endswith(".weight") and tensor.dim() >= 2


def cast(name: str, weight: Tensor, dtype: str) -> Tensor:
    """`weight` in `dtype`. Raises LaqfiError if a value is not finite, before or after."""
    stored = weight.to(getattr(torch, dtype))
    for state, values in (("", weight), (f" in {dtype}", stored)):
        if not values.isfinite().all():
            raise LaqfiError(f"{name}: holds values that are not finite{state}; largest |w| is {weight.abs().max()}")
    return stored


def load_unet(path: Path, device: torch.device) -> tuple[UNet, Tensor, dict]:
    """The U-Net of a model file in eval mode, its `alphas_cumprod`, and the file's metadata.

    The network computes in float32 on the values that are stored. Raises LaqfiError if the tensors are not those
    of the network the metadata describes.
    """
    tensors, metadata = io.read_tensors(path)
    try:
        with torch.device("meta"):
            expected = UNet(UNetConfig.from_json(metadata["unet"])).state_dict()
        unet = UNet(UNetConfig.from_json(metadata["unet"]))
        alphas_cumprod = linear_alphas_cumprod(**metadata["diffusion"])
    except (KeyError, TypeError) as error:
        raise LaqfiError(f"{path}: the metadata describes no model ({error!r})") from error
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    wanted = {name: tuple(t.shape) for name, t in expected.items()}
    for name in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(name) != wanted.get(name):
            raise LaqfiError(f"{path}: {name} is {shapes.get(name)}, allowed is {wanted.get(name)}")
    unet.load_state_dict(tensors)
    return unet.to(device).eval(), alphas_cumprod, metadata


def stored_bytes(tensors: dict[str, Tensor]) -> tuple[int, dict[str, int]]:
    """Bytes of all tensors, Σ numel × bytes per element, and the count of parameters per dtype."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return sum(t.numel() * t.element_size() for t in tensors.values()), dict(sorted(counts.items()))
