"""Tables and metrics.json: every number stands where it belongs, in words and digits that a reader can trust."""

import csv
import io
import math

import pytest

from laqfi.base.errors import LaqfiError
from laqfi.records import FisherKind, FisherTable, Interval, Means
from laqfi.report import noise, numbers, tables
from laqfi.report.differences import against_fp32
from laqfi.report.layers import layer_rows
from small_run import (
    ALLOCATIONS,
    CONTROLS,
    EVALUATIONS,
    FLOORS,
    HALF,
    allocation,
    evaluation,
    quality,
)

VARIANTS = against_fp32(EVALUATIONS)
METRICS = numbers.metrics(EVALUATIONS, ALLOCATIONS, FLOORS, CONTROLS)
FLOATS = {
    "half": allocation("uniform", None, 1e-6),
    "high": allocation("ratio", None, 2e-6),
    "same": allocation("ratio", None, 3e-6),
}
FLOAT_EVALUATIONS = {
    "half": evaluation(2, 1e-6, quality(20.5, 1.1, 50.0)),
    "high": evaluation(3, 2e-6, quality(21.5, 1.0, 50.0)),
    "same": evaluation(2.5, 3e-6, quality(20.5, 1.1, 50.0)),
}


def digits(mean: float, spread: float) -> dict[str, float]:
    """Six of each end of the interval that `spread` has."""
    found = {"": mean, "_low": mean - spread * HALF, "_high": mean + spread * HALF}
    return {end: float(f"{value:.6g}") for end, value in found.items()}


def test_metrics_hold_every_number_of_a_variant():
    fid = {f"fid{end}": value for end, value in digits(20.7654321, 1.1).items()}
    difference = {f"fid_difference{end}": value for end, value in digits(0.7654321, 0.1).items()}
    assert METRICS["variants"]["uniform"] == fid | difference | {
        "bytes": 2 * 2**20,
        "reduction_percent": 50.0,
        "kid": 0.0123457,
        "noise_mse": 2e-6,
        "psnr": 43.21,
        "bits_per_weight": 4.0,
        "bits_over_bound": 1.5,
    }


def test_metrics_hold_the_floor_and_every_variant_in_order():
    assert METRICS["floor"] == {"fid": 1.5, "low": 1.25, "high": 1.75, "kid": 0.001}
    assert list(METRICS["variants"]) == ["fp32", "uniform", "ratio_25"]


def test_metrics_of_identical_images_have_no_psnr():
    assert "psnr" not in METRICS["variants"]["fp32"]


def test_metrics_hold_what_was_drawn_again():
    assert list(METRICS["headline"]) == ["large"]
    assert list(METRICS["headline"]["large"]) == ["fp32", "ratio_25"]
    found = METRICS["headline"]["large"]["ratio_25"]
    assert {"fid": found["fid"], "psnr": found["psnr"]} == {"fid": 10.5, "psnr": 30.0}
    assert {end: found[f"fid_difference{end}"] for end in ("", "_low", "_high")} == digits(0.5, 1)
    once = {"fp32": EVALUATIONS["uniform"]}
    assert "headline" not in numbers.metrics(once, {"fp32": ALLOCATIONS["uniform"]}, FLOORS, CONTROLS)


def test_metrics_hold_the_controls_that_differ_from_fp32():
    found = METRICS["controls"]
    assert found["fisher"]["ratio_8"] == {"psnr": 43.21, "fid_difference": 0.75}
    assert found["none"] == {
        "ratio_8": {"psnr": 31.96, "fid_difference": -0.5},
        "ratio_64": {"psnr": 43.21, "fid_difference": 0.75},
    }
    assert list(found["uniform"]) == ["ratio_12.5"]


def test_metrics_hold_both_comparisons():
    found = numbers.metrics({"fp32": EVALUATIONS["fp32"]} | FLOAT_EVALUATIONS, ALLOCATIONS | FLOATS, FLOORS, CONTROLS)
    ends = {"mean": "", "low": "_low", "high": "_high"}
    assert found["against_uniform"]["high"] == {name: digits(1.0, 0.1)[end] for name, end in ends.items()}
    assert set(found["against_fisher"]) == {"ratio_8", "ratio_12.5"}
    assert found["against_fisher"]["ratio_8"] == {
        "none": {name: digits(-1.25, 0.15)[end] for name, end in ends.items()}
    }
    assert METRICS["against_uniform"] == {}


def test_noise_changes_pair_the_bins_that_were_measured():
    assert noise.changes(EVALUATIONS, ALLOCATIONS) == {
        "uniform": pytest.approx((3e-6, (1e-6 + 1e-6 + 4e-6) / 3)),
        "ratio_25": pytest.approx((9e-4, (2e-4 + 2e-4 + 8e-4) / 3)),
    }


def test_a_bin_with_several_measured_timesteps_counts_once():
    one = EVALUATIONS["uniform"].model_copy(update={"noise_mse": {1: 1.0, 50: 2.0, 100: 4.0}})
    predicted = ALLOCATIONS["uniform"].model_copy(update={"predicted_noise_mse": {1: 5.0, 100: 9.0, 1000: 77.0}})
    assert noise.changes({"x": one}, {"x": predicted}) == {"x": (7.0, 2.0)}


def test_a_timestep_beyond_all_predictions_is_named():
    predicted = ALLOCATIONS["uniform"].model_copy(update={"predicted_noise_mse": {1: 0.5, 50: 0.5}})
    with pytest.raises(LaqfiError, match="x: its choices predict up to timestep 50, not 1000"):
        noise.changes({"x": EVALUATIONS["uniform"]}, {"x": predicted})


def test_spearman_is_the_rank_correlation_and_nan_for_two_points():
    assert noise.spearman({"a": (1, 2), "b": (10, 4), "c": (100, 300)}) == pytest.approx(1)
    assert noise.spearman({"a": (1, 2), "b": (10, 4), "c": (100, 3)}) == pytest.approx(0.5)
    assert math.isnan(noise.spearman({"a": (1, 2), "b": (10, 4)}))


def test_metrics_hold_the_correlation_of_three_variants_and_none_of_two():
    assert "predicted_against_measured" not in METRICS
    third = {"int4": evaluation(1, 1e-3, quality(30, 1, 10.0))}, {"int4": allocation("bits", 4.0, 1e-5)}
    found = numbers.metrics(EVALUATIONS | third[0], ALLOCATIONS | third[1], FLOORS, CONTROLS)
    assert found["predicted_against_measured"] == {"spearman": 0.5}


@pytest.mark.parametrize(
    ("value", "expected"), [(123456789.0, 123457000.0), (-0.00012345678, -0.000123457), (0.0, 0.0), (1.5, 1.5)]
)
def test_rounded_keeps_six_significant_digits(value, expected):
    assert numbers.rounded(value) == expected


def test_variants_are_one_readable_row_each():
    rows = tables.variant_rows(VARIANTS)
    assert [row["variant"] for row in rows] == ["fp32", "uniform", "ratio_25"]
    assert rows[1] == {
        "variant": "uniform",
        "size": "2.000 MiB",
        "smaller by": "50.0 % (2.0 ×)",
        "size band": "beyond 50 %",
        "FID [95 % CI]": "20.77 [17.42, 24.11]",
        "FID − FP32 [95 % CI]": "+0.765 [+0.461, +1.070]",
        "FID band": "fair",
        "KID": "0.012",
        "PSNR": "43.2 dB",
        "noise MSE": "2.0e-06",
        "verdict": "worse than FP32",
    }


def test_a_difference_has_its_sign_and_zero_has_none():
    assert tables.difference_cell(Interval(mean=-0.5, low=-0.75, high=-1e-9)) == "-0.500 [-0.750, +0.000]"
    assert tables.difference_cell(Interval(mean=0.126, low=-0.004, high=1.0), digits=2) == "+0.13 [+0.00, +1.00]"


def test_identical_images_are_said_to_be():
    assert [row["PSNR"] for row in tables.variant_rows(VARIANTS)] == ["identical", "43.2 dB", "32.0 dB"]


def test_what_is_drawn_again_is_a_row_for_each_variant_that_does():
    first, second = tables.headline_rows(VARIANTS, FLOORS)
    assert (first["drawn"], first["variant"], first["PSNR"]) == ("large", "fp32", "identical")
    assert second == {
        "drawn": "large",
        "variant": "ratio_25",
        "smaller by": "37.5 % (1.6 ×)",
        "images per seed": "4,000",
        "real-vs-real FID": "0.75",
        "FID [95 % CI]": "10.50 [4.42, 16.58]",
        "FID − FP32 [95 % CI]": "+0.500 [-2.542, +3.542]",
        "verdict": "not distinguishable from FP32",
        "FID band": "fair",
        "KID": "0.012",
        "PSNR": "30.0 dB",
    }


def test_float_variants_are_rows_beside_the_uniform_one():
    assert tables.uniform_rows(FLOAT_EVALUATIONS, FLOATS) == [
        {
            "variant": "high",
            "size, of the control's": "1.50 ×",
            "FID − FID of half [95 % CI]": "+1.000 [+0.696, +1.304]",
            "verdict": "worse than half",
        },
        {
            "variant": "same",
            "size, of the control's": "1.25 ×",
            "FID − FID of half [95 % CI]": "+0.000 [+0.000, +0.000]",
            "verdict": "identical to half",
        },
    ]
    assert tables.uniform_rows(EVALUATIONS, ALLOCATIONS) == []


def test_controls_are_one_row_per_size_and_one_column_per_importance():
    assert tables.control_rows(CONTROLS) == [
        {
            "smaller by": "8 ×",
            "fisher": "43.2 dB, +0.75",
            "squared error": "32.0 dB, -0.50",
            "same bits for all": "does not fit",
        },
        {
            "smaller by": "12.5 ×",
            "fisher": "32.0 dB, -0.50",
            "squared error": "identical, +0.00",
            "same bits for all": "43.2 dB, +0.75",
        },
        {"smaller by": "64 ×", "fisher": "does not fit", "squared error": "43.2 dB, +0.75"},
    ]


def test_every_size_that_fisher_can_meet_is_a_row_with_a_word_for_each_control():
    assert tables.fisher_rows(CONTROLS) == [
        {
            "smaller by": "8 ×",
            "mean bits": "4.0",
            "squared error": "-1.25 [-1.71, -0.79] better",
            "same bits for all": "does not fit",
        },
        {
            "smaller by": "12.5 ×",
            "mean bits": "2.6",
            "squared error": "+0.50 [+0.35, +0.65] worse",
            "same bits for all": "+1.25 [+0.79, +1.71] worse",
        },
    ]


def test_csv_reads_back_as_the_same_rows():
    rows = [*tables.variant_rows(VARIANTS), dict.fromkeys(tables.variant_rows(VARIANTS)[0], 'a, "b"\nc')]
    text = tables.as_csv(rows)
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == rows
    assert "\r" not in text


def test_markdown_is_a_header_a_rule_and_one_line_per_row():
    text = tables.as_markdown([{"variant": "fp32", "size": "4 MiB"}, {"variant": "uniform", "size": "2 MiB"}])
    assert text == "| variant | size |\n| --- | --- |\n| fp32 | 4 MiB |\n| uniform | 2 MiB |\n"


def test_markdown_leaves_the_least_read_columns_to_the_csv():
    rows = tables.variant_rows(VARIANTS)
    header, _, *body = [line.strip("| ").split(" | ") for line in tables.as_markdown(rows).splitlines()]
    assert set(rows[0]) - set(header) == {"KID", "noise MSE"}
    assert [dict(zip(header, cells, strict=True)) for cells in body] == [
        {column: row[column] for column in header} for row in rows
    ]


def test_layers_are_relative_to_the_largest_with_their_standard_errors():
    def kind(*errors: list[float]) -> FisherKind:
        means = ([8.0, 4.0, 2.0], [2.0, 5.0, 4.0], [0.0, 0.0, 0.0])
        layers = {
            str(place + 1): Means(mean=mean, standard_error=error)
            for place, (mean, error) in enumerate(zip(means, errors, strict=True))
        }
        return FisherKind(tensors={"w": layers["1"]}, layers=layers)

    found = kind([0.8, 0.1, 0.2], [0.1, 0.1, 0.0], [0.0, 0.0, 0.0])
    table = FisherTable(
        images=4, timesteps=[1, 50, 1000], layers={"w": "1"}, magnitude={"w": 1.0}, empirical=found, gauss_newton=found
    )
    first, second, third = layer_rows(table)
    assert (first["layer"], first["empirical, t = 1"], second["Gauss–Newton, t = 1"]) == (
        "1",
        "1 ± 0.1",
        "0.25 ± 0.01",
    )
    assert first["empirical, t = 1 / t = 1000"] == "4 ± 0.6"  # 4 · √(0.1² + 0.1²)
    assert second["empirical, t = 1 / t = 1000"] == "0.5 ± 0.03"
    assert (first["empirical, largest at"], second["Gauss–Newton, largest at"]) == ("t = 1", "t = 50")
    assert third["empirical, t = 1 / t = 1000"] == "none"
