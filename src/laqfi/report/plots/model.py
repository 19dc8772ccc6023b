"""Figures of the model itself: how it was trained."""

import csv
import io

from matplotlib.figure import Figure

from laqfi.base.errors import LaqfiError
from laqfi.report.plots.canvas import axes


def loss_curve(text: str) -> Figure:
    """Training loss from its CSV (step, loss); of a network that was trained elsewhere it has no rows."""
    try:
        if not text.startswith("step,loss"):
            raise ValueError("no header")
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(io.StringIO(text))]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise LaqfiError(f"the loss curve is no CSV of step and loss ({error!r})") from error
    figure, axis = axes(9, 4.2, "Training loss", "step", "mean squared error of the predicted noise")
    if rows:
        axis.plot(*zip(*rows, strict=True), color="#0072B2", linewidth=1.2)
        axis.set_yscale("log")
    else:
        axis.text(0.5, 0.5, "The network was trained elsewhere.", ha="center", va="center")
    return figure
