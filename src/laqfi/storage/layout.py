"""How a weight tensor is kept: weight → matrix → groups → codes → bytes, and all the way back.

A weight is seen as a matrix [output channels, weights of one channel]. Its columns are cut into groups that share a
scale (and a zero point). A group's integer codes are packed without gaps.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from laqfi.base.errors import LaqfiError
from laqfi.storage.formats import FLOATS, INTEGERS, WHOLE_CHANNEL, WHOLE_TENSOR, Format
from laqfi.storage.pack import pack, packed_bytes, unpack


@dataclass(frozen=True)
class Codes:
    """Integer codes [groups, n] standing for scale · (code − zero_point).

    scale [groups, 1]; zero_point likewise, or one number for all.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | int

    def values(self) -> Tensor:
        return self.scale * (self.codes - self.zero_point)


def affine_grid(low: Tensor, high: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Scale, rounded to the float16 that is stored, and zero point of the grid from `low` to `high`, zero on it."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / (levels - 1)).half().float()
    zero_point = (-low / scale.where(scale != 0, torch.ones_like(scale))).round().clamp(0, levels - 1)
    return scale, zero_point


@dataclass(frozen=True)
class Layout:
    """The format of one tensor, and where its weights lie.

    `axis` is that of the output channels (1 in ConvTranspose2d). `taps` are the kernel positions that are stored,
    None for all; the weights of the others are zero. Integer formats only.
    """

    format: Format
    shape: tuple[int, ...]
    axis: int = 0
    taps: tuple[int, ...] | None = None

    @property
    def rows(self) -> int:
        return self.shape[self.axis]

    @property
    def columns(self) -> int:
        columns = torch.Size(self.shape).numel() // self.rows
        return columns if self.taps is None else columns * len(self.taps) // self.kernel

    @property
    def kernel(self) -> int:
        """Kernel positions of a convolution."""
        return torch.Size(self.shape[2:]).numel()

    @property
    def group_width(self) -> int:
        """Weights that share a scale."""
        size = self.format.group_size
        return {WHOLE_TENSOR: self.rows * self.columns, WHOLE_CHANNEL: self.columns}.get(size, size)

    @property
    def groups(self) -> int:
        """How many scales there are; the last group of a channel may be filled up."""
        if self.format.group_size == WHOLE_TENSOR:
            return 1
        return self.rows * -(-self.columns // self.group_width)

    def matrix(self, weight: Tensor) -> Tensor:
        """[output channels, stored weights of one channel]."""
        channels = weight.movedim(self.axis, 0)
        return (channels if self.taps is None else channels.flatten(2)[:, :, list(self.taps)]).flatten(1)

    def stored_columns(self) -> Tensor:
        """Which columns of the whole weight's matrix are stored."""
        whole = torch.arange(torch.Size(self.shape).numel() // self.rows)
        return whole if self.taps is None else whole.view(-1, self.kernel)[:, list(self.taps)].flatten()

    def weight(self, matrix: Tensor) -> Tensor:
        """The inverse of `matrix`, zero where nothing is stored."""
        channels = (self.rows, *(size for i, size in enumerate(self.shape) if i != self.axis))
        if self.taps is not None:  # without indices, which a CUDA graph could not upload
            dead = matrix.new_zeros(channels[:2])
            live = dict(zip(self.taps, matrix.reshape(*channels[:2], len(self.taps)).unbind(2), strict=True))
            matrix = torch.stack([live.get(place, dead) for place in range(self.kernel)], 2)
        return matrix.reshape(channels).movedim(0, self.axis)

    def grouped(self, matrix: Tensor) -> Tensor:
        """[groups, weights of one group]; the last group of a row is filled up with zeros."""
        if self.format.group_size == WHOLE_TENSOR:
            return matrix.reshape(1, -1)
        return F.pad(matrix, (0, -self.columns % self.group_width)).reshape(-1, self.group_width)

    def ungrouped(self, groups: Tensor) -> Tensor:
        """The inverse of `grouped`; a scale [groups, 1] becomes one for every weight."""
        return groups.expand(self.groups, self.group_width).reshape(self.rows, -1)[:, : self.columns]

    def parts(self, codes: Codes) -> dict[str, Tensor]:
        """What is stored of `codes`, each part under the suffix that its name has in the file."""
        stored = {
            ".packed": pack(codes.codes.to(torch.int32), self.format.bits),
            ".scale": codes.scale[:, 0].half(),
        }
        return stored if self.format.symmetric else stored | {".zero_point": codes.zero_point[:, 0].to(torch.uint8)}

    def codes(self, parts: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Codes:
        """The inverse of `parts`, as numbers of `dtype`."""
        codes = unpack(parts[".packed"], self.format.bits, self.groups * self.group_width)
        zero_point = self.format.levels // 2 if self.format.symmetric else parts[".zero_point"].to(dtype)[:, None]
        return Codes(codes.view(self.groups, -1).to(dtype), parts[".scale"].to(dtype)[:, None], zero_point)

    def restore(self, parts: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight, in `dtype`, that the stored parts stand for."""
        if self.format.is_float:
            return parts[""].to(dtype)
        found = self.codes(parts, dtype)
        values = found.codes.sub_(found.zero_point).mul_(found.scale)  # in place: this runs in every forward pass
        return self.weight(self.ungrouped(values))

    def part_shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Dtype and shape of every part: "" for a float tensor, packed codes and their grid for an integer one."""
        if self.format.is_float:
            return {"": (FLOATS[self.format.name], self.shape)}
        parts = {
            ".packed": (torch.uint8, (packed_bytes(self.groups * self.group_width, self.format.bits),)),
            ".scale": (torch.float16, (self.groups,)),
        }
        return parts if self.format.symmetric else parts | {".zero_point": (torch.uint8, (self.groups,))}

    def bytes(self) -> int:
        """Bytes of all parts: what this tensor takes in the file and in memory."""
        return sum(dtype.itemsize * torch.Size(shape).numel() for dtype, shape in self.part_shapes().values())

    def to_json(self) -> dict:
        taps = None if self.taps is None else list(self.taps)
        return vars(self.format) | {"shape": list(self.shape), "axis": self.axis, "taps": taps}

    @classmethod
    def from_json(cls, value: dict) -> "Layout":
        """Raises LaqfiError if `value` is no layout."""
        try:
            taps = None if value["taps"] is None else tuple(value["taps"])
            format = Format(value["name"], value["symmetric"], value["group_size"])
            layout = cls(format, tuple(value["shape"]), value["axis"], taps)
            if not layout.is_valid():
                raise ValueError("out of range")
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
            raise LaqfiError(f"not a tensor layout: {value!r} ({error!r})") from error
        return layout

    def is_valid(self) -> bool:
        size, taps = self.format.group_size, self.taps
        return (
            self.format.name in INTEGERS
            and isinstance(self.format.symmetric, bool)
            and (self.format.symmetric or self.format.bits <= 8)
            and all(type(number) is int for number in (size, self.axis, *self.shape, *(taps or ())))
            and size >= WHOLE_TENSOR
            and min(self.shape) > 0
            and self.axis in range(min(2, len(self.shape)))
            and (taps is None or (len(taps) > 0 and sorted(set(taps)) == list(taps) and taps[0] >= 0))
            and (taps is None or taps[-1] < self.kernel)
        )
