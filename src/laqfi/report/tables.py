"""The tables of a run: rows of readable text, and how they are written for a spreadsheet and for a README."""

import csv
import io

from laqfi.records import Allocation, ControlTable, Evaluation, Floors, Interval
from laqfi.report import differences, noise
from laqfi.report.differences import JudgedVariant
from laqfi.report.verdicts import short_verdict

ONLY_IN_CSV = ("KID", "noise MSE")
IMPORTANCES = {"none": "squared error", "inverse": "inverse Fisher", "uniform": "same bits for all"}


def variant_rows(variants: dict[str, JudgedVariant]) -> list[dict[str, str]]:
    """One row per variant, in the order of params.yaml."""
    return [
        {
            "variant": name,
            "size": f"{one.measured.bytes / 2**20:.3f} MiB",
            "smaller by": smaller_by(one),
            "size band": one.size_band,
            "FID [95 % CI]": fid_cell(one.measured.fid),
            "FID − FP32 [95 % CI]": difference_cell(one.images.difference),
            "verdict": one.images.verdict,
            "FID band": one.images.band,
            "KID": f"{one.measured.kid:.3f}",
            "PSNR": psnr_cell(one.measured.psnr),
            "noise MSE": f"{noise.mean(one.measured.noise_mse.values()):.1e}",
        }
        for name, one in variants.items()
    ]


def headline_rows(variants: dict[str, JudgedVariant], floors: Floors) -> list[dict[str, str]]:
    """One row for every variant of every headline; none where nothing is drawn again."""
    return [
        {
            "drawn": name,
            "variant": variant,
            "smaller by": smaller_by(one),
            "images per seed": f"{one.headlines[name].quality.images:,}",
            "real-vs-real FID": f"{floors.headlines[name].fid.mean:.2f}",
            "FID [95 % CI]": fid_cell(one.headlines[name].quality.fid),
            "FID − FP32 [95 % CI]": difference_cell(one.headlines[name].difference),
            "verdict": one.headlines[name].verdict,
            "FID band": one.headlines[name].band,
            "KID": f"{one.headlines[name].quality.kid:.3f}",
            "PSNR": psnr_cell(one.headlines[name].quality.psnr),
        }
        for name in variants["fp32"].headlines
        for variant, one in variants.items()
        if name in one.headlines
    ]


def uniform_rows(evaluations: dict[str, Evaluation], allocations: dict[str, Allocation]) -> list[dict[str, str]]:
    """One row per variant that keeps some tensors in FP32, beside the one with every weight in FP16."""
    return [
        {
            "variant": name,
            "size, of the control's": f"{found.size:.2f} ×",
            f"FID − FID of {found.control} [95 % CI]": difference_cell(found.difference),
            "verdict": found.verdict,
        }
        for name, found in differences.against_uniform(evaluations, allocations).items()
    ]


def control_rows(table: ControlTable) -> list[dict[str, str]]:
    """One row per size limit, one column per importance: PSNR, and the difference in FID to FP32."""
    by_ratio: dict[float, dict[str, str]] = {}
    for row in differences.controls_against_fp32(table):
        cell = "does not fit"
        if row.judged:
            cell = f"{psnr_cell(row.stored.psnr)}, {row.judged.difference.mean + 0.0:+.2f}"  # + 0.0: no minus zero
        column = IMPORTANCES.get(row.importance, row.importance)
        by_ratio.setdefault(row.ratio, {"smaller by": f"{row.ratio:g} ×"})[column] = cell
    return list(by_ratio.values())


def fisher_rows(table: ControlTable) -> list[dict[str, str]]:
    """One row per size limit, one column per control: its FID minus that of the Fisher information's choice."""

    def cell(found: Interval | None) -> str:
        return "does not fit" if found is None else f"{difference_cell(found, digits=2)} {short_verdict(found)}"

    return [
        {"smaller by": f"{ratio:g} ×", "mean bits": f"{32 / ratio:.1f}"}
        | {IMPORTANCES.get(importance, importance): cell(found) for importance, found in row.items()}
        for ratio, row in differences.controls_against_fisher(table).items()
    ]


def smaller_by(variant: JudgedVariant) -> str:
    return f"{100 * variant.reduction:.1f} % ({variant.times_smaller:.1f} ×)"


def fid_cell(fid: Interval) -> str:
    return f"{fid.mean:.2f} [{fid.low:.2f}, {fid.high:.2f}]"


def psnr_cell(psnr: float | None) -> str:
    return "identical" if psnr is None else f"{psnr:.1f} dB"


def difference_cell(found: Interval, digits: int = 3) -> str:
    mean, low, high = (round(value, digits) + 0.0 for value in (found.mean, found.low, found.high))  # + 0.0: no -0
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


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


def summary_markdown(tables: dict[str, list[dict[str, str]]]) -> str:
    """The tables by their titles; one without rows is left out."""
    return "\n".join(f"{title}:\n\n{as_markdown(rows)}" for title, rows in tables.items() if rows)
