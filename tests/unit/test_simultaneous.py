"""Intervals of a family hold together, and cost nothing where its comparisons are one."""

import numpy as np
import pytest
from scipy import stats

from laqfi.quality import simultaneous
from laqfi.quality.simultaneous import intervals, largest_t
from laqfi.quality.statistics import Jackknifed, deviations, interval

GROUPS = 20


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    monkeypatch.setattr(simultaneous, "DRAWS", 20_000)


def run_of_means(groups: np.ndarray) -> Jackknifed:
    """The jackknife of the mean of group means [K]."""
    return Jackknifed(groups.mean(), (groups.sum() - groups) / (len(groups) - 1))


def family(values: np.ndarray) -> dict[int, list[Jackknifed]]:
    """Of group means [comparisons, seeds, K]."""
    return {place: [run_of_means(seed) for seed in one] for place, one in enumerate(values)}


def width(found) -> float:
    return found.high - found.low


def test_the_deviations_are_what_the_error_is_made_of():
    values = np.random.default_rng(0).normal(size=(2, GROUPS))
    runs = [run_of_means(seed) for seed in values]
    expected = np.sqrt(sum(stats.sem(seed) ** 2 for seed in values)) / 2
    assert np.sqrt((deviations(runs) ** 2).sum()) == pytest.approx(expected)


def test_one_comparison_has_its_own_interval():
    found = family(np.random.default_rng(0).normal(size=(1, 3, GROUPS)))
    assert intervals(found) == {0: interval(found[0])}


def test_comparisons_that_move_as_one_cost_nothing():
    values = np.random.default_rng(0).normal(size=(1, 3, GROUPS))
    found = family(np.concatenate([values, 2 * values, -3 * values]))
    wide = intervals(found)
    for name, runs in found.items():
        assert width(wide[name]) == pytest.approx(width(interval(runs)), rel=0.02)


@pytest.mark.parametrize("comparisons", [2, 18])
def test_independent_comparisons_have_the_quantile_of_the_studentized_maximum_modulus(comparisons):
    """With many degrees of freedom it tends to that of the largest of independent |z|: (1 + 0.95^(1/m)) / 2."""
    groups, seeds = 100, 10
    rows = np.kron(np.eye(comparisons), np.ones((1, groups * seeds // comparisons + 1)))[:, : groups * seeds]
    runs = [Jackknifed(0.0, np.zeros(groups))] * seeds
    expected = stats.norm.ppf((1 + 0.95 ** (1 / comparisons)) / 2)
    assert largest_t(rows, runs) == pytest.approx(expected, rel=0.02)


def test_a_difference_without_error_stays_exact_and_widens_no_other():
    values = np.random.default_rng(0).normal(size=(2, 3, GROUPS))
    with_zero = np.concatenate([values, np.zeros((1, 3, GROUPS))])
    found = intervals(family(with_zero))
    assert (found[2].mean, found[2].low, found[2].high) == (0, 0, 0)
    assert {place: found[place] for place in (0, 1)} == intervals(family(values))


def test_a_family_of_nothing_but_zeros_is_exact():
    found = intervals(family(np.zeros((2, 3, GROUPS))))
    assert [(one.low, one.high) for one in found.values()] == [(0, 0), (0, 0)]


def test_of_twenty_true_nothings_one_is_called_a_difference_as_rarely_as_it_should():
    random, wrong, alone = np.random.default_rng(3), 0, 0
    for _ in range(100):
        shared = random.normal(size=(1, 3, GROUPS))
        found = family(0.5 * shared + random.normal(size=(20, 3, GROUPS)))
        wrong += any(one.low > 0 or one.high < 0 for one in intervals(found).values())
        alone += any(one.low > 0 or one.high < 0 for one in map(interval, found.values()))
    assert wrong / 100 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    assert alone / 100 > 0.3


def test_the_same_family_gives_the_same_intervals():
    found = family(np.random.default_rng(0).normal(size=(5, 3, GROUPS)))
    assert intervals(found) == intervals(found)
