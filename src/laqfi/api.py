"""A network of one's own, called as model(x, timestep): stored as a policy decides, and run from the stored file."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.errors import LaqfiError, first_line
from laqfi.quant.apply import as_file, store_all
from laqfi.quant.evidence import Evidence
from laqfi.quant.policies.every import bind
from laqfi.quant.rounding import Stored
from laqfi.sensitivity.compensation import Compensation
from laqfi.storage.model_file import VERSION, check_version, layouts_of, output_axes
from laqfi.storage.modules import buffers, store_layers


def quantize_model(
    model: nn.Module,
    fisher: Mapping[str, Tensor],
    policy: str,
    options: Mapping,
    compensations: Mapping[str, Compensation] | None = None,
) -> dict[str, Stored]:
    """Every parameter of `model` in the format that `policy` gives it with `options`, the keys of a params.yaml block.

    `fisher` holds one number per weight by parameter name, as `FisherMaps.per_weight` does; `compensations` are those
    of `laqfi.sensitivity.curvature`, by which the rounding "gptq" works. Raises LaqfiError for an unknown policy, for
    one that goes by the groups of a model's family, which a network of one's own does not have, and for options that do
    not fit.
    """
    axes = output_axes(model)
    tensors = [
        Evidence(
            name,
            None,
            0.0,
            parameter.detach(),
            axes[name],
            fisher[name].to(parameter.device),
            compensation=known(compensations, name),
        )
        for name, parameter in model.named_parameters()
    ]
    try:
        return store_all(tensors, bind(policy, options)(tensors))
    except ValidationError as error:
        raise LaqfiError(first_line(error, policy)) from error


def known(compensations: Mapping[str, Compensation] | None, name: str) -> Callable[[], Compensation] | None:
    return (lambda: compensations[name]) if compensations and name in compensations else None


def save_model(path: Path, stored: dict[str, Stored]) -> None:
    """One safetensors file with a checksum, the map of the formats in its header."""
    files.write_tensors(path, *as_file(stored, {"version": VERSION}))


def load_model(model: nn.Module, path: Path) -> None:
    """Put the packed tensors of the file into `model`, in place; its buffers stay.

    Raises LaqfiError if the file is damaged or of another network, TypeError for a layer that cannot be stored.
    """
    tensors, metadata = files.read_tensors(path)
    check_version(metadata, path)
    layouts = layouts_of(tensors, metadata, model, path)
    device = next(model.parameters()).device
    store_layers(model, layouts)
    model.load_state_dict(model.state_dict() | buffers(layouts, tensors), assign=True)
    model.to(device)
