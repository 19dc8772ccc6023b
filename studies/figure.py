"""Attained against nominal coverage, with the interval that the number of replications leaves of it."""

from collections.abc import Callable

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from laqfi.quality.statistics import CONFIDENCE
from laqfi.report.plots.canvas import ZERO, label, png

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito (2008)
MARKS = "os"  # one seed, three
TABLE_COLOURS, TABLE_MARKS = ("#000000", "#56B4E9", "#8C6D31"), "D^v"
GROUPS = 20
LOWEST = 80  # percent; what is below stands at the edge

PANELS: dict[str, Callable[[dict], bool]] = {
    "FID: its interval, the FID of N images": lambda row: row["change"] is None and row["truth"] == "images",
    "FID∞: the extrapolated interval": lambda row: row["change"] is None and row["extrapolated"],
    "Paired difference at N images": lambda row: row["change"] is not None and row["truth"] == "images",
}


def dot(axis, place: float, share: dict, **look) -> None:
    value, low, high = (max(100 * share[key], LOWEST) for key in ("value", "low", "high"))
    axis.errorbar(place, value, [[value - low], [high - value]], capsize=2, linestyle="", markersize=5, **look)


def by_images(axis, rows: list[dict], populations: list[str]) -> None:
    """A dot per sample at its number of images; the dots of one number stand side by side."""
    sizes = sorted({row["images"] for row in rows})
    for images in sizes:
        here = [row for row in rows if row["images"] == images and row["refused"] < 0.5]
        for place, row in enumerate(here):
            shift = 1.6 ** ((place + 0.5) / len(here) - 0.5)
            colour = COLOURS[populations.index(row["population"])]
            filled = {"markerfacecolor": colour if row["seeds"] > 1 else "white"}
            dot(axis, images * shift, row["holds"], color=colour, marker=MARKS[row["seeds"] > 1], **filled)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter("{x:g}")


def by_way(axis, verdicts: list[dict]) -> None:
    """The share of tables without a false verdict."""
    ways = list(dict.fromkeys(row["way"] for row in verdicts))
    names = list(dict.fromkeys(row["table"] for row in verdicts))
    for row in verdicts:
        place = ways.index(row["way"]) + 0.2 * (names.index(row["table"]) - (len(names) - 1) / 2)
        right = {"value": 1 - row["false"]["value"], "low": 1 - row["false"]["high"], "high": 1 - row["false"]["low"]}
        at = names.index(row["table"])
        dot(axis, place, right, color=TABLE_COLOURS[at], marker=TABLE_MARKS[at])
    looks = zip(TABLE_COLOURS, TABLE_MARKS, strict=True)
    handles = [Line2D([], [], color=colour, marker=mark, linestyle="") for colour, mark in looks]
    axis.legend(handles, names, loc="lower right", fontsize=8, title="table")
    axis.set_xticks(range(len(ways)), ways)


def png_of(results: dict) -> bytes:
    picture = Figure(figsize=(13, 8.5), layout="constrained")
    axes = picture.subplots(2, 2).ravel()
    rows = [row for row in results["rows"] if row["measure"] == "FID" and row["groups"] == GROUPS]
    populations = list(dict.fromkeys(row["population"] for row in rows))
    for axis, (title, wanted) in zip(axes, PANELS.items(), strict=False):
        label(axis, title, "images", "holds, %")
        by_images(axis, [row for row in rows if wanted(row)], populations)
    label(axes[-1], "18 verdicts at once: no false one in the table", "", "tables, %")
    by_way(axes[-1], results["verdicts"])
    for axis in axes:
        axis.axhline(100 * CONFIDENCE, **ZERO)
        axis.set_ylim(LOWEST - 1, 101)
    handles = [Line2D([], [], color=colour, marker="o", linestyle="") for colour in COLOURS]
    handles += [
        Line2D([], [], color="#555555", marker=MARKS[k], linestyle="", markerfacecolor="white" if not k else None)
        for k in (0, 1)
    ]
    picture.legend(handles, [*populations, "one seed", "three seeds"], loc="outside lower center", ncols=4)
    return png(picture)
