"""Model files as bytes: a short header, and one long tensor of every dtype in place of many small ones.

What follows from the network is not repeated: parameters have no names in the file. They lie in the order of their
names, each with its parts one after the other, and behind them the tables of what comes beside the weights. The header
lists every kind of storage once, and says by its place in that list which one each parameter has.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.errors import LaqfiError, first_line
from laqfi.storage import coded
from laqfi.storage.described import check_version, described, extra_shapes, output_axes
from laqfi.storage.formats import DTYPES, FLOATS, WHOLE_CHANNEL, Format
from laqfi.storage.kept import Buffers
from laqfi.storage.layout import Layout

TOLD = ("network", "kinds", "places")  # keys of the header that only the file has
CODE = "code"  # the one tensor of a coded file


class Kind(BaseModel):
    """How some parameters are stored: a format, and of an integer one the kernel positions (None: all)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: str
    symmetric: bool = True
    group_size: int = WHOLE_CHANNEL
    taps: list[int] | None = None

    @classmethod
    def of(cls, layout: Layout) -> "Kind":
        return cls(**vars(layout.format), taps=None if layout.taps is None else list(layout.taps))

    def layout(self, shape: tuple[int, ...], axis: int) -> Layout:
        """Of a parameter. Raises LaqfiError where there is none."""
        if self.name in FLOATS and self == Kind(name=self.name):
            return Layout(Format(self.name), shape, axis)
        return Layout.from_json(self.model_dump() | {"shape": list(shape), "axis": axis})


class Contents(BaseModel):
    """What a header says of the parameters, which stand in the order of their names; more is allowed.

    `limit`: of a coded file that was asked to be no larger, in bytes. `places`: of every parameter, where in `kinds`
    its own stands; `network`: `digest` of names, shapes and axes.
    """

    model_config = ConfigDict(frozen=True, strict=True)
    network: str
    kinds: Annotated[list[Kind], Field(min_length=1)]
    places: list[Annotated[int, Field(ge=0)]]
    coding: Literal["ans"] | None = None
    buffers: Buffers | None = None
    limit: Annotated[int, Field(ge=1)] | None = None

    @classmethod
    def of(cls, layouts: Mapping[str, Layout]) -> "Contents":
        found = [Kind.of(one) for one in layouts.values()]
        kinds = sorted({one.model_dump_json(): one for one in found}.items())
        places = {one: place for place, (one, _) in enumerate(kinds)}
        return cls(
            network=digest(layouts),
            kinds=[one for _, one in kinds],
            places=[places[one.model_dump_json()] for one in found],
        )

    def layouts(self, network: nn.Module) -> dict[str, Layout]:
        """Of every parameter of the network. Raises LaqfiError if the file is of another one."""
        axes, parameters = output_axes(network), sorted(dict(network.named_parameters()).items())
        if len(self.places) != len(parameters):
            raise LaqfiError(f"holds {len(self.places)} parameters, allowed are the network's {len(parameters)}")
        if max(self.places) >= len(self.kinds):
            raise LaqfiError(f"places holds {max(self.places)}, allowed is up to {len(self.kinds) - 1}")
        found = {}
        for place, (name, parameter) in zip(self.places, parameters, strict=True):
            try:
                found[name] = self.kinds[place].layout(tuple(parameter.shape), axes[name])
            except LaqfiError as error:
                raise LaqfiError(f"{name}: {error}") from error
        if self.network != digest(found):
            raise LaqfiError("is of another network: names, shapes or kinds of its layers differ")
        return found


def digest(layouts: Mapping[str, Layout]) -> str:
    """16 hexadecimal digits for names and shapes, and where integers lie by output channel, the axis of these."""
    told = [[name, one.shape, 0 if one.format.is_float else one.axis] for name, one in layouts.items()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def layouts_stored(tensors: Mapping[str, Tensor], metadata: dict) -> dict[str, Layout]:
    """Layouts by parameter, in the order of their names, of what is to be written."""
    formats, extra = metadata.get("formats", {}), extra_shapes(metadata)
    found = {name: Layout.from_json(one) for name, one in formats.items()}
    parts = {f"{name}{part}" for name, one in found.items() for part in one.part_shapes()}
    for name in tensors.keys() - parts - extra.keys():
        found[name] = Layout(Format(DTYPES[tensors[name].dtype]), tuple(tensors[name].shape))
    return dict(sorted(found.items()))


def shapes_of(layouts: Mapping[str, Layout], metadata: dict) -> files.Shapes:
    """Of all tensors that the long ones are made of, in their order there."""
    parts = {f"{name}{part}": spec for name, one in layouts.items() for part, spec in one.part_shapes().items()}
    return parts | extra_shapes(metadata)


def stretches(shapes: files.Shapes) -> Iterator[tuple[str, torch.dtype, slice]]:
    """Where in the long tensor of its dtype each tensor lies."""
    ends: dict[torch.dtype, int] = {}
    for name, (dtype, shape) in shapes.items():
        start = ends.get(dtype, 0)
        ends[dtype] = start + torch.Size(shape).numel()
        yield name, dtype, slice(start, ends[dtype])


def long_shapes(shapes: files.Shapes) -> files.Shapes:
    """Of the long tensors, by the names of their dtypes."""
    ends = {dtype: stretch.stop for _, dtype, stretch in stretches(shapes)}
    return {name_of(dtype): (dtype, (end,)) for dtype, end in ends.items()}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def condensed(tensors: Mapping[str, Tensor], metadata: dict) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata as they are in the file."""
    layouts = layouts_stored(tensors, metadata)
    told = Contents.of(layouts).model_dump(exclude_defaults=True)
    header = {key: value for key, value in metadata.items() if key != "formats"} | told
    if "coding" in metadata:
        return {CODE: coded.encode(tensors, layouts, extra_shapes(metadata))}, header
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for name, (dtype, _) in shapes_of(layouts, metadata).items():
        plain = tensors[name].detach().cpu().contiguous().flatten()
        by_dtype.setdefault(dtype, []).append(plain.view(torch.uint8))
    return {name_of(dtype): torch.cat(parts).view(dtype) for dtype, parts in by_dtype.items()}, header


def write_stored(path: Path, tensors: Mapping[str, Tensor], metadata: dict) -> None:
    """A model file. `tensors` are parts by name, and `metadata` has their integer layouts under `formats`.

    With `coding` in the metadata, which can be "ans" alone, all tensors are one code (`laqfi.storage.coded`).
    """
    files.write_tensors(path, *condensed(tensors, metadata))


def stored_file(tensors: Mapping[str, Tensor], metadata: dict) -> bytes:
    """What `write_stored` would write, but for the checksum."""
    return files.unsealed(*condensed(tensors, metadata))


def read_stored(path: Path, network: nn.Module | None = None) -> tuple[dict[str, Tensor], dict]:
    """What `write_stored` was given; without `network`, of the network that the file describes.

    Raises LaqfiError if the file is missing, damaged, of another version or of another network.
    """
    files.check_seal(path)
    with files.opened(path) as (file, metadata):
        check_version(metadata, path)
        if network is None:
            network, _ = described(metadata, path)
        try:
            contents = Contents.model_validate(metadata)
            layouts = contents.layouts(network)
        except ValidationError as error:
            raise LaqfiError(f"{path}: {first_line(error)}") from error
        except LaqfiError as error:
            raise LaqfiError(f"{path}: {error}") from error
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
        tensors = (plain if contents.coding is None else decoded)(path, slices, layouts, metadata)
    metadata = {key: value for key, value in metadata.items() if key not in TOLD}
    formats = {name: one.to_json() for name, one in layouts.items() if not one.format.is_float}
    return tensors, metadata | ({"formats": formats} if formats else {})


def plain(path: Path, slices: Mapping, layouts: Mapping[str, Layout], metadata: dict) -> dict[str, Tensor]:
    """All tensors, of the long ones. Raises LaqfiError unless the file holds exactly these."""
    shapes = shapes_of(layouts, metadata)
    files.check_shapes(path, found_shapes(slices), long_shapes(shapes))
    return {
        name: slices[name_of(dtype)][stretch].clone().view(shapes[name][1])
        for name, dtype, stretch in stretches(shapes)
    }


def decoded(path: Path, slices: Mapping, layouts: Mapping[str, Layout], metadata: dict) -> dict[str, Tensor]:
    """All tensors, of the code. Raises LaqfiError unless the file holds that alone."""
    found = found_shapes(slices)
    size = found[CODE][1][:1] if CODE in found else (0,)
    files.check_shapes(path, found, {CODE: (torch.uint8, size)})
    try:
        return coded.decode(slices[CODE][:], layouts, extra_shapes(metadata))
    except ValueError as error:
        raise LaqfiError(f"{path}: {CODE} {error}") from error


def found_shapes(slices: Mapping) -> files.Shapes:
    return {name: (files.DTYPES.get(one.get_dtype()), tuple(one.get_shape())) for name, one in slices.items()}
