"""Questions put to a run, answered by paired differences on the same noise: rows of text, and numbers for DVC."""

import math

from laqfi.quality import statistics
from laqfi.report.tables import IMPORTANCES, difference, rounded

WORDS = {"worse": "worse", "better": "better", "identical": "same", "not": "no difference"}


def paired(fid: dict, base: dict) -> dict[str, float]:
    """FID minus the FID of `base`, over the same seeds and groups of images, with its 95 % interval."""
    runs = statistics.paired_difference(statistics.from_json(fid), statistics.from_json(base))
    return dict(zip(("mean", "low", "high"), statistics.interval(runs), strict=True))


def float_variants(choices: dict[str, dict]) -> tuple[str | None, list[str]]:
    """The variant with every weight tensor in one float format, and those that choose among float formats."""
    floats = [name for name, choice in choices.items() if choice["tensors"] and choice["bits_per_weight"] is None]
    base = next((name for name in floats if choices[name]["policy"] == "uniform"), None)
    return base, [name for name in floats if name != base]


def against_uniform(evaluations: dict[str, dict], choices: dict[str, dict]) -> dict[str, dict]:
    """The seed report's question: FID of each policy that keeps some tensors in FP32, minus that of FP16 everywhere."""
    base, others = float_variants(choices)
    return {} if base is None else {n: paired(evaluations[n]["fid"], evaluations[base]["fid"]) for n in others}


def uniform_rows(evaluations: dict[str, dict], choices: dict[str, dict]) -> list[dict[str, str]]:
    base, _ = float_variants(choices)
    return [
        {
            "variant": name,
            "size, of the control's": f"{evaluations[name]['bytes'] / evaluations[base]['bytes']:.2f} ×",
            f"FID − FID of {base} [95 % CI]": difference(found),
            "verdict": statistics.verdict(found["low"], found["high"], base),
        }
        for name, found in against_uniform(evaluations, choices).items()
    ]


def against_fisher(controls: dict) -> dict[float, dict[str, dict | None]]:
    """By budget and control, FID of the control minus that of the Fisher allocation of the same bytes."""
    by_ratio: dict[float, dict[str, dict]] = {}
    for row in controls["rows"]:
        by_ratio.setdefault(row["ratio"], {})[row["importance"]] = row["found"]
    return {
        ratio: {
            importance: paired(found["fid"], rows["fisher"]["fid"]) if found else None
            for importance, found in rows.items()
            if importance != "fisher"
        }
        for ratio, rows in by_ratio.items()
        if rows.get("fisher")
    }


def fisher_rows(controls: dict) -> list[dict[str, str]]:
    """One row per budget: from which size on does it matter which weights get the bits?"""

    def cell(found: dict | None) -> str:
        if found is None:
            return "does not fit"
        word = WORDS[statistics.verdict(found["low"], found["high"]).split()[0]]
        return f"{difference(found, digits=2)} {word}"

    return [
        {"smaller by": f"{ratio:g} ×", "mean bits": f"{32 / ratio:.1f}"}
        | {IMPORTANCES.get(importance, importance): cell(found) for importance, found in row.items()}
        for ratio, row in against_fisher(controls).items()
    ]


def as_metrics(evaluations: dict[str, dict], choices: dict[str, dict], controls: dict) -> dict:
    """Both comparisons as numbers, rounded; a control that fits no format is left out."""

    def numbers(found: dict[str, float]) -> dict[str, float]:
        return {key: rounded(value) for key, value in found.items()}

    floats = {name: numbers(found) for name, found in against_uniform(evaluations, choices).items()}
    budgets = {
        f"ratio_{ratio:g}": {importance: numbers(found) for importance, found in row.items() if found}
        for ratio, row in against_fisher(controls).items()
    }
    return {"against_uniform": floats, "against_fisher": budgets}


def layer_rows(table: dict) -> list[dict[str, str]]:
    """Fisher information of every layer at the last step of sampling, and how it got there.

    Both kinds, over the layer with the most at that timestep (eq. 2); where it is largest; and from the first step of
    sampling to the last. Each with its standard error, those of a quotient added in quadrature.
    """
    first, last = table["timesteps"][-1], table["timesteps"][0]
    titles = {"empirical": "empirical", "gauss_newton": "Gauss–Newton"}
    rows: dict[str, dict[str, str]] = {layer: {"layer": layer} for layer in table["empirical"]["layers"]}
    for kind, title in titles.items():
        layers = table[kind]["layers"]
        top = max(found["mean"][0] for found in layers.values()) or 1.0
        for layer, found in layers.items():
            mean, error = found["mean"], found["standard_error"]
            rows[layer][f"{title}, t = {last}"] = f"{mean[0] / top:.2g} ± {error[0] / top:.1g}"
            rows[layer][f"{title}, largest at"] = f"t = {table['timesteps'][mean.index(max(mean))]}"
            rows[layer][f"{title}, t = {last} over t = {first}"] = quotient(mean[0], error[0], mean[-1], error[-1])
    return list(rows.values())


def quotient(a: float, a_error: float, b: float, b_error: float) -> str:
    if a == 0 or b == 0:
        return "none"
    relative = math.hypot(a_error / a, b_error / b)
    return f"{a / b:.2g} ± {a / b * relative:.1g}"
