"""Stage: store the model as one variant's policy decides, and its recipe adds."""

import math
from pathlib import Path

from laqfi import records
from laqfi.base.errors import LaqfiError
from laqfi.base.program import program
from laqfi.quant.apply import as_file, file_size, store_all, stored_size
from laqfi.quant.calibration import CalibrationSet
from laqfi.quant.choice import Choice, Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.fitted import fitted, network_of, split_at_seams
from laqfi.quant.gather import MeasuredFisher, gather, read_fisher
from laqfi.quant.params import Quantize, Variant
from laqfi.quant.policies.every import bind, check
from laqfi.quant.prediction import bits_over_bound, predicted_change
from laqfi.quant.recipe import Recipe
from laqfi.quant.resume import Resume, fingerprint
from laqfi.quant.rounding import Stored
from laqfi.sampling.params import Sampler
from laqfi.stages import command
from laqfi.storage.coded import encode
from laqfi.storage.stored_file import read_stored, write_stored


def quantize(
    quantize: Quantize,
    sample: Sampler,
    variant: Variant,
    threads: int,
    versions: dict[str, str],
    *,
    model: Path,
    table: Path,
    fisher: Path,
    curvature: Path,
    calibration: Path,
    out: Path,
    choices: Path,
) -> None:
    """Write the tensors in the formats chosen with what the recipe adds, and beside them which got what and why."""
    tensors, metadata = read_stored(model)
    measured = read_fisher(fisher, tensors)
    weights = gather(
        (tensors, metadata),
        model,
        quantize,
        sample,
        table=table,
        fisher=measured,
        curvature=curvature,
        image=calibration if variant.by_image else None,
    )
    metadata |= coding_of(variant, weights)
    chosen = bind(variant.policy, variant.model_extra)(weights, file_size(weights, metadata))
    found = CalibrationSet.read(calibration, tuple(metadata["image"])) if variant.given() else None
    if variant.reconstruct is not None:
        chosen = split_at_seams(weights, chosen, network_of(tensors, metadata, model), found)
    try:
        stored = store_all(weights, chosen)
    except LaqfiError as error:
        raise LaqfiError(f"{model}: {error}") from error
    made, resume = as_file(stored, metadata), None
    if found is not None:
        decides = [variant.given(), threads, program(Path(__file__), versions)]
        name = fingerprint(decides, [model, calibration], made[0])
        resume = Resume(out.parents[1] / "resume" / f"{name}.safetensors")
        stored, made = fitted(variant, stored, (tensors, metadata), model, found, resume)
    write_stored(out, *made)
    records.write(choices, allocation(variant, weights, chosen, stored, measured, math.prod(metadata["image"])))
    if resume is not None:
        resume.finish()


def allocation(
    variant: Variant,
    weights: list[Evidence],
    chosen: Choices,
    stored: dict[str, Stored],
    measured: MeasuredFisher,
    pixels: int,
) -> records.Allocation:
    """Which tensor got what and why, and what the Fisher information predicts of it for images of so many `pixels`."""
    changes = {name: predicted_change(one.delta, measured.per_weight[name]) for name, one in stored.items()}
    layouts = {name: one.layout for name, one in stored.items()}
    return records.Allocation(
        policy=variant.policy,
        options=variant.model_extra,
        coding=variant.coding,
        recipe=records.Recipe(**variant.model_dump(include=set(Recipe.model_fields)), recover=None),
        tensors={t.name: allocated(chosen[t.name], t, stored[t.name]) for t in weights if t.name in chosen},
        predicted_noise_mse={str(edge): summed(changes, measured, edge) / pixels for edge in measured.bins},
        bits_per_weight=bits_over_bound(
            layouts, {t.name: t.weight for t in weights}, changes, measured.per_weight, spent_bytes(stored, variant)
        ),
    )


def summed(changes: dict[str, float], measured: MeasuredFisher, edge: int) -> float:
    """The predicted change of the output in one bin, of what all tensors add to it on the mean."""
    return sum(measured.relative(name)[edge] * change for name, change in changes.items())


def coding_of(variant: Variant, weights: list[Evidence]) -> dict:
    """What the metadata of a coded file say of it: also its limit in bytes, where it has one."""
    target = getattr(check(variant.policy, variant.model_extra), "target", None)
    if not variant.coded or target is None or target.of != "file":
        return variant.coded
    return variant.coded | {"limit": target.limit(sum(t.weight.numel() for t in weights))}


def spent_bytes(stored: dict[str, Stored], variant: Variant) -> int:
    """What the tensors of integers take in the file, scales included."""
    integers = {name: one for name, one in stored.items() if not one.layout.format.is_float}
    if not variant.coded:
        return stored_size(integers)
    tensors, _ = as_file(integers, {})
    return len(encode(tensors, dict(sorted((name, one.layout) for name, one in integers.items())), {}))


def allocated(choice: Choice, t: Evidence, stored: Stored) -> records.AllocatedTensor:
    """What a reader may ask about one tensor."""
    return records.AllocatedTensor(
        format=stored.layout.format.name,
        bits=8 * stored.layout.bytes() / t.weight.numel(),
        layout=stored.layout.to_json(),
        rounding=choice.rounding,
        score=t.score,
        threshold=choice.threshold,
        squared_error=stored.delta.square().sum().item(),
    )


if __name__ == "__main__":
    command.run(quantize)
