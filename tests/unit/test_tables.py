"""Tables and metrics.json: every number stands where it belongs, in words and digits that a reader can trust."""

import csv
import io
import math

import pytest
from scipy import stats

from laqfi.base.errors import LaqfiError
from laqfi.quality.fidelity import Median
from laqfi.records import FisherKind, FisherTable, Interval, Means
from laqfi.report import cells, noise, numbers, tables
from laqfi.report.differences import against_fp32, controls_against_fisher
from laqfi.report.layers import layer_table
from laqfi.report.tables import Table
from small_run import (
    ALLOCATIONS,
    BY_FILE,
    CONTROLS,
    EVALUATIONS,
    FAR,
    FLOORS,
    HALF,
    NEAR,
    PIXELS,
    allocation,
    control,
    evaluation,
    quality,
)

VARIANTS = against_fp32(EVALUATIONS)
METRICS = numbers.metrics(VARIANTS, ALLOCATIONS, FLOORS, CONTROLS)
FLOATS = {
    "half": allocation("uniform", None, 1e-6),
    "high": allocation("ratio", None, 2e-6),
    "same": allocation("ratio", None, 3e-6),
}
FLOAT_EVALUATIONS = {
    "half": evaluation(2, 1e-6, quality(20.5, 1.1, NEAR)),
    "high": evaluation(3, 2e-6, quality(21.5, 1.0, NEAR)),
    "same": evaluation(2.5, 3e-6, quality(20.5, 1.1, NEAR)),
}


def digits(name: str, mean: float, spread: float) -> dict[str, float]:
    """Six of the value and of each end of the interval that `spread` has."""
    found = {name: mean, f"{name}_low": mean - spread * HALF, f"{name}_high": mean + spread * HALF}
    return {end: float(f"{value:.6g}") for end, value in found.items()}


def decibels(squared_error: float) -> float:
    return 10 * math.log10(255**2 * PIXELS / squared_error)


def test_metrics_hold_every_number_of_a_variant():
    found = dict(METRICS["variants"]["uniform"])
    share = stats.binomtest(0, 80).proportion_ci(0.95, method="wilson")
    for name in ("fid_difference", "kid_difference"):
        low, high = found.pop(f"{name}_all_low"), found.pop(f"{name}_all_high")
        assert low <= found[f"{name}_low"] < found[f"{name}_high"] <= high
    psnr = float(f"{decibels(NEAR):.6g}")
    kid = digits("kid", 0.0207654321, 0.0011) | digits("kid_difference", 0.0007654321, 0.0001)
    fid = (
        digits("fid", 20.7654321, 1.1) | digits("fid_difference", 0.7654321, 0.1) | digits("fid_again", 41.5308642, 2.2)
    )
    assert found == pytest.approx(
        fid
        | kid
        | {
            "bytes": 2 * 2**20,
            "file_bytes": 2.5 * 2**20,
            "reduction_percent": 50.0,
            "noise_mse": 2e-6,
            "median_psnr": psnr,
            "median_psnr_low": psnr,
            "median_psnr_high": psnr,
            "psnr": float(f"{decibels(NEAR * 39 / 40):.6g}"),
            "tipped": 0.0,
            "tipped_low": 0.0,
            "tipped_high": float(f"{share.high:.6g}"),
            "bits_per_weight": 4.0,
            "bits_over_bound": 1.5,
        }
    )


def test_metrics_hold_the_floor_and_every_variant_in_order():
    ends = {"fid": 1.5, "fid_low": 1.25, "fid_high": 1.75, "kid": 0.001, "kid_low": -0.001, "kid_high": 0.003}
    assert METRICS["floor"] == ends
    assert list(METRICS["variants"]) == ["fp32", "uniform", "ratio_25"]


def test_metrics_of_identical_images_have_no_psnr():
    assert not any("psnr" in key for key in METRICS["variants"]["fp32"])


def test_metrics_hold_what_was_drawn_again():
    assert list(METRICS["headline"]) == ["large"]
    assert list(METRICS["headline"]["large"]) == ["fp32", "ratio_25"]
    found = METRICS["headline"]["large"]["ratio_25"]
    assert (found["fid"], found["median_psnr"]) == (10.5, float(f"{decibels(FAR):.6g}"))
    wanted = digits("fid_difference", 0.5, 1)
    assert {name: found[name] for name in wanted} == wanted
    once = against_fp32({"fp32": EVALUATIONS["uniform"]})
    assert "headline" not in numbers.metrics(once, {"fp32": ALLOCATIONS["uniform"]}, FLOORS, CONTROLS)


def test_metrics_hold_every_control():
    found = METRICS["controls"]
    psnr = float(f"{decibels(NEAR):.6g}")
    near = {"median_psnr": psnr, "median_psnr_low": psnr, "median_psnr_high": psnr}
    assert found["fisher"]["ratio_8"] == near | {"fid_difference": 0.75}
    assert found["none"]["ratio_12.5"] == {"fid_difference": 0.0}, "images that equal FP32's have no PSNR"
    assert list(found["uniform"]) == ["ratio_12.5"]


def test_metrics_of_equal_files_have_keys_of_their_own():
    found = numbers.metrics(VARIANTS, ALLOCATIONS, FLOORS, BY_FILE)
    file = {"coded_file_8", "coded_file_12.5"}
    for importance, sizes in METRICS["controls"].items():
        assert {key: one for key, one in found["controls"][importance].items() if key not in file} == sizes
    assert found["controls"]["fisher"]["coded_file_8"]["fid_difference"] == -0.5
    assert found["controls"]["uniform"]["coded_file_8"] == {"fid_difference": 0.0}
    assert found["against_fisher"].keys() - METRICS["against_fisher"].keys() == {"coded_file_8"}
    assert found["against_fisher"]["coded_file_8"]["none"]["fid_difference"] == 1.25


def test_metrics_hold_both_comparisons():
    variants = against_fp32({"fp32": EVALUATIONS["fp32"]} | FLOAT_EVALUATIONS)
    found = numbers.metrics(variants, ALLOCATIONS | FLOATS, FLOORS, CONTROLS)
    wanted = digits("fid_difference", 1.0, 0.1)
    assert {name: found["against_uniform"]["high"][name] for name in wanted} == wanted
    assert set(found["against_fisher"]) == {"ratio_8", "ratio_12.5"}
    (beside,) = found["against_fisher"]["ratio_8"].values()
    wanted = digits("fid_difference", -1.25, 0.15) | {
        "median_psnr_gain": float(f"{decibels(NEAR) - decibels(FAR):.6g}")
    }
    assert {name: beside[name] for name in wanted} == wanted
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


ORDERED = {name: (place, 10.0**place) for place, name in enumerate("abcdefgh", 1)}


def test_spearman_is_the_rank_correlation_with_the_published_interval():
    swapped = ORDERED | {"a": (2, 10.0), "b": (1, 100.0)}
    found = noise.spearman(swapped)
    assert found.rho == pytest.approx(1 - 6 * 2 / (8 * 63))
    half = 1.959964 * math.sqrt((1 + found.rho**2 / 2) / 5)
    assert found.low == pytest.approx(math.tanh(math.atanh(found.rho) - half), rel=1e-6)
    assert found.high == pytest.approx(math.tanh(math.atanh(found.rho) + half), rel=1e-6)


def test_a_perfect_order_of_few_points_is_no_certainty():
    found, nearly = noise.spearman(ORDERED), noise.spearman(ORDERED | {"a": (2, 10.0), "b": (1, 100.0)})
    assert (found.rho, found.low, found.high) == (pytest.approx(1), pytest.approx(nearly.low), pytest.approx(1))
    assert noise.spearman({name: (-x, y) for name, (x, y) in ORDERED.items()}).high == pytest.approx(-nearly.low)


def test_spearman_says_nothing_of_four_points_or_of_equal_ones():
    assert noise.spearman(dict([*ORDERED.items()][:4])) is None
    with pytest.warns(match="constant"):
        assert noise.spearman({name: (1.0, y) for name, (_, y) in ORDERED.items()}) is None


def test_metrics_hold_the_correlations_of_enough_variants():
    assert "predicted_against_measured" not in METRICS
    more = {f"int{bits}": evaluation(1, 10.0**-bits, quality(30, 1, 10 ** (8 - bits))) for bits in range(2, 7)}
    chosen = {name: allocation("bits", 4.0, 2 * 10.0 ** -int(name[-1])) for name in more}
    found = numbers.metrics(against_fp32(EVALUATIONS | more), ALLOCATIONS | chosen, FLOORS, CONTROLS)
    assert found["predicted_against_measured"]["spearman"] == pytest.approx(1, abs=0.1)
    assert set(found["predicted_against_images"]) == {"spearman", "low", "high"}


def test_the_error_of_the_median_image_is_relative_to_the_largest_pixel():
    fidelities = {name: one.images.fidelity for name, one in VARIANTS.items()}
    found = noise.image_changes({"fp32": (1.0, 0.0), "uniform": (2.0, 0.0)}, fidelities)
    assert found == {"uniform": (2.0, pytest.approx(NEAR / PIXELS / 255**2))}


@pytest.mark.parametrize(
    ("value", "expected"), [(123456789.0, 123457000.0), (-0.00012345678, -0.000123457), (0.0, 0.0), (1.5, 1.5)]
)
def test_rounded_keeps_six_significant_digits(value, expected):
    assert numbers.rounded(value) == expected


def test_variants_are_one_readable_row_each():
    rows = tables.variant_table(VARIANTS).rows
    assert [row["variant"] for row in rows] == ["fp32", "uniform", "ratio_25"]
    assert rows[1] == {
        "variant": "uniform",
        "file": "2.500 MiB (2.0 ×)",
        "in memory": "2.000 MiB (2.0 ×)",
        "size band": "beyond 50 %",
        "FID [95 % CI]": "20.77 [17.42, 24.11]",
        "FID − FP32 [95 % CI]": "+0.765 [+0.461, +1.070]",
        "all": cells.ends_cell(VARIANTS["uniform"].images.simultaneous),
        "verdict": "worse than FP32",
        "FID band": "fair",
        "KID [95 % CI]": "0.0208 [0.0174, 0.0241]",
        "KID − FP32 [95 % CI]": "+0.0008 [+0.0005, +0.0011]",
        "median PSNR [95 % CI]": "48.1 dB [48.1, 48.1]",
        "other images": "0.0 % [0.0, 4.6]",
        "PSNR of all": "48.2 dB",
        "noise MSE": "2.0e-06",
    }


def test_better_than_fp32_comes_with_what_it_means():
    assert tables.BETTER in tables.variant_table(VARIANTS).rule
    without = {name: one for name, one in VARIANTS.items() if name != "ratio_25"}
    assert tables.variant_table(without).rule == tables.FAMILY


def test_the_second_network_stands_beside_the_first():
    rows = tables.second_network_table(VARIANTS).rows
    assert rows[1] == {
        "variant": "uniform",
        "FID, first network": "20.77 [17.42, 24.11]",
        "FID, second network": "41.53 [34.84, 48.22]",
        "FID − FP32, first": "+0.765 [+0.461, +1.070]",
        "FID − FP32, second": "+1.531 [+0.922, +2.139]",
        "verdict, first": "worse",
        "verdict, second": "worse",
    }
    alone = {name: one.model_copy(update={"fid_again": None}) for name, one in EVALUATIONS.items()}
    assert tables.second_network_table(against_fp32(alone)).rows == []


def test_a_difference_has_its_sign_and_zero_has_none():
    assert cells.difference_cell(Interval(mean=-0.5, low=-0.75, high=-1e-9)) == "-0.500 [-0.750, +0.000]"
    assert cells.difference_cell(Interval(mean=0.126, low=-0.004, high=1.0), digits=2) == "+0.13 [+0.00, +1.00]"


def test_identical_images_are_said_to_be():
    rows = tables.variant_table(VARIANTS).rows
    assert [row["PSNR of all"] for row in rows] == ["identical", "48.2 dB", "34.3 dB"]
    assert rows[0]["median PSNR [95 % CI]"] == "identical"
    assert cells.median_cell(Median(50.0, 40.04, math.inf)) == "50.0 dB [40.0, identical]"


def test_what_is_drawn_again_is_a_row_for_each_variant_that_does():
    first, second = tables.headline_table(VARIANTS, FLOORS).rows
    assert (first["drawn"], first["variant"], first["PSNR of all"]) == ("large", "fp32", "identical")
    assert second == {
        "drawn": "large",
        "variant": "ratio_25",
        "file": "3.125 MiB (1.6 ×)",
        "in memory": "2.500 MiB (1.6 ×)",
        "images per seed": "4,000",
        "real-vs-real FID": "0.75",
        "FID [95 % CI]": "10.50 [4.42, 16.58]",
        "FID − FP32 [95 % CI]": "+0.500 [-2.542, +3.542]",
        "all": "[-2.542, +3.542]",
        "verdict": "not distinguishable from FP32",
        "FID band": "fair",
        "KID [95 % CI]": "0.0105 [0.0044, 0.0166]",
        "KID − FP32 [95 % CI]": "+0.0005 [-0.0025, +0.0035]",
        "median PSNR [95 % CI]": "34.2 dB [34.2, 34.2]",
        "other images": "0.0 % [0.0, 0.0]",
        "PSNR of all": "34.2 dB",
    }


def test_float_variants_are_rows_beside_the_uniform_one():
    assert tables.uniform_table(FLOAT_EVALUATIONS, FLOATS).rows == [
        {
            "variant": "high",
            "size in memory, of the control's": "1.50 ×",
            "FID − FID of half [95 % CI]": "+1.000 [+0.696, +1.304]",
            "all": "[+0.696, +1.304]",
            "verdict": "worse than half",
        },
        {
            "variant": "same",
            "size in memory, of the control's": "1.25 ×",
            "FID − FID of half [95 % CI]": "+0.000 [+0.000, +0.000]",
            "all": "[+0.000, +0.000]",
            "verdict": "identical to half",
        },
    ]
    assert tables.uniform_table(EVALUATIONS, ALLOCATIONS).rows == []


def test_controls_are_one_row_per_size_and_one_column_per_importance():
    near, far = "48.1 dB [48.1, 48.1]", "34.2 dB [34.2, 34.2]"
    assert tables.control_table(CONTROLS).rows == [
        {
            "smaller in memory by": "8 ×",
            "fisher": f"{near}, +0.75",
            "squared error": f"{far}, -0.50",
            "same bits for all": "does not fit",
        },
        {
            "smaller in memory by": "12.5 ×",
            "fisher": f"{far}, -0.50",
            "squared error": "identical, +0.00",
            "same bits for all": f"{near}, +0.75",
        },
        {"smaller in memory by": "64 ×", "fisher": "does not fit", "squared error": f"{near}, +0.75"},
    ]


def test_controls_of_equal_files_are_in_tables_of_their_own_that_say_so():
    alone, both = tables.control_tables(CONTROLS), tables.control_tables(BY_FILE)
    kinds = {"controls", "gains", "against_fisher"}
    assert {name for name, table in alone.items() if table.rows} == kinds
    assert {name: both[name] for name in kinds} == {name: alone[name] for name in kinds}
    found = {name.removesuffix("_coded_file"): one for name, one in both.items() if one.rows and name not in kinds}
    assert found.keys() == kinds
    assert all(one.title.endswith(", at equal bytes of the coded file") for one in found.values())
    sizes = {name: [row["smaller as a coded file by"] for row in one.rows] for name, one in found.items()}
    assert sizes == {"controls": ["8 ×", "12.5 ×"], "gains": ["8 ×"], "against_fisher": ["8 ×"]}
    assert found["controls"].rows[1] == {
        "smaller as a coded file by": "12.5 ×",
        "fisher": "does not fit",
        "squared error": "identical, +0.00",
    }


def test_what_was_drawn_with_coarse_products_is_marked_and_explained():
    assert tables.control_table(CONTROLS).rule == ""
    rows = [control(8.0, "fisher", quality(20, 1, FAR)), control(8.0, "none", quality(21, 1, 20 * NEAR), "tf32")]
    bases = CONTROLS.bases | {"tf32": quality(20.5, 1, NEAR)}
    found = tables.control_table(CONTROLS.model_copy(update={"bases": bases, "rows": rows}))
    assert found.rows[0]["fisher"] == "34.2 dB [34.2, 34.2], +0.00"
    assert found.rows[0]["squared error"] == "35.1 dB [35.1, 35.1], +0.50 (tf32)"
    assert "whose median image is then 48.1 dB from its own in float32" in found.rule


def test_every_size_that_fisher_can_meet_is_a_row_with_a_word_for_each_control():
    rows = tables.fisher_table(CONTROLS).rows
    wide = controls_against_fisher(CONTROLS)
    assert [(row["smaller in memory by"], row["mean bits"]) for row in rows] == [("8 ×", "4.0"), ("12.5 ×", "2.6")]
    columns = {"squared error": ("none", "better", "worse"), "same bits for all": ("uniform", "", "worse")}
    for title, (name, *words) in columns.items():
        for row, found, word in zip(rows, wide.values(), words, strict=True):
            one = found[name]
            if one is None:
                assert row[title] == "does not fit"
                continue
            alone, together = one.difference.plain, one.difference.simultaneous
            assert row[title] == f"{cells.difference_cell(alone, 2)} all {cells.ends_cell(together, 2)} {word}"


def test_gains_say_whose_images_are_nearer():
    rows = tables.gain_table(CONTROLS).rows
    assert [row["squared error"] for row in rows] == [
        "+14.0 dB [+14.0, +14.0] Fisher nearer",
        "-∞ dB [-∞, -∞] control nearer",
    ]
    assert [row["same bits for all"] for row in rows] == ["does not fit", "-14.0 dB [-14.0, -14.0] control nearer"]


def test_csv_reads_back_as_the_same_rows():
    rows = [*tables.variant_table(VARIANTS).rows, dict.fromkeys(tables.variant_table(VARIANTS).rows[0], 'a, "b"\nc')]
    text = tables.as_csv(rows)
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == rows
    assert "\r" not in text


def test_markdown_is_a_header_a_rule_and_one_line_per_row():
    text = tables.as_markdown([{"variant": "fp32", "size": "4 MiB"}, {"variant": "uniform", "size": "2 MiB"}])
    assert text == "| variant | size |\n| --- | --- |\n| fp32 | 4 MiB |\n| uniform | 2 MiB |\n"


def test_markdown_leaves_the_least_read_columns_to_the_csv():
    rows = tables.variant_table(VARIANTS).rows
    header, _, *body = [line.strip("| ").split(" | ") for line in tables.as_markdown(rows).splitlines()]
    assert set(rows[0]) - set(header) == set(tables.ONLY_IN_CSV)
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
    first, second, third = layer_table(table).rows
    assert (first["layer"], first["empirical, t = 1"], second["Gauss–Newton, t = 1"]) == (
        "1",
        "1 ± 0.1",
        "0.25 ± 0.01",
    )
    assert first["empirical, t = 1 / t = 1000"] == "4 ± 0.6"  # 4 · √(0.1² + 0.1²)
    assert second["empirical, t = 1 / t = 1000"] == "0.5 ± 0.03"
    assert (first["empirical, largest at"], second["Gauss–Newton, largest at"]) == ("t = 1", "t = 50")
    assert third["empirical, t = 1 / t = 1000"] == "none"


def test_the_summary_has_findings_then_tables_with_their_rules_and_none_without_rows():
    shown = [Table("One", [{"a": "1"}], "By the rule."), Table("None", []), Table("Two", [{"b": "2"}])]
    assert tables.summary_markdown(["It works."], shown) == (
        "Findings:\n\n- It works.\n\nOne:\n\n| a |\n| --- |\n| 1 |\n\nBy the rule.\n\nTwo:\n\n| b |\n| --- |\n| 2 |\n"
    )
