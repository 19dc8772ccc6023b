"""Figures as PNG bytes. Colours: Okabe and Ito (2008), told apart by colour-blind readers."""

import csv
import io
import itertools

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import sheet
from laqfi.report.tables import IMPORTANCES, mean_noise_mse, spearman

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X<>phd"
STYLE = {"color": "#DDDDDD", "linewidth": 0.8}


def render(figure: Figure) -> bytes:
    """PNG without the stamp of the library's version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def axes(width: float, height: float, title: str, x: str, y: str):
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    label(axis, title, x, y)
    return figure, axis


def label(axis, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=13)
    axis.set_xlabel(x, fontsize=11)
    axis.set_ylabel(y, fontsize=11)
    axis.grid(**STYLE)
    axis.set_axisbelow(True)


def loss_curve(text: str) -> bytes:
    """Training loss from its CSV (step, loss)."""
    try:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(io.StringIO(text))]
        if not rows:
            raise ValueError("no rows")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise LaqfiError(f"the loss curve is no CSV of step and loss ({error!r})") from error
    figure, axis = axes(8, 4.5, "Training loss", "step", "mean squared error of the predicted noise")
    axis.plot(*zip(*rows, strict=True), color=COLOURS[0])
    axis.set_yscale("log")
    return render(figure)


def fisher_by_timestep(table: dict, kind: str) -> bytes:
    """Mean Fisher of each layer along the timesteps, linear and log, with standard errors."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    timesteps = np.array(table["timesteps"])
    for axis, scale in zip(figure.subplots(1, 2), ("linear", "log"), strict=True):
        label(
            axis,
            f"{scale} scale",
            "timestep t (1 is the last step of sampling)",
            "mean squared gradient per weight",
        )
        for colour, (layer, rows) in zip(COLOURS, table[kind]["layers"].items(), strict=False):
            mean, error = np.array(rows["mean"]), np.array(rows["standard_error"])
            axis.plot(timesteps, mean, "o-", color=colour, markersize=4, label=f"layer {layer}")
            axis.fill_between(
                timesteps, np.clip(mean - error, mean * 0.05, None), mean + error, color=colour, alpha=0.2
            )
        axis.set_xscale("log")
        axis.set_yscale(scale)
        axis.invert_xaxis()
        axis.legend()
    name = {"empirical": "Empirical", "gauss_newton": "Gauss–Newton"}[kind]
    figure.suptitle(f"{name} Fisher information by layer and timestep (band: ± standard error)", fontsize=14)
    return render(figure)


def bars(title: str, y: str, layers: dict[str, str], values: dict[str, float], errors: dict | None = None) -> bytes:
    """One bar per weight tensor, coloured by layer, on a log scale."""
    figure, axis = axes(14, 6, title, "", y)
    names = list(layers)
    for colour, layer in zip(itertools.cycle(COLOURS), sorted(set(layers.values())), strict=False):
        places = [place for place, name in enumerate(names) if layers[name] == layer]
        members = [names[place] for place in places]
        spread = None if errors is None else [errors[name] for name in members]
        axis.bar(
            places,
            [values[n] for n in members],
            color=colour,
            yerr=spread,
            label=f"layer {layer}",
        )
    short = [name.removeprefix("layers.").removesuffix(".weight") for name in names]
    axis.set_xticks(range(len(names)), short, rotation=90, fontsize=9)
    axis.set_yscale("log")
    axis.legend(ncols=6)
    return render(figure)


def fisher_by_tensor(table: dict, kind: str, timestep: int) -> bytes:
    """Mean Fisher of each weight tensor at one timestep, with standard errors."""
    column = table["timesteps"].index(timestep)
    rows = table[kind]["tensors"]
    mean, error = ({name: r[key][column] for name, r in rows.items()} for key in ("mean", "standard_error"))
    name = {"empirical": "Empirical", "gauss_newton": "Gauss–Newton"}[kind]
    title = f"{name} Fisher information of each weight tensor at t = {timestep} (± standard error)"
    return bars(title, "mean squared gradient per weight", table["layers"], mean, error)


def magnitude(table: dict) -> bytes:
    """Weight magnitude map."""
    return bars("Mean magnitude of each weight tensor", "mean |w|", table["layers"], table["magnitude"])


def size_against_fid(evaluations: dict[str, dict], floor: dict) -> bytes:
    """Bytes against FID, absolute and as the paired difference to FP32, each with its interval."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    absolute, paired = figure.subplots(1, 2)
    label(absolute, "FID", "size in MiB", "FID (lower is better)")
    label(paired, "Difference in FID, same noise", "size in MiB", "FID − FID of FP32")
    absolute.axhline(floor["fid"], color="#555555", linestyle="--", label="real against real")
    base = evaluations["fp32"]["fid"]
    absolute.axhspan(base["low"], base["high"], color="#EEEEEE")
    paired.axhline(0, color="#555555", linestyle="--")
    for place, (name, e) in enumerate(evaluations.items()):
        style = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "capsize": 3,
        }
        for axis, key in ((absolute, "fid"), (paired, "fid_difference")):
            mean, low, high = (e[key][k] for k in ("mean", "low", "high"))
            axis.errorbar(e["bytes"] / 2**20, mean, [[mean - low], [high - mean]], label=name, linestyle="", **style)
    absolute.set_yscale("log")
    paired.set_yscale("symlog", linthresh=0.1)  # linear around zero, where most variants are
    for axis in (absolute, paired):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(*absolute.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return render(figure)


def noise_error(evaluations: dict[str, dict]) -> bytes:
    """Mean squared error of the predicted noise against FP32's along the timesteps."""
    figure, axis = axes(
        10,
        5.5,
        "Change of the predicted noise",
        "timestep t",
        "mean squared difference to FP32 (unit: noise variance)",
    )
    for place, (name, e) in enumerate(evaluations.items()):
        if mean_noise_mse(e) > 0:
            points = sorted((int(t), value) for t, value in e["noise_mse"].items())
            marker = MARKERS[place % len(MARKERS)] + "-"
            axis.plot(*zip(*points, strict=True), marker, color=COLOURS[place % len(COLOURS)], label=name)
    axis.set_yscale("log")
    if axis.lines:
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return render(figure)


def sample_sheets(images: dict[str, np.ndarray], columns: int = 8, rows: int = 4) -> bytes:
    """The first images of each set [N, C, H, W], set by set; the same place is the same noise."""
    across = 4
    down = -(-len(images) // across)
    figure = Figure(figsize=(3.6 * across, 2.2 * down), layout="constrained")
    grid = np.atleast_1d(figure.subplots(down, across)).ravel()
    for axis in grid:
        axis.axis("off")
    for axis, (name, stack) in zip(grid, images.items(), strict=False):
        picture = sheet(stack[: columns * rows], min(columns, len(stack)))
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axis.set_title(name, fontsize=12)
    return render(figure)


def bits_map(choices: dict[str, dict]) -> bytes:
    """Bits per weight (scales included) of each weight tensor in each variant that uses integer formats."""
    packed = {name: c["tensors"] for name, c in choices.items() if c["bits_per_weight"]}
    rows = [n for n, t in next(iter(packed.values()), {}).items() if len(t["layout"]["shape"]) > 1]
    figure = Figure(figsize=(max(6, 1.1 * len(packed) + 4), max(3, 0.28 * len(rows) + 2)), layout="constrained")
    axis = figure.subplots()
    axis.set_title("Bits per weight of each tensor, scales included", fontsize=13)
    if rows:
        bits = np.array([[tensors[row]["bits"] for tensors in packed.values()] for row in rows])
        picture = axis.imshow(bits, aspect="auto", cmap="viridis", vmin=0, vmax=16)
        for (y, x), value in np.ndenumerate(bits):
            axis.text(
                x, y, f"{value:.1f}", ha="center", va="center", fontsize=8, color="white" if value < 9 else "black"
            )
        axis.set_xticks(range(len(packed)), packed, rotation=45, ha="right")
        axis.set_yticks(range(len(rows)), [row.removesuffix(".weight") for row in rows], fontsize=8)
        figure.colorbar(picture, ax=axis, label="bits per weight")
    return render(figure)


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other equals or exceeds in both coordinates, by the first."""
    best = sorted(set(points), reverse=True)
    return sorted(p for place, p in enumerate(best) if all(p[1] > other[1] for other in best[:place]))


def size_against_psnr(evaluations: dict[str, dict], controls: dict) -> bytes:
    """How many times smaller against PSNR: every variant, the front they make, and the controls beside it."""
    figure, axis = axes(12, 7, "Size against fidelity to FP32's images", "times smaller than FP32", "PSNR in dB")
    points = {name: (1 / (1 - e["reduction"]), e["psnr"]) for name, e in evaluations.items() if e["psnr"] is not None}
    front = pareto_front(list(points.values()))
    axis.plot([size for size, _ in front], [psnr for _, psnr in front], color="#999999", label="Pareto front")
    for place, (name, point) in enumerate(points.items()):
        axis.plot(*point, MARKERS[place % len(MARKERS)], color=COLOURS[place % len(COLOURS)], markersize=8, label=name)
    known = [row for row in controls["rows"] if row["importance"] != "fisher" and row["found"]]
    for place, importance in enumerate(dict.fromkeys(row["importance"] for row in known)):
        rows = [(row["ratio"], row["found"]["psnr"]) for row in known if row["importance"] == importance]
        style = {"fillstyle": "none", "color": "#555555", "linestyle": "", "marker": MARKERS[place]}
        axis.plot(*zip(*rows, strict=True), label=f"control: {IMPORTANCES.get(importance, importance)}", **style)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=6)
    return render(figure)


def controls(table: dict) -> bytes:
    """PSNR and paired difference in FID along the budgets, one line per importance."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    fidelity, paired = figure.subplots(1, 2)
    label(fidelity, "Fidelity to FP32's images", "times smaller than FP32", "PSNR in dB (higher is better)")
    label(paired, "Difference in FID, same noise", "times smaller than FP32", "FID − FID of FP32 (95 % interval)")
    rows = [row for row in table["rows"] if row["found"]]
    for place, importance in enumerate(dict.fromkeys(row["importance"] for row in rows)):
        points = [(row["ratio"], row["found"]) for row in rows if row["importance"] == importance]
        ratios = [ratio for ratio, _ in points]
        style = {"color": COLOURS[place], "marker": MARKERS[place], "label": IMPORTANCES.get(importance, importance)}
        known = [(ratio, found["psnr"]) for ratio, found in points if found["psnr"] is not None]
        fidelity.plot([r for r, _ in known], [value for _, value in known], **style)
        differences = [found["fid_difference"] for _, found in points]
        mean = np.array([d["mean"] for d in differences])
        spread = [mean - [d["low"] for d in differences], [d["high"] for d in differences] - mean]
        paired.errorbar(ratios, mean, spread, capsize=3, **style)
    paired.axhline(0, color="#555555", linestyle="--")
    paired.set_yscale("symlog", linthresh=0.1)
    figure.legend(*fidelity.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return render(figure)


def over_bound(choices: dict[str, dict]) -> bytes:
    """Bits per weight of each variant's integer tensors, beside the reverse water-filling bound."""
    found = {name: c["bits_per_weight"] for name, c in choices.items() if c["bits_per_weight"]}
    figure, axis = axes(10, 5, "Distance to the reverse water-filling bound", "", "bits per weight")
    places = np.arange(len(found))
    spent, bound = (np.array([one[key] for one in found.values()]) for key in ("bits", "bound"))
    axis.bar(places - 0.2, spent, 0.4, color=COLOURS[0], label="spent, scales included")
    axis.bar(places + 0.2, bound, 0.4, color=COLOURS[4], label="bound at the same predicted error")
    for place, gap in zip(places, spent - bound, strict=True):
        axis.annotate(f"+{gap:.1f}", (place, spent[place]), ha="center", va="bottom", fontsize=9)
    axis.set_xticks(places, found, rotation=30, ha="right")
    axis.legend()
    return render(figure)


def predicted_against_measured(points: dict[str, tuple[float, float]]) -> bytes:
    """Change of the predicted noise, foretold by the Fisher information and measured; one point per variant."""
    figure, axis = axes(
        8.5,
        7,
        f"Predicted and measured change of the noise (Spearman's ρ = {spearman(points):.3f})",
        "predicted mean squared change per pixel",
        "measured on held-out images",
    )
    for place, (name, point) in enumerate(points.items()):
        axis.plot(*point, MARKERS[place % len(MARKERS)], color=COLOURS[place % len(COLOURS)], label=name, linestyle="")
    if points:
        ends = [min(map(min, points.values())), max(map(max, points.values()))]
        axis.plot(ends, ends, "--", color="#555555")
        axis.loglog()
        axis.legend(fontsize=8, ncols=2)
    return render(figure)
