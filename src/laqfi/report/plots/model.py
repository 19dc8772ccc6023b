"""Figures of the model itself: how it was trained, and what it and its variants draw."""

import csv
import io

import numpy as np
from matplotlib.figure import Figure

from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import sheet
from laqfi.report.plots.canvas import COLOURS, axes


def loss_curve(text: str) -> Figure:
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
    return figure


def sample_sheets(images: dict[str, np.ndarray], columns: int = 8, rows: int = 4) -> Figure:
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
    return figure
