"""The numbers of a run as tables: for DVC to compare, for a spreadsheet, for a README."""

import csv
import io
import math

from scipy import stats

from laqfi.base.errors import LaqfiError
from laqfi.sampling.params import Described, Headline

DIGITS = 6  # significant digits of the metrics file: more is not reproducible between machines anyway

ONLY_IN_CSV = ("KID", "noise MSE")
IMPORTANCES = {"none": "squared error", "inverse": "inverse Fisher", "uniform": "same bits for all"}


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def metrics(evaluations: dict[str, dict], choices: dict[str, dict], floor: dict, controls: dict) -> dict:
    """What `dvc metrics diff` compares: one block of numbers per variant, and the real-vs-real floor."""
    correlation = spearman(noise_changes(evaluations, choices))
    again = {name: {v: quality_metrics(found) for v, found in rows.items()} for name, rows in headlines(evaluations)}
    return {
        "floor": {key: rounded(floor[key]) for key in ("fid", "low", "high", "kid")},
        "controls": control_metrics(controls),
        "variants": {name: variant_metrics(e) | bound_metrics(choices[name]) for name, e in evaluations.items()},
        **({"headline": again} if again else {}),
        **({} if math.isnan(correlation) else {"predicted_against_measured": {"spearman": rounded(correlation)}}),
    }


def headlines(evaluations: dict[str, dict]) -> list[tuple[str, dict[str, dict]]]:
    """By the name of a headline, the quality of each variant it draws again."""
    names = evaluations["fp32"].get("headline", {})
    return [(n, {v: e["headline"][n] for v, e in evaluations.items() if n in e.get("headline", {})}) for n in names]


def bound_metrics(choice: dict) -> dict:
    """Bits per weight of the integer tensors, and how far above the water-filling bound that is."""
    found = choice["bits_per_weight"]
    if found is None:
        return {}
    return {"bits_per_weight": rounded(found["bits"]), "bits_over_bound": rounded(found["bits"] - found["bound"])}


def variant_metrics(evaluation: dict) -> dict:
    return {
        "bytes": evaluation["bytes"],
        "reduction_percent": rounded(100 * evaluation["reduction"]),
        "noise_mse": rounded(mean_noise_mse(evaluation)),
        **quality_metrics(evaluation),
    }


def quality_metrics(quality: dict) -> dict:
    numbers = {
        "fid": rounded(quality["fid"]["mean"]),
        "fid_low": rounded(quality["fid"]["low"]),
        "fid_high": rounded(quality["fid"]["high"]),
        "fid_difference": rounded(quality["fid_difference"]["mean"]),
        "fid_difference_low": rounded(quality["fid_difference"]["low"]),
        "fid_difference_high": rounded(quality["fid_difference"]["high"]),
        "kid": rounded(quality["kid"]),
    }
    return numbers | ({} if quality["psnr"] is None else {"psnr": rounded(quality["psnr"])})


def mean_noise_mse(evaluation: dict) -> float:
    values = list(evaluation["noise_mse"].values())
    return math.fsum(values) / len(values)  # built-in `sum` adds up in another way since Python 3.12


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
            means = [math.fsum(values) / len(values) for values in measured.values()]
            predicted = [foretold[edge] for edge in measured]
            points[name] = math.fsum(predicted) / len(predicted), math.fsum(means) / len(means)
    return points


def spearman(points: dict[str, tuple[float, float]]) -> float:
    """Rank correlation of the two coordinates; NaN for fewer than three points."""
    return float(stats.spearmanr(*zip(*points.values(), strict=True)).statistic) if len(points) > 2 else float("nan")


def summary(evaluations: dict[str, dict]) -> list[dict[str, str]]:
    """One row of readable text per variant, in the order of params.yaml."""
    return [
        {
            "variant": name,
            "size": f"{e['bytes'] / 2**20:.3f} MiB",
            "smaller by": smaller_by(e),
            "size band": e["size_band"],
            "FID [95 % CI]": fid(e),
            "FID − FP32 [95 % CI]": difference(e["fid_difference"]),
            "verdict": e["verdict"],
            "FID band": e["fid_band"],
            "KID": f"{e['kid']:.3f}",
            "PSNR": psnr(e),
            "noise MSE": f"{mean_noise_mse(e):.1e}",
        }
        for name, e in evaluations.items()
    ]


def headline(evaluations: dict[str, dict], floor: dict) -> list[dict[str, str]]:
    """One row for every variant of every headline; none where nothing is drawn again."""
    return [
        {
            "drawn": name,
            "variant": variant,
            "smaller by": smaller_by(evaluations[variant]),
            "images per seed": f"{found['images']:,}",
            "real-vs-real FID": f"{floor['headline'][name]['fid']:.2f}",
            "FID [95 % CI]": fid(found),
            "FID − FP32 [95 % CI]": difference(found["fid_difference"]),
            "verdict": found["verdict"],
            "FID band": found["fid_band"],
            "KID": f"{found['kid']:.3f}",
            "PSNR": psnr(found),
        }
        for name, rows in headlines(evaluations)
        for variant, found in rows.items()
    ]


def smaller_by(evaluation: dict) -> str:
    return f"{100 * evaluation['reduction']:.1f} % ({1 / (1 - evaluation['reduction']):.1f} ×)"


def fid(quality: dict) -> str:
    return f"{quality['fid']['mean']:.2f} [{quality['fid']['low']:.2f}, {quality['fid']['high']:.2f}]"


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


def psnr(quality: dict) -> str:
    return "identical" if quality["psnr"] is None else f"{quality['psnr']:.1f} dB"


def difference(interval: dict, digits: int = 3) -> str:
    mean, low, high = (round(interval[key], digits) + 0.0 for key in ("mean", "low", "high"))  # + 0.0: no minus zero
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


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


def summary_markdown(tables: dict[str, list[dict[str, str]]]) -> str:
    """The tables by their titles; one without rows is left out."""
    return "\n".join(f"{title}:\n\n{as_markdown(rows)}" for title, rows in tables.items() if rows)


def facts(sample: Described, info: dict, floor: dict, base: dict) -> dict[str, str]:
    """What a reader must know to judge the table."""
    accuracy = "" if info["accuracy"] is None else f", {100 * info['accuracy']:.2f} % right on held-out images"
    return {
        "Data": f"{info['dataset']}: {info['images']['train']:,} training and"
        f" {info['images']['test']:,} held-out images",
        "Model": f"U-Net of {sum(base['parameters'].values()):,} parameters, {base['bytes'] / 2**20:.2f} MiB in FP32",
        "Sampling": f"{drawn_by(sample)}; {len(sample.seeds)} seeds of {sample.images:,} images,"
        " the same noise for every variant",
        **{
            f"Drawn again as {name}": f"{drawn_by(again)}; {again.images:,} images per seed"
            for name, again in sample.headline.items()
        },
        "Features": f"{info['network']}{accuracy}; SHA-256 {info['sha256'][:16]}…",
        "Real-vs-real floor": f"FID {floor['fid']:.2f} [{floor['low']:.2f}, {floor['high']:.2f}],"
        f" KID {floor['kid']:.3f} ({floor['images']:,} held-out images)",
        "FP32": f"FID {base['fid']['mean']:.2f} [{base['fid']['low']:.2f}, {base['fid']['high']:.2f}],"
        f" mean over the seeds",
    }


def drawn_by(draw: Described | Headline) -> str:
    eta = f", eta {draw.eta:g}" if draw.sampler == "ddim" else ""
    tf32 = ", products in TF32" if draw.precision == "tf32" else ""
    return f"{draw.sampler.upper()}, {draw.steps} steps{eta}{tf32}"
