"""The numbers of a run for `dvc metrics diff` to compare: what metrics.json holds."""

import math

from laqfi.records import Allocation, ControlTable, Evaluation, Floors, Interval
from laqfi.report import differences, noise
from laqfi.report.differences import Judged, JudgedVariant

DIGITS = 6  # significant digits: more is not reproducible between machines anyway


def metrics(
    evaluations: dict[str, Evaluation], allocations: dict[str, Allocation], floors: Floors, controls: ControlTable
) -> dict:
    """One block of numbers per variant, the real-vs-real floor, and both comparisons on the same noise."""
    variants = differences.against_fp32(evaluations)
    correlation = noise.spearman(noise.changes(evaluations, allocations))
    headlines = {
        name: {v: of_quality(one.headlines[name]) for v, one in variants.items() if name in one.headlines}
        for name in variants["fp32"].headlines
    }
    return {
        "floor": {"kid": rounded(floors.kid), "fid": rounded(floors.fid.mean)}
        | {key: rounded(getattr(floors.fid, key)) for key in ("low", "high")},
        "controls": of_controls(controls),
        "variants": {name: of_variant(one) | of_bits(allocations[name]) for name, one in variants.items()},
        "against_uniform": {
            name: of_interval(found.difference)
            for name, found in differences.against_uniform(evaluations, allocations).items()
        },
        "against_fisher": {
            f"ratio_{ratio:g}": {importance: of_interval(found) for importance, found in row.items() if found}
            for ratio, row in differences.controls_against_fisher(controls).items()
        },
        **({"headline": headlines} if headlines else {}),
        **({} if math.isnan(correlation) else {"predicted_against_measured": {"spearman": rounded(correlation)}}),
    }


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def of_interval(found: Interval) -> dict[str, float]:
    return {"mean": rounded(found.mean), "low": rounded(found.low), "high": rounded(found.high)}


def of_variant(variant: JudgedVariant) -> dict[str, float]:
    return {
        "bytes": variant.measured.bytes,
        "reduction_percent": rounded(100 * variant.reduction),
        "noise_mse": rounded(noise.mean(variant.measured.noise_mse.values())),
        **of_quality(variant.images),
    }


def of_quality(judged: Judged) -> dict[str, float]:
    intervals = {"fid": judged.quality.fid, "fid_difference": judged.difference}
    ends = {"": "mean", "_low": "low", "_high": "high"}
    numbers = {f"{name}{end}": rounded(getattr(i, key)) for name, i in intervals.items() for end, key in ends.items()}
    numbers["kid"] = rounded(judged.quality.kid)
    return numbers | ({} if judged.quality.psnr is None else {"psnr": rounded(judged.quality.psnr)})


def of_bits(allocation: Allocation) -> dict[str, float]:
    """Bits per weight of the integer tensors, and how many more than the water-filling bound that is."""
    found = allocation.bits_per_weight
    if found is None:
        return {}
    return {"bits_per_weight": rounded(found.bits), "bits_over_bound": rounded(found.bits - found.bound)}


def of_controls(table: ControlTable) -> dict[str, dict]:
    """PSNR and difference in FID to FP32 by importance and size limit, of those whose images differ from FP32's."""
    numbers: dict[str, dict] = {}
    for row in differences.controls_against_fp32(table):
        if row.judged and row.stored.psnr is not None:
            one = {"psnr": rounded(row.stored.psnr), "fid_difference": rounded(row.judged.difference.mean)}
            numbers.setdefault(row.importance, {})[f"ratio_{row.ratio:g}"] = one
    return numbers
