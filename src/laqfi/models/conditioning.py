"""What a `UNet2DConditionModel` is given beside image and timestep: embeddings of a text, say, from a file.

There is no text encoder here: all images have the same embeddings, or those of one class.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.block import Block
from laqfi.base.errors import LaqfiError

NETWORK = "UNet2DConditionModel"
TENSOR = "encoder_hidden_states"
FLOATS = (torch.float32, torch.float16)
SAFETENSORS = ".safetensors"
# What a config may not say, because the network then is given, or does, more than this; and what it says instead.
PLAIN = {
    "addition_embed_type": None,
    "encoder_hid_dim_type": None,
    "encoder_hid_dim": None,
    "time_cond_proj_dim": None,
    "dual_cross_attention": False,
    "attention_type": "default",
}
LABELS = ("class_embed_type", "num_class_embeds")
Size = Annotated[int, Field(ge=1, le=1_000_000)]


class Embeddings(Block):
    """What is recorded of a file of embeddings: its hash, and the shape [classes, tokens, width] of what it holds."""

    sha256: str
    classes: Size
    tokens: Size
    width: Size

    @property
    def shape(self) -> tuple[int, int]:
        """Of those of one class."""
        return self.tokens, self.width


def is_conditional(config: Mapping) -> bool:
    """Whether the config of a network, with the name of its class, is of one that is given embeddings."""
    return config.get("_class_name") == NETWORK


def check_network(config: Mapping) -> None:
    """Raises ValueError, with the key, for a network that is given other things than embeddings, label and timestep."""
    for key, plain in PLAIN.items():
        if (found := config.get(key, plain)) != plain:
            raise ValueError(
                f"unet.{key}: found {found!r}, allowed is {plain!r}: the network is given embeddings alone"
            )
    found = config.get("cross_attention_dim", 1280)
    if isinstance(found, list | tuple) and len(set(found)) != 1:
        raise ValueError(f"unet.cross_attention_dim: found {list(found)}, allowed is one width for all blocks")


def width_of(config: Mapping) -> int:
    """The width of the embeddings that a network is given, which `check_network` let pass."""
    found = config.get("cross_attention_dim", 1280)
    return found[0] if isinstance(found, list | tuple) else found


def check_embeddings(config: Mapping, width: int | None) -> None:
    """Raises ValueError unless a network has embeddings, `width` of them None for none, exactly if it is given some."""
    if not is_conditional(config):
        if width is not None:
            raise ValueError(f"embeddings: found some, allowed is none: only a {NETWORK} is given any")
        return
    check_network(config)
    if width is None:
        raise ValueError(f"embeddings: found none, allowed is a {SAFETENSORS} file of them: a {NETWORK} is given some")
    if width != width_of(config):
        raise ValueError(
            f"embeddings: are {width} wide, allowed is {width_of(config)}, the network's unet.cross_attention_dim"
        )


def listed(path: Path) -> Embeddings:
    """What is recorded of a file. Raises LaqfiError for one that is not read, or holds anything else than embeddings.

    It holds one tensor `encoder_hidden_states`, float32 or float16 [tokens, width] or [classes, tokens, width].
    """
    if path.suffix != SAFETENSORS:
        raise LaqfiError(f"{path}: is no {SAFETENSORS} file, allowed is one with the tensor {TENSOR}")
    classes, tokens, width = read_all(path).shape
    return Embeddings(sha256=files.sha256(path), classes=classes, tokens=tokens, width=width)


def read(path: Path, recorded: Embeddings, label: int | None) -> Tensor:
    """float32 [tokens, width]: those of the class `label`, where there are several.

    Raises LaqfiError for a file that `recorded` was not made of.
    """
    if (found := files.sha256(path)) != recorded.sha256:
        raise LaqfiError(
            f"{path}: has the sha256 {found[:16]}…, recorded is {recorded.sha256[:16]}…; `make folders` records it,"
            " then run again"
        )
    return read_all(path)[label if recorded.classes > 1 else 0].float().clone()


def read_all(path: Path) -> Tensor:
    """[classes, tokens, width]. Errors as of `listed`."""
    with files.readable(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
    if others := sorted(tensors.keys() - {TENSOR}):
        raise LaqfiError(f"{path}: holds {others[0]!r}, allowed is {TENSOR} alone: no mask, no pooled embeddings")
    if TENSOR not in tensors:
        raise LaqfiError(f"{path}: holds no {TENSOR}")
    return checked(tensors[TENSOR], f"{path}: {TENSOR}")


def checked(found: Tensor, name: str) -> Tensor:
    """[classes, tokens, width]. Raises LaqfiError for other than finite floats so, or without the first axis."""
    if (kind := getattr(found, "dtype", type(found).__name__)) not in FLOATS:
        raise LaqfiError(f"{name} is {kind}, allowed are {' and '.join(map(str, FLOATS))}")
    if found.dim() not in (2, 3) or not found.numel():
        raise LaqfiError(f"{name} is {list(found.shape)}, allowed is [tokens, width] or [classes, tokens, width]")
    if not found.isfinite().all():
        raise LaqfiError(f"{name} holds values that are not finite")
    return found if found.dim() == 3 else found[None]


def given_to(model: nn.Module, embeddings: Tensor | None) -> dict[str, Tensor]:
    """What a network of diffusers is called with beside image and timestep, for one image: [1, tokens, width].

    Raises LaqfiError for a network that is given other things, and for embeddings that are not for it.
    """
    kinds = [kind.__name__ for kind in type(model).__mro__]
    config = dict(getattr(model, "config", {})) | {"_class_name": NETWORK if NETWORK in kinds else kinds[0]}
    found = None if embeddings is None else checked(embeddings, "embeddings")
    try:
        check_embeddings(config, None if found is None else found.shape[-1])
    except ValueError as error:
        raise LaqfiError(str(error)) from error
    if labels := [key for key in LABELS if config.get(key) is not None]:
        raise LaqfiError(f"unet.{labels[0]}: found {config[labels[0]]!r}, allowed is none: no label is given here")
    if found is not None and len(found) > 1:
        raise LaqfiError(f"embeddings is {list(found.shape)}, allowed are those of one class, [tokens, width]")
    return {} if found is None else {TENSOR: found}
