"""Model files: stored tensors with the map of their formats, and the network that runs on exactly those."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

from laqfi import io
from laqfi.diffusion import linear_alphas_cumprod
from laqfi.errors import LaqfiError
from laqfi.quant.grid import FLOATS, Format
from laqfi.quant.layers import output_axis, store_layers
from laqfi.quant.tensor import Layout
from laqfi.unet import UNet, UNetConfig, layer_of

DTYPES = {dtype: name for name, dtype in FLOATS.items()}


def is_quantizable(name: str, tensor: Tensor) -> bool:
    """The weight tensors the seed report's policies decide on: matrices and kernels of layers 1 to 6."""
    return layer_of(name) is not None and name.endswith(".weight") and tensor.dim() >= 2


def output_axes(model: nn.Module) -> dict[str, int]:
    """Axis of the output channels of every parameter."""
    return {
        f"{path}.{name}": output_axis(module) if name == "weight" else 0
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def empty_unet(metadata: dict, path: Path) -> UNet:
    """The network that a model file's metadata describes, without memory for its weights."""
    try:
        with torch.device("meta"):
            return UNet(UNetConfig.from_json(metadata["unet"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise LaqfiError(f"{path}: the metadata describes no model ({error!r})") from error


def layouts_of(tensors: dict[str, Tensor], metadata: dict, unet: UNet, path: Path) -> dict[str, Layout]:
    """Layout of every parameter: from the format map, or from the tensor itself where that is a plain float.

    Raises LaqfiError if the map and the tensors are not exactly those of the network.
    """
    layouts = {}
    for name, parameter in unet.named_parameters():
        if name in metadata.get("formats", {}):
            layouts[name] = Layout.from_json(metadata["formats"][name])
        elif name in tensors and tensors[name].dtype in DTYPES:
            layouts[name] = Layout(Format(DTYPES[tensors[name].dtype]), tuple(tensors[name].shape))
        else:
            raise LaqfiError(f"{path}: {name} is neither among the tensors nor in the format map")
        if layouts[name].shape != tuple(parameter.shape):
            raise LaqfiError(f"{path}: {name} is {layouts[name].shape}, allowed is {tuple(parameter.shape)}")
    wanted = {f"{name}{part}": spec for name, one in layouts.items() for part, spec in one.part_shapes().items()}
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            raise LaqfiError(f"{path}: {name} is {found.get(name)}, allowed is {wanted.get(name)}")
    return layouts


def load_unet(path: Path, device: torch.device) -> tuple[UNet, Tensor, dict]:
    """The U-Net of a model file in eval mode, its `alphas_cumprod`, and the file's metadata.

    A file in float32 gives an ordinary network. Any other keeps its tensors resident as they are stored, and each
    layer restores its weight only while it computes: the float32 weights never exist together. Raises LaqfiError if
    the tensors are not those of the network the metadata describes.
    """
    tensors, metadata = io.read_tensors(path)
    unet = empty_unet(metadata, path)
    try:
        alphas_cumprod = linear_alphas_cumprod(**metadata["diffusion"])
    except (KeyError, TypeError) as error:
        raise LaqfiError(f"{path}: the metadata describes no model ({error!r})") from error
    layouts = layouts_of(tensors, metadata, unet, path)
    if all(layout.format.name == "float32" for layout in layouts.values()):
        state = tensors
    else:
        store_layers(unet, layouts)
        state = {
            f"{name}.{part.removeprefix('.') or 'value'}": tensors[f"{name}{part}"]
            for name, layout in layouts.items()
            for part in layout.part_shapes()
        }
    unet.load_state_dict(state, assign=True)
    return unet.to(device).eval(), alphas_cumprod, metadata


def stored_bytes(tensors: dict[str, Tensor], metadata: dict) -> tuple[int, dict[str, int]]:
    """Bytes of all tensors, Σ numel × bytes per element, and the count of parameters per format."""
    formats = metadata.get("formats", {})
    parts = {f"{name}{part}" for name in formats for part in (".packed", ".scale", ".zero_point")}
    counts: Counter[str] = Counter()
    for layout in formats.values():
        counts[layout["name"]] += torch.Size(layout["shape"]).numel()
    for name in tensors.keys() - parts:
        counts[str(tensors[name].dtype).removeprefix("torch.")] += tensors[name].numel()
    return sum(t.numel() * t.element_size() for t in tensors.values()), dict(sorted(counts.items()))
