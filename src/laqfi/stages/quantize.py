"""Stage: store the model as one variant's policy decides."""

import math
from pathlib import Path

from torch import Tensor

from laqfi import cli, io
from laqfi.config import Profile, Variant
from laqfi.errors import LaqfiError
from laqfi.quant.account import bits_over_bound, predicted_change
from laqfi.quant.grid import Format
from laqfi.quant.policy import Choice, WeightTensor, bind
from laqfi.quant.sensitivity import fisher_by_bin, read_curvature, weight_tensors
from laqfi.quant.tensor import Layout
from laqfi.quant.tensor import quantize as store


def quantize(
    profile: Profile,
    variant: Variant,
    *,
    model: Path,
    table: Path,
    fisher: Path,
    curvature: Path,
    out: Path,
    choices: Path,
) -> None:
    """Write the tensors in the formats chosen, and beside them which tensor got what and why."""
    tensors, metadata = io.read_tensors(model)
    maps = fisher_by_bin(fisher, tensors)
    weights = weight_tensors(profile, model, table, maps)
    curved = read_curvature(curvature, weights)
    chosen = bind(variant.policy, variant.model_extra)(weights)
    stored, layouts, deltas, reasons = {}, {}, {}, {}
    for t in weights:
        choice = chosen.get(t.name, Choice(Format("float32")))
        layouts[t.name] = t.layout(choice.format)
        second_order = curved[t.name].to(t.weight.device) if choice.rounding == "gptq" and t.name in curved else None
        try:
            parts, restored = store(t.weight, layouts[t.name], choice.search, t.fisher[choice.weighting], second_order)
        except LaqfiError as error:
            raise LaqfiError(f"{model}: {t.name} {error}") from error
        deltas[t.name] = restored - t.weight
        stored |= {f"{t.name}{part}": tensor for part, tensor in parts.items()}
        if t.name in chosen:
            reasons[t.name] = reason(choice, t, layouts[t.name], deltas[t.name])
    formats = {name: layout.to_json() for name, layout in layouts.items() if not layout.format.is_float}
    io.write_tensors(out, stored, metadata | ({"formats": formats} if formats else {}))
    pixels = math.prod(metadata["image"])
    uniform = {t.name: t.fisher["uniform"] for t in weights}
    report = {
        "policy": variant.policy,
        "options": variant.model_extra,
        "tensors": reasons,
        "predicted_noise_mse": {edge: predicted_change(deltas, of_bin) / pixels for edge, of_bin in maps.items()},
        "bits_per_weight": bits_over_bound(layouts, {t.name: t.weight for t in weights}, deltas, uniform),
    }
    io.write_json(choices, report)


def reason(choice: Choice, t: WeightTensor, layout: Layout, delta: Tensor) -> dict:
    """What a reader may ask about one tensor."""
    return {
        "format": choice.format.name,
        "bits": 8 * layout.bytes() / t.weight.numel(),
        "layout": layout.to_json(),
        "rounding": choice.rounding,
        "score": t.score,
        "threshold": choice.threshold,
        "squared_error": delta.square().sum().item(),
    }


if __name__ == "__main__":
    cli.run(quantize)
