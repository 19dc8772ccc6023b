"""The numbers of a run as tables: for DVC to compare, for a spreadsheet, for a README."""

import csv
import io
import math
from typing import TYPE_CHECKING

from scipy import stats

from laqfi.errors import LaqfiError

if TYPE_CHECKING:
    from laqfi.config import Profile

DIGITS = 6  # significant digits of the metrics file: more is not reproducible between machines anyway

ONLY_IN_CSV = ("KID", "noise MSE")
IMPORTANCES = {"none": "squared error", "inverse": "inverse Fisher", "uniform": "same bits for all"}


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def metrics(evaluations: dict[str, dict], choices: dict[str, dict], floor: dict, controls: dict) -> dict:
    """What `dvc metrics diff` compares: one block of numbers per variant, and the real-vs-real floor."""
    correlation = spearman(noise_changes(evaluations, choices))
    return {
        "floor": {key: rounded(floor[key]) for key in ("fid", "low", "high", "kid")},
        "controls": control_metrics(controls),
        "variants": {name: variant_metrics(e) | bound_metrics(choices[name]) for name, e in evaluations.items()},
    } | ({} if math.isnan(correlation) else {"predicted_against_measured": {"spearman": rounded(correlation)}})


def bound_metrics(choice: dict) -> dict:
    """Bits per weight of the integer tensors, and how far above the water-filling bound that is."""
    found = choice["bits_per_weight"]
    if found is None:
        return {}
    return {"bits_per_weight": rounded(found["bits"]), "bits_over_bound": rounded(found["bits"] - found["bound"])}


def variant_metrics(evaluation: dict) -> dict:
    numbers = {
        "bytes": evaluation["bytes"],
        "reduction_percent": rounded(100 * evaluation["reduction"]),
        "fid": rounded(evaluation["fid"]["mean"]),
        "fid_low": rounded(evaluation["fid"]["low"]),
        "fid_high": rounded(evaluation["fid"]["high"]),
        "fid_difference": rounded(evaluation["fid_difference"]["mean"]),
        "fid_difference_low": rounded(evaluation["fid_difference"]["low"]),
        "fid_difference_high": rounded(evaluation["fid_difference"]["high"]),
        "kid": rounded(evaluation["kid"]),
        "noise_mse": rounded(mean_noise_mse(evaluation)),
    }
    if evaluation["psnr"] is not None:
        numbers["psnr"] = rounded(evaluation["psnr"])
    return numbers


def mean_noise_mse(evaluation: dict) -> float:
    values = list(evaluation["noise_mse"].values())
    return sum(values) / len(values)


def noise_changes(evaluations: dict[str, dict], choices: dict[str, dict]) -> dict[str, tuple[float, float]]:
    """(predicted, measured) mean squared change of the noise of every variant that changes it.

    Both are means over the timestep bins that hold a measured timestep.
    """
    points = {}
    for name, evaluation in evaluations.items():
        foretold = {int(edge): value for edge, value in choices[name]["predicted_noise_mse"].items()}
        measured: dict[int, list[float]] = {}
        for timestep, value in evaluation["noise_mse"].items():
            edge = min((edge for edge in foretold if edge >= int(timestep)), default=None)
            if edge is None:
                raise LaqfiError(f"{name}: its choices predict up to timestep {max(foretold)}, not {timestep}")
            measured.setdefault(edge, []).append(value)
        if any(any(values) for values in measured.values()):
            means = [sum(values) / len(values) for values in measured.values()]
            predicted = [foretold[edge] for edge in measured]
            points[name] = sum(predicted) / len(predicted), sum(means) / len(means)
    return points


def spearman(points: dict[str, tuple[float, float]]) -> float:
    """Rank correlation of the two coordinates; NaN for fewer than three points."""
    return float(stats.spearmanr(*zip(*points.values(), strict=True)).statistic) if len(points) > 2 else float("nan")


def summary(evaluations: dict[str, dict]) -> list[dict[str, str]]:
    """One row of readable text per variant, in the order of params.yaml."""
    counts = {e["images"] for e in evaluations.values()}
    return [
        {
            "variant": name,
            **({"images": f"{e['images']:,}"} if len(counts) > 1 else {}),
            "size": f"{e['bytes'] / 2**20:.3f} MiB",
            "smaller by": f"{100 * e['reduction']:.1f} % ({1 / (1 - e['reduction']):.1f} ×)",
            "size band": e["size_band"],
            "FID [95 % CI]": f"{e['fid']['mean']:.2f} [{e['fid']['low']:.2f}, {e['fid']['high']:.2f}]",
            "FID − FP32 [95 % CI]": difference(e["fid_difference"]),
            "verdict": e["verdict"],
            "FID band": e["fid_band"],
            "KID": f"{e['kid']:.3f}",
            "PSNR": psnr(e),
            "noise MSE": f"{mean_noise_mse(e):.1e}",
        }
        for name, e in evaluations.items()
    ]


def controls(table: dict) -> list[dict[str, str]]:
    """One row per budget, one column per importance: PSNR, and the paired difference in FID to FP32."""
    by_ratio: dict[float, dict[str, str]] = {}
    for row in table["rows"]:
        found = row["found"]
        cell = "does not fit" if found is None else f"{psnr(found)}, {found['fid_difference']['mean'] + 0.0:+.2f}"
        column = IMPORTANCES.get(row["importance"], row["importance"])
        by_ratio.setdefault(row["ratio"], {"smaller by": f"{row['ratio']:g} ×"})[column] = cell
    return list(by_ratio.values())


def control_metrics(table: dict) -> dict:
    """PSNR and paired difference in FID by importance and budget."""
    numbers: dict[str, dict] = {}
    for row in table["rows"]:
        if (found := row["found"]) and found["psnr"] is not None:
            one = {"psnr": rounded(found["psnr"]), "fid_difference": rounded(found["fid_difference"]["mean"])}
            numbers.setdefault(row["importance"], {})[f"ratio_{row['ratio']:g}"] = one
    return numbers


def psnr(evaluation: dict) -> str:
    return "identical" if evaluation["psnr"] is None else f"{evaluation['psnr']:.1f} dB"


def difference(interval: dict) -> str:
    mean, low, high = (round(interval[key], 3) + 0.0 for key in ("mean", "low", "high"))  # + 0.0: no minus zero
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def as_csv(rows: list[dict[str, str]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_markdown(rows: list[dict[str, str]]) -> str:
    """The table without its least read columns, narrow enough for a README."""
    columns = [column for column in rows[0] if column not in ONLY_IN_CSV]
    lines = [columns, ["---"] * len(columns), *[[row[column] for column in columns] for row in rows]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def summary_markdown(rows: list[dict[str, str]], control_rows: list[dict[str, str]]) -> str:
    """The results, and below them the controls."""
    title = "\nThe same bytes, given out by other ideas of importance (PSNR, FID − FP32):\n\n"
    return as_markdown(rows) + title + as_markdown(control_rows)


def facts(profile: "Profile", info: dict, floor: dict, base: dict) -> dict[str, str]:
    """What a reader must know to judge the table."""
    sample, seeds = profile.sample, len(profile.sample.seeds)
    accuracy = "" if info["accuracy"] is None else f", {100 * info['accuracy']:.2f} % right on held-out images"
    eta = f", eta {sample.eta:g}" if sample.sampler == "ddim" else ""
    more = "".join(f", {name}: {count:,}" for name, count in sample.more_images.items())
    more = f" ({more[2:]})" if more else ""
    return {
        "Data": f"{info['dataset']}: {info['images']['train']:,} training and"
        f" {info['images']['test']:,} held-out images",
        "Model": f"U-Net of {sum(base['parameters'].values()):,} parameters, {base['bytes'] / 2**20:.2f} MiB in FP32",
        "Sampling": f"{sample.sampler.upper()}, {sample.steps} steps{eta}; {seeds} seeds of {sample.images:,} images"
        f"{more}, the same noise for every variant",
        "Features": f"{info['network']}{accuracy}; SHA-256 {info['sha256'][:16]}…",
        "Real-vs-real floor": f"FID {floor['fid']:.2f} [{floor['low']:.2f}, {floor['high']:.2f}],"
        f" KID {floor['kid']:.3f} ({floor['images']:,} held-out images)",
        "FP32": f"FID {base['fid']['mean']:.2f} [{base['fid']['low']:.2f}, {base['fid']['high']:.2f}],"
        f" mean over the seeds",
    }
