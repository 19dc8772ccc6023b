"""The report as one HTML file that opens offline: one section per question, the finding first."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

from laqfi.report.alike import Alike, summary
from laqfi.report.findings import Finding
from laqfi.report.naming import Names
from laqfi.report.tables import Row, Table

VARIANT = "variant"
HEADINGS = {  # what a reader is told of a column by pointing at its heading
    "all": "95 % interval of the difference that holds for the whole table at once",
    "file": "the whole file, its header included; how many times smaller than FP32's",
    "in memory": "the tensors as they are kept while the model runs; how many times smaller than FP32's",
    "size band": "a word for the share of FP32's file that is saved",
    "FID band": "a word for the FID, relative to that of FP32",
    "median PSNR [95 % CI]": "how near the median image is to FP32's of the same noise",
    "other images": "share of images below 20 dB: they show something else than FP32's [95 % CI]",
    "PSNR of all": "PSNR of all images together",
    "noise MSE": "mean squared change of the predicted noise on held-out images",
}


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, and what it shows, in a few words and in a sentence."""

    name: str
    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Block:
    """Rows that stay together; `summary` is the one row for them, None for a row by itself."""

    summary: Row | None
    rows: list[Row]


@dataclass(frozen=True)
class Shown:
    """A table, which of its rows are one that opens, and a word of explanation."""

    table: Table
    alike: Alike
    note: str = ""

    @property
    def by_variant(self) -> bool:
        """Whether every row is a variant's own."""
        return next(iter(self.table.rows[0])) == VARIANT

    @property
    def blocks(self) -> list[Block]:
        """The rows in their order; those that are alike, if there are several, at the place of the first."""
        rows = self.table.rows
        together = [row for row in rows if self.by_variant and row[VARIANT] in self.alike.variants]
        if len(together) < 2:
            return [Block(None, [row]) for row in rows]
        title = f"{len(together)} {self.alike.kind}"
        found = []
        for row in rows:
            if row is together[0]:
                found.append(Block(summary(together, VARIANT, title), together))
            elif row not in together:
                found.append(Block(None, [row]))
        return found

    @property
    def words(self) -> list[str]:
        """What stands below it."""
        folded = any(block.summary for block in self.blocks)
        return [text for text in (self.table.rule, self.alike.rule if folded else "", self.note) if text]


@dataclass(frozen=True)
class Section:
    """A question, its answers, and what shows them; the first figure and the first table are the most telling."""

    key: str
    question: str
    findings: Sequence[Finding] = ()
    figures: Sequence[Picture] = ()
    tables: Sequence[Shown] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def render(title: str, facts: Mapping[str, str], sections: Sequence[Section], names: Names) -> str:
    """One page by itself; `names` says what the names of variants stand for.

    Everything is escaped but its own script and the SVG of the pictures. The page may load nothing, and run no other
    script.
    """
    environment = Environment(loader=PackageLoader("laqfi", "report"), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"marked": marked, "pieces": pieces}
    script = environment.get_template("page.js.j2").render()
    return environment.get_template("page.html.j2").render(
        title=title,
        facts=facts,
        sections=sections,
        names=names,
        headings=HEADINGS,
        script=script,
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def marked(sentence: str) -> list[str]:
    """A sentence in parts, every second of which stood in `backquotes`; numbers and their units stay on one line."""
    return sentence.replace(" ×", "\u00a0×").replace(" dB", "\u00a0dB").split("`")


def pieces(cell: str) -> list[str]:
    """A cell in parts, every second of which is in brackets."""
    return re.split(r"(\[[^\]]*\]|\([^)]*\))", cell)
