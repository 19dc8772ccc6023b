"""The tables of a run: rows of readable text, and how they are written for a spreadsheet and for a README."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

from laqfi.quality.fidelity import fidelity
from laqfi.records import Allocation, ControlTable, Evaluation, Floors
from laqfi.report import differences, noise
from laqfi.report.cells import (
    decibels,
    difference_cell,
    ends_cell,
    fid_cell,
    importance,
    interval_cell,
    median_cell,
    psnr_cell,
    share_cell,
)
from laqfi.report.differences import AgainstFisher, Judged, JudgedVariant
from laqfi.report.equal_bytes import KINDS, MEMORY, EqualBytes
from laqfi.report.verdicts import short_verdict

Row = dict[str, str]

ONLY_IN_CSV = ("KID [95 % CI]", "KID − FP32 [95 % CI]", "PSNR of all", "noise MSE")
FAMILY = (
    "Verdicts go by the intervals marked “all”: max-t over the whole table, so that with 95 % confidence none of its"
    " verdicts is wrong. The narrower ones hold for one comparison alone; of twenty about one of those leaves out zero"
    " by chance."
)
BETTER = (
    "Better than FP32 means nearer to the data by FID, not nearer to FP32: a change can move images towards the data's"
    " statistics, most of all those of a model that was not trained to its end."
)


@dataclass(frozen=True)
class Table:
    """Rows by their columns, and the rule by which its words were chosen."""

    title: str
    rows: list[Row]
    rule: str = ""


def variant_table(variants: dict[str, JudgedVariant]) -> Table:
    """One row per variant, in the order of params.yaml."""
    rows = [
        {
            "variant": name,
            **size_cells(one),
            "size band": one.size_band,
            **quality_cells(one.images),
            "noise MSE": f"{noise.mean(one.measured.noise_mse.values()):.1e}",
        }
        for name, one in variants.items()
    ]
    return Table("Every variant", rows, family_rule(one.images.verdict for one in variants.values()))


def headline_table(variants: dict[str, JudgedVariant], floors: Floors) -> Table:
    """One row for every variant of every headline; none where nothing is drawn again."""
    again = [
        (headline, name, one, one.headlines[headline])
        for headline in variants["fp32"].headlines
        for name, one in variants.items()
        if headline in one.headlines
    ]
    rows = [
        {
            "drawn": headline,
            "variant": name,
            **size_cells(one),
            "images per seed": f"{found.quality.images:,}",
            "real-vs-real FID": f"{floors.headlines[headline].fid.mean:.2f}",
            **quality_cells(found),
        }
        for headline, name, one, found in again
    ]
    rule = family_rule(found.verdict for *_, found in again)
    return Table("Drawn again, with more images or another sampler", rows, rule)


def quality_cells(judged: Judged) -> Row:
    """What every table says of some images beside FP32's."""
    return {
        "FID [95 % CI]": fid_cell(judged.quality.fid),
        "FID − FP32 [95 % CI]": difference_cell(judged.difference),
        "all": ends_cell(judged.simultaneous),
        "verdict": judged.verdict,
        "FID band": judged.band,
        "KID [95 % CI]": interval_cell(judged.quality.kid, 4),
        "KID − FP32 [95 % CI]": difference_cell(judged.kid_difference.plain, 4),
        "median PSNR [95 % CI]": median_cell(judged.fidelity.median),
        "other images": share_cell(judged.fidelity.tipped),
        "PSNR of all": psnr_cell(judged.fidelity.pooled),
    }


def family_rule(verdicts: Iterable[str]) -> str:
    return f"{FAMILY} {BETTER}" if any(word.startswith("better") for word in verdicts) else FAMILY


def second_network_table(variants: dict[str, JudgedVariant]) -> Table:
    """The FID of the same images by a second feature network; no rows where there is none."""
    rows = [
        {
            "variant": name,
            "FID, first network": fid_cell(one.measured.fid),
            "FID, second network": fid_cell(one.measured.fid_again),
            "FID − FP32, first": difference_cell(one.images.difference),
            "FID − FP32, second": difference_cell(one.images.again.plain),
            "verdict, first": short_verdict(one.images.simultaneous),
            "verdict, second": short_verdict(one.images.again.simultaneous),
        }
        for name, one in variants.items()
        if one.images.again
    ]
    rule = (
        "The two networks differ only in the seed of their training. FIDs of two networks are in units of their own;"
        " what carries over is their order and the verdicts, each by the intervals of its whole column."
    )
    return Table("The same images, judged by a second feature network", rows, rule)


def uniform_table(evaluations: dict[str, Evaluation], allocations: dict[str, Allocation]) -> Table:
    """One row per variant that keeps some tensors in FP32, beside the one with every weight in FP16."""
    rows = [
        {
            "variant": name,
            "size in memory, of the control's": f"{found.size:.2f} ×",
            f"FID − FID of {found.control} [95 % CI]": difference_cell(found.difference.plain),
            "all": ends_cell(found.difference.simultaneous),
            "verdict": found.verdict,
        }
        for name, found in differences.against_uniform(evaluations, allocations).items()
    ]
    return Table("FP16: does it matter which tensors stay in FP32?", rows, FAMILY)


def control_tables(table: ControlTable) -> dict[str, Table]:
    """By their names, for each kind of equal bytes; without rows where the run has no limit of these."""
    makers = {"controls": control_table, "gains": gain_table, "against_fisher": fisher_table}
    return {equal.named(name): make(table, equal) for equal in KINDS for name, make in makers.items()}


def control_table(table: ControlTable, equal: EqualBytes = MEMORY) -> Table:
    """One row per size limit, one column per importance: median PSNR, and the difference in FID to FP32."""
    by_ratio: dict[float, Row] = {}
    for row in differences.equal_against_fp32(table, equal):
        cell = "does not fit"
        if row.judged:
            difference = row.judged.difference.mean + 0.0  # no minus zero
            cell = f"{median_cell(row.judged.fidelity.median)}, {difference:+.2f}"
            cell += "" if row.precision == table.precision else f" ({row.precision})"
        by_ratio.setdefault(row.ratio, size_cell(row.ratio, equal))[importance(row.importance)] = cell
    title = "The same size, formats chosen by other ideas of importance (median PSNR [95 % CI], FID − FP32)"
    return Table(equal.titled(title), list(by_ratio.values()), precision_rule(table))


def size_cell(ratio: float, equal: EqualBytes) -> Row:
    return {f"smaller {equal.as_what} by": f"{ratio:g} ×"}


def precision_rule(table: ControlTable) -> str:
    """What was drawn in which precision, and why it may; nothing where all was drawn in one."""
    return " ".join(
        f"Marked {name}: drawn with products in {name} and compared with FP32 drawn so too, whose median image is then"
        f" {psnr_cell(fidelity(base.squared_error, base.pixels).median.value)} from its own in {table.precision}. Two"
        " independent errors of that size are at most a tenth of the squared error found in those marked, and hide at"
        f" most 0.46 dB of their PSNR. What is nearer to FP32 was drawn in {table.precision}."
        for name, base in table.bases.items()
        if name != table.precision
    )


def fisher_table(table: ControlTable, equal: EqualBytes = MEMORY) -> Table:
    """One row per size limit, one column per control: its FID minus that of the Fisher information's choice."""

    def cell(found: AgainstFisher) -> str:
        wide = found.difference.simultaneous
        return f"{difference_cell(found.difference.plain, 2)} all {ends_cell(wide, 2)} {short_verdict(wide)}"

    title = "From which size on it matters which weights get more bits (FID of the control − FID of Fisher)"
    return Table(equal.titled(title), fisher_rows(table, equal, cell), FAMILY)


def gain_table(table: ControlTable, equal: EqualBytes = MEMORY) -> Table:
    """One row per size limit, one column per control: by how much Fisher's median image is nearer to FP32's."""

    def cell(found: AgainstFisher) -> str:
        words = {"Fisher": "Fisher nearer", "control": "control nearer", "neither": "no difference"}
        gain = found.gain
        ends = f"[{decibels(gain.low)}, {decibels(gain.high)}]"
        return f"{decibels(gain.value)} dB {ends} {words[found.nearer]}"

    rule = (
        "The median over images of PSNR with Fisher's choice minus PSNR with the control's, image by image of the same"
        " noise; intervals of order statistics, wide enough for the whole table at once (Bonferroni, 95 %)."
    )
    title = "By how many dB Fisher's choice is nearer to FP32's images than the control's"
    return Table(equal.titled(title), fisher_rows(table, equal, cell), rule)


def fisher_rows(table: ControlTable, equal: EqualBytes, cell) -> list[Row]:
    return [
        size_cell(ratio, equal)
        | {"mean bits": f"{32 / ratio:.1f}"}
        | {importance(name): "does not fit" if found is None else cell(found) for name, found in row.items()}
        for ratio, row in differences.controls_against_fisher(table, equal).items()
    ]


def size_cells(variant: JudgedVariant) -> Row:
    """Of the whole file, and of the tensors as they are kept in memory; how many times smaller than FP32's."""
    found = variant.measured
    return {
        "file": f"{found.file_bytes / 2**20:.3f} MiB ({variant.times_smaller:.1f} ×)",
        "in memory": f"{found.bytes / 2**20:.3f} MiB ({variant.in_memory:.1f} ×)",
    }


def as_csv(rows: list[dict[str, str]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_markdown(rows: list[dict[str, str]]) -> str:
    """The table without its least read columns, narrow enough for a README."""
    columns = [column for column in rows[0] if column not in ONLY_IN_CSV]
    lines = [columns, ["---"] * len(columns), *[[row[column] for column in columns] for row in rows]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def summary_markdown(findings: list[str], tables: Iterable[Table]) -> str:
    """The findings, and the tables by their titles with their rules; a table without rows is left out."""
    blocks = ["Findings:\n\n" + "".join(f"- {sentence}\n" for sentence in findings)]
    for table in tables:
        if table.rows:
            rule = f"\n{table.rule}\n" if table.rule else ""
            blocks.append(f"{table.title}:\n\n{as_markdown(table.rows)}{rule}")
    return "\n".join(blocks)
