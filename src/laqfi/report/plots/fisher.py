"""Figures of the Fisher information and of the weights themselves."""

import numpy as np
from matplotlib.figure import Figure

from laqfi.records import FisherTable
from laqfi.report.plots import looks
from laqfi.report.plots.canvas import axes, label, legend, name, path, point, timestep_axis
from laqfi.report.plots.looks import Look

KINDS = {"empirical": "Empirical", "gauss_newton": "Gauss–Newton"}


def fisher_by_timestep(table: FisherTable, kind: str) -> Figure:
    """Mean Fisher of each layer along the timesteps, linear and log, with standard errors."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    found = table.of_kind(kind).layers
    colours = looks.of_layers(found)
    for axis, scale in zip(figure.subplots(1, 2), ("linear", "log"), strict=True):
        label(axis, f"{scale} scale", "", "mean squared derivative per weight")
        for layer, rows in found.items():
            mean, error = np.array(rows.mean), np.array(rows.standard_error)
            key = f"layer_{layer}"
            path(axis, [*zip(table.timesteps, rows.mean, strict=True)], key, f"layer {layer}", color=colours[layer])
            lowest = np.clip(mean - error, mean * 0.05, None)  # a log scale shows nothing below zero
            band = axis.fill_between(table.timesteps, lowest, mean + error, color=colours[layer], alpha=0.2)
            name(band, key, f"layer {layer}")
            for t, value, spread in zip(table.timesteps, rows.mean, rows.standard_error, strict=True):
                title = f"layer {layer}, t = {t}: {value:.2g} ± {spread:.1g}"
                point(axis, (t, value), key, title, Look("layer", colours[layer], "."))
        axis.set_yscale(scale)
        timestep_axis(axis)
    legend_of_layers(figure, colours)
    figure.suptitle(f"{KINDS[kind]} Fisher information by layer and timestep (band: ± standard error)", fontsize=13)
    return figure


def legend_of_layers(figure: Figure, colours: dict[str, str], mark: str = "o") -> None:
    keys = {f"layer_{layer}": Look("layer", colour, mark) for layer, colour in colours.items()}
    legend(figure, keys, {f"layer_{layer}": f"layer {layer}" for layer in colours})


def bars(
    title: str, y: str, layers: dict[str, str], values: dict[str, float], errors: dict[str, float] | None = None
) -> Figure:
    """One bar per weight tensor, coloured by layer, on a log scale."""
    figure, axis = axes(11, 6, title, "", y)
    colours = looks.of_layers(sorted(set(layers.values())))
    for place, (tensor, layer) in enumerate(layers.items()):
        error = None if errors is None else errors[tensor]
        (bar,) = axis.bar([place], [values[tensor]], color=colours[layer], yerr=error)
        said = f"{tensor}: {values[tensor]:.2g}" + ("" if error is None else f" ± {error:.1g}")
        name(bar, f"layer_{layer}", said)
    short = [tensor.removeprefix("layers.").removesuffix(".weight") for tensor in layers]
    axis.set_xticks(range(len(layers)), short, rotation=90, fontsize=8)
    axis.set_xlim(-0.8, len(layers) - 0.2)
    axis.set_yscale("log")
    legend_of_layers(figure, colours, mark="s")
    return figure


def fisher_by_tensor(table: FisherTable, kind: str, timestep: int) -> Figure:
    """Mean Fisher of each weight tensor at one timestep, with standard errors."""
    column = table.timesteps.index(timestep)
    tensors = table.of_kind(kind).tensors
    mean = {tensor: rows.mean[column] for tensor, rows in tensors.items()}
    error = {tensor: rows.standard_error[column] for tensor, rows in tensors.items()}
    title = f"{KINDS[kind]} Fisher information of each weight tensor at t = {timestep} (± standard error)"
    return bars(title, "mean squared derivative per weight", table.layers, mean, error)


def magnitude(table: FisherTable) -> Figure:
    """Weight magnitude map."""
    return bars("Mean magnitude of each weight tensor", "mean |w|", table.layers, table.magnitude)
