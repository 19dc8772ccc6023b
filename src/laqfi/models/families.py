"""Families of networks. To add one, write its module and name it here, in `Settings` and in `FAMILIES`.

A family's module has `build(settings, image)`, the network for images [C, H, W], called as model(x, timestep);
`group_of(name)`, the group that the report and some policies count a parameter in (None: no group); and
`groups(settings)`, all of them in order. It may have `check_image`, which raises ValueError for images [C, H, W] that
the network cannot take. Its settings are a block with the family's name. It may have `BLOCKS`, classes of modules that
are fitted as a whole where rounding is learned; other layers then are fitted one by one. Settings with a `scheduler`,
the config of one of diffusers, bring the noise schedule and a sampler of their own, and the module `weights`. A network
may be given more than image and timestep, the same for all images: `given_shapes(settings)` names these tensors, which
are buffers of the network and stand in its files beside the weights, and `given(settings, path)` reads them.
"""

from pathlib import Path
from types import ModuleType
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from laqfi.base import files
from laqfi.models import diffusers_unet, unet

Settings = Annotated[unet.Unet | diffusers_unet.Diffusers, Field(discriminator="family")]
FAMILIES: dict[str, ModuleType] = {"unet": unet, "diffusers": diffusers_unet}


def build(settings: Settings, image: tuple[int, int, int]) -> nn.Module:
    """The network that `settings` describe, with new weights. Raises ValueError for images that it cannot take."""
    return FAMILIES[settings.family].build(settings, image)


def weights(settings: Settings, folder: Path, image: tuple[int, int, int]) -> dict[str, Tensor]:
    """Those in a folder of a network that is not trained here, by name. Errors are those of the family's `weights`."""
    return FAMILIES[settings.family].weights(settings, folder, image)


def given_shapes(settings: Settings) -> files.Shapes:
    """Of what the network is given beside image and timestep, by name."""
    shapes = getattr(FAMILIES[settings.family], "given_shapes", None)
    return shapes(settings) if shapes else {}


def given(settings: Settings, path: Path) -> dict[str, Tensor]:
    """These tensors, of a file. Errors are those of the family's `given`."""
    return FAMILIES[settings.family].given(settings, path)


def check_image(settings: Settings, image: tuple[int, int, int]) -> None:
    """Raises ValueError for images [C, H, W] that the network of `settings` cannot take, if its family says so."""
    check = getattr(FAMILIES[settings.family], "check_image", None)
    if check:
        check(settings, image)


def group_of(settings: Settings, name: str) -> str | None:
    """The group of the parameter `name`, None if it is in none."""
    return FAMILIES[settings.family].group_of(name)


def groups(settings: Settings) -> list[str]:
    """All groups, in the order in which they are shown."""
    return FAMILIES[settings.family].groups(settings)


def blocks(settings: Settings) -> tuple[type[nn.Module], ...]:
    """Classes of modules that are fitted as a whole."""
    return getattr(FAMILIES[settings.family], "BLOCKS", ())


def scheduler_of(settings: Settings) -> dict | None:
    """The config of the scheduler that the network brings, None if it is trained on the profile's own schedule."""
    return getattr(settings, "scheduler", None)


def is_scored(settings: Settings, name: str, tensor: Tensor) -> bool:
    """Whether policies that go by groups decide on the parameter: matrices and kernels that belong to one."""
    return group_of(settings, name) is not None and name.endswith(".weight") and tensor.dim() >= 2
