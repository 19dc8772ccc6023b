"""Figures of the Fisher information and of the weights themselves."""

from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from laqfi.records import FisherTable
from laqfi.report.plots.canvas import COLOURS, axes, label

KINDS = {"empirical": "Empirical", "gauss_newton": "Gauss–Newton"}


def fisher_by_timestep(table: FisherTable, kind: str) -> Figure:
    """Mean Fisher of each layer along the timesteps, linear and log, with standard errors."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    for axis, scale in zip(figure.subplots(1, 2), ("linear", "log"), strict=True):
        label(axis, f"{scale} scale", "timestep t (1 is the last step of sampling)", "mean squared gradient per weight")
        for colour, (layer, rows) in zip(cycle(COLOURS), table.of_kind(kind).layers.items(), strict=False):
            mean, error = np.array(rows.mean), np.array(rows.standard_error)
            axis.plot(table.timesteps, mean, "o-", color=colour, markersize=4, label=f"layer {layer}")
            lowest = np.clip(mean - error, mean * 0.05, None)  # a log scale shows nothing below zero
            axis.fill_between(table.timesteps, lowest, mean + error, color=colour, alpha=0.2)
        axis.set_xscale("log")
        axis.set_yscale(scale)
        axis.invert_xaxis()
        axis.legend()
    figure.suptitle(f"{KINDS[kind]} Fisher information by layer and timestep (band: ± standard error)", fontsize=14)
    return figure


def bars(
    title: str, y: str, layers: dict[str, str], values: dict[str, float], errors: dict[str, float] | None = None
) -> Figure:
    """One bar per weight tensor, coloured by layer, on a log scale."""
    figure, axis = axes(14, 6, title, "", y)
    names = list(layers)
    for colour, layer in zip(cycle(COLOURS), sorted(set(layers.values())), strict=False):
        places = [place for place, name in enumerate(names) if layers[name] == layer]
        members = [names[place] for place in places]
        spread = None if errors is None else [errors[name] for name in members]
        heights = [values[name] for name in members]
        axis.bar(places, heights, color=colour, yerr=spread, label=f"layer {layer}")
    short = [name.removeprefix("layers.").removesuffix(".weight") for name in names]
    axis.set_xticks(range(len(names)), short, rotation=90, fontsize=9)
    axis.set_yscale("log")
    axis.legend(ncols=6)
    return figure


def fisher_by_tensor(table: FisherTable, kind: str, timestep: int) -> Figure:
    """Mean Fisher of each weight tensor at one timestep, with standard errors."""
    column = table.timesteps.index(timestep)
    tensors = table.of_kind(kind).tensors
    mean = {name: rows.mean[column] for name, rows in tensors.items()}
    error = {name: rows.standard_error[column] for name, rows in tensors.items()}
    title = f"{KINDS[kind]} Fisher information of each weight tensor at t = {timestep} (± standard error)"
    return bars(title, "mean squared gradient per weight", table.layers, mean, error)


def magnitude(table: FisherTable) -> Figure:
    """Weight magnitude map."""
    return bars("Mean magnitude of each weight tensor", "mean |w|", table.layers, table.magnitude)
