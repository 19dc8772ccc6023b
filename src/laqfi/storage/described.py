"""What a model file says of its network: settings of the family, noise schedule, image, and what comes beside."""

from collections.abc import Mapping, Sequence
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
from laqfi.storage import kept
from laqfi.storage.activations import Inputs
from laqfi.storage.correction import Correction
from laqfi.storage.kinds import full_name
from laqfi.storage.modules import output_axis

VERSION = 2  # of the format of model files
EXTRAS = {"activations": Inputs, "correction": Correction, kept.PART: kept.Buffers}  # what may be beside the weights


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
    except (RuntimeError, TypeError, ValueError) as error:  # sizes beyond what PyTorch counts, no such images or layers
        raise LaqfiError(f"{path}: the metadata describes no model ({' '.join(str(error).split())})") from error
    return model, checked


def extra_shapes(metadata: dict) -> files.Shapes:
    """Of the tensors of a file that are no weights: tables of ranges and corrections, and what the network is given."""
    found = [kind.model_validate(metadata[key]) for key, kind in EXTRAS.items() if key in metadata]
    return {name: shape for one in found for name, shape in one.part_shapes().items()} | given_shapes(metadata)


def given_shapes(metadata: dict) -> files.Shapes:
    """Of what the network of a file is given beside image and timestep; none where the metadata describe no model."""
    try:
        return families.given_shapes(settings_of(metadata))
    except ValidationError:
        return {}


def parted(tensors: Mapping[str, Tensor], metadata: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a file, and apart what the network is given beside image and timestep."""
    names = given_shapes(metadata).keys() & tensors.keys()
    kept = {name: tensor for name, tensor in tensors.items() if name not in names}
    return kept, {name: tensors[name] for name in names}
