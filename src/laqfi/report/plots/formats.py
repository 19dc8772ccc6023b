"""Figures of the formats chosen, and of how far they move the predicted noise."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from laqfi.records import Allocation, Evaluation
from laqfi.report import noise
from laqfi.report.plots import labels
from laqfi.report.plots.canvas import ZERO, axes, label, legend, name, path, point, timestep_axis
from laqfi.report.plots.looks import Look


def bits_map(allocations: dict[str, Allocation]) -> Figure:
    """Bits per weight (scales included) of each weight tensor in each variant that uses integer formats."""
    packed = {variant: one.tensors for variant, one in allocations.items() if one.bits_per_weight}
    rows = [row for row, tensor in next(iter(packed.values()), {}).items() if len(tensor.layout.shape) > 1]
    size = (min(11, max(6, 0.9 * len(packed) + 4)), max(3, 0.26 * len(rows) + 2))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    axis.set_title("Bits per weight of each tensor, scales included", fontsize=13)
    if rows:
        bits = np.array([[tensors[row].bits for tensors in packed.values()] for row in rows])
        picture = axis.imshow(bits, aspect="auto", cmap="viridis", vmin=0, vmax=16, interpolation="none")
        for (y, x), value in np.ndenumerate(bits):
            colour = "white" if value < 9 else "black"
            drawn = axis.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
            variant = list(packed)[x]
            name(drawn, variant, f"{variant}, {rows[y]}: {value:.2f} bits per weight")
        axis.set_xticks(range(len(packed)), packed, rotation=45, ha="right")
        axis.set_yticks(range(len(rows)), [row.removesuffix(".weight") for row in rows], fontsize=8)
        figure.colorbar(picture, ax=axis, label="bits per weight")
    return figure


def over_bound(allocations: dict[str, Allocation], looked: dict[str, Look]) -> Figure:
    """Bits per weight of each variant's integer tensors, beside the reverse water-filling bound."""
    found = {variant: one.bound for variant, one in allocations.items() if one.bound}
    height = max(2.5, 0.45 * len(found) + 1.4)
    title = "Distance to the reverse water-filling bound"
    figure, axis = axes(9, height, title, "bits per weight of the integer tensors, scales included", "")
    for place, (variant, one) in enumerate(found.items()):
        gap = one.bits - one.bound
        said = f"{variant}: {one.bits:.2f} bits per weight, the bound is {one.bound:.2f}, {gap:.2f} above it"
        colour = looked[variant].colour
        path(axis, [(one.bound, place), (one.bits, place)], variant, said, color=colour)
        point(axis, (one.bound, place), variant, said, Look("bound", colour, "|"))
        point(axis, (one.bits, place), variant, said, looked[variant])
        axis.annotate(f"+{gap:.1f}", (one.bits, place), (9, 0), textcoords="offset points", va="center", fontsize=9)
    axis.set_yticks(range(len(found)), found, fontsize=9)
    axis.set_ylim(len(found) - 0.4, -0.6)
    axis.margins(x=0.08)
    marks = ((" o", "spent"), ("|", "bound: fewest bits at the same predicted error"))
    style = {"linestyle": "", "color": "#555555"}
    lines = [Line2D([], [], marker=mark.strip(), label=text, **style) for mark, text in marks]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def predicted_against_measured(
    noises: dict[str, tuple[float, float]], images: dict[str, tuple[float, float]], looked: dict[str, Look]
) -> Figure:
    """What the Fisher information predicts against what was measured: of the noise, and of the median image.

    One point (predicted, measured) per variant; both panels have the prediction of the noise as x.
    """
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    panels = figure.subplots(1, 2)
    ends = [end for place in noises.values() for end in place]
    if ends:
        panels[0].plot([min(ends), max(ends)], [min(ends), max(ends)], label="_", **ZERO)
    unit = "mean squared change of the noise per pixel"
    what = {"noise": (noises, f"measured {unit}"), "median image": (images, "mean squared error of the median image")}
    for axis, (title, (points, y)) in zip(panels, what.items(), strict=True):
        found = noise.spearman(points)
        label(axis, f"{title}, Spearman's ρ = {found.rho:.3f}" if found else title, f"predicted {unit}", y)
        for variant, place in points.items():
            point(
                axis, place, variant, f"{variant}: predicted {place[0]:.2g}, measured {place[1]:.2g}", looked[variant]
            )
        if points:
            axis.loglog()
    legend(figure, {v: looked[v] for v in noises}, extra=(Line2D([], [], label="as predicted", **ZERO),))
    for axis, (points, _) in zip(panels, what.values(), strict=True):
        named = [labels.Named(v, looked[v].family, looked[v].colour, place) for v, place in points.items()]
        labels.label_points(axis, named)
    return figure


def noise_error(evaluations: dict[str, Evaluation], looked: dict[str, Look]) -> Figure:
    """Mean squared error of the predicted noise against FP32's along the timesteps."""
    unit = "mean squared difference to FP32 (unit: noise variance)"
    figure, axis = axes(11, 6.4, "Change of the predicted noise", "", unit)
    moved = {variant: one for variant, one in evaluations.items() if any(one.noise_mse.values())}
    for variant, one in moved.items():
        points = sorted(one.noise_mse.items())
        path(axis, points, variant, variant, color=looked[variant].colour)
        for t, value in points:
            point(axis, (t, value), variant, f"{variant}, t = {t}: {value:.2g}", looked[variant])
    axis.set_yscale("log")
    timestep_axis(axis)
    legend(figure, {variant: looked[variant] for variant in moved})
    return figure
