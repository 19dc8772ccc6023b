"""Every difference of a run, formed from what was measured: to FP32, to one float format for all, to Fisher's choice.

A difference in FID is always paired: both sides drew from the same noise, seed by seed and image by image.
"""

from dataclasses import dataclass

from laqfi.quality import statistics
from laqfi.records import Allocation, ControlTable, Evaluation, Fid, Interval, Quality, StoredQuality
from laqfi.report.verdicts import fid_band, size_band, verdict


def difference(fid: Fid, control: Fid) -> Interval:
    """`fid` minus `control`."""
    return statistics.interval(statistics.paired_difference(statistics.runs_of(fid), statistics.runs_of(control)))


@dataclass(frozen=True)
class Judged:
    """The quality of some images, and the difference in FID to FP32's from the same noise with the words for it."""

    quality: Quality
    difference: Interval
    verdict: str
    band: str

    @classmethod
    def against(cls, quality: Quality, base: Quality) -> "Judged":
        found = difference(quality.fid, base.fid)
        return cls(quality, found, verdict(found), fid_band(quality.fid.mean, base.fid.mean))


@dataclass(frozen=True)
class JudgedVariant:
    """What was measured of a variant; `reduction` is the share of FP32's bytes that it saves."""

    measured: Evaluation
    reduction: float
    size_band: str
    images: Judged
    headlines: dict[str, Judged]

    @property
    def times_smaller(self) -> float:
        return 1 / (1 - self.reduction)


def against_fp32(evaluations: dict[str, Evaluation]) -> dict[str, JudgedVariant]:
    """Every variant beside the one called fp32."""
    base = evaluations["fp32"]

    def judged(one: Evaluation) -> JudgedVariant:
        reduction = 1 - one.bytes / base.bytes
        headlines = {name: Judged.against(found, base.headlines[name]) for name, found in one.headlines.items()}
        return JudgedVariant(one, reduction, size_band(reduction), Judged.against(one, base), headlines)

    return {name: judged(one) for name, one in evaluations.items()}


@dataclass(frozen=True)
class JudgedControl:
    """A size limit (times smaller than FP32) met by one idea of importance; None where no choice of formats fits it."""

    ratio: float
    importance: str
    stored: StoredQuality | None
    judged: Judged | None


def controls_against_fp32(table: ControlTable) -> list[JudgedControl]:
    return [
        JudgedControl(row.ratio, row.importance, row.found, row.found and Judged.against(row.found, table.base))
        for row in table.rows
    ]


def controls_against_fisher(table: ControlTable) -> dict[float, dict[str, Interval | None]]:
    """By size limit and importance, the control's FID minus that of the Fisher information's choice of the same bytes.

    A limit that the Fisher information's choice cannot meet is left out; None is a control that cannot meet it.
    """
    by_ratio: dict[float, dict[str, StoredQuality | None]] = {}
    for row in table.rows:
        by_ratio.setdefault(row.ratio, {})[row.importance] = row.found
    return {
        ratio: {
            importance: found and difference(found.fid, rows["fisher"].fid)
            for importance, found in rows.items()
            if importance != "fisher"
        }
        for ratio, rows in by_ratio.items()
        if rows.get("fisher")
    }


@dataclass(frozen=True)
class AgainstUniform:
    """A variant beside the one called `control`, whose weights are all in one float format.

    `size` is relative to the control's, `difference` is its FID minus the control's.
    """

    control: str
    size: float
    difference: Interval
    verdict: str


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

    def beside(one: Evaluation) -> AgainstUniform:
        found = difference(one.fid, evaluations[control].fid)
        return AgainstUniform(control, one.bytes / evaluations[control].bytes, found, verdict(found, control))

    return {name: beside(evaluations[name]) for name in others}
