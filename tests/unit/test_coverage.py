"""The study of the intervals (`make coverage`), and that what it published is what it wrote."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import counting
import families
import figure
import medians
import page
import populations
import single
from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.quality import simultaneous, statistics
from laqfi.quality.statistics import (
    Jackknifed,
    extrapolated,
    jackknife_fid,
    mean_and_covariance,
    record_of,
    without_bias,
)
from laqfi.records import Interval

ROOT = Path(__file__).parents[2]
CHANGES = {"none": populations.Change(0.3, 0), "large": populations.Change(0.5, 0.1)}


@pytest.fixture(scope="module")
def normal() -> populations.Population:
    return populations.gaussian("normal", np.array([4.0, 2.0, 1.0]), 0.3, CHANGES)


@pytest.fixture(scope="module")
def results() -> dict:
    return files.read_json(ROOT / "reports/coverage/coverage.json")


def means(values: np.ndarray) -> Jackknifed:
    return Jackknifed(values.mean(), (values.sum() - values) / (len(values) - 1))


def fid_of(population: populations.Population, features: np.ndarray) -> float:
    return population.reference.frechet_distance(*mean_and_covariance(features))


def test_the_fid_of_a_normal_population_is_that_of_very_many_draws(normal):
    drawn = normal.draw(generator("test"), 200_000)
    assert [fid_of(normal, features) for features in drawn] == pytest.approx(normal.fids, rel=0.05)


def test_a_change_of_samples_alone_leaves_the_distribution_as_it_is(normal):
    base, same, other = normal.draw(generator("test"), 50_000)
    assert normal.fids[1] == normal.fids[0] < normal.fids[2]
    np.testing.assert_allclose(np.cov(base.T), np.cov(same.T), atol=0.1)
    correlations = [np.corrcoef(base[:, 0], changed[:, 0])[0, 1] for changed in (same, other)]
    assert correlations == pytest.approx([np.sqrt(1 - 0.3**2), np.sqrt(1 - 0.5**2)], abs=0.02)


def test_what_is_resampled_are_the_rows_of_all_members_together():
    real, rows = np.random.default_rng(0).normal(size=(2, 40, 3))
    population = populations.resampled("rows", real, rows, {"moved": rows + 1})
    base, moved = population.draw(generator("test"), 500)
    assert {tuple(row) for row in base} == {tuple(row) for row in rows}
    np.testing.assert_allclose(moved, base + 1)
    weights = np.full(len(rows), 1 / len(rows))
    covariance = np.cov(rows.T, aweights=weights, ddof=0)
    assert population.fids[0] == pytest.approx(population.reference.frechet_distance(rows.mean(0), covariance))


def test_a_share_has_its_own_interval():
    found = counting.Share.counted([True] * 95 + [False] * 5)
    assert (found.value, found.of) == (0.95, 100)
    assert (found.low, found.high) == pytest.approx((0.888, 0.978), abs=0.001)
    assert counting.Share.counted([True] * 10).high == 1


def test_coverage_counts_the_intervals_that_hold_the_truth_among_those_given():
    given = [Interval(mean=1, low=0, high=2), None, Interval(mean=5, low=4, high=6), Interval(mean=1, low=1, high=1)]
    left = iter(given)
    found = counting.coverage([[]] * 4, 1.0, lambda runs: next(left))
    assert (found.value, found.of) == (pytest.approx(2 / 3), 3)
    assert counting.coverage([[]] * 4, 1.0, lambda runs: None) is None


def test_runs_become_replications_of_as_many_seeds_and_the_rest_is_left():
    runs = [means(np.arange(4.0) + k) for k in range(7)]
    assert counting.over_seeds(runs, 3) == [runs[0:3], runs[3:6]]


def test_the_error_of_means_is_as_wide_as_their_spread():
    random = np.random.default_rng(0)
    assert counting.too_wide([means(random.normal(size=30)) for _ in range(400)]) == pytest.approx(1, abs=0.1)


def test_the_bias_of_a_variance_by_n_is_taken_off_exactly():
    values = np.random.default_rng(0).normal(size=12)
    run = Jackknifed(values.var(), np.array([np.delete(values, k).var() for k in range(12)]))
    assert without_bias(run).value == pytest.approx(values.var(ddof=1))


def test_the_extrapolated_fid_is_that_at_infinity_on_average(normal):
    runs = [jackknife_fid(normal.draw(generator("test", k), 60)[0], normal.reference, 10) for k in range(300)]
    plain, corrected = ([one.value for one in some] for some in (runs, map(without_bias, runs)))
    assert np.mean(plain) - normal.fids[0] > 5 * stats.sem(plain)
    assert abs(np.mean(corrected) - normal.fids[0]) < 3 * stats.sem(corrected)


def test_an_extrapolation_is_as_wide_as_the_interval_and_moved_by_the_bias(normal):
    runs = [jackknife_fid(normal.draw(generator("test", k), 60)[0], normal.reference, 10) for k in range(3)]
    found, plain = extrapolated(record_of(runs), 60, 3), statistics.interval(runs)
    assert found.high - found.low == pytest.approx(plain.high - plain.low)
    assert found.mean == pytest.approx(np.mean([10 * run.value - 9 * run.left_out.mean() for run in runs]))


def test_an_extrapolation_from_too_few_images_is_refused():
    flat = populations.gaussian("flat", np.ones(24), 0, {})
    run = jackknife_fid(flat.draw(generator("test"), 60)[0], flat.reference, 10)
    assert extrapolated(record_of([run]), 60, 24) is None
    many = jackknife_fid(flat.draw(generator("test"), 2400)[0], flat.reference, 10)
    assert extrapolated(record_of([many]), 2400, 24) is not None


def test_rows_say_what_was_replicated(normal):
    found = list(single.rows(single.Cell("FID", normal, 40, 5, 6)))
    assert len(found) == 3 * len(single.SEEDS) * 3
    assert {row.change for row in found} == {None, "none", "large"}
    assert {row.holds.of for row in found if row.seeds == 3 and row.holds} == {2}
    equal = [row for row in found if row.change == "none" and row.truth == "images"]
    assert [row.value for row in equal] == [0, 0]
    large = next(row for row in found if row.change == "large" and row.truth == "infinite")
    assert large.value == normal.fids[2] - normal.fids[0]
    assert list(single.rows(single.Cell("FID", normal, 40, 5, 6))) == found


def test_kid_is_held_by_its_own_value_only(normal):
    found = list(single.rows(single.Cell("KID", normal, 40, 5, 6)))
    assert {(row.truth, row.extrapolated) for row in found} == {("images", False)}


def independent_table(random: np.random.Generator, shift: float = 0.0) -> list[list[Jackknifed]]:
    return [[means(random.normal(shift, 1, size=20))] for _ in range(6)]


def test_ways_to_judge_a_table_are_as_wide_as_their_definitions_say():
    table = independent_table(np.random.default_rng(0))
    half = {name: way(table)[0].high - way(table)[0].mean for name, way in families.WAYS.items()}
    error = statistics.standard_error(table[0])
    assert half["each by itself"] == pytest.approx(stats.t.ppf(0.975, 19) * error)
    assert half["Bonferroni"] == pytest.approx(stats.t.ppf(1 - 0.025 / 6, 19) * error)
    assert half["each by itself"] < half["max-t"] < half["Bonferroni"] * 1.01
    assert families.max_t(table)[3] == simultaneous.intervals(dict(enumerate(table)))[3]


def test_holm_tells_no_less_than_bonferroni_and_as_the_steps_say():
    table = independent_table(np.random.default_rng(1), 0.7)
    p = [stats.ttest_1samp(20 * runs[0].value - 19 * runs[0].left_out, 0).pvalue for runs in table]
    order = np.argsort(p)
    expected = np.zeros(6, bool)
    for step, place in enumerate(order):
        if p[place] > 0.05 / (6 - step):
            break
        expected[place] = True
    assert families.holm(table) == expected.tolist()
    assert np.all(np.array(families.holm(table)) >= [not counting.holds(one, 0) for one in families.bonferroni(table)])


def test_verdicts_are_false_of_what_does_not_differ_and_found_of_what_does():
    changes = (populations.Change(0.3, 0), populations.Change(0.3, 0.1))
    setting = families.Setting("two", changes, True, 40, 5, 1)
    found = families.judged(setting, "way", [[True, True], [False, True], [False, False], [False, True]], None, None)
    assert (found.false.value, found.found) == (0.25, 0.75)


@pytest.mark.parametrize("one_base", [True, False])
def test_a_table_pairs_every_change_with_its_base(one_base):
    setting = families.Setting("three", tuple(CHANGES.values()), one_base, 30, 3, 2)
    table = families.draw_table(setting, 0)
    assert [len(runs) for runs in table] == [2, 2]
    assert all(len(run.left_out) == 3 for runs in table for run in runs)
    ways = families.verdicts(setting, [table, families.draw_table(setting, 1)])
    assert [one.way for one in ways] == [*families.WAYS, "Holm"]


def test_half_of_the_errors_are_below_their_median():
    for kind in ("log-normal", "tipped"):
        drawn = medians.errors(kind, generator("test"), 20_000)
        assert (drawn < medians.MIDDLE).mean() == pytest.approx(0.5, abs=0.02)


def test_the_published_tables_and_figure_are_of_the_published_numbers(results):
    folder, docs = ROOT / "reports/coverage", ROOT / "docs/coverage.md"
    assert (folder / "coverage.md").read_text().endswith(page.tables(results))
    assert docs.read_text() == page.with_block(docs.read_text(), results, docs)
    assert figure.png_of(results).startswith(b"\x89PNG")


def test_the_published_medians_are_those_of_the_code(results):
    assert [asdict(row) for row in medians.study(results["runs"])] == results["medians"]


def test_an_interval_that_is_mostly_refused_has_no_share():
    assert page.found({"refused": 0.99, "holds": {"value": 1.0, "low": 0.5, "high": 1.0}}) == "refused (99.0 %)"
    assert page.found({"refused": 0.25, "holds": {"value": 0.96, "low": 0.9, "high": 1}}) == "96.0 % (25 % refused)"


def test_a_share_that_chance_does_not_explain_is_marked():
    assert page.percent({"value": 0.9, "low": 0.88, "high": 0.92}) == "90.0 % ↓"
    assert page.percent({"value": 0.99, "low": 0.97, "high": 1.0}) == "99.0 % ↑"
    assert page.percent({"value": 0.96, "low": 0.93, "high": 0.98}) == "96.0 %"


def test_a_text_without_a_place_for_the_tables_is_refused(results, tmp_path):
    with pytest.raises(LaqfiError, match="no single block"):
        page.with_block("nothing", results, tmp_path / "coverage.md")


def test_the_published_study_finds_what_the_reports_rely_on(results):
    """With three seeds, paired differences and tables judged by max-t are wrong no more often than they say."""
    rows = [row for row in results["rows"] if row["images"] >= 300 and row["seeds"] == 3]
    differences = [row for row in rows if row["change"] and row["truth"] == "images"]
    assert min(row["holds"]["high"] for row in differences) >= 0.95
    max_t = [row for row in results["verdicts"] if row["way"] == "max-t"]
    assert max(row["false"]["low"] for row in max_t) < 0.05
