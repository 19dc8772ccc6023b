"""Buffers and other tensors of a model of one's own, which are no weights and yet what it computes with.

They are kept in its file as they are.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError

PART = "buffers"  # the one tensor that holds the bytes of all


class Kept(BaseModel):
    """What a file says of one of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    dtype: str
    shape: list[Annotated[int, Field(ge=0)]]

    @field_validator("dtype")
    @classmethod
    def is_dtype(cls, name: str) -> str:
        if not isinstance(getattr(torch, name, None), torch.dtype):
            raise ValueError(f"found {name!r}, allowed is the name of a dtype")
        return name

    @property
    def bytes(self) -> int:
        return getattr(torch, self.dtype).itemsize * torch.Size(self.shape).numel()


class Buffers(BaseModel):
    """What a file says of all of them, in the order of their names.

    attributes: names of those that are no buffers. shared: other names of what is kept already.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    kept: dict[str, Kept]
    attributes: list[str] = []
    shared: dict[str, str] = {}

    @model_validator(mode="after")
    def is_kept(self):
        names = self.kept.keys() | self.shared.keys()
        if missing := sorted({*self.shared.values()} - self.kept.keys() | {*self.attributes} - names):
            raise ValueError(f"found {missing[0]!r}, allowed are names of what is kept")
        return self

    @classmethod
    def of(cls, buffers: Mapping[str, Tensor], attributes: Mapping[str, Tensor]) -> "Buffers":
        tensors = dict(sorted({**buffers, **attributes}.items()))
        first = {id(one): name for name, one in reversed(tensors.items())}
        return cls(
            kept={
                name: Kept(dtype=str(one.dtype).removeprefix("torch."), shape=list(one.shape))
                for name, one in tensors.items()
                if first[id(one)] == name
            },
            attributes=list(attributes),
            shared={name: first[id(one)] for name, one in tensors.items() if first[id(one)] != name},
        )

    def part_shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return {PART: (torch.uint8, (sum(one.bytes for one in self.kept.values()),))}

    def tensors(self, whole: Tensor) -> dict[str, Tensor]:
        """The inverse of `bytes_of`."""
        parts = whole.split([one.bytes for one in self.kept.values()])
        found = {
            name: part.clone().view(getattr(torch, one.dtype)).view(one.shape)
            for (name, one), part in zip(self.kept.items(), parts, strict=True)
        }
        return found | {name: found[first] for name, first in self.shared.items()}


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Those of a model that its state_dict holds: any others it makes for itself."""
    kept = model.state_dict().keys()
    found = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return {name: found[name].detach().cpu().clone() for name in sorted(found)}


def bytes_of(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([one.contiguous().flatten().view(torch.uint8) for one in tensors])


def as_extra(buffers: Mapping[str, Tensor], attributes: Mapping[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """What the metadata of a file say of such tensors, and the one of all; nothing where there are none."""
    if not buffers and not attributes:
        return {}, {}
    told, tensors = Buffers.of(buffers, attributes), {**buffers, **attributes}
    return {PART: told.model_dump(exclude_defaults=True)}, {PART: bytes_of(tensors[name] for name in told.kept)}


def check_buffers(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Raises LaqfiError, with the name, unless `kept` are the buffers of the model that its state_dict holds.

    Others may be among them.
    """
    own = {name: tuple(buffer.shape) for name, buffer in model.named_buffers()}
    for name, one in kept.items():
        if own.get(name) != tuple(one.shape):
            raise LaqfiError(f"the buffer {name} is {tuple(one.shape)}, allowed is {own.get(name)}")
    if missing := sorted(buffers_of(model).keys() - kept.keys()):
        raise LaqfiError(f"holds no buffer {missing[0]}, which the model has: save writes it of what quantize gives")
