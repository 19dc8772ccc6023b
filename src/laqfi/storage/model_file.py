"""Model files: stored tensors with the map of their formats, and the network that runs on exactly those."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.storage.activations import RoundedInputs, check_layers
from laqfi.storage.correction import Corrected
from laqfi.storage.described import Header, alphas_cumprod_of, described, extra_shapes, parted
from laqfi.storage.formats import DTYPES, Format
from laqfi.storage.layout import Layout
from laqfi.storage.modules import buffers, store_layers
from laqfi.storage.stored_file import layouts_stored, read_stored


def layouts_of(tensors: dict[str, Tensor], metadata: dict, model: nn.Module, path: Path) -> dict[str, Layout]:
    """Layout of every parameter: from `formats` of the metadata, or from the tensor itself where that is a plain float.

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
    return model_of(*read_stored(path), path, device)


def model_of(
    tensors: dict[str, Tensor], metadata: dict, path: Path, device: torch.device
) -> tuple[nn.Module, Tensor, dict]:
    """The same from the content of a model file, as `read_stored` gives it; `path` names it in errors."""
    model, _, tables = unwrapped(tensors, metadata, path)
    model = with_tables(model, metadata, tables, path)
    return model.to(device).eval(), alphas_cumprod_of(metadata), metadata


def unwrapped(
    tensors: dict[str, Tensor], metadata: dict, path: Path
) -> tuple[nn.Module, dict[str, Layout], dict[str, Tensor]]:
    """The network by itself on the tensors of its file, their layouts by parameter, and the file's tables."""
    model, _ = described(metadata, path)
    extra = extra_shapes(metadata)
    beside = {name: tensor for name, tensor in tensors.items() if name in extra}
    files.check_tensors(path, beside, extra)
    tables, given = parted(beside, metadata)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in extra}
    layouts = layouts_of(tensors, metadata, model, path)
    if all(layout.format.name == "float32" for layout in layouts.values()):
        state = tensors
    else:
        store_layers(model, layouts)
        state = buffers(layouts, tensors)
    model.load_state_dict(state | given, assign=True)
    return model, layouts, tables


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
    """Bytes of all tensors, Σ numel × bytes per element, and the count of parameters per format.

    What the network is given counts as little as the image.
    """
    counts: Counter[str] = Counter()
    for layout in layouts_stored(tensors, metadata).values():
        counts[layout.format.name] += torch.Size(layout.shape).numel()
    counted = parted(tensors, metadata)[0].values()
    return sum(t.numel() * t.element_size() for t in counted), dict(sorted(counts.items()))
