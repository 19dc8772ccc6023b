"""Buffers of a model of one's own, which are no weights and yet what it computes with: kept in its file as they are."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError

PART = "buffers"  # the one tensor that holds the bytes of all


class Kept(BaseModel):
    """What a file says of a buffer."""

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
    """What a file says of all of them, in the order of their names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    kept: dict[str, Kept]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Buffers":
        return cls(
            kept={
                name: Kept(dtype=str(one.dtype).removeprefix("torch."), shape=list(one.shape))
                for name, one in tensors.items()
            }
        )

    def part_shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return {PART: (torch.uint8, (sum(one.bytes for one in self.kept.values()),))}

    def tensors(self, whole: Tensor) -> dict[str, Tensor]:
        """The inverse of `bytes_of`."""
        parts = whole.split([one.bytes for one in self.kept.values()])
        return {
            name: part.clone().view(getattr(torch, one.dtype)).view(one.shape)
            for (name, one), part in zip(self.kept.items(), parts, strict=True)
        }


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Those of a model that its state_dict holds: any others it makes for itself."""
    kept = model.state_dict().keys()
    found = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return {name: found[name].detach().cpu().clone() for name in sorted(found)}


def bytes_of(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([one.contiguous().flatten().view(torch.uint8) for one in tensors.values()])


def as_extra(tensors: Mapping[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """What the metadata of a file say of buffers, and their tensor; nothing where there are none."""
    return ({PART: Buffers.of(tensors).model_dump()}, {PART: bytes_of(tensors)}) if tensors else ({}, {})


def check_buffers(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Raises LaqfiError, with the name, unless `kept` are buffers of the model."""
    own = {name: tuple(buffer.shape) for name, buffer in model.named_buffers()}
    for name, one in kept.items():
        if own.get(name) != tuple(one.shape):
            raise LaqfiError(f"the buffer {name} is {tuple(one.shape)}, allowed is {own.get(name)}")
