"""Sentences say what the numbers say, and change when these do."""

import numpy as np
import pytest

from laqfi.quality.fidelity import Fidelity, Median
from laqfi.quality.statistics import Jackknifed, record_of
from laqfi.records import ControlRow, ControlTable, Interval, Quality, StoredQuality
from laqfi.report import differences, findings
from laqfi.report.differences import AgainstFisher, AgainstUniform, Difference
from laqfi.report.equal_bytes import CODED_FILE, FILE, MEMORY
from small_run import ALLOCATIONS, BY_FILE, CONTROLS, EVALUATIONS, FISHER, PIXELS, evaluation

GROUPS = 20


def measured(fid: float, squared_error: int, noise: float = 0.01) -> Quality:
    """Over two seeds; what an FID has beside FP32's, whose `noise` is zero, is known to about ± 2 `noise`."""
    steps = noise * np.where(np.arange(GROUPS) % 2, 1.0, -1.0) / np.sqrt(GROUPS)
    runs = record_of([Jackknifed(fid, fid + steps)] * 2)
    errors = [[squared_error] * 40] * 2
    return Quality(images=40, pixels=PIXELS, fid=runs, fid_again=None, kid=runs, squared_error=errors)


def variants(**fids: tuple[float, float]):
    """By name (size in MiB, FID); FP32 takes 8 MiB and has an FID of 10."""
    found = {"fp32": evaluation(8, 0, measured(10, 0, noise=0))}
    found |= {name: evaluation(size, 1e-6, measured(fid, 64)) for name, (size, fid) in fids.items()}
    return differences.against_fp32(found)


def test_the_smallest_model_without_a_visible_cost_is_named_with_what_comes_after_it():
    found = findings.cost(variants(half=(4, 10.0), quarter=(2, 10.001), eighth=(1, 10.5), tiny=(0.5, 14)))
    first, following, last = found.sentence.split("; ")
    assert first.startswith(
        "The smallest model whose FID can neither be told from FP32's nor be 5 % above it is `quarter`, 4.0 × smaller"
    )
    assert following.startswith("the next smaller one is `eighth`, 8.0 × smaller (FID − FP32 +0.50 [")
    assert last.startswith("the smallest of all is `tiny`, 16.0 × smaller (FID − FP32 +4.00 [")
    assert "median image 48.1 dB [48.1, 48.1], 0.0 % other images" in first


def test_a_model_that_is_worse_but_larger_is_not_the_next_smaller_one():
    found = findings.cost(variants(bad=(4, 12), good=(2, 10.0)))
    assert "`bad`" not in found.sentence
    assert ";" not in found.sentence


def test_few_images_do_not_make_a_difference_invisible():
    """Zero lies within the interval, but so does more than 5 % of FP32's FID."""
    base = {"fp32": evaluation(8, 0, measured(10, 0, noise=0))}
    unsure = differences.against_fp32(base | {"half": evaluation(4, 1e-6, measured(10.1, 64, noise=1.0))})
    assert unsure["half"].images.verdict == "not distinguishable from FP32"
    assert findings.cost(unsure).sentence.startswith(
        "Of no smaller model's FID is it certain that it is FP32's or less than 5 % above it; the next smaller one is"
    )


def test_what_was_drawn_again_with_the_most_images_is_told():
    assert findings.drawn_again(differences.against_fp32(EVALUATIONS)).sentence == (
        "With 4,000 images per seed (`large`) FP32 has an FID of 10.00 [6.96, 13.04]; `ratio_25`, 1.6 × smaller, is not"
        " distinguishable from FP32 (+0.50 [-2.54, +3.54], median image 34.2 dB [34.2, 34.2])."
    )
    assert findings.drawn_again(variants(half=(4, 10.0))) is None


def against(nearer: str, verdict: str) -> AgainstFisher:
    gain = {"Fisher": Median(2, 1, 3), "control": Median(-2, -3, -1), "neither": Median(0, -1, 1)}[nearer]
    ends = {"worse": (1.0, 3.0), "same": (-1.0, 1.0), "better": (-3.0, -1.0)}[verdict]
    found = Interval(mean=sum(ends) / 2, low=ends[0], high=ends[1])
    return AgainstFisher(Difference(found, found), gain)


def test_where_fisher_leads_and_where_it_does_not_is_told_by_size():
    worse, same = against("Fisher", "worse"), against("neither", "same")
    rows = {
        10.0: {"random": worse, "none": worse},
        4.0: {"random": worse, "none": same, "magnitude": against("control", "same")},
        8.0: {"random": worse, "none": against("Fisher", "same"), "magnitude": None},
    }
    assert findings.fisher_helps(rows, MEMORY).sentence == (
        "At equal bytes in memory Fisher's choice is nearer to FP32's images than every control at 8 and 10 × smaller;"
        " 4 × smaller, magnitude is nearer than Fisher and squared error is as near as Fisher;"
        " by FID every control is worse at 10 × smaller;"
        " squared error is not worse at 4 and 8 × smaller; magnitude is not worse at 4 × smaller."
    )


def test_fisher_leading_everywhere_and_nowhere():
    always = findings.fisher_helps({4.0: {"random": against("Fisher", "worse")}}, MEMORY).sentence
    assert always.count("at every size tried (4 ×)") == 2
    never = findings.fisher_helps({4.0: {"random": against("control", "better")}}, MEMORY).sentence
    assert "than every control at none of 4 × smaller" in never
    assert "by FID no size has only worse controls" in never
    assert findings.fisher_helps({4.0: {"random": None}}, MEMORY) is None


@pytest.mark.parametrize(
    ("equal", "words"),
    [(MEMORY, "in memory"), (FILE, "of the file"), (CODED_FILE, "of the coded file")],
    ids=lambda one: getattr(one, "key", None),
)
def test_a_sentence_about_the_controls_says_which_bytes_are_equal(equal, words):
    sentence = findings.fisher_helps({4.0: {"random": against("Fisher", "worse")}}, equal).sentence
    assert sentence.startswith(f"At equal bytes {words} Fisher's choice is nearer to FP32's images than every control")


def test_controls_of_equal_files_have_a_sentence_of_their_own():
    variants = differences.against_fp32(EVALUATIONS)
    alone, both = (findings.findings(variants, one, {}, FISHER, ALLOCATIONS) for one in (CONTROLS, BY_FILE))
    assert set(both) - set(alone) == {"fisher_coded_file"}
    assert both["fisher"] == alone["fisher"]
    assert both["fisher_coded_file"].sentence.startswith(
        "At equal bytes of the coded file Fisher's choice is nearer to FP32's images than every control at none of 8 ×"
    )


@pytest.mark.parametrize(
    ("ends", "words"), [((-0.002, 0.001), "none of 2 differ"), ((0.001, 0.002), "`b` of 2 differ")]
)
def test_the_float_policies_that_differ_are_named(ends, words):
    same = Interval(mean=0.0, low=-0.001, high=0.001)
    other = Interval(mean=sum(ends) / 2, low=ends[0], high=ends[1])
    found = {
        "a": AgainstUniform("half", 1.1, Difference(same, same)),
        "b": AgainstUniform("half", 1.5, Difference(other, other)),
    }
    sentence = findings.floats(found).sentence
    assert words in sentence
    assert "all intervals lie within ± 0.002; up to 1.5 × its bytes" in sentence
    assert findings.floats({}) is None


def test_the_layer_with_the_most_is_named_and_those_that_grow():
    sentence = findings.layers(FISHER).sentence
    assert sentence.startswith("At the last step of sampling (t = 1) layer 6 has the most Fisher information, 2 × that")
    assert sentence.endswith("of layers 1 and 6 it is largest there among all timesteps from t = 1000 on.")


def test_the_distance_to_the_bound_is_that_of_the_nearest_and_the_farthest():
    assert findings.limit(ALLOCATIONS).sentence == (
        "`uniform` takes 4.0 bits per weight, 1.5 more than the bound;"
        " `ratio_25` takes 2.5 bits per weight, 1.5 more than the bound."
    )
    assert findings.limit({"fp32": ALLOCATIONS["fp32"]}) is None


def test_a_run_too_small_for_a_correlation_says_nothing_of_it():
    found = findings.findings(differences.against_fp32(EVALUATIONS), CONTROLS, {}, FISHER, ALLOCATIONS)
    assert set(found) == {"cost", "again", "fisher", "layers", "limit"}
    assert all(one.rule and one.sentence.endswith(".") and "\n" not in one.sentence for one in found.values())


def test_a_control_beside_fisher_is_judged_by_the_whole_table():
    """A gain of 0.1 dB in every image of eighty is one for each comparison alone and for two hundred at once."""
    rows = [
        ControlRow(
            ratio=8.0,
            of="resident",
            coding=None,
            importance=name,
            precision="float32",
            found=StoredQuality(**dict(measured(10, error)), bytes=1, file_bytes=1),
        )
        for name, error in (("fisher", 1000), ("none", 1100), ("random", 1000))
    ]
    table = ControlTable(seeds=[0, 1], precision="float32", bases={"float32": measured(10, 0)}, rows=rows)
    found = differences.controls_against_fisher(table)[8.0]
    assert (found["none"].nearer, found["random"].nearer) == ("Fisher", "neither")
    assert isinstance(differences.controls_against_fp32(table)[0].judged.fidelity, Fidelity)
