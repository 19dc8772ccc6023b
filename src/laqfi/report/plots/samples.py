"""Images of a few variants, and how they differ from FP32's of the same noise."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laqfi.base.pictures import sheet
from laqfi.report.differences import JudgedVariant
from laqfi.report.plots.quality import pareto_front

COLUMNS = 12
FACTORS = (1, 2, 5, 10, 20, 50, 100, 200)
ON_THE_FRONT = 3


def chosen(variants: dict[str, JudgedVariant]) -> list[str]:
    """Of the Pareto front of size and fidelity at most three, evenly spread, and the one furthest from FP32's images.

    From the largest to the smallest; FP32, and what draws the same images, is left out.
    """
    points = {
        name: (one.times_smaller, one.images.fidelity.pooled)
        for name, one in variants.items()
        if math.isfinite(one.images.fidelity.pooled)
    }
    if not points:
        return []
    front = pareto_front(list(points.values()))
    steps = np.linspace(0, len(front) - 1, min(ON_THE_FRONT, len(front))).round().astype(int)
    worst = min(points, key=lambda name: points[name][1])
    on_front = [next(name for name in points if points[name] == front[step]) for step in steps]
    return sorted({*on_front, worst}, key=lambda name: (points[name][0], name))


def sample_rows(images: dict[str, np.ndarray], compared: list[str]) -> Figure:
    """The first images of "real" and of "fp32", then those of each variant compared, and their difference to FP32's.

    images: uint8 [N, C, H, W] by name, the same place is the same noise. A difference is that of the colour that
    differs most, enlarged by the factor that is written beside it.
    """
    rows = 2 + 2 * len(compared)
    columns = min(COLUMNS, *(len(stack) for stack in images.values()))
    figure = Figure(figsize=(9.2, 0.74 * rows), layout="compressed")
    places = iter(figure.subplots(rows, 1))
    pictures = {name: sheet(images[name][:columns], columns) for name in ("real", "fp32", *compared)}
    for name, picture in pictures.items():
        show(next(places), "FP32" if name == "fp32" else name, picture)
        if name in compared:
            show_difference(next(places), picture, pictures["fp32"])
    return figure


def show(axis: Axes, title: str, picture: np.ndarray, **style: object) -> None:
    axis.imshow(picture, interpolation="none", **({"cmap": "gray", "vmin": 0, "vmax": 255} | style))
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_frame_on(False)
    axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10)


def factor_of(difference: np.ndarray) -> int:
    """The largest of some factors with which all but one of a hundred pixels stay within the scale of ± 255."""
    most = max(float(np.quantile(np.abs(difference), 0.99)), 1e-9)
    return max(factor for factor in FACTORS if factor == 1 or factor * most <= 255)


def show_difference(axis: Axes, picture: np.ndarray, base: np.ndarray) -> None:
    differences = picture.astype(float) - base
    most = np.abs(differences).argmax(axis=-1, keepdims=True)
    difference = np.take_along_axis(differences, most, axis=-1)[..., 0]
    factor = factor_of(difference)
    title = f"− FP32, × {factor}" if difference.any() else "− FP32: none"
    show(axis, title, difference * factor, cmap="RdBu_r", vmin=-255, vmax=255)
