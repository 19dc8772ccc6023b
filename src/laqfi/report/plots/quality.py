"""Figures of size against quality: of the variants, and of the controls of the same size."""

import math

import numpy as np
from matplotlib.figure import Figure

from laqfi.records import Floors, Interval
from laqfi.report.differences import JudgedControl, JudgedVariant
from laqfi.report.plots.canvas import ZERO, axes, label, log_sizes, look
from laqfi.report.tables import IMPORTANCES


def spread(found: Interval) -> list[list[float]]:
    """The interval as matplotlib wants it: lengths below and above the mean."""
    return [[found.mean - found.low], [found.high - found.mean]]


def size_against_fid(variants: dict[str, JudgedVariant], floors: Floors) -> Figure:
    """Bytes against FID, absolute and as the paired difference to FP32, each with its interval."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    absolute, paired = figure.subplots(1, 2)
    label(absolute, "FID", "size in MiB", "FID (lower is better)")
    label(paired, "Difference in FID, same noise", "size in MiB", "FID − FID of FP32")
    absolute.axhline(floors.fid.mean, label="real against real", **ZERO)
    base = variants["fp32"].measured.fid
    absolute.axhspan(base.low, base.high, color="#EEEEEE")
    paired.axhline(0, **ZERO)
    for place, (name, one) in enumerate(variants.items()):
        style = {"label": name, "linestyle": "", "capsize": 3, **look(place)}
        for axis, found in ((absolute, one.measured.fid), (paired, one.images.difference)):
            axis.errorbar(one.measured.bytes / 2**20, found.mean, spread(found), **style)
    absolute.set_yscale("log")
    paired.set_yscale("symlog", linthresh=0.1)  # linear around zero, where most variants are
    for axis in (absolute, paired):
        log_sizes(axis, (1, 2, 5))
    figure.legend(*absolute.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other equals or exceeds in both coordinates, by the first."""
    best = sorted(set(points), reverse=True)
    return sorted(p for place, p in enumerate(best) if all(p[1] > other[1] for other in best[:place]))


def by_importance(controls: list[JudgedControl]) -> dict[str, list[JudgedControl]]:
    """Those that fit their size limit, by the name of their importance."""
    fitting = [row for row in controls if row.judged]
    names = dict.fromkeys(row.importance for row in fitting)
    return {IMPORTANCES.get(name, name): [row for row in fitting if row.importance == name] for name in names}


def size_against_psnr(variants: dict[str, JudgedVariant], controls: list[JudgedControl]) -> Figure:
    """How many times smaller against PSNR: every variant, the front they make, and the controls beside it."""
    figure, axis = axes(12, 7, "Size against fidelity to FP32's images", "times smaller than FP32", "PSNR in dB")
    points = {
        name: (one.times_smaller, one.images.fidelity.median.value)
        for name, one in variants.items()
        if math.isfinite(one.images.fidelity.median.value)
    }
    front = pareto_front(list(points.values()))
    axis.plot([size for size, _ in front], [psnr for _, psnr in front], color="#999999", label="Pareto front")
    for place, (name, point) in enumerate(points.items()):
        axis.plot(*point, markersize=8, linestyle="", label=name, **look(place))
    others = by_importance([row for row in controls if row.importance != "fisher"])
    for place, (title, rows) in enumerate(others.items()):
        style = look(place) | {"fillstyle": "none", "color": "#555555", "linestyle": ""}
        axis.plot(
            [r.ratio for r in rows], [r.judged.fidelity.median.value for r in rows], label=f"control: {title}", **style
        )
    log_sizes(axis, (1, 1.5, 2, 3, 5, 7))
    figure.legend(loc="outside lower center", ncols=6)
    return figure


def control_lines(controls: list[JudgedControl]) -> Figure:
    """PSNR and paired difference in FID along the size limits, one line per importance."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    fidelity, paired = figure.subplots(1, 2)
    label(fidelity, "Fidelity to FP32's images", "times smaller than FP32", "PSNR in dB (higher is better)")
    label(paired, "Difference in FID, same noise", "times smaller than FP32", "FID − FID of FP32 (95 % interval)")
    for place, (title, rows) in enumerate(by_importance(controls).items()):
        style = look(place) | {"label": title}
        known = [row for row in rows if math.isfinite(row.judged.fidelity.median.value)]
        fidelity.plot([row.ratio for row in known], [row.judged.fidelity.median.value for row in known], **style)
        found = [row.judged.difference for row in rows]
        spreads = np.hstack([spread(one) for one in found])
        paired.errorbar([row.ratio for row in rows], [one.mean for one in found], spreads, capsize=3, **style)
    paired.axhline(0, **ZERO)
    paired.set_yscale("symlog", linthresh=0.1)
    figure.legend(*fidelity.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure
