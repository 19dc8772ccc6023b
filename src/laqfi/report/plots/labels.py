"""Names beside points, placed so that they overlap neither each other nor the marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from laqfi.report.plots.canvas import name

NEAR = (18, 18), (52, 8)  # pixels in x and in y up to which points of one family count as one heap, or in a row as one
DISTANCES = (9, 18, 30, 44)  # points from the mark, the nearest first
DIRECTIONS = ((1, 0.35), (-1, 0.35), (0, 1), (0, -1), (1, -0.8), (-1, -0.8), (1, 1), (-1, 1))
SIDES = {-1: "right", 0: "center", 1: "left"}
HEAP = 3  # points that one label stands for, at least


@dataclass(frozen=True)
class Named:
    """A point (x, y) of an axis, its name, its family and the colour of both; `bar`: the ends of its interval in y."""

    name: str
    family: str
    colour: str
    place: tuple[float, float]
    bar: tuple[float, float] | None = None


def label_points(axis: Axes, points: Sequence[Named]) -> None:
    """A name beside each point; a heap of points of one family has one label, which counts them.

    The layout of the figure is made first, as it decides what overlaps; what finds no free place gets no label: a
    table and the legend name it too.
    """
    figure = axis.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    pixels = [tuple(axis.transData.transform(point.place)) for point in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in pixels]
    taken += [bar_of(axis, point) for point in points if point.bar]
    taken += lines(axis) + [text.get_window_extent(renderer) for text in axis.texts]
    frame = axis.get_window_extent(renderer)
    for members in heaps(points, pixels):
        if len(members) < HEAP:
            texts = {member: points[member].name for member in members}
        else:
            texts = {members[0]: f"{len(members)} × {points[members[0]].family}"}
        for member, text in texts.items():
            place_label(axis, text, points[member], taken, frame, renderer)


def bar_of(axis: Axes, point: Named) -> Bbox:
    (x, low), (_, high) = (axis.transData.transform((point.place[0], end)) for end in point.bar)
    return Bbox([[x - 2, low], [x + 2, high]])


def lines(axis: Axes) -> list[Bbox]:
    """Small boxes along every line of the axes, near enough to each other that no name fits between them."""
    found = []
    for line in axis.lines:
        corners = line.get_transform().transform(line.get_xydata())
        for (x0, y0), (x1, y1) in pairwise(corners):
            steps = np.linspace(0, 1, 2 + int(max(abs(x1 - x0), abs(y1 - y0)) / 6))
            found += [Bbox.from_bounds(x0 + s * (x1 - x0) - 1, y0 + s * (y1 - y0) - 1, 2, 2) for s in steps]
    return found


def heaps(points: Sequence[Named], pixels: Sequence[tuple[float, float]]) -> list[list[int]]:
    """Indices of the points by heap: of one family, each near another of them."""
    found: list[list[int]] = []
    for index, (point, (x, y)) in enumerate(zip(points, pixels, strict=True)):
        touching = [
            heap
            for heap in found
            if any(
                points[other].family == point.family
                and any(abs(pixels[other][0] - x) < dx and abs(pixels[other][1] - y) < dy for dx, dy in NEAR)
                for other in heap
            )
        ]
        joined = [*(other for heap in touching for other in heap), index]
        found = [heap for heap in found if heap not in touching] + [sorted(joined)]
    return sorted(found)


def place_label(axis: Axes, text: str, point: Named, taken: list[Bbox], frame: Bbox, renderer) -> None:
    """At the first of some places around the point that is free and within the axes."""
    drawn = axis.annotate(
        text, point.place, (0, 0), textcoords="offset points", fontsize=8.5, color=point.colour, annotation_clip=False
    )
    drawn.set_in_layout(False)
    name(drawn, point.name, text)
    for distance in DISTANCES:
        for right, up in DIRECTIONS:
            drawn.xyann = (right * distance, up * distance)
            drawn.set_ha(SIDES[right])
            drawn.set_va("center")
            box = drawn.get_window_extent(renderer)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                if distance > DISTANCES[0]:
                    line = {"arrowstyle": "-", "color": point.colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
                    axis.annotate("", point.place, drawn.xyann, textcoords="offset points", arrowprops=line)
                return
    drawn.remove()
