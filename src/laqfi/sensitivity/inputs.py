"""What a model is measured on and how it is set while it is: checked before the first image."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError, first_line
from laqfi.diffusion.process import add_noise
from laqfi.storage.storable import check_storable

Settings = TypeVar("Settings", bound=BaseModel)
LARGEST = 8.0  # of an image in [-1, 1], or of a latent with variance 1: what is beyond has another scale


def check_inputs(model: nn.Module, images: Tensor, alphas_cumprod: Tensor, settings: BaseModel) -> Tensor:
    """The images [N, C, ...] in the dtype of the model.

    Raises LaqfiError for a model that cannot be stored or measured, for images that are not floats about [-1, 1], for a
    schedule without timestep 0, for timesteps beyond it, and for a model that gives another shape than it gets.
    """
    check_storable(model)
    check_dtypes(model)
    check_images(images)
    check_schedule(alphas_cumprod, max(settings.timesteps))
    images = images.to(next(model.parameters()).dtype)
    with measuring(model), torch.no_grad():
        check_output(model, images[:2], alphas_cumprod, settings.timesteps[0])
    return images


def checked(kind: type[Settings], **settings: object) -> Settings:
    """A block of params.yaml from a call. Raises LaqfiError for what it would not allow."""
    try:
        return kind(**settings)
    except ValidationError as error:
        raise LaqfiError(first_line(error)) from error


def check_dtypes(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise LaqfiError(
                f"{name}: is {parameter.dtype}, allowed is float32 to measure in: model.float() makes it so"
            )


def check_images(images: Tensor) -> None:
    if not images.is_floating_point():
        raise LaqfiError(f"images: are {images.dtype}, allowed are floats in [-1, 1]")
    if images.dim() < 2 or not images.numel():
        raise LaqfiError(f"images: are {list(images.shape)}, allowed is [N, C, H, W]")
    if not images.abs().max() <= LARGEST:  # NaN is not, either
        raise LaqfiError(f"images: lie in [{images.min():g}, {images.max():g}], allowed are floats in [-1, 1]")


def check_schedule(alphas_cumprod: Tensor, last: int) -> None:
    if alphas_cumprod.dim() != 1 or not alphas_cumprod.is_floating_point() or len(alphas_cumprod) < 2:
        found = f"{alphas_cumprod.dtype} {list(alphas_cumprod.shape)}"
        raise LaqfiError(f"alphas_cumprod: is {found}, allowed are floats [T + 1], the first for timestep 0")
    if alphas_cumprod[0] != 1:
        raise LaqfiError(
            f"alphas_cumprod: begins with {alphas_cumprod[0]:.6g}, allowed is 1, that of timestep 0, "
            "which a schedule of another library lacks"
        )
    if not ((alphas_cumprod >= 0) & (alphas_cumprod <= 1)).all() or (alphas_cumprod.diff() > 0).any():
        raise LaqfiError("alphas_cumprod: does not fall from 1 towards 0")
    if last >= len(alphas_cumprod):
        raise LaqfiError(f"timesteps: found {last}, allowed is 1 to {len(alphas_cumprod) - 1}, as alphas_cumprod has")


def check_output(model: nn.Module, images: Tensor, alphas_cumprod: Tensor, timestep: int) -> None:
    device = next(model.parameters()).device
    t = torch.full((len(images),), timestep, device=device)
    x = add_noise(images.to(device), torch.zeros_like(images, device=device), t, alphas_cumprod.to(device))
    found = model(x, t)
    if not isinstance(found, Tensor):
        raise LaqfiError(f"the model gives a {type(found).__name__}, allowed is the predicted noise as a tensor")
    if found.shape != x.shape:
        raise LaqfiError(
            f"the model gives {list(found.shape)} for images {list(x.shape)}, allowed is the predicted noise, in their "
            "shape and nothing else"
        )


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """In eval mode, every parameter learning, gradients on; afterwards all is as it was found."""
    modes = [(module, module.training) for module in model.modules()]
    learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in learning:
            parameter.requires_grad_(True)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, learns in learning:
            parameter.requires_grad_(learns)
