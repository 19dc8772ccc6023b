"""Model files: stored tensors with the map of their formats, and the network that runs on exactly those."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.errors import LaqfiError, first_line
from laqfi.diffusion.params import Diffusion
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.models.unet import UNet, UNetConfig, layer_of
from laqfi.models.unet_params import Unet
from laqfi.storage.formats import FLOATS, Format
from laqfi.storage.layout import Layout
from laqfi.storage.modules import output_axis, store_layers

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


class StoredUnet(Unet):
    image_channels: Annotated[int, Field(ge=1)]


class Metadata(BaseModel):
    """What a model file must say of itself; more is allowed."""

    model_config = ConfigDict(frozen=True, strict=True)
    unet: StoredUnet
    diffusion: Diffusion
    image: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=3, max_length=3)]
    formats: dict[str, object] = {}

    @model_validator(mode="after")
    def image_fits_the_network(self):
        channels, height, width = self.image
        if channels != self.unet.image_channels or height % 8 or width % 8:
            raise ValueError(
                f"image is {self.image}, allowed is [{self.unet.image_channels}, H, W], H and W multiples of 8"
            )
        return self


def described(metadata: dict, path: Path) -> tuple[UNet, Tensor]:
    """The network a model file's metadata describes, without memory for its weights, and its `alphas_cumprod`."""
    try:
        checked = Metadata.model_validate(metadata)
        with torch.device("meta"):
            unet = UNet(UNetConfig.from_json(metadata["unet"]))
    except ValidationError as error:
        raise LaqfiError(f"{path}: the metadata describes no model ({first_line(error)})") from error
    except RuntimeError as error:  # sizes beyond what PyTorch counts
        raise LaqfiError(f"{path}: the metadata describes no model ({' '.join(str(error).split())})") from error
    return unet, linear_alphas_cumprod(**checked.diffusion.model_dump())


def layouts_of(tensors: dict[str, Tensor], metadata: dict, unet: UNet, path: Path) -> dict[str, Layout]:
    """Layout of every parameter: from the format map, or from the tensor itself where that is a plain float.

    Raises LaqfiError if the map and the tensors are not exactly those of the network.
    """
    layouts, formats = {}, metadata.get("formats", {})
    if foreign := formats.keys() - dict(unet.named_parameters()).keys():
        raise LaqfiError(f"{path}: the format map names {min(foreign)!r}, which the network does not have")
    for name, parameter in unet.named_parameters():
        if name in formats:
            layouts[name] = layout_from(formats[name], name, path)
        elif name in tensors and tensors[name].dtype in DTYPES:
            layouts[name] = Layout(Format(DTYPES[tensors[name].dtype]), tuple(tensors[name].shape))
        else:
            raise LaqfiError(f"{path}: {name} is neither among the tensors nor in the format map")
        if layouts[name].shape != tuple(parameter.shape):
            raise LaqfiError(f"{path}: {name} is {layouts[name].shape}, allowed is {tuple(parameter.shape)}")
    wanted = {f"{name}{part}": spec for name, one in layouts.items() for part, spec in one.part_shapes().items()}
    files.check_tensors(path, tensors, wanted)
    for name, one in layouts.items():
        if f"{name}.zero_point" in wanted and int(tensors[f"{name}.zero_point"].max()) >= one.format.levels:
            raise LaqfiError(f"{path}: {name}.zero_point is beyond the {one.format.levels} levels of its format")
    return layouts


def layout_from(value: object, name: str, path: Path) -> Layout:
    try:
        return Layout.from_json(value)
    except LaqfiError as error:
        raise LaqfiError(f"{path}: {name}: {error}") from error


def load_unet(path: Path, device: torch.device) -> tuple[UNet, Tensor, dict]:
    """The U-Net of a model file in eval mode, its `alphas_cumprod`, and the file's metadata.

    A file in float32 gives an ordinary network. Any other keeps its tensors resident as they are stored, and each
    layer restores its weight only while it computes: the float32 weights never exist together. Raises LaqfiError if
    the tensors are not those of the network the metadata describes.
    """
    return unet_of(*files.read_tensors(path), path, device)


def unet_of(tensors: dict[str, Tensor], metadata: dict, path: Path, device: torch.device) -> tuple[UNet, Tensor, dict]:
    """The same from the content of a model file; `path` names it in errors."""
    unet, alphas_cumprod = described(metadata, path)
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
