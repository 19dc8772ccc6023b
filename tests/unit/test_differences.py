"""Differences are paired, have the right sign, and are with respect to what they say."""

import numpy as np
import pytest

from laqfi.quality import statistics
from laqfi.quality.statistics import Jackknifed
from laqfi.records import ControlRow, ControlTable, Jackknife, Quality
from laqfi.report import differences
from laqfi.report.equal_bytes import CODED_FILE, FILE, KINDS, MEMORY
from small_run import (
    ALLOCATIONS,
    BASE,
    BETTER,
    BY_FILE,
    CONTROLS,
    EVALUATIONS,
    FAR,
    HALF,
    NEAR,
    WORSE,
    allocation,
    control,
    evaluation,
    fid,
    quality,
)

SEEDS, GROUPS = 2, 5


def fid_with_own_noise(shift: float, noise: float) -> Jackknife:
    """Runs around 10 + `shift`; `noise` is what does not cancel between two of them."""
    shared, own = np.random.default_rng(0), np.random.default_rng(1)
    centres = [10 + seed + shift for seed in range(SEEDS)]
    left_out = [c + shared.normal(size=GROUPS) + noise * own.normal(size=GROUPS) for c in centres]
    return statistics.record_of([statistics.Jackknifed(*one) for one in zip(centres, left_out, strict=True)])


def difference(one: Jackknife, control: Jackknife):
    """As a family of its own."""
    (found,) = differences.family({"one": (one, control)}).values()
    assert found.plain == found.simultaneous
    return found.plain


def near(mean: float, spread: float) -> tuple:
    return pytest.approx((mean, mean - spread * HALF, mean + spread * HALF))


def ends(found) -> tuple[float, float, float]:
    return found.mean, found.low, found.high


def test_what_both_sides_share_cancels_and_the_rest_is_the_difference():
    """Of spreads 1.1 and 1 in the same groups 0.1 is left; the two intervals are about twenty times as wide."""
    assert ends(fid(20, 1)) == near(20, 1)
    assert ends(difference(fid(20.75, 1.1), fid(20, 1))) == near(0.75, 0.1)
    assert ends(difference(fid(20, 1), fid(20.75, 1.1))) == near(-0.75, 0.1)
    assert ends(difference(fid(20, 1), fid(20, 1))) == (0, 0, 0)


def test_noise_that_only_one_side_has_widens_the_interval():
    base = fid_with_own_noise(0, 0)
    small, large = (difference(fid_with_own_noise(0.3, noise), base) for noise in (0.1, 0.2))
    assert small.mean == large.mean == pytest.approx(0.3)
    assert large.high - large.low == pytest.approx(2 * (small.high - small.low))
    assert large.high - large.low < base.high - base.low


def test_fids_of_other_seeds_are_not_paired():
    one = fid(20, 1)
    with pytest.raises(ValueError, match="zip"):
        difference(Jackknife(**one.model_dump() | {"per_seed": [20.0], "left_out": one.left_out[:1]}), one)


def test_variants_are_beside_fp32():
    variants = differences.against_fp32(EVALUATIONS)
    assert {name: one.measured for name, one in variants.items()} == EVALUATIONS
    assert {name: one.reduction for name, one in variants.items()} == {"fp32": 0, "uniform": 0.5, "ratio_25": 0.375}
    assert variants["ratio_25"].times_smaller == 1.6
    assert [one.size_band for one in variants.values()] == ["none", "beyond 50 %", "noticeable"]
    assert ends(variants["uniform"].images.difference) == near(0.7654321, 0.1)
    assert ends(variants["ratio_25"].images.difference) == near(-0.5, 0.05)
    assert [one.images.verdict for one in variants.values()] == [
        "identical to FP32",
        "worse than FP32",
        "better than FP32",
    ]
    assert [one.images.band for one in variants.values()] == ["excellent", "fair", "excellent"]


def test_what_is_drawn_again_is_beside_what_fp32_drew_again():
    variants = differences.against_fp32(EVALUATIONS)
    assert variants["uniform"].headlines == {}
    found = variants["ratio_25"].headlines["large"]
    assert (found.quality.images, found.verdict, found.band) == (4000, "not distinguishable from FP32", "fair")
    assert ends(found.difference) == near(0.5, 1)


def test_controls_are_beside_what_fp32_drew_of_the_same_noise():
    rows = differences.controls_against_fp32(CONTROLS)
    assert [(row.ratio, row.importance, row.stored) for row in rows] == [
        (row.ratio, row.importance, row.found) for row in CONTROLS.rows
    ]
    expected = {id(WORSE): near(0.75, 0.1), id(BETTER): near(-0.5, 0.05), id(BASE): (0, 0, 0)}
    measured = [WORSE, BETTER, None, BETTER, BASE, WORSE, None, WORSE]
    for row, one in zip(rows, measured, strict=True):
        assert row.judged is None if one is None else ends(row.judged.difference) == expected[id(one)]


def test_controls_are_beside_the_fisher_choice_of_the_same_size():
    found = differences.controls_against_fisher(CONTROLS)
    assert {ratio: list(row) for ratio, row in found.items()} == {8: ["none", "uniform"], 12.5: ["none", "uniform"]}
    assert ends(found[8]["none"].difference.plain) == near(-1.25, 0.15)
    assert found[8]["uniform"] is None
    assert ends(found[12.5]["none"].difference.plain) == near(0.5, 0.05)
    assert ends(found[12.5]["uniform"].difference.plain) == near(1.25, 0.15)
    # 25 times the squared error is 10 log10(25) dB; BETTER is the farther one from FP32, which is BASE.
    gain = 10 * np.log10(FAR / NEAR)
    assert found[8]["none"].gain.value == pytest.approx(gain)
    assert found[12.5]["none"].gain.value == -np.inf
    assert found[12.5]["uniform"].gain.value == pytest.approx(-gain)
    assert [found[8]["none"].nearer, found[12.5]["none"].nearer] == ["Fisher", "control"]


def test_controls_of_equal_files_are_beside_the_fisher_choice_of_as_large_a_file():
    """And those of equal bytes in memory are what they are without them."""
    found = {equal: differences.controls_against_fisher(BY_FILE, equal) for equal in KINDS}
    assert found[MEMORY] == differences.controls_against_fisher(CONTROLS)
    assert found[FILE] == {}
    assert list(found[CODED_FILE]) == [8], "12.5 × is nothing that Fisher's choice fits"
    assert ends(found[CODED_FILE][8]["none"].difference.plain) == near(1.25, 0.15)
    assert ends(found[CODED_FILE][8]["uniform"].difference.plain) == near(0.5, 0.05)
    assert differences.controls_against_fp32(BY_FILE)[: len(CONTROLS.rows)] == differences.controls_against_fp32(
        CONTROLS
    )


def noisy(seed: int) -> Quality:
    """What it has beside another of these is its own."""
    left_out = np.random.default_rng(seed).normal(10, 1, (SEEDS, GROUPS))
    return quality(10, 1, NEAR).model_copy(update={"fid": statistics.record_of([Jackknifed(10, x) for x in left_out])})


def test_intervals_of_controls_count_all_sizes_of_the_same_bytes_and_no_others():
    """They grow with the number of comparisons that go their own ways."""
    coded = {"of": "file", "coding": "ans"}
    rows = [control(8, "fisher", noisy(0), **coded), control(8, "none", noisy(1), **coded)]

    def width(*more: ControlRow) -> float:
        table = CONTROLS.model_copy(update={"rows": [*rows, *more]})
        found = differences.controls_against_fisher(table, CODED_FILE)[8]["none"].difference.simultaneous
        return found.high - found.low

    same, other = (
        [control(10, "fisher", noisy(2), **one), control(10, "none", noisy(3), **one)] for one in (coded, {})
    )
    assert width(*other) == width()
    assert width(*same) > 1.05 * width()


MIXED = CONTROLS.model_copy(
    update={
        "bases": {"float32": BASE, "tf32": quality(20.5, 1.25, NEAR)},
        "rows": [
            control(8.0, "fisher", WORSE),
            control(8.0, "none", BETTER, "tf32"),
            control(8.0, "uniform", BASE),
            control(8.0, "random", WORSE, "tf32"),
        ],
    }
)


def test_controls_of_two_precisions_are_each_beside_fp32_of_their_own():
    """FP32 itself moved by half an FID: what was drawn as coarsely has moved as much, and none of it is its model's."""
    rows = differences.controls_against_fp32(MIXED)
    assert [row.precision for row in rows] == ["float32", "tf32", "float32", "tf32"]
    assert ends(rows[0].judged.difference) == near(0.75, 0.1)
    assert ends(rows[1].judged.difference) == near(-1.0, 0.3)
    found = differences.controls_against_fisher(MIXED)[8]
    assert ends(found["none"].difference.plain) == near(-1.0 - 0.75, 0.4)
    assert ends(found["uniform"].difference.plain) == near(-0.75, 0.1)
    assert ends(found["random"].difference.plain) == near(-0.5, 0.25)


def test_a_row_without_a_base_of_its_precision_is_refused():
    with pytest.raises(ValueError, match="allowed is with 'tf32'"):
        ControlTable(**dict(MIXED) | {"bases": {"float32": BASE}})


FLOATS = {
    "fp32": allocation("fp32", None, 0, tensors=False),
    "half": allocation("uniform", None, 1e-6),
    "low": allocation("threshold", None, 1e-6),
    "high": allocation("ratio", None, 1e-6),
    "int4": allocation("uniform", 4.1, 1e-6),
}


def measured(kib: float, found: Quality):
    return evaluation(kib / 1024, 1e-6, found)


FLOAT_EVALUATIONS = {
    "fp32": measured(400, quality(20, 1, 0)),
    "half": measured(200, quality(20.5, 1.1, NEAR)),
    "low": measured(250, quality(20.25, 1.5, NEAR)),
    "high": measured(300, quality(21.5, 1.0, NEAR)),
    "int4": measured(50, quality(29, 1, FAR)),
}


def test_float_policies_are_beside_the_uniform_one_and_nothing_else():
    found = differences.against_uniform(FLOAT_EVALUATIONS, FLOATS)
    assert list(found) == ["low", "high"]
    assert [one.control for one in found.values()] == ["half", "half"]
    assert [one.size for one in found.values()] == [1.25, 1.5]
    assert ends(found["low"].difference.plain) == near(-0.25, 0.4)
    assert ends(found["high"].difference.plain) == near(1.0, 0.1)
    assert [one.verdict for one in found.values()] == ["not distinguishable from half", "worse than half"]


def test_without_a_uniform_variant_there_is_nothing_to_compare_with():
    without = {name: one for name, one in FLOATS.items() if name != "half"}
    assert differences.against_uniform(FLOAT_EVALUATIONS, without) == {}
    assert differences.against_uniform(EVALUATIONS, ALLOCATIONS) == {}
