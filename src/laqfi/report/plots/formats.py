"""Figures of the formats chosen, and of how far they move the predicted noise."""

import numpy as np
from matplotlib.figure import Figure

from laqfi.records import Allocation, Evaluation
from laqfi.report import noise
from laqfi.report.plots.canvas import COLOURS, ZERO, axes, look


def bits_map(allocations: dict[str, Allocation]) -> Figure:
    """Bits per weight (scales included) of each weight tensor in each variant that uses integer formats."""
    packed = {name: one.tensors for name, one in allocations.items() if one.bits_per_weight}
    rows = [name for name, tensor in next(iter(packed.values()), {}).items() if len(tensor.layout.shape) > 1]
    figure = Figure(figsize=(max(6, 1.1 * len(packed) + 4), max(3, 0.28 * len(rows) + 2)), layout="constrained")
    axis = figure.subplots()
    axis.set_title("Bits per weight of each tensor, scales included", fontsize=13)
    if rows:
        bits = np.array([[tensors[row].bits for tensors in packed.values()] for row in rows])
        picture = axis.imshow(bits, aspect="auto", cmap="viridis", vmin=0, vmax=16)
        for (y, x), value in np.ndenumerate(bits):
            colour = "white" if value < 9 else "black"
            axis.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
        axis.set_xticks(range(len(packed)), packed, rotation=45, ha="right")
        axis.set_yticks(range(len(rows)), [row.removesuffix(".weight") for row in rows], fontsize=8)
        figure.colorbar(picture, ax=axis, label="bits per weight")
    return figure


def over_bound(allocations: dict[str, Allocation]) -> Figure:
    """Bits per weight of each variant's integer tensors, beside the reverse water-filling bound."""
    found = {name: one.bits_per_weight for name, one in allocations.items() if one.bits_per_weight}
    figure, axis = axes(10, 5, "Distance to the reverse water-filling bound", "", "bits per weight")
    places = np.arange(len(found))
    spent, bound = np.array([one.bits for one in found.values()]), np.array([one.bound for one in found.values()])
    axis.bar(places - 0.2, spent, 0.4, color=COLOURS[0], label="spent, scales included")
    axis.bar(places + 0.2, bound, 0.4, color=COLOURS[4], label="bound at the same predicted error")
    for place, gap in zip(places, spent - bound, strict=True):
        axis.annotate(f"+{gap:.1f}", (place, spent[place]), ha="center", va="bottom", fontsize=9)
    axis.set_xticks(places, found, rotation=30, ha="right")
    axis.legend()
    return figure


def predicted_against_measured(points: dict[str, tuple[float, float]]) -> Figure:
    """Mean squared change of the noise, predicted by the Fisher information and measured; one point per variant."""
    found = noise.spearman(points)
    title = "Predicted and measured change of the noise" + (f" (Spearman's ρ = {found.rho:.3f})" if found else "")
    figure, axis = axes(8.5, 7, title, "predicted mean squared change per pixel", "measured on held-out images")
    for place, (name, point) in enumerate(points.items()):
        axis.plot(*point, label=name, linestyle="", **look(place))
    if points:
        ends = [min(map(min, points.values())), max(map(max, points.values()))]
        axis.plot(ends, ends, **ZERO)
        axis.loglog()
        axis.legend(fontsize=8, ncols=2)
    return figure


def noise_error(evaluations: dict[str, Evaluation]) -> Figure:
    """Mean squared error of the predicted noise against FP32's along the timesteps."""
    unit = "mean squared difference to FP32 (unit: noise variance)"
    figure, axis = axes(10, 5.5, "Change of the predicted noise", "timestep t", unit)
    for place, (name, one) in enumerate(evaluations.items()):
        if any(one.noise_mse.values()):
            points = sorted(one.noise_mse.items())
            axis.plot(*zip(*points, strict=True), label=name, **look(place))
    axis.set_yscale("log")
    if axis.lines:
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
