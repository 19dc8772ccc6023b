"""The numbers of a run for `dvc metrics diff` to compare: what metrics.json holds."""

import math

from laqfi.quality.fidelity import Median
from laqfi.records import Allocation, ControlTable, Floors, Interval
from laqfi.report import differences, noise
from laqfi.report.differences import AgainstFisher, Difference, Judged, JudgedVariant
from laqfi.report.equal_bytes import KINDS

DIGITS = 6  # significant digits: more is not reproducible between machines anyway


def metrics(
    variants: dict[str, JudgedVariant], allocations: dict[str, Allocation], floors: Floors, controls: ControlTable
) -> dict:
    """One block of numbers per variant, the real-vs-real floor, and both comparisons on the same noise."""
    uniform = differences.against_uniform({name: one.measured for name, one in variants.items()}, allocations)
    headlines = {
        name: {v: of_quality(one.headlines[name]) for v, one in variants.items() if name in one.headlines}
        for name in variants["fp32"].headlines
    }
    return {
        "floor": ends("fid", floors.fid) | ends("kid", floors.kid),
        "controls": of_controls(controls),
        "variants": {name: of_variant(one) | of_bits(allocations[name]) for name, one in variants.items()},
        "against_uniform": {name: of_difference("fid_difference", found.difference) for name, found in uniform.items()},
        "against_fisher": {
            f"{equal.key}_{ratio:g}": {importance: of_comparison(found) for importance, found in row.items() if found}
            for equal in KINDS
            for ratio, row in differences.controls_against_fisher(controls, equal).items()
        },
        **({"headline": headlines} if headlines else {}),
        **correlations(variants, allocations),
    }


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def ends(name: str, found: Interval | Median) -> dict[str, float]:
    """The value and the ends of its interval, those that are finite."""
    value = found.value if isinstance(found, Median) else found.mean
    numbers = {name: value, f"{name}_low": found.low, f"{name}_high": found.high}
    return {key: rounded(number) for key, number in numbers.items() if math.isfinite(number)}


def of_difference(name: str, found: Difference) -> dict[str, float]:
    """With the ends of its own interval and, under `all`, those that hold for the whole table."""
    wide = {f"{name}_all_low": found.simultaneous.low, f"{name}_all_high": found.simultaneous.high}
    return ends(name, found.plain) | {key: rounded(number) for key, number in wide.items()}


def of_comparison(found: AgainstFisher) -> dict[str, float]:
    return of_difference("fid_difference", found.difference) | ends("median_psnr_gain", found.gain)


def of_variant(variant: JudgedVariant) -> dict[str, float]:
    return {
        "bytes": variant.measured.bytes,
        "file_bytes": variant.measured.file_bytes,
        "reduction_percent": rounded(100 * variant.reduction),
        "noise_mse": rounded(noise.mean(variant.measured.noise_mse.values())),
        **of_quality(variant.images),
    }


def of_quality(judged: Judged) -> dict[str, float]:
    found = judged.fidelity
    again = {} if judged.again is None else ends("fid_again", judged.quality.fid_again)
    return (
        ends("fid", judged.quality.fid)
        | of_difference("fid_difference", Difference(judged.difference, judged.simultaneous))
        | ends("kid", judged.quality.kid)
        | of_difference("kid_difference", judged.kid_difference)
        | again
        | ends("median_psnr", found.median)
        | ({"psnr": rounded(found.pooled)} if math.isfinite(found.pooled) else {})
        | ends("tipped", found.tipped)
    )


def correlations(variants: dict[str, JudgedVariant], allocations: dict[str, Allocation]) -> dict[str, dict[str, float]]:
    """How well the predicted change ranks the measured one, and the error of the median image; of enough variants."""
    points = noise.changes({name: one.measured for name, one in variants.items()}, allocations)
    images = noise.image_changes(points, {name: one.images.fidelity for name, one in variants.items()})
    found = {
        "predicted_against_measured": noise.spearman(points),
        "predicted_against_images": noise.spearman(images),
    }
    return {
        key: {"spearman": rounded(one.rho), "low": rounded(one.low), "high": rounded(one.high)}
        for key, one in found.items()
        if one
    }


def of_bits(allocation: Allocation) -> dict[str, float]:
    """Bits per weight of the integer tensors, and how many more than the water-filling bound that is."""
    found = allocation.bits_per_weight
    if found is None:
        return {}
    over = {"bits_over_bound": rounded(found.bits - found.bound)} if allocation.bound else {}
    return {"bits_per_weight": rounded(found.bits)} | over


def of_controls(table: ControlTable) -> dict[str, dict]:
    """Median PSNR and difference in FID to FP32 by importance and size limit: ratio_10, file_10 or coded_file_10."""
    numbers: dict[str, dict] = {}
    for row in differences.controls_against_fp32(table):
        if row.judged:
            one = ends("median_psnr", row.judged.fidelity.median)
            one["fid_difference"] = rounded(row.judged.difference.mean)
            numbers.setdefault(row.importance, {})[f"{row.equal.key}_{row.ratio:g}"] = one
    return numbers
