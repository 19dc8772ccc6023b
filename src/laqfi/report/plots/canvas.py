"""What all figures share: axes that run one way, marks that say what they stand for, and a legend of them."""

import io

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from laqfi.records import Interval
from laqfi.report.plots.looks import Look

GRID = {"color": "#DDDDDD", "linewidth": 0.8}
ZERO = {"color": "#555555", "linestyle": "--", "linewidth": 1.2}  # a line to compare with
MARK, LEGEND = "mark", "legend"  # what the page makes of an artist, see `svg`
SEPARATOR = "::"


def lay_out(figure: Figure) -> None:
    """Decide once where everything stands; left alone, a figure does so anew, twice, whenever it is written."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def png(figure: Figure) -> bytes:
    """PNG without the stamp of the library's version."""
    lay_out(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def axes(width: float, height: float, title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes, and the axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    label(axis, title, x, y)
    return figure, axis


def label(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=13)
    axis.set_xlabel(x, fontsize=11)
    axis.set_ylabel(y, fontsize=11)
    axis.grid(**GRID)
    axis.set_axisbelow(True)


def size_axis(axis: Axes, what: str = "file, times smaller than FP32's") -> None:
    """How many times smaller, growing to the right, in plain numbers; `what` says of which bytes."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(what, fontsize=11)


def timestep_axis(axis: Axes) -> None:
    """In the order of sampling: from noise on the left to the image on the right."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.invert_xaxis()
    axis.set_xlabel("timestep t (sampling runs to the right and ends at t = 1)", fontsize=11)


def name(artist: Artist, key: str, title: str) -> None:
    """The artist stands for `key`; where the page shows the figure, `title` is what a reader is told of it."""
    artist.set_gid(SEPARATOR.join((MARK, key, title)))


def point(
    axis: Axes, place: tuple[float, float], key: str, title: str, look: Look, spread: list[list[float]] | None = None
) -> None:
    """One mark at (x, y), with a bar of the lengths below and above in `spread` if there is one."""
    drawn = axis.errorbar(*place, spread, linestyle="", markersize=7, capsize=3, label=key, **look.style)
    line, caps, bars = drawn.lines
    for artist in (line, *caps, *bars):
        name(artist, key, title)


def spread(found: Interval) -> list[list[float]]:
    """The interval as matplotlib wants it: lengths below and above the mean."""
    return [[found.mean - found.low], [found.high - found.mean]]


def path(axis: Axes, points: list[tuple[float, float]], key: str, title: str, **style: object) -> None:
    """A line through points, which are drawn by themselves."""
    (line,) = axis.plot(*zip(*points, strict=True), linewidth=1.3, zorder=1.5, label="_", **style)
    name(line, key, title)


def legend(figure: Figure, looks: dict[str, Look], titles: dict[str, str] | None = None, extra: tuple = ()) -> None:
    """Below the figure, what has which look; `titles` are said in place of keys; `extra` are lines with labels."""
    titles = titles or {}
    proxies = [Line2D([], [], linestyle="", label=titles.get(key, key), **look.style) for key, look in looks.items()]
    handles = [*extra, *proxies]
    if handles:
        columns = 6 if len(handles) > 4 else len(handles)
        drawn = figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9)
        name_legend(drawn, [None] * len(extra) + list(looks))


def name_legend(drawn, keys: list[str | None]) -> None:
    """The entries of a legend stand for `keys`; None for a line that belongs to nothing."""
    for key, text, handle in zip(keys, drawn.get_texts(), drawn.legend_handles, strict=True):
        if key is not None:
            for artist in (text, handle):
                artist.set_gid(SEPARATOR.join((LEGEND, key, "")))
