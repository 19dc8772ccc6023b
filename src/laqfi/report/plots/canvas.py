"""What all figures share. Colours: Okabe and Ito (2008), told apart by colour-blind readers."""

import io

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X<>phd"
GRID = {"color": "#DDDDDD", "linewidth": 0.8}
ZERO = {"color": "#555555", "linestyle": "--"}  # a line to compare with


def png(figure: Figure) -> bytes:
    """PNG without the stamp of the library's version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def axes(width: float, height: float, title: str, x: str, y: str):
    """A figure of so many inches with one pair of axes, and the axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    label(axis, title, x, y)
    return figure, axis


def label(axis, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=13)
    axis.set_xlabel(x, fontsize=11)
    axis.set_ylabel(y, fontsize=11)
    axis.grid(**GRID)
    axis.set_axisbelow(True)


def look(place: int) -> dict[str, str]:
    """Colour and marker of the thing at a place in its order; 91 of them differ."""
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def log_sizes(axis, ticks: tuple[float, ...]) -> None:
    """A logarithmic x axis with plain numbers at `ticks` times the powers of ten."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=ticks))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
