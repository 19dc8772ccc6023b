"""Size against quality of laqfi and of others on one network: `python studies/front.py --out reports/front.png`.

What the reports of profiles with the model of `quick` say, and what `make bench` measured of SDNQ and optimum-quanto on
that model (reports/bench/head_to_head.json). A line joins the best of a kind: those than which none as small is nearer.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from laqfi.base import files
from laqfi.report.plots.canvas import axes, png, size_axis

SAME = 64.0  # dB, where images stand of which more than half are equal in all pixels
BENCH = "bench/head_to_head.json"


class Kind(NamedTuple):
    """What has one mark: variants, or cases of the bench, of the `report` whose names begin with one of `names`."""

    title: str
    report: str
    names: tuple[str, ...]
    marker: str
    colour: str


KINDS = (  # colours of Okabe and Ito (2008)
    Kind("laqfi: one step for all, recovered", "recovered", ("rate_recovered_",), "o", "#D55E00"),
    Kind("laqfi: one step for all (rate)", "recovered", ("rate_image_",), "s", "#E69F00"),
    Kind("laqfi: formats by Fisher (budget)", "quick", tuple(f"budget_{n}" for n in (6, 7, 8, 10, 14)), "D", "#0072B2"),
    Kind("laqfi's Q-Diffusion, W4A32", "methods", ("q_diffusion_w4_a32",), "P", "#009E73"),
    Kind("one format for all, to nearest (int8, int4)", "quick", ("int8", "int4"), "v", "#56B4E9"),
    Kind("the seed report's policies, float16", "quick", ("uniform", "ratio_", "group_", "mean_std"), "^", "#999999"),
    Kind("SDNQ", BENCH, ("SDNQ",), "X", "#CC79A7"),
    Kind("optimum-quanto", BENCH, ("quanto",), "*", "#000000"),
)


class Place(NamedTuple):
    smaller: float  # times, than FP32's file
    psnr: float  # dB, of the median image


def places(kind: Kind, reports: Path) -> list[Place]:
    """Of all that the kind names, from the largest file to the smallest."""
    rows = of_bench(reports / BENCH) if kind.report == BENCH else of_profile(reports / kind.report / "metrics.json")
    return sorted(
        place for name, place in rows if name.startswith(kind.names) and not name.endswith(("_nearest", "_coded"))
    )


def of_profile(path: Path) -> Iterator[tuple[str, Place]]:
    variants = files.read_json(path)["variants"]
    for name, one in variants.items():
        yield name, Place(variants["fp32"]["file_bytes"] / one["file_bytes"], one.get("median_psnr", SAME))


def of_bench(path: Path) -> Iterator[tuple[str, Place]]:
    network = next(one for one in files.read_json(path)["networks"] if one["title"] == "quick")
    for row in network["rows"]:
        if "error" not in row:
            yield row["case"], Place(network["bytes"] / row["bytes"], row["median_psnr"])


def best(found: list[Place]) -> list[Place]:
    """Those than which nothing as small is nearer."""
    return [one for one in found if not any(other.smaller >= one.smaller and other.psnr > one.psnr for other in found)]


def front(reports: Path) -> Figure:
    figure, axis = axes(
        9.5,
        5.6,
        "One network of 0.6 M parameters, eight ways to make its file smaller",
        "",
        "median PSNR to FP32's images, dB",
    )
    for kind in KINDS:
        found = places(kind, reports)
        axis.plot(*zip(*found, strict=True), kind.marker, color=kind.colour, markersize=8, label=kind.title, zorder=3)
        axis.plot(*zip(*best(found), strict=True), "-", color=kind.colour, linewidth=1.4)
    axis.axhline(SAME, color="#555555", linestyle=":", linewidth=1)
    axis.annotate("more than half of all images equal", (0.06, SAME), xycoords=("axes fraction", "data"), va="bottom")
    size_axis(axis)
    axis.legend(fontsize=9, loc="upper right")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder of the reports")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    asked = parser.parse_args()
    files.write_bytes(asked.out, png(front(asked.reports)))


if __name__ == "__main__":
    main()
