"""Every difference of a run, formed from what was measured: to FP32, to one float format for all, to Fisher's choice.

A difference is always paired: both sides drew from the same noise, seed by seed and image by image. The differences
of one table are one family: their verdicts go by intervals that hold for all of them at once.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from laqfi.quality import fidelity, simultaneous, statistics
from laqfi.quality.fidelity import Fidelity, Median
from laqfi.records import (
    Allocation,
    ControlRow,
    ControlTable,
    Evaluation,
    Interval,
    Jackknife,
    Quality,
    StoredQuality,
)
from laqfi.report.equal_bytes import KINDS, MEMORY, EqualBytes
from laqfi.report.verdicts import fid_band, size_band, verdict

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """A paired difference with its own 95 % interval, and with the one that holds for its whole table at once."""

    plain: Interval
    simultaneous: Interval


def paired(one: Jackknife, control: Jackknife) -> list[statistics.Jackknifed]:
    return statistics.paired_difference(statistics.runs_of(one), statistics.runs_of(control))


def family(pairs: Mapping[Name, tuple[Jackknife, Jackknife]]) -> dict[Name, Difference]:
    """Every first minus its second, as one family of comparisons."""
    return differences_of({name: paired(*pair) for name, pair in pairs.items()})


def differences_of(runs: Mapping[Name, list[statistics.Jackknifed]]) -> dict[Name, Difference]:
    wide = simultaneous.intervals(runs)
    return {name: Difference(statistics.interval(one), wide[name]) for name, one in runs.items()}


@dataclass(frozen=True)
class Judged:
    """The quality of some images beside FP32's of the same noise.

    `difference`: of the FID, with its own interval; `simultaneous`: with that of the whole table, by which the verdict
    goes. `kid_difference` and `again`, the FID by the second feature network, are families of their own.
    """

    quality: Quality
    fidelity: Fidelity
    difference: Interval
    simultaneous: Interval
    verdict: str
    band: str
    kid_difference: Difference
    again: Difference | None


def judged(measured: Mapping[Name, Quality], base: Quality) -> dict[Name, Judged]:
    """One table of images beside those of `base`, which is FP32."""
    return judged_beside({name: (one, base) for name, one in measured.items()})


def judged_beside(measured: Mapping[Name, tuple[Quality, Quality]]) -> dict[Name, Judged]:
    """One table of images, each beside those that FP32 drew as they were drawn."""
    fids = family({name: (one.fid, base.fid) for name, (one, base) in measured.items()})
    kids = family({name: (one.kid, base.kid) for name, (one, base) in measured.items()})
    again = family({name: (one.fid_again, base.fid_again) for name, (one, base) in measured.items() if one.fid_again})
    return {
        name: Judged(
            quality=one,
            fidelity=fidelity.fidelity(one.squared_error, one.pixels),
            difference=fids[name].plain,
            simultaneous=fids[name].simultaneous,
            verdict=verdict(fids[name].simultaneous),
            band=fid_band(one.fid.mean, base.fid.mean),
            kid_difference=kids[name],
            again=again.get(name),
        )
        for name, (one, base) in measured.items()
    }


@dataclass(frozen=True)
class JudgedVariant:
    """What was measured of a variant; `reduction` is the share of FP32's file that its own saves.

    `in_memory`: how many times fewer bytes its tensors are than FP32's, as they are kept while it runs.
    """

    measured: Evaluation
    reduction: float
    in_memory: float
    size_band: str
    images: Judged
    headlines: dict[str, Judged]

    @property
    def times_smaller(self) -> float:
        return 1 / (1 - self.reduction)


def against_fp32(evaluations: dict[str, Evaluation]) -> dict[str, JudgedVariant]:
    """Every variant beside the one called fp32; each headline is a table of its own."""
    base = evaluations["fp32"]
    images = judged(evaluations, base)
    again = {
        headline: judged(
            {name: one.headlines[headline] for name, one in evaluations.items() if headline in one.headlines}, found
        )
        for headline, found in base.headlines.items()
    }

    def beside(name: str, one: Evaluation) -> JudgedVariant:
        reduction = 1 - one.file_bytes / base.file_bytes
        headlines = {headline: rows[name] for headline, rows in again.items() if name in rows}
        return JudgedVariant(one, reduction, base.bytes / one.bytes, size_band(reduction), images[name], headlines)

    return {name: beside(name, one) for name, one in evaluations.items()}


@dataclass(frozen=True)
class JudgedControl:
    """A size limit met by one idea of importance: `ratio` times fewer of the bytes `equal` than FP32's weights take.

    None where no choice of formats fits it.
    """

    equal: EqualBytes
    ratio: float
    importance: str
    precision: str
    stored: StoredQuality | None
    judged: Judged | None


def controls_against_fp32(table: ControlTable) -> list[JudgedControl]:
    """Every row, those of equal bytes in memory first; those of each kind of bytes are a table of their own."""
    return [row for equal in KINDS for row in equal_against_fp32(table, equal)]


def equal_against_fp32(table: ControlTable, equal: EqualBytes) -> list[JudgedControl]:
    rows = {(row.ratio, row.importance): row for row in equal.rows(table)}
    found = judged_beside({cell: (row.found, table.bases[row.precision]) for cell, row in rows.items() if row.found})
    return [
        JudgedControl(equal, row.ratio, row.importance, row.precision, row.found, found.get(cell))
        for cell, row in rows.items()
    ]


@dataclass(frozen=True)
class AgainstFisher:
    """A control beside the Fisher information's choice of the same bytes.

    `difference`: its FID minus that of Fisher. `gain`: by how many dB the median image of Fisher's choice is nearer to
    FP32's, in an interval wide enough for all comparisons of the table at once (Bonferroni).
    """

    difference: Difference
    gain: Median

    @property
    def verdict(self) -> str:
        return verdict(self.difference.simultaneous, "Fisher")

    @property
    def nearer(self) -> str:
        """Whose images are nearer to FP32's."""
        if self.gain.low <= 0 <= self.gain.high:
            return "neither"
        return "Fisher" if self.gain.low > 0 else "control"


def controls_against_fisher(
    table: ControlTable, equal: EqualBytes = MEMORY
) -> dict[float, dict[str, AgainstFisher | None]]:
    """By size limit and importance, the control beside the Fisher information's choice of as many bytes.

    All limits that count the same bytes, `equal`, are one family. A limit that the Fisher information's choice cannot
    meet is left out; None is a control that cannot meet it.
    """
    rows = equal.rows(table)
    fisher = {row.ratio: row for row in rows if row.importance == "fisher" and row.found}
    cells = {(row.ratio, row.importance): row for row in rows if row.importance != "fisher" and row.ratio in fisher}
    pairs = {cell: (row, fisher[cell[0]]) for cell, row in cells.items() if row.found}
    fids = differences_of({cell: against(row, ours, table.bases) for cell, (row, ours) in pairs.items()})
    confidence = 1 - (1 - statistics.CONFIDENCE) / max(1, len(pairs))
    beside: dict[float, dict[str, AgainstFisher | None]] = {ratio: {} for ratio in fisher}
    for cell in cells:
        beside[cell[0]][cell[1]] = None
    for cell, (row, ours) in pairs.items():
        errors = ours.found.squared_error, row.found.squared_error
        gain = fidelity.median_gain(*errors, row.found.pixels, confidence)
        beside[cell[0]][cell[1]] = AgainstFisher(fids[cell], gain)
    return beside


def against(row: ControlRow, fisher: ControlRow, bases: Mapping[str, Quality]) -> list[statistics.Jackknifed]:
    """The FID of one minus that of the other; if they were drawn in two precisions, each minus FP32's of its own."""
    if row.precision == fisher.precision:
        return paired(row.found.fid, fisher.found.fid)
    mine, its = (paired(one.found.fid, bases[one.precision].fid) for one in (row, fisher))
    return statistics.paired_difference(mine, its)


@dataclass(frozen=True)
class AgainstUniform:
    """A variant beside the one called `control`, whose weights are all in one float format.

    `size` is relative to the control's, `difference` is its FID minus the control's.
    """

    control: str
    size: float
    difference: Difference

    @property
    def verdict(self) -> str:
        return verdict(self.difference.simultaneous, self.control)


def float_variants(allocations: dict[str, Allocation]) -> tuple[str | None, list[str]]:
    """The variant with every weight tensor in one float format, and those that choose among float formats."""
    floats = [name for name, one in allocations.items() if one.tensors and one.bits_per_weight is None]
    control = next((name for name in floats if allocations[name].policy == "uniform"), None)
    return control, [name for name in floats if name != control]


def against_uniform(
    evaluations: dict[str, Evaluation], allocations: dict[str, Allocation]
) -> dict[str, AgainstUniform]:
    """Every variant that keeps some tensors in a larger float format, beside the one that keeps none; none without."""
    control, others = float_variants(allocations)
    if control is None:
        return {}

    base = evaluations[control]
    found = family({name: (evaluations[name].fid, base.fid) for name in others})
    return {name: AgainstUniform(control, evaluations[name].bytes / base.bytes, found[name]) for name in others}
