"""Networks that diffusers wrote, with the scheduler they were trained with."""

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.block import Block
from laqfi.base.errors import LaqfiError
from laqfi.models import conditioning, pretrained, scheduler

Config = dict[str, object]
PIPELINES = {"DDIMScheduler": "DDIMPipeline", "DDPMScheduler": "DDPMPipeline"}  # that draw of noise alone


class Diffusers(Block):
    """What was read of a folder of diffusers: a pipeline, or its U-Net alone.

    path: where it lies; None where that does not matter. sha256: of its configs and weights, which the stage `train`
    reads. unet, scheduler: the configs; a folder without a scheduler's needs it said. pipeline: its kind, None for a
    U-Net alone. parameters: how many, by which jobs on a cluster are sized. class_label: of networks with classes, or
    embeddings of several, the one that is measured and drawn. embeddings: what a conditional network is given.
    """

    family: Literal["diffusers"]
    pipeline: str | None = None
    parameters: int | None = None
    path: str | None = None
    sha256: str
    unet: Config
    scheduler: Config
    class_label: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    embeddings: conditioning.Embeddings | None = None

    @model_validator(mode="after")
    def network_is_known(self):
        scheduler.check_scheduler(self.scheduler)
        channels, out = image_of(self)[0], self.unet.get("out_channels", channels_of(self.unet))
        wanted = channels * (2 if scheduler.has_learned_variance(self.scheduler) else 1)
        if out != wanted:
            raise ValueError(
                f"unet.out_channels is {out}, allowed is {wanted} for {channels} in_channels and the scheduler's"
                f" variance_type {self.scheduler.get('variance_type')!r}"
            )
        if (found := self.unet.get("time_embedding_type", "positional")) != "positional":
            raise ValueError(f"unet.time_embedding_type: found {found!r}, allowed is 'positional'")
        conditioning.check_embeddings(self.unet, None if self.embeddings is None else self.embeddings.width)
        self.check_label()
        return self

    def check_label(self) -> None:
        kind, classes = self.unet.get("class_embed_type"), self.unet.get("num_class_embeds")
        if kind is not None:
            raise ValueError(
                f"unet.class_embed_type: found {kind!r}, allowed is none, with num_class_embeds or without"
            )
        if self.embeddings is not None and self.embeddings.classes > 1:
            if classes not in (None, self.embeddings.classes):
                raise ValueError(
                    f"embeddings: are those of {self.embeddings.classes} classes, allowed is {classes} or 1"
                )
            classes = self.embeddings.classes
        if classes is None and self.class_label is not None:
            raise ValueError(f"class_label is {self.class_label}, allowed is none: the network has no classes")
        if classes is not None and not (self.class_label is not None and self.class_label < classes):
            raise ValueError(f"class_label is {self.class_label}, allowed is 0 to {classes - 1}: one class is measured")


def image_of(settings: Diffusers) -> tuple[int, int, int]:
    """Channels, height and width of the images that the network was made for."""
    found = settings.unet.get("sample_size")
    sides = found if isinstance(found, list) else [found, found]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"unet.sample_size is {found}, allowed is a side in pixels, or two")
    return settings.unet.get("in_channels", channels_of(settings.unet)), *sides


def kind_of(config: Config) -> str:
    """The class of the network."""
    return config.get("_class_name", pretrained.NETWORKS[0])


def channels_of(config: Config) -> int:
    """Of images, where the config does not say it: what diffusers takes for granted."""
    return 4 if conditioning.is_conditional(config) else 3


def pipeline_of(settings: Diffusers) -> str:
    """The kind of pipeline that draws with the network. Raises ValueError if diffusers has none for its scheduler."""
    name = settings.scheduler["_class_name"]
    if settings.pipeline is None and name not in PIPELINES:
        raise ValueError(
            f"a U-Net alone with {name} is no pipeline of diffusers, allowed is the folder of a pipeline, or"
            f" {' or '.join(PIPELINES)}"
        )
    return settings.pipeline or PIPELINES[name]


def check_image(settings: Diffusers, image: tuple[int, int, int]) -> None:
    if tuple(image) != image_of(settings):
        raise ValueError(f"images are {tuple(image)}, allowed is {image_of(settings)}, which the network was made for")


def build(settings: Diffusers, image: tuple[int, int, int]) -> nn.Module:
    from laqfi.models.diffusers_network import NETWORKS

    check_image(settings, image)
    kind = NETWORKS[kind_of(settings.unet)]
    label = settings.class_label if settings.unet.get("num_class_embeds") else None
    embeddings = None if settings.embeddings is None else settings.embeddings.shape
    return kind.from_config(settings.unet).adapt(settings.scheduler, label, embeddings)


def given_shapes(settings: Diffusers) -> files.Shapes:
    """Dtype and shape, by name, of what the network is given beside image and timestep, the same for all images."""
    found = settings.embeddings
    return {} if found is None else {conditioning.TENSOR: (torch.float32, found.shape)}


def given(settings: Diffusers, path: Path) -> dict[str, Tensor]:
    """What `given_shapes` tells of, from the file of embeddings. Errors as of `conditioning.read`."""
    return {conditioning.TENSOR: conditioning.read(path, settings.embeddings, settings.class_label)}


def weights(settings: Diffusers, folder: Path, image: tuple[int, int, int]) -> dict[str, Tensor]:
    """The tensors of a folder by name, as float32. Raises LaqfiError unless they are those of the network."""
    network, found = build(settings, image), pretrained.read_weights(folder, settings.sha256)
    wanted = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    for name in sorted(wanted.keys() | found.keys()):
        shape = tuple(found[name].shape) if name in found else None
        if shape != wanted.get(name):
            raise LaqfiError(f"{folder}: {name} is {shape}, allowed is {wanted.get(name)}")
    return {name: found[name] for name in wanted}


def group_of(name: str) -> str | None:
    """Its block: down_blocks_0, mid_block, …; the others by the module's name."""
    first, second = name.split(".")[:2]
    return f"{first}_{second}" if first in ("down_blocks", "up_blocks") else first


def groups(settings: Diffusers) -> list[str]:
    down, up = (len(settings.unet.get(f"{way}_block_types", [0] * 4)) for way in ("down", "up"))
    embeddings = ["time_embedding", *(["class_embedding"] if settings.unet.get("num_class_embeds") else [])]
    middle = [] if settings.unet.get("mid_block_type", "") is None else ["mid_block"]
    return [
        "conv_in",
        *embeddings,
        *(f"down_blocks_{i}" for i in range(down)),
        *middle,
        *(f"up_blocks_{i}" for i in range(up)),
        "conv_out",
    ]
