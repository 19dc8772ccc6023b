"""A network of one's own: measured, stored as a policy decides, and run from the stored file.

measured = laqfi.measure(model, images, schedule)
laqfi.save(laqfi.quantize(model, measured, "8x"), "smaller.safetensors")
laqfi.load(model, "smaller.safetensors")
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError, first_line
from laqfi.models.prediction import called
from laqfi.quant.apply import as_file, file_size, store_all, stored_size
from laqfi.quant.evidence import Evidence, Sizes
from laqfi.quant.policies.budget import BEST, smallest, target_of
from laqfi.quant.policies.every import bind, check
from laqfi.quant.rounding import Stored, check_size
from laqfi.sensitivity import curvature
from laqfi.sensitivity.compensation import Compensation
from laqfi.sensitivity.fisher import fisher_maps
from laqfi.sensitivity.noise_levels import warn_of_levels
from laqfi.storage.attributes import attributes_of, put_attributes
from laqfi.storage.described import VERSION, output_axes, parted
from laqfi.storage.kept import PART, Buffers, as_extra, buffers_of, check_buffers
from laqfi.storage.kinds import CALLS
from laqfi.storage.model_file import layouts_of
from laqfi.storage.modules import load_stored
from laqfi.storage.storable import bare_parameters, check_storable, norm_parameters
from laqfi.storage.stored_file import read_stored, write_stored

STEPS = 8  # timesteps that a model is measured at, where none are named


@dataclass(frozen=True)
class Measured:
    """What was measured of a model, by the names of its parameters.

    fisher: one number per weight, in its shape, as `FisherMaps.per_weight` of `laqfi.sensitivity.fisher`.
    compensations: those of `laqfi.sensitivity.curvature`, by which the rounding "gptq" works; None for a layer that is
    to be rounded to nearest.
    """

    fisher: Mapping[str, Tensor]
    compensations: Mapping[str, Compensation | None] = field(default_factory=dict)


class Quantized(dict[str, Stored]):
    """What is stored of every parameter, by its name.

    buffers: those of the model, which stay as they are. attributes: other tensors that it holds, which do so too.
    """

    buffers: Mapping[str, Tensor] = MappingProxyType({})
    attributes: Mapping[str, Tensor] = MappingProxyType({})


def measure(
    model: nn.Module,
    images: Tensor,
    schedule: Any,
    *,
    embeddings: Tensor | None = None,
    timesteps: list[int] | None = None,
    chunk: int = 16,
    seed: int = 0,
) -> Measured:
    """The Fisher information of every weight, and the curvature of every layer that has one.

    `model` is called as model(x, timestep [B]) with timesteps from 1 to T, and predicts the noise; one of diffusers is
    called as diffusers calls it. images: floats [N, C, H, W] in [-1, 1]; some dozens do. schedule: alphas_cumprod
    float64 [T + 1] that begins with the 1 of the clean image, or a scheduler of diffusers. embeddings: float32 or
    float16 [tokens, width], what a `UNet2DConditionModel` is given with every image. Measured is every image at
    each of `timesteps` (none: eight, in the middle of equal stretches), `chunk` images at a time, with noise and signs
    drawn from `seed`. The model is left as it was.

    A layer without a curvature (convolutions in groups or of other dimensions than two, weights that layers share, or
    that are read without a call of their layer) is rounded to nearest, which a warning says. Another warning says if a
    trained model shows that `alphas_cumprod` are the roots or the squares of those it learned with. Raises LaqfiError,
    before anything is measured, for a model, images or schedule that cannot be: a call of the model is tried first, at
    the first and the last timestep.
    """
    denoiser, alphas_cumprod = called(model, schedule, embeddings)
    timesteps = spread(len(alphas_cumprod) - 1) if timesteps is None else list(timesteps)
    how = {"timesteps": timesteps, "chunk": chunk, "seed": seed}
    fisher = fisher_maps(denoiser, images, alphas_cumprod, bins=[len(alphas_cumprod) - 1], **how).per_weight
    if denoiser is model:  # of a network of diffusers the scheduler is known, and its own
        warn_of_levels(model, images, alphas_cumprod, timesteps)
    known = dict(curvature.compensations(denoiser, images, alphas_cumprod, **how))
    if missing := [t.name for t in unmeasured(model) if t.is_matrix and known.get(t.name) is None]:
        warnings.warn(f"rounded to nearest, because no curvature is known of it: {', '.join(missing)}", stacklevel=2)
    return Measured(fisher, known | dict.fromkeys(missing))


def spread(last: int) -> list[int]:
    """Timesteps in the middle of equal stretches of 1 to `last`."""
    return sorted({1 + int((i + 0.5) * last / STEPS) for i in range(STEPS)})


def quantize(
    model: nn.Module,
    measured: Measured,
    target: str | Mapping | None = None,
    *,
    policy: str | None = None,
    one_size: bool = False,
    coding: str | None = None,
    sizes: Sizes | None = None,
    **options: Any,
) -> Quantized:
    """Every parameter of `model` in the format that a policy gives it, and its buffers and other tensors as they are.

    target: "8x" (times smaller than float32), "300kB" (bytes; also B, MB, GB, KiB, MiB, GiB), or as in params.yaml.
    Without `policy`, the formats are those of 2 to 8 bits and float16 that change the predicted noise least at this
    size, rounded by GPTQ. `policy` and `options` are the keys of a params.yaml block, all of which may be given.
    Parameters outside of layers stay in float32. Buffers stay as they are, as do tensors in attributes of modules and
    in lists, tuples and dictionaries there; a target of bytes does not count them. Buffers that are not persistent are
    left out, as PyTorch does: the model makes them itself.
    one_size: the model will only run on images of the size it was measured at, so kernel positions that only met
    padding there are not stored. coding: that of `save`, by which policies with a target of the file meet it. sizes:
    what a tensor takes where it will be, if in no file of `save`; beside a target as text alone.

    Raises LaqfiError, before anything is rounded, for a model that cannot be stored, for numbers that are not of this
    model, for an unknown policy, for one that goes by the groups of a model's family, which a network of one's own does
    not have, for options that do not fit, and for a target that is too small, with the smallest there is.
    """
    if sizes is not None and (policy is not None or not isinstance(target, str)):
        raise LaqfiError("sizes: found some, allowed is none but beside a target as text alone")
    tensors = evidence_of(model, measured, one_size, sizes)
    policy, options = settled(target, policy, options)
    try:
        decide, checked = bind(policy, options), check(policy, options)
    except ValidationError as error:
        raise LaqfiError(first_line(error, policy)) from error
    check_options(tensors, dict(checked))
    buffers, attributes = buffers_of(model), attributes_of(model)
    about, given = as_extra(buffers, attributes)
    stored = Quantized(store_all(tensors, decide(tensors, file_size(tensors, metadata_of(coding) | about, given))))
    stored.buffers, stored.attributes = buffers, attributes
    warn_of_attributes(stored)
    return stored


def warn_of_attributes(stored: Quantized) -> None:
    """A UserWarning if tensors in attributes take more bytes than all parameters, as activations that are kept may."""
    several, parameters = {id(one): one.nbytes for one in stored.attributes.values()}, stored_size(stored)
    if (found := sum(several.values())) > parameters:
        warnings.warn(
            f"{', '.join(stored.attributes)}: take {found:,} bytes of the file, all parameters {parameters:,}; what "
            "the model makes itself is left out if it is deleted, or a buffer with persistent=False",
            stacklevel=3,
        )


def settled(target: str | Mapping | None, policy: str | None, options: Mapping) -> tuple[str, dict]:
    """The policy and all that its block says."""
    if target is None and policy is None:
        raise LaqfiError("target: found none, allowed is one such as '8x' or '300kB', or a policy")
    best = BEST if policy is None else {}
    size = {} if target is None else {"target": target_of(target) if isinstance(target, str) else target}
    return policy or "budget", {**best, **size, **options}


def check_target(model: nn.Module, target: str, sizes: Sizes | None = None) -> None:
    """Raises LaqfiError if `quantize` cannot make the model, of whatever weights, as small as `target`."""
    policy, options = settled(target, None, {})
    try:
        asked = check(policy, options)
    except ValidationError as error:
        raise LaqfiError(first_line(error)) from error
    tensors = unmeasured(model, sizes)
    limit = asked.target.limit(sum(t.weight.numel() for t in tensors))
    least = smallest(tensors, asked.formats, asked.rest)
    if least > limit:
        raise LaqfiError(f"target: found {target}, {limit:,} bytes of this model, allowed is {least}B and more")


def unmeasured(model: nn.Module, sizes: Sizes | None = None) -> list[Evidence]:
    """Every parameter of the model, with nothing that was measured of it."""
    axes = output_axes(model)
    kinds = dict.fromkeys(norm_parameters(model), "floats") | dict.fromkeys(bare_parameters(model), "float32")
    return [
        Evidence(
            name, None, 0.0, parameter.detach(), axes[name], formats=kinds.get(name, "any"), whole=True, sizes=sizes
        )
        for name, parameter in model.named_parameters()
    ]


def evidence_of(model: nn.Module, measured: Measured, one_size: bool, sizes: Sizes | None = None) -> list[Evidence]:
    """Every parameter of the model with what was measured of it; arguments and errors as of `quantize`."""
    check_storable(model)
    fisher, compensations = measured.fisher, measured.compensations
    check_measured(dict(model.named_parameters()), output_axes(model), fisher, compensations)
    return [
        replace(
            t,
            fisher=fisher[t.name].to(t.weight.device),
            compensation=known(compensations, t.name),
            uncompensated=t.name in compensations and compensations[t.name] is None,
            whole=not one_size,
        )
        for t in unmeasured(model, sizes)
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


def save(stored: Mapping[str, Stored], path: str | Path, coding: str | None = None) -> None:
    """One safetensors file with a checksum, its formats in the header; with the `coding` "ans" smaller, without loss.

    A plain dictionary has lost what `quantize` gives beside the parameters, which a warning says. Raises LaqfiError for
    another coding, and for what is nothing that `quantize` gives.
    """
    for name, one in stored.items():
        if not isinstance(one, Stored):
            raise LaqfiError(f"{name}: found a {type(one).__name__}, allowed is what quantize gives")
    if not isinstance(stored, Quantized):
        warnings.warn(
            f"stored: found a {type(stored).__name__}, expected is what quantize gives: it holds the buffers and other"
            " tensors of the model, too, of which this file has none",
            stacklevel=2,
        )
        stored = Quantized(stored)
    about, given = as_extra(stored.buffers, stored.attributes)
    write_stored(Path(path), *as_file(stored, metadata_of(coding) | about, given))


def metadata_of(coding: str | None) -> dict:
    if coding not in (None, "ans"):
        raise LaqfiError(f"coding: found {coding!r}, allowed is 'ans' or None")
    return {"version": VERSION} if coding is None else {"version": VERSION, "coding": coding}


def load(model: nn.Module, path: str | Path) -> None:
    """Put the packed tensors of the file, its buffers and other tensors into `model`, in place; its devices stay.

    Its layers hold no other weights then; a layer's `weight` tells dtype, shape and device of what it stands for. The
    model has no parameters but those outside of layers. Raises LaqfiError, and leaves the model as it is, if that
    cannot be stored, or if the file is damaged or of another network.
    """
    check_storable(model)
    tensors, metadata = read_stored(path := Path(path), model)
    tensors, _ = parted(tensors, metadata)
    told = Buffers.model_validate(metadata.get(PART, {"kept": {}}))
    beside = told.tensors(tensors.pop(PART)) if PART in metadata else {}
    attributes = {name: beside.pop(name) for name in told.attributes}
    try:
        check_buffers(model, beside)
    except LaqfiError as error:
        raise LaqfiError(f"{path}: {error}") from error
    layouts = layouts_of(tensors, metadata, model, path)
    nominal = {module: like_first(module) for module in model.modules() if is_asked(module)}
    put_attributes(model, attributes)
    load_stored(model, layouts, tensors)
    for name, buffer in model.named_buffers():
        if name in beside:
            buffer.detach().copy_(beside[name])
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
