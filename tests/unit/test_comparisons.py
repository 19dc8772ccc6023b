"""Paired comparisons: they are those of the features themselves, and say no more than their intervals carry."""

import numpy as np
import pytest

from laqfi.quality import statistics
from laqfi.report import comparisons
from laqfi.report.tables import rounded

SEEDS, GROUPS = 2, 5


def jackknifed(shift: float, noise: float = 0.0) -> list[statistics.Jackknifed]:
    """Runs around 10 + `shift`; `noise` is what does not cancel between two of them."""
    shared, own = np.random.default_rng(0), np.random.default_rng(1)
    return [
        statistics.Jackknifed(
            10 + seed + shift, 10 + seed + shift + shared.normal(size=GROUPS) + noise * own.normal(size=GROUPS)
        )
        for seed in range(SEEDS)
    ]


def fid(shift: float, noise: float = 0.0) -> dict:
    return statistics.as_json(jackknifed(shift, noise))


def test_the_paired_difference_is_that_of_the_runs_and_not_of_their_intervals():
    a, b = jackknifed(0.3, 0.1), jackknifed(0.0)
    mean, low, high = statistics.interval(statistics.paired_difference(a, b))
    assert comparisons.paired(statistics.as_json(a), statistics.as_json(b)) == {"mean": mean, "low": low, "high": high}
    assert mean == pytest.approx(0.3)
    assert high - low < statistics.interval(a)[2] - statistics.interval(a)[1]


def choice(policy: str, bits: float | None = None, tensors: bool = True) -> dict:
    found = {"bits": bits, "bound": 1.0} if bits else None
    return {"policy": policy, "bits_per_weight": found, "tensors": {"w": {}} if tensors else {}}


CHOICES = {
    "fp32": choice("fp32", tensors=False),
    "half": choice("uniform"),
    "low": choice("threshold"),
    "high": choice("ratio"),
    "int4": choice("bits", 4.1),
}
EVALUATIONS = {
    "fp32": {"bytes": 400, "fid": fid(0)},
    "half": {"bytes": 200, "fid": fid(0.5)},
    "low": {"bytes": 250, "fid": fid(0.5, 0.1)},
    "high": {"bytes": 300, "fid": fid(1.5, 0.01)},
    "int4": {"bytes": 50, "fid": fid(9)},
}


def test_float_policies_are_compared_with_the_uniform_one_and_with_nothing_else():
    rows = comparisons.uniform_rows(EVALUATIONS, CHOICES)
    assert [row["variant"] for row in rows] == ["low", "high"]
    assert [row["size, of the control's"] for row in rows] == ["1.25 ×", "1.50 ×"]
    assert [row["verdict"] for row in rows] == ["not distinguishable from half", "worse than half"]
    assert rows[1]["FID − FID of half [95 % CI]"].startswith("+1.000 [")


def test_without_a_uniform_variant_there_is_nothing_to_compare_with():
    without = {name: one for name, one in CHOICES.items() if name != "half"}
    assert comparisons.uniform_rows(EVALUATIONS, without) == []


def control(ratio: float, importance: str, found: dict | None) -> dict:
    return {"ratio": ratio, "importance": importance, "found": found}


CONTROLS = {
    "rows": [
        control(8, "fisher", {"fid": fid(0)}),
        control(8, "random", {"fid": fid(0.0, 0.1)}),
        control(8, "uniform", None),
        control(16, "fisher", {"fid": fid(1)}),
        control(16, "random", {"fid": fid(5, 0.1)}),
        control(16, "uniform", {"fid": fid(1)}),
        control(64, "fisher", None),
        control(64, "random", {"fid": fid(5)}),
    ]
}


def test_every_budget_that_fisher_can_meet_is_a_row_with_a_word_for_each_control():
    rows = comparisons.fisher_rows(CONTROLS)
    assert [(row["smaller by"], row["mean bits"]) for row in rows] == [("8 ×", "4.0"), ("16 ×", "2.0")]
    assert rows[0]["random"].endswith("] no difference")
    assert rows[0]["same bits for all"] == "does not fit"
    assert rows[1]["random"].startswith("+4.00 [")
    assert rows[1]["random"].endswith("] worse")
    assert rows[1]["same bits for all"] == "+0.00 [+0.00, +0.00] same"


def test_metrics_hold_the_same_numbers():
    found = comparisons.as_metrics(EVALUATIONS, CHOICES, CONTROLS)
    wanted = comparisons.paired(EVALUATIONS["high"]["fid"], EVALUATIONS["half"]["fid"])
    assert found["against_uniform"]["high"] == {key: rounded(value) for key, value in wanted.items()}
    assert set(found["against_fisher"]) == {"ratio_8", "ratio_16"}
    assert set(found["against_fisher"]["ratio_8"]) == {"random"}


def test_layers_are_over_the_largest_with_their_standard_errors():
    layers = {
        "1": {"mean": [8.0, 4.0, 2.0], "standard_error": [0.8, 0.1, 0.2]},
        "2": {"mean": [2.0, 5.0, 4.0], "standard_error": [0.1, 0.1, 0.0]},
        "3": {"mean": [0.0, 0.0, 0.0], "standard_error": [0.0, 0.0, 0.0]},
    }
    table = {"timesteps": [1, 50, 1000], "empirical": {"layers": layers}, "gauss_newton": {"layers": layers}}
    first, second, third = comparisons.layer_rows(table)
    assert (first["layer"], first["empirical, t = 1"], second["Gauss–Newton, t = 1"]) == (
        "1",
        "1 ± 0.1",
        "0.25 ± 0.01",
    )
    assert first["empirical, t = 1 over t = 1000"] == "4 ± 0.6"  # 4 · √(0.1² + 0.1²)
    assert second["empirical, t = 1 over t = 1000"] == "0.5 ± 0.03"
    assert (first["empirical, largest at"], second["Gauss–Newton, largest at"]) == ("t = 1", "t = 50")
    assert third["empirical, t = 1 over t = 1000"] == "none"
