"""What a model is measured on: checked before the first image."""

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path

from laqfi.base.errors import LaqfiError, first_line
from laqfi.sensitivity.layers import Watch, is_plain
from laqfi.sensitivity.measuring import measuring, own
from laqfi.sensitivity.noised import noised_chunks
from laqfi.storage.kinds import full_name
from laqfi.storage.storable import check_storable

Settings = TypeVar("Settings", bound=BaseModel)
LARGEST = 8.0  # of an image in [-1, 1], or of a latent with variance 1: what is beyond has another scale
MOST_LEFT = 0.5  # of the image at the last timestep, where a schedule of diffusion leaves next to nothing
LOUD = 4.0
ALIKE = 0.02  # of the largest prediction: how far other kernels of a GPU, in a batch of another size, may move one


def check_inputs(model: nn.Module, images: Tensor, alphas_cumprod: Tensor, settings: BaseModel) -> Tensor:
    """The images [N, C, ...] in the dtype of the model.

    Raises LaqfiError for a model that cannot be stored or measured, for images that are not floats about [-1, 1], for a
    schedule without timestep 0, for timesteps beyond it, and for what the checks of a call do not allow.
    """
    check_storable(model)
    check_values(model)
    check_images(images)
    check_schedule(alphas_cumprod, max(settings.timesteps))
    images = images.detach().to(next(model.parameters()).dtype)
    with measuring(model):
        for timestep in sorted({min(settings.timesteps), max(settings.timesteps)}):
            x, t = first_pair(model, images, alphas_cumprod, timestep)
            check_call(model, x, t)
            check_reached(model, x[:1], t[:1])
            check_derivatives(model, x[:1], t[:1])
    return images


def first_pair(model: nn.Module, images: Tensor, alphas_cumprod: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
    """x [2, ...] and t [2]: two noised images, one of them so loud that it would be heard in the other's prediction."""
    pair, alphas_cumprod = images[[0, -1]], alphas_cumprod.to(next(model.parameters()).device)
    seen = next(noised_chunks("first call", pair, timestep, alphas_cumprod, chunk=2, seed=0))
    return torch.cat([seen.x[:1], LOUD * seen.x[1:]]), seen.t


def checked(kind: type[Settings], **settings: object) -> Settings:
    """A block of params.yaml from a call. Raises LaqfiError for what it would not allow."""
    try:
        return kind(**settings)
    except ValidationError as error:
        raise LaqfiError(first_line(error)) from error


def check_values(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise LaqfiError(
                f"{name}: is {parameter.dtype}, allowed is float32 to measure in: model.float() makes it so"
            )
        if not parameter.isfinite().all():
            raise LaqfiError(f"{name}: holds values that are not finite")


def check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise LaqfiError(f"images: found a {type(images).__name__}, allowed is a tensor of floats in [-1, 1]")
    if not images.is_floating_point():
        raise LaqfiError(f"images: are {images.dtype}, allowed are floats in [-1, 1]")
    if images.dim() < 2 or not images.numel():
        raise LaqfiError(f"images: are {list(images.shape)}, allowed is [N, C, H, W]")
    if not images.abs().max() <= LARGEST:  # NaN is not, either
        raise LaqfiError(f"images: lie in [{images.min():g}, {images.max():g}], allowed are floats in [-1, 1]")
    if images.min() >= 0 and images.max() <= 1:
        warnings.warn("images: lie in [0, 1], expected is [-1, 1], as images * 2 - 1 do", stacklevel=2)


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
    if alphas_cumprod[-1] > MOST_LEFT:
        raise LaqfiError(
            f"alphas_cumprod: ends with {alphas_cumprod[-1]:.6g}, allowed is up to {MOST_LEFT}: the products of all"
            " 1 - beta, which leave next to nothing of the image"
        )
    if last >= len(alphas_cumprod):
        raise LaqfiError(f"timesteps: found {last}, allowed is 1 to {len(alphas_cumprod) - 1}, as alphas_cumprod has")


@torch.no_grad()
def check_call(model: nn.Module, x: Tensor, t: Tensor) -> None:
    """Raises LaqfiError unless a model gives the noise of images [2, ...], of each by itself."""
    found = tried(model, x, t)
    if not isinstance(found, Tensor):
        raise LaqfiError(f"the model gives a {type(found).__name__}, allowed is the predicted noise as a tensor")
    if found.shape != x.shape:
        raise LaqfiError(
            f"the model gives {list(found.shape)} for images {list(x.shape)}, allowed is the predicted noise, in their "
            "shape and nothing else"
        )
    if not found.isfinite().all():
        raise LaqfiError(f"the model gives values that are not finite at timestep {int(t[0])}")
    if differ(tried(model, x[:1], t[:1]), found[:1]):
        raise LaqfiError(
            "the model predicts other noise in an image alone than beside another one, allowed is what depends on image"
            " and timestep alone, not on the batch or on chance"
        )


def tried(model: nn.Module, x: Tensor, t: Tensor) -> Any:
    """What a call gives. Raises LaqfiError if it fails, and for a model that overwrites what it is given or its own."""
    given, versions = (x.clone(), t.clone()), [parameter._version for parameter in model.parameters()]
    try:
        found = model(*given)
    except Exception as error:  # whatever a model of one's own may raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise LaqfiError(f"the model fails for images {list(x.shape)} and timesteps {t.tolist()}: {said}") from error
    if not torch.equal(given[0], x) or not torch.equal(given[1], t):
        raise LaqfiError("the model overwrites the images or timesteps that it is given, allowed is one that does not")
    for (name, parameter), version in zip(model.named_parameters(), versions, strict=True):
        if parameter._version != version:
            raise LaqfiError(f"{name}: is overwritten by a call of the model, allowed is one that leaves it")
    return found


def differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > ALIKE * other.abs().max())


def check_reached(model: nn.Module, x: Tensor, t: Tensor) -> None:
    """Raises LaqfiError, with the name, for a parameter that moves the output where no derivative tells of it.

    So it is behind `detach`, `no_grad`, a checkpoint of the old kind, or a way through NumPy. So is, the other way
    round, one that moves the output and is none of the model's, as those of layers in a list are.
    """
    found, read = reads(model, x, t)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, parameter in unregistered(model):
        if id(parameter) in read.keys() - names.keys():
            raise LaqfiError(
                f"{name}: moves the output and is no parameter of the model, allowed is a layer in an attribute or in "
                "nn.ModuleList or nn.ModuleDict"
            )
    hidden = [parameter for parameter in model.parameters() if id(parameter) not in read]
    if len(hidden) == len(names) or (hidden and differ(moved(model, hidden, x, t), found)):
        raise LaqfiError(
            f"{names[id(hidden[0])]}: no derivative of the output reaches it, allowed is a model without detach, "
            "no_grad or a reentrant checkpoint between them"
        )


def check_derivatives(model: nn.Module, x: Tensor, t: Tensor) -> None:
    """Raises LaqfiError, with the name, for a layer that gets gradients while the model is called.

    They would be taken for those of the loss.
    """
    met: list[str] = []
    layers = {name: module for name, module in model.named_modules() if is_plain(module)}
    with Watch(model, layers, lambda name, *_: met.append(name)):
        tried(model, x, t)
    if met:
        raise LaqfiError(
            f"{met[0]}: gets gradients in a call of the model, allowed is a model that takes no derivatives itself"
        )


def unregistered(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of modules in lists, tuples and dictionaries of the model, by a name for them."""
    for path, module in model.named_modules():
        for key, value in own(vars(module)).items():
            for place, leaf in tree_flatten_with_path(value)[0]:
                for name, parameter in leaf.named_parameters() if isinstance(leaf, nn.Module) else ():
                    yield f"{full_name(path, key)}{keystr(place)}.{name}", parameter


def reads(model: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Counter[int]]:
    """What a call gives, and by the id of each parameter how many operations read it to make that."""
    output = tried(model, x, t)
    left, counts = [output.grad_fn], Counter()
    while left:
        for node, _ in getattr(left.pop(), "next_functions", ()):
            counts[node] += 1
            if counts[node] == 1:
                left.append(node)
    return output.detach(), Counter({id(n.variable): count for n, count in counts.items() if hasattr(n, "variable")})


@torch.no_grad()
def moved(model: nn.Module, parameters: list[nn.Parameter], x: Tensor, t: Tensor) -> Tensor:
    """What a call gives with other values of these parameters, which they have no longer afterwards."""
    kept = [parameter.clone() for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.mul_(2).add_(1)
        return tried(model, x, t)
    finally:
        for parameter, values in zip(parameters, kept, strict=True):
            parameter.copy_(values)
