"""The study as tables and a figure, and the tables in docs/coverage.md."""

import re
from collections.abc import Iterator
from pathlib import Path

import figure
from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.quality.statistics import CONFIDENCE
from laqfi.report.tables import as_markdown

BLOCK = re.compile(r"(<!-- coverage -->\n).*?(<!-- / -->)", re.S)
GROUPS = 20
MOSTLY = 0.5  # of the samples refused: the share of the others says nothing
MARK = """Each share is of {one} samples of one seed or {three} of three; nominal is {nominal}. ↓ and ↑: it is below
or above that by more than chance explains (the share's own 95 % interval leaves it out); of cells that are as they
should be, one in twenty has such a mark. The quantile of max-t is of {draws:,} draws."""
TITLES = {
    "fid": "The FID's interval, and the one at infinitely many images (20 groups)",
    "difference": "The paired difference's interval (20 groups)",
    "groups": "By number of groups (300 images, the value at 300 images)",
    "kid": "KID (300 images, 20 groups)",
    "verdicts": "Tables of 18 paired differences (300 images, 20 groups)",
    "medians": "The interval of the median PSNR",
}


def percent(share: dict | None) -> str:
    """A share, marked where it is not the nominal one but for chance."""
    if share is None:
        return ""
    mark = " ↓" if share["high"] < CONFIDENCE else " ↑" if share["low"] > CONFIDENCE else ""
    return f"{100 * share['value']:.1f} %{mark}"


def number(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def found(row: dict) -> str:
    """How often the interval holds, or that it is mostly refused."""
    if row["refused"] > MOSTLY:
        return f"refused ({100 * row['refused']:.1f} %)"
    return percent(row["holds"]) + (f" ({100 * row['refused']:.0f} % refused)" if row["refused"] else "")


class Rows:
    """The rows of one measure and number of groups, by what they are of."""

    def __init__(self, results: dict, measure: str, groups: int = GROUPS):
        self.rows = [row for row in results["rows"] if row["measure"] == measure and row["groups"] == groups]

    def samples(self, changed: bool) -> list[tuple]:
        """Population, change and images of the rows, each once."""
        chosen = [row for row in self.rows if (row["change"] is not None) == changed]
        return list(dict.fromkeys((row["population"], row["change"], row["images"]) for row in chosen))

    def one(self, sample: tuple, seeds: int, truth: str = "images", extrapolated: bool = False) -> dict:
        wanted = (*sample, seeds, truth, extrapolated)
        keys = ("population", "change", "images", "seeds", "truth", "extrapolated")
        return next(row for row in self.rows if tuple(row[key] for key in keys) == wanted)


def fid_rows(results: dict) -> Iterator[dict[str, str]]:
    rows = Rows(results, "FID")
    for sample in rows.samples(changed=False):
        own, infinite = rows.one(sample, 1), rows.one(sample, 3, "infinite")
        yield {
            "features": sample[0],
            "images N": str(sample[2]),
            "FID of N": number(own["value"]),
            "FID∞": number(infinite["value"]),
            "holds the FID of N: 1 seed": found(own),
            "3 seeds": found(rows.one(sample, 3)),
            "holds FID∞, 3 seeds": found(infinite),
            "extrapolated holds FID∞: 1 seed": found(rows.one(sample, 1, "infinite", True)),
            "extrapolated, 3 seeds": found(rows.one(sample, 3, "infinite", True)),
            "standard error, of the true one": f"{own['too_wide']:.2f} ×",
        }


def difference_rows(results: dict) -> Iterator[dict[str, str]]:
    rows = Rows(results, "FID")
    for sample in rows.samples(changed=True):
        own, infinite = rows.one(sample, 1), rows.one(sample, 3, "infinite")
        yield {
            "features": sample[0],
            "change": sample[1],
            "images N": str(sample[2]),
            "difference at N": number(own["value"]),
            "at ∞": number(infinite["value"]),
            "holds that at N: 1 seed": found(own),
            "3 seeds": found(rows.one(sample, 3)),
            "holds that at ∞, 3 seeds": found(infinite),
            "extrapolated, 3 seeds": found(rows.one(sample, 3, "infinite", True)),
            "standard error, of the true one": f"{own['too_wide']:.2f} ×",
        }


def group_rows(results: dict) -> Iterator[dict[str, str]]:
    groups = sorted({row["groups"] for row in results["rows"]})
    by_groups = {count: Rows(results, "FID", count) for count in groups}
    fewest = by_groups[groups[0]]
    for sample in fewest.samples(changed=False) + fewest.samples(changed=True):
        cells = {
            f"{count} groups, {seeds} seed{'s' * (seeds > 1)}": found(rows.one(sample, seeds))
            for count, rows in by_groups.items()
            for seeds in (1, 3)
        }
        yield {"features": sample[0], "measure": f"difference, {sample[1]}" if sample[1] else "FID"} | cells


def kid_rows(results: dict) -> Iterator[dict[str, str]]:
    rows = Rows(results, "KID")
    for sample in rows.samples(changed=False) + rows.samples(changed=True):
        one = rows.one(sample, 1)
        yield {
            "features": sample[0],
            "measure": f"difference, {sample[1]}" if sample[1] else "KID",
            "value": f"{one['value'] + 0.0:.3f}".replace("-0.000", "0.000"),
            "holds it: 1 seed": found(one),
            "3 seeds": found(rows.one(sample, 3)),
            "standard error, of the true one": f"{one['too_wide']:.2f} ×",
        }


def verdict_rows(results: dict) -> Iterator[dict[str, str]]:
    for row in results["verdicts"]:
        false, low, high = (100 * row["false"][key] for key in ("value", "low", "high"))
        yield {
            "table": f"{row['table']}, {row['seeds']} seed{'s' * (row['seeds'] > 1)}",
            "judged by": row["way"],
            "all 18 intervals hold": percent(row["all_hold"]),
            "tables with a false verdict": f"{false:.1f} % [{low:.1f}, {high:.1f}]",
            "true differences told": "" if row["found"] is None else f"{100 * row['found']:.0f} %",
            "half-width, standard errors": "" if row["half_width"] is None else f"{row['half_width']:.2f}",
        }


def median_rows(results: dict) -> Iterator[dict[str, str]]:
    for row in results["medians"]:
        yield {"squared errors": row["errors"], "images": str(row["images"]), "holds": percent(row["holds"])}


def tables(results: dict) -> str:
    made = (fid_rows, difference_rows, group_rows, kid_rows, verdict_rows, median_rows)
    note = MARK.format(
        one=results["runs"], three=results["runs"] // 3, nominal=f"{100 * CONFIDENCE:.0f} %", draws=results["draws"]
    )
    parts = [
        f"**{title}**\n\n{as_markdown(list(rows(results)))}" for title, rows in zip(TITLES.values(), made, strict=True)
    ]
    return "\n".join([note + "\n", *parts])


def with_block(text: str, results: dict, path: Path) -> str:
    """The text with the tables in its block. Raises LaqfiError if there is none."""
    if len(BLOCK.findall(text)) != 1:
        raise LaqfiError(f"{path}: found no single block <!-- coverage --> … <!-- / --> to put the tables into")
    return BLOCK.sub(lambda match: f"{match[1]}{tables(results)}{match[2]}", text)


def write(results: dict, out: Path, docs: Path) -> None:
    files.write_text(docs, with_block(files.read_text(docs), results, docs))
    files.write_text(out / "coverage.md", f"# Do the intervals cover?\n\n{tables(results)}")
    files.write_bytes(out / "coverage.png", figure.png_of(results))
