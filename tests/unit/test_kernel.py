"""KID equals its definition, whole and without each group."""

import numpy as np
import pytest
from scipy import stats

from laqfi.quality.kernel import KernelReference, jackknife_kid, mean_within


def random_features(seed: int, count: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size))


def reference_of(features: np.ndarray) -> KernelReference:
    return KernelReference(features, mean_within(features))


def by_double_loop(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    return within_x + within_y - 2 * np.mean([kernel(a, b) for a in x for b in y])


@pytest.mark.parametrize(("count", "groups"), [(12, 3), (11, 4)])
def test_kid_is_its_definition_whole_and_without_each_group_of_consecutive_samples(count, groups):
    x, y = random_features(1, count, 4) + 0.5, random_features(2, 9, 4)
    found = jackknife_kid(x, reference_of(y), groups)
    assert found.value == pytest.approx(by_double_loop(x, y), rel=1e-9)
    members = np.array_split(np.arange(count), groups)
    expected = [by_double_loop(np.delete(x, group, axis=0), y) for group in members]
    np.testing.assert_allclose(found.left_out, expected, rtol=1e-9)


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_the_mean_of_pairs_does_not_depend_on_how_many_rows_are_taken_at_a_time(rows):
    features = random_features(3, 10, 5)
    assert mean_within(features, rows) == pytest.approx(mean_within(features), rel=1e-12)


def test_kid_is_unbiased_for_samples_of_one_distribution():
    draws = np.random.default_rng(0).normal(size=(500, 2, 20, 3))
    values = [jackknife_kid(x, reference_of(y), 2).value for x, y in draws]
    assert abs(np.mean(values)) < 4 * stats.sem(values)


def test_kid_is_clearly_positive_for_different_distributions():
    assert jackknife_kid(random_features(1, 200, 3) + 1, reference_of(random_features(2, 200, 3)), 2).value > 1


def test_jackknife_error_of_kid_matches_its_spread_over_repetitions():
    reference = reference_of(random_features(0, 500, 3))
    runs = [jackknife_kid(random_features(seed + 1, 200, 3) + 0.3, reference, 20) for seed in range(150)]
    errors = [np.sqrt(19 / 20 * ((run.left_out - run.left_out.mean()) ** 2).sum()) for run in runs]
    assert np.mean(errors) == pytest.approx(np.std([run.value for run in runs], ddof=1), rel=0.2)
