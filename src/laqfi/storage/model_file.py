"""Model files: stored tensors with the map of their formats, and the network that runs on exactly those."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.errors import LaqfiError, first_line
from laqfi.diffusion.params import Diffusion
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.models import families
from laqfi.models.scheduler import alphas_cumprod
from laqfi.storage.activations import Inputs, RoundedInputs, check_layers
from laqfi.storage.correction import Corrected, Correction
from laqfi.storage.formats import FLOATS, Format
from laqfi.storage.kinds import full_name
from laqfi.storage.layout import Layout
from laqfi.storage.modules import buffers, output_axis, store_layers

VERSION = 1  # of the format of model files
EXTRAS = {"activations": Inputs, "correction": Correction}  # what a file may hold beside the weights, by key
DTYPES = {dtype: name for name, dtype in FLOATS.items()}


def output_axes(model: nn.Module) -> dict[str, int]:
    """Axis of the output channels of every parameter."""
    return {
        full_name(path, name): output_axis(module) if name == "weight" else 0
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


class Header(BaseModel):
    """What a model file must say of itself; more is allowed."""

    model_config = ConfigDict(frozen=True, strict=True)
    model: families.Settings
    diffusion: Diffusion | None
    image: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=3, max_length=3)]
    formats: dict[str, object] = {}
    activations: Inputs | None = None
    correction: Correction | None = None

    @model_validator(mode="after")
    def one_schedule(self):
        if (self.diffusion is None) == (families.scheduler_of(self.model) is None):
            raise ValueError("allowed is either `diffusion` or a model with a scheduler")
        return self


def header(model: families.Settings, diffusion: Diffusion | None, image: Sequence[int]) -> dict:
    """Metadata of the file of a new model for images [C, H, W]; no `diffusion` for one that brings a scheduler."""
    return {
        "version": VERSION,
        "model": model.model_dump(),
        "diffusion": None if diffusion is None else diffusion.model_dump(),
        "image": list(image),
    }


def settings_of(metadata: dict) -> families.Settings:
    """The settings of the network, from the metadata of a file that was read without complaint."""
    return Header.model_validate(metadata).model


def alphas_cumprod_of(metadata: dict) -> Tensor:
    """float64 [T + 1], of the scheduler that the model of a file brings, or of the profile's schedule."""
    found = Header.model_validate(metadata)
    config = families.scheduler_of(found.model)
    return linear_alphas_cumprod(**found.diffusion.model_dump()) if config is None else alphas_cumprod(config)


def check_version(metadata: dict, path: Path) -> None:
    """Raises LaqfiError if the file is of another version of this format."""
    found = metadata.get("version")
    if type(found) is not int or found != VERSION:
        raise LaqfiError(f"{path}: is of format version {found!r}, allowed is {VERSION}")


def described(metadata: dict, path: Path) -> tuple[nn.Module, Header]:
    """The network a model file's metadata describes, without memory for its weights, and the metadata as checked."""
    check_version(metadata, path)
    try:
        checked = Header.model_validate(metadata)
        with torch.device("meta"):
            model = families.build(checked.model, tuple(checked.image))
    except ValidationError as error:
        raise LaqfiError(f"{path}: the metadata describes no model ({first_line(error)})") from error
    except (RuntimeError, ValueError) as error:  # sizes beyond what PyTorch counts, or no such images
        raise LaqfiError(f"{path}: the metadata describes no model ({' '.join(str(error).split())})") from error
    return model, checked


def layouts_of(tensors: dict[str, Tensor], metadata: dict, model: nn.Module, path: Path) -> dict[str, Layout]:
    """Layout of every parameter: from the format map, or from the tensor itself where that is a plain float.

    Raises LaqfiError if the map and the tensors are not exactly those of the network.
    """
    layouts, formats = {}, metadata.get("formats", {})
    if foreign := formats.keys() - dict(model.named_parameters()).keys():
        raise LaqfiError(f"{path}: the format map names {min(foreign)!r}, which the network does not have")
    for name, parameter in model.named_parameters():
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


def read_model(path: Path, device: torch.device) -> tuple[nn.Module, Tensor, dict]:
    """The network of a model file in eval mode, its `alphas_cumprod`, and the file's metadata.

    A file in float32 gives an ordinary network. Any other keeps its tensors resident as they are stored, and each
    layer restores its weight only while it computes: the float32 weights never exist together. Raises LaqfiError if
    the tensors are not those of the network the metadata describes.
    """
    return model_of(*files.read_tensors(path), path, device)


def model_of(
    tensors: dict[str, Tensor], metadata: dict, path: Path, device: torch.device
) -> tuple[nn.Module, Tensor, dict]:
    """The same from the content of a model file; `path` names it in errors."""
    model, _, tables = unwrapped(tensors, metadata, path)
    model = with_tables(model, metadata, tables, path)
    return model.to(device).eval(), alphas_cumprod_of(metadata), metadata


def unwrapped(
    tensors: dict[str, Tensor], metadata: dict, path: Path
) -> tuple[nn.Module, dict[str, Layout], dict[str, Tensor]]:
    """The network by itself on the tensors of its file, their layouts by parameter, and the file's tables."""
    model, _ = described(metadata, path)
    extra = extra_shapes(metadata)
    tables = {name: tensor for name, tensor in tensors.items() if name in extra}
    files.check_tensors(path, tables, extra)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in extra}
    layouts = layouts_of(tensors, metadata, model, path)
    if all(layout.format.name == "float32" for layout in layouts.values()):
        state = tensors
    else:
        store_layers(model, layouts)
        state = buffers(layouts, tensors)
    model.load_state_dict(state, assign=True)
    return model, layouts, tables


def extra_shapes(metadata: dict) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Of the tensors of a file that are no weights: tables of ranges and corrections."""
    found = [kind.model_validate(metadata[key]) for key, kind in EXTRAS.items() if key in metadata]
    return {name: shape for one in found for name, shape in one.part_shapes().items()}


def with_tables(model: nn.Module, metadata: dict, tables: dict[str, Tensor], path: Path) -> nn.Module:
    """The network behind what its file says of rounded inputs and of corrections."""
    checked = Header.model_validate(metadata)
    if checked.activations is not None:
        try:
            check_layers(checked.activations, model)
        except LaqfiError as error:
            raise LaqfiError(f"{path}: {error}") from error
        model = RoundedInputs(model, checked.activations, tables)
    return model if checked.correction is None else Corrected(model, checked.correction, tables)


def stored_bytes(tensors: dict[str, Tensor], metadata: dict) -> tuple[int, dict[str, int]]:
    """Bytes of all tensors, Σ numel × bytes per element, and the count of parameters per format."""
    formats = metadata.get("formats", {})
    parts = {f"{name}{part}" for name in formats for part in (".packed", ".scale", ".zero_point")}
    counts: Counter[str] = Counter()
    for layout in formats.values():
        counts[layout["name"]] += torch.Size(layout["shape"]).numel()
    for name in tensors.keys() - parts - extra_shapes(metadata).keys():
        counts[str(tensors[name].dtype).removeprefix("torch.")] += tensors[name].numel()
    return sum(t.numel() * t.element_size() for t in tensors.values()), dict(sorted(counts.items()))
