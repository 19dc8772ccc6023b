"""A network of one's own, called as model(x, timestep): stored as a policy decides, and run from the stored file."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError, first_line
from laqfi.quant.apply import as_file, file_size, store_all
from laqfi.quant.evidence import Evidence
from laqfi.quant.policies.every import bind
from laqfi.quant.rounding import Stored, check_size
from laqfi.sensitivity.compensation import Compensation
from laqfi.storage.described import VERSION, output_axes
from laqfi.storage.kinds import CALLS
from laqfi.storage.model_file import layouts_of
from laqfi.storage.modules import load_stored
from laqfi.storage.storable import bare_parameters, check_storable, norm_parameters
from laqfi.storage.stored_file import read_stored, write_stored


def quantize_model(
    model: nn.Module,
    fisher: Mapping[str, Tensor],
    policy: str,
    options: Mapping,
    compensations: Mapping[str, Compensation | None] | None = None,
    *,
    one_size: bool = False,
    coding: str | None = None,
) -> dict[str, Stored]:
    """Every parameter of `model` in the format that `policy` gives it with `options`, the keys of a params.yaml block.

    `fisher` holds one number per weight by parameter name, as `FisherMaps.per_weight` does; `compensations` are those
    of `laqfi.sensitivity.curvature`, by which the rounding "gptq" works; where one is None, the layer is rounded to
    nearest. Parameters outside of layers stay in float32. `one_size`: the model will only run on images of the size it
    was measured at, so kernel positions that only met padding there are not stored. `coding` is that of `save_model`,
    by which policies with a target of the file meet it. Raises LaqfiError, before anything is rounded, for a model that
    cannot be stored, for numbers that are not of this model, for an unknown policy, for one that goes by the groups of
    a model's family, which a network of one's own does not have, and for options that do not fit.
    """
    tensors = evidence_of(model, fisher, compensations or {}, one_size)
    try:
        decide = bind(policy, options)
    except ValidationError as error:
        raise LaqfiError(first_line(error, policy)) from error
    check_options(tensors, options)
    return store_all(tensors, decide(tensors, file_size(tensors, metadata_of(coding))))


def evidence_of(
    model: nn.Module,
    fisher: Mapping[str, Tensor],
    compensations: Mapping[str, Compensation | None],
    one_size: bool,
) -> list[Evidence]:
    """Every parameter of the model with what was measured of it; arguments and errors as of `quantize_model`."""
    check_storable(model)
    axes, parameters = output_axes(model), dict(model.named_parameters())
    check_measured(parameters, axes, fisher, compensations)
    kinds = dict.fromkeys(norm_parameters(model), "floats") | dict.fromkeys(bare_parameters(model), "float32")
    return [
        Evidence(
            name,
            None,
            0.0,
            parameter.detach(),
            axes[name],
            fisher[name].to(parameter.device),
            compensation=known(compensations, name),
            formats=kinds.get(name, "any"),
            uncompensated=name in compensations and compensations[name] is None,
            whole=not one_size,
        )
        for name, parameter in parameters.items()
    ]


def known(compensations: Mapping[str, Compensation | None], name: str) -> Callable[[], Compensation] | None:
    found = compensations.get(name)
    return None if found is None else lambda: found


def check_measured(
    parameters: Mapping[str, Tensor],
    axes: Mapping[str, int],
    fisher: Mapping[str, Tensor],
    compensations: Mapping[str, Compensation | None],
) -> None:
    """Raises LaqfiError, with the name, for what was not measured of these parameters."""
    for name, parameter in parameters.items():
        if name not in fisher:
            raise LaqfiError(f"fisher: holds no {name}, allowed is one tensor for each parameter of the model")
        shape = tuple(fisher[name].shape)
        if shape != tuple(parameter.shape):
            raise LaqfiError(f"fisher: {name} is {shape}, allowed is {tuple(parameter.shape)}")
        if not (fisher[name] >= 0).all() or not fisher[name].isfinite().all():
            raise LaqfiError(f"fisher: {name} holds values that are negative or not finite, allowed are squares")
    for name, one in compensations.items():
        if name not in parameters or parameters[name].dim() < 2:
            raise LaqfiError(f"compensations: {name} is no weight matrix of the model")
        if one is not None:
            try:
                check_size(one, parameters[name].numel() // parameters[name].shape[axes[name]])
            except LaqfiError as error:
                raise LaqfiError(f"compensations: {name} {error}") from error


def check_options(tensors: list[Evidence], options: Mapping) -> None:
    """Raises LaqfiError for options that need what was not measured: a sampler, or a curvature to round by."""
    if (weighting := options.get("weighting", "uniform")) != "uniform":
        raise LaqfiError(f"weighting: found {weighting!r}, allowed is 'uniform' for one number per weight")
    kept = options.get("keep") or ()
    for t in tensors if options.get("rounding") == "gptq" else ():
        if t.is_matrix and t.name not in kept and not t.uncompensated and t.compensation is None:
            raise LaqfiError(
                f"{t.name} has no curvature, by which the rounding gptq works; "
                "allowed is its compensation, or None for it, which rounds it to nearest"
            )


def save_model(path: Path, stored: dict[str, Stored], coding: str | None = None) -> None:
    """One safetensors file with a checksum, its formats in the header; with the `coding` "ans" smaller, without loss.

    Raises LaqfiError for another coding.
    """
    write_stored(path, *as_file(stored, metadata_of(coding)))


def metadata_of(coding: str | None) -> dict:
    if coding not in (None, "ans"):
        raise LaqfiError(f"coding: found {coding!r}, allowed is 'ans' or None")
    return {"version": VERSION} if coding is None else {"version": VERSION, "coding": coding}


def load_model(model: nn.Module, path: Path) -> None:
    """Put the packed tensors of the file into `model`, in place; its buffers stay, and so do its devices.

    Its layers hold no other weights then; a layer's `weight` tells dtype, shape and device of what it stands for. The
    model has no parameters but those outside of layers. Raises LaqfiError, and leaves the model as it is, if that
    cannot be stored, or if the file is damaged or of another network.
    """
    check_storable(model)
    tensors, metadata = read_stored(path, model)
    layouts = layouts_of(tensors, metadata, model, path)
    nominal = {module: like_first(module) for module in model.modules() if is_asked(module)}
    load_stored(model, layouts, tensors)
    # Who asks a module for its dtype looks at its first tensor: not at a scale in float16, but at this one of no bytes.
    for module, first in nominal.items():
        module._buffers = {"_nominal": first} | module._buffers
        module._non_persistent_buffers_set.add("_nominal")


def is_asked(module: nn.Module) -> bool:
    """Whether it holds layers: a layer itself tells by its weight."""
    return type(module) not in CALLS and next(module.parameters(), None) is not None


def like_first(module: nn.Module) -> Tensor:
    """No numbers, in the dtype and on the device of the module's first parameter."""
    return next(module.parameters()).detach().new_empty(0)
