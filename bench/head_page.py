"""What the head to head found, as numbers and as a page of tables."""

import math

from laqfi.records import Interval
from laqfi.report.cells import difference_cell, ends_cell, fid_cell, median_cell
from laqfi.report.differences import Judged
from laqfi.report.tables import as_markdown

KB = 1000
NOTES = """“Bytes” are those of all tensors that are stored, “memory” those of all that the network holds once it is
loaded. SDNQ and quanto keep biases and norms in float32, and quanto transposed convolutions too; SDNQ gives a
convolution a scale per output channel and kernel position. laqfi is given the bytes of each and finds formats for them
(`budget`, rounding gptq, for images of this size: kernel positions that only meet padding are not stored); its seconds
are those of measuring the network, which is done once, and of one such choice. Mean noise MSE is the squared error of
the predicted noise, over twelve timesteps. FID and median PSNR are of the same noise for all; verdicts go by intervals
that hold for a whole table at once. Better than FP32 means nearer to the data by FID, not nearer to FP32."""


def numbers(found: dict) -> dict:
    """One network without its images' errors; what is infinite is None."""
    return {**found, "fid": interval(found["fid"]), "rows": [row_numbers(row) for row in found["rows"]]}


def row_numbers(row: dict) -> dict:
    kept = {key: value for key, value in row.items() if key not in ("quality", "judged")}
    return kept if row["judged"] is None else kept | judged_numbers(row["judged"])


def judged_numbers(found: Judged) -> dict:
    median = found.fidelity.median
    return {
        "cells": {
            "median PSNR": median_cell(median),
            "FID − FP32": difference_cell(found.difference, 2),
            "all": ends_cell(found.simultaneous, 2),
            "verdict": found.verdict,
        },
        "median_psnr": median.value if math.isfinite(median.value) else None,
        "fid_difference": interval(found.difference),
    }


def interval(found: Interval) -> dict:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def cells(row: dict, base: dict) -> dict[str, str]:
    """One row of the table; a case that failed has nothing but the reason."""
    if "error" in row:
        return {"case": row["case"], "verdict": row["error"]}
    return {
        "case": row["case"],
        "bytes": f"{row['bytes'] / KB:.1f} kB",
        "smaller": f"{base['bytes'] / row['bytes']:.2f} ×",
        "memory": f"{row['resident_bytes'] / KB:.1f} kB",
        "mean noise MSE": f"{row['noise_mse']:.1e}",
        **row["cells"],
        "seconds to quantize": f"{row['seconds']:.1f}",
        "drawing ÷ FP32's": f"{row['times_fp32']:.2f}",
    }


def table(rows: list[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(column for row in sorted(rows, key=len, reverse=True) for column in row))
    return as_markdown([{column: row.get(column, "") for column in columns} for row in rows])


def beside_its_rival(rows: list[dict]) -> list[dict]:
    """Every rival followed by laqfi at its bytes."""
    own = {row["case"].removeprefix("laqfi, bytes of "): row for row in rows if row["case"].startswith("laqfi")}
    others = [row for row in rows if not row["case"].startswith("laqfi")]
    return [one for row in others for one in (row, own.get(row["case"])) if one]


def export_table(rows: list[dict]) -> str:
    """What the folders for diffusers take beside the stored tensors they are made of."""
    return table(
        [
            {
                "case": row["case"],
                "stored": f"{row['bytes'] / KB:.1f} kB",
                "exported file": f"{row['exported']['file_bytes'] / KB:.1f} kB",
                "memory in diffusers": f"{row['exported']['resident_bytes'] / KB:.1f} kB",
                "memory ÷ stored": f"{row['exported']['resident_bytes'] / row['bytes']:.3f}",
                "largest difference of ε": f"{row['exported']['largest_change']:.1e}",
                "of a pixel, 0 to 255": f"{row['exported']['largest_step']}",
            }
            for row in rows
            if "exported" in row
        ]
    )


def network(found: dict) -> str:
    about = (
        f"{found['parameters'] / 1e6:.2f} M parameters, {found['bytes'] / KB:.0f} kB in float32,"
        f" FID of FP32 {fid_cell(Interval(**found['fid']))}."
    )
    parts = [f"## {found['title']}\n", about + "\n", table([cells(r, found) for r in beside_its_rival(found["rows"])])]
    if any("exported" in row for row in found["rows"]):
        parts += ["Exported as folders of diffusers, and loaded by it:\n", export_table(found["rows"])]
    return "\n".join(parts)


def dead(found: dict) -> str:
    """What the form of diffusers costs where kernel positions are left out here."""
    left, whole, there = (found[key] / KB for key in ("bytes", "whole_bytes", "exported_bytes"))
    return (
        "## Kernel positions that only meet padding\n\n"
        f"A `UNet2DModel` for images of {found['side']} × {found['side']} that halves them down to one pixel,"
        f" {found['parameters'] / 1e6:.2f} M random weights in int4: {left:.1f} kB without the kernel positions that"
        f" only meet padding, {whole:.1f} kB with them. The form of diffusers cannot leave them out: exported the"
        f" first takes {there:.1f} kB, {there / left:.2f} × as much.\n"
    )


def page(results: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    head = f"On {results['name']}, {results['threads']} thread; {versions}; {results['images']:,} images each;"
    return (
        "\n".join(
            [
                "# SDNQ, optimum-quanto and laqfi on the same networks\n",
                f"{head} measured in {results['run_seconds']:.0f} s.\n",
                *[network(found) for found in results["networks"]],
                NOTES + "\n",
                dead(results["dead_positions"]),
            ]
        )
        + "\n"
    )
