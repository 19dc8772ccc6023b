"""Figures of size against quality: of the variants, and of the controls of the same size."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, SymmetricalLogLocator

from laqfi.quality.fidelity import Median
from laqfi.records import Floors, Interval
from laqfi.report.cells import difference_cell, fid_cell, importance, median_cell
from laqfi.report.differences import JudgedControl, JudgedVariant
from laqfi.report.plots import labels, looks
from laqfi.report.plots.canvas import ZERO, axes, label, legend, path, point, size_axis, spread
from laqfi.report.plots.looks import Look

LINEAR = 0.1  # differences in FID up to here are on a linear scale


def size_against_fid(variants: dict[str, JudgedVariant], looked: dict[str, Look], floors: Floors) -> Figure:
    """Times smaller against FID: the paired difference to FP32, and the FID itself, each with its interval."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    paired, absolute = figure.subplots(1, 2)
    label(paired, "Difference in FID, same noise", "", "FID − FID of FP32 (95 % interval)")
    label(absolute, "FID", "", "FID (lower is better; grey: interval of FP32)")
    base = variants["fp32"].measured.fid
    absolute.axhline(floors.fid.mean, **ZERO)
    absolute.axhspan(base.low, base.high, color="#EEEEEE")
    paired.axhline(0, **ZERO)
    for name, one in variants.items():
        title, look = told(name, one), looked[name]
        point(paired, (one.times_smaller, one.images.difference.mean), name, title, look, spread(one.images.difference))
        point(absolute, (one.times_smaller, one.measured.fid.mean), name, title, look, spread(one.measured.fid))
    difference_axis(paired, [one.images.difference for one in variants.values()])
    lowest = min(floors.fid.mean, *(one.measured.fid.low for one in variants.values()))
    absolute.set_yscale("log" if lowest > 0 else "symlog")
    absolute.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5)) if lowest > 0 else SymmetricalLogLocator(base=10, linthresh=1)
    )
    absolute.yaxis.set_major_formatter("{x:g}")
    absolute.yaxis.set_minor_formatter(NullFormatter())
    for axis in (paired, absolute):
        size_axis(axis)
    legend(figure, looked, extra=(Line2D([], [], label="real against real", **ZERO),))
    for axis, of in ((paired, lambda one: one.images.difference), (absolute, lambda one: one.measured.fid)):
        labels.label_points(
            axis, [named(name, looked[name], one.times_smaller, of(one)) for name, one in variants.items()]
        )
    return figure


def difference_axis(axis: Axes, found: list[Interval]) -> None:
    """Linear around zero, where most variants are, and logarithmic beyond, if one is there."""
    if any(abs(end) > LINEAR for one in found for end in (one.low, one.high)):
        axis.set_yscale("symlog", linthresh=LINEAR)
        axis.yaxis.set_major_formatter("{x:g}")


def named(name: str, look: Look, x: float, found: Interval) -> labels.Named:
    return labels.Named(name, look.family, look.colour, (x, found.mean), (found.low, found.high))


def told(name: str, one: JudgedVariant) -> str:
    """What a reader is told of a variant's mark."""
    quality = one.images.quality
    return (
        f"{name}: {one.times_smaller:.1f} × smaller, FID {fid_cell(quality.fid)},"
        f" FID − FP32 {difference_cell(one.images.difference)}, median PSNR {median_cell(one.images.fidelity.median)}"
    )


def told_control(row: JudgedControl) -> str:
    return (
        f"{title_of(row.importance)}: {row.ratio:g} × smaller {row.equal.as_what},"
        f" median PSNR {median_cell(row.judged.fidelity.median)}, FID − FP32 {difference_cell(row.judged.difference)}"
    )


def title_of(name: str) -> str:
    return "Fisher" if name == "fisher" else importance(name)


class FidelityAxis:
    """A y axis of dB, with a line at its top for images that are FP32's own."""

    def __init__(self, axis: Axes, found: list[Median]):
        ends = [end for one in found for end in (one.value, one.high) if math.isfinite(end)]
        self.axis, self.top = axis, 1.08 * max([*ends, 10.0])
        if any(one.high == math.inf for one in found):
            axis.axhline(self.top, **ZERO)
            note = {"ha": "right", "va": "bottom", "fontsize": 8.5, "color": "#555555"}
            axis.annotate("identical to FP32's images", (1, self.top), xycoords=("axes fraction", "data"), **note)

    def point(self, x: float, found: Median, key: str, title: str, look: Look) -> tuple[float, float]:
        """Draws it and returns where."""
        place, low, high = (min(end, self.top) for end in (found.value, found.low, found.high))
        bar = [[place - low], [high - place]] if math.isfinite(low) else None
        point(self.axis, (x, place), key, title, look, bar)
        return x, place


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other equals or exceeds in both coordinates, by the first."""
    best = sorted(set(points), reverse=True)
    return sorted(p for place, p in enumerate(best) if all(p[1] > other[1] for other in best[:place]))


def by_importance(controls: list[JudgedControl]) -> dict[str, list[JudgedControl]]:
    """Those that fit their size limit, by their importance."""
    fitting = [row for row in controls if row.judged]
    return {
        name: [row for row in fitting if row.importance == name]
        for name in dict.fromkeys(r.importance for r in fitting)
    }


def size_against_fidelity(
    variants: dict[str, JudgedVariant], looked: dict[str, Look], controls: list[JudgedControl]
) -> Figure:
    """Times that the file is smaller against the median PSNR: variants, the front they make, and the controls."""
    figure, axis = axes(11, 7, "Size against fidelity to FP32's images", "", "PSNR of the median image in dB")
    others = {name: rows for name, rows in by_importance(controls).items() if name != "fisher"}
    found = {name: one.images.fidelity.median for name, one in variants.items()}
    whole = variants["fp32"].measured.file_bytes
    drawn = FidelityAxis(axis, [*found.values(), *(r.judged.fidelity.median for rows in others.values() for r in rows)])
    places = {
        name: drawn.point(variants[name].times_smaller, one, name, told(name, variants[name]), looked[name])
        for name, one in found.items()
    }
    front = pareto_front(list(places.values()))
    (line,) = axis.plot(*zip(*front, strict=True), color="#999999", label="Pareto front", zorder=1)
    for name, rows in others.items():
        key, look = f"control_{name}", looks.of_importance(name)
        for row in rows:
            place = whole / row.stored.file_bytes
            drawn.point(place, row.judged.fidelity.median, key, told_control(row), look)
    size_axis(axis)
    shown = looked | {f"control_{name}": looks.of_importance(name) for name in others}
    legend(figure, shown, {f"control_{name}": f"control: {title_of(name)}" for name in others}, (line,))
    labels.label_points(
        axis, [labels.Named(n, looked[n].family, looked[n].colour, place) for n, place in places.items()]
    )
    return figure


def control_lines(controls: list[JudgedControl]) -> Figure:
    """Median PSNR and paired difference in FID along the size limits, one line per importance.

    Limits that count other bytes are a row of axes of their own.
    """
    kinds = list(dict.fromkeys(row.equal for row in controls))
    figure = Figure(figsize=(11, 5.6 * len(kinds)), layout="constrained")
    for pair, equal in zip(figure.subplots(len(kinds), 2, squeeze=False), kinds, strict=True):
        draw_lines(*pair, by_importance([row for row in controls if row.equal == equal]))
        for axis in pair:
            size_axis(axis, equal.axis)
    names = by_importance(controls)
    legend(
        figure, {f"control_{n}": looks.of_importance(n) for n in names}, {f"control_{n}": title_of(n) for n in names}
    )
    return figure


def draw_lines(fidelity: Axes, paired: Axes, found: dict[str, list[JudgedControl]]) -> None:
    """By importance, those whose limits count the same bytes."""
    label(fidelity, "Fidelity to FP32's images", "", "PSNR of the median image in dB")
    label(paired, "Difference in FID, same noise", "", "FID − FID of FP32 (95 % interval)")
    paired.axhline(0, **ZERO)
    drawn = FidelityAxis(fidelity, [row.judged.fidelity.median for rows in found.values() for row in rows])
    for name, rows in found.items():
        key, look, joined = f"control_{name}", looks.of_importance(name), {"color": looks.of_importance(name).colour}
        places = []
        for row in rows:
            title, difference = told_control(row), row.judged.difference
            places.append(drawn.point(row.ratio, row.judged.fidelity.median, key, title, look))
            point(paired, (row.ratio, difference.mean), key, title, look, spread(difference))
        path(fidelity, places, key, title_of(name), **joined)
        path(paired, [(row.ratio, row.judged.difference.mean) for row in rows], key, title_of(name), **joined)
    difference_axis(paired, [row.judged.difference for rows in found.values() for row in rows])
