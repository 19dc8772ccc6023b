"""A network of one's own, called as model(x, timestep): stored as a policy decides, and run from the stored file."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from laqfi.base import files
from laqfi.quant.apply import Storage, Stored, as_file
from laqfi.quant.policy import WeightTensor, bind
from laqfi.storage.model_file import layouts_of, output_axes
from laqfi.storage.modules import store_layers


def quantize_model(
    model: nn.Module,
    fisher: Mapping[str, Mapping[str, Tensor]],
    policy: str,
    options: Mapping,
    curvature: Mapping[str, Tensor] | None = None,
) -> dict[str, Stored]:
    """Every parameter of `model` in the format that `policy` gives it with `options`, the keys of a params.yaml block.

    `fisher` holds one number per weight by timestep weighting ("uniform" is always needed) and parameter name;
    `curvature` is that of `laqfi.sensitivity.curvature`, by which the rounding "gptq" compensates. Policies that decide
    by the layers 1 to 6 of this package's U-Net change nothing here. Raises LaqfiError for an unknown policy.
    """
    axes = output_axes(model)
    weights = [
        WeightTensor(
            name,
            None,
            0.0,
            parameter.detach(),
            axes[name],
            {weighting: of_weights[name].to(parameter.device) for weighting, of_weights in fisher.items()},
        )
        for name, parameter in model.named_parameters()
    ]
    return Storage(weights, dict(curvature or {})).store_all(bind(policy, dict(options))(weights))


def save_model(path: Path, stored: dict[str, Stored]) -> None:
    """One safetensors file with a checksum, the map of the formats in its header."""
    files.write_tensors(path, *as_file(stored, {}))


def load_model(model: nn.Module, path: Path) -> None:
    """Put the packed tensors of the file into `model`, in place; its buffers stay.

    Raises LaqfiError if the file is damaged or of another network, TypeError for a layer that cannot be stored.
    """
    tensors, metadata = files.read_tensors(path)
    layouts = layouts_of(tensors, metadata, model, path)
    device = next(model.parameters()).device
    store_layers(model, layouts)
    parts = {
        f"{name}.{part.removeprefix('.') or 'value'}": tensors[f"{name}{part}"]
        for name, layout in layouts.items()
        for part in layout.part_shapes()
    }
    model.load_state_dict(model.state_dict() | parts, assign=True)
    model.to(device)
