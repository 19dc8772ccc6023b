import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy import stats

from laqfi.quality.statistics import (
    Jackknifed,
    Reference,
    interval,
    jackknife_fid,
    matrix_sqrt,
    mean_and_covariance,
    paired_difference,
    record_of,
    runs_of,
)
from laqfi.records import Jackknife

steady = settings(deadline=None, derandomize=True, max_examples=50)
seeds = st.integers(0, 2**32 - 1)
coordinates = st.lists(st.tuples(*[st.floats(-10, 10)] * 2, *[st.floats(0, 10)] * 2), min_size=2, max_size=6)


def random_features(seed: int, count: int, size: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, size)) @ random.normal(size=(size, size)) + random.normal(size=size)


def reference_of(features: np.ndarray) -> Reference:
    return Reference.of(*mean_and_covariance(features))


def fid(a: np.ndarray, b: np.ndarray) -> float:
    return reference_of(a).frechet_distance(*mean_and_covariance(b))


def published_fid(a: np.ndarray, b: np.ndarray) -> float:
    return calculate_frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def fid_by_singular_values(a: np.ndarray, b: np.ndarray) -> float:
    """With C1 = A'A and C2 = B'B, the trace of (C1 C2)^½ is the nuclear norm of AB': exact at any rank."""
    A, B = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + (A**2).sum() + (B**2).sum() - 2 * np.linalg.norm(A @ B.T, "nuc")


def leave_one_out_means(values: np.ndarray) -> Jackknifed:
    return Jackknifed(values.mean(), (values.sum() - values) / (len(values) - 1))


def half_width(runs: list[Jackknifed]) -> float:
    found = interval(runs)
    return (found.high - found.low) / 2


def noisy_pair(seed: int) -> tuple[list[Jackknifed], list[Jackknifed]]:
    """Two runs whose features differ by 1 %."""
    random = np.random.default_rng(seed)
    real, base = random_features(0, 300, 4), random_features(seed, 300, 4)
    run = base + 0.01 * random.normal(size=base.shape)
    return [jackknife_fid(run, reference_of(real), 20)], [jackknife_fid(base, reference_of(real), 20)]


@steady
@given(seeds)
def test_fid_of_equal_statistics_is_zero(seed):
    features = random_features(seed, 60, 5)
    assert fid(features, features) == pytest.approx(0, abs=1e-6 * np.trace(np.cov(features, rowvar=False)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("size", [2, 7, 24])
@pytest.mark.parametrize("seed", range(4))
def test_fid_equals_pytorch_fid_on_full_rank_features(seed, size):
    a, b = random_features(seed, 200, size), random_features(seed + 100, 150, size)
    assert fid(a, b) == pytest.approx(published_fid(a, b), rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("count", "other"), [(8, 10), (8, 100), (100, 8)])
def test_fid_equals_pytorch_fid_on_rank_deficient_features(count, other):
    # Each zero eigenvalue costs sqrtm about the square root of machine precision, hence not 1e-6.
    a, b = random_features(1, count, 24), random_features(2, other, 24)
    assert fid(a, b) == pytest.approx(published_fid(a, b), rel=1e-4)


@steady
@given(seeds, st.integers(2, 40), st.integers(2, 40))
def test_fid_equals_the_nuclear_norm_form_at_any_rank(seed, count, other):
    a, b = random_features(seed, count, 16), random_features(seed ^ 1, other, 16)
    assert fid(a, b) == pytest.approx(fid_by_singular_values(a, b), rel=1e-6)


@steady
@given(coordinates)
def test_fid_of_diagonal_gaussians_is_the_distance_of_means_and_deviations(values):
    m1, m2, s1, s2 = np.array(values).T
    distance = Reference.of(m1, np.diag(s1**2)).frechet_distance(m2, np.diag(s2**2))
    assert distance == pytest.approx(((m1 - m2) ** 2 + (s1 - s2) ** 2).sum(), rel=1e-6, abs=1e-6)


@steady
@given(seeds, st.integers(3, 40))
def test_fid_is_symmetric(seed, count):
    a, b = random_features(seed, count, 6), random_features(seed ^ 1, 50, 6)
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-6)


@steady
@given(seeds, st.integers(2, 12))
def test_matrix_sqrt_is_the_symmetric_root(seed, count):
    covariance = np.cov(random_features(seed, count, 6), rowvar=False)
    root = matrix_sqrt(covariance)
    np.testing.assert_allclose(root, root.T, atol=1e-9)
    np.testing.assert_allclose(root @ root, covariance, atol=1e-9 * np.trace(covariance))
    assert np.linalg.eigvalsh(root).min() > -1e-6


def test_jackknife_value_is_the_fid_of_all_features():
    real, features = random_features(1, 200, 5), random_features(2, 53, 5)
    assert jackknife_fid(features, reference_of(real), 7).value == pytest.approx(fid(real, features), rel=1e-9)


@pytest.mark.parametrize(("count", "groups"), [(40, 8), (53, 7), (11, 10)])
def test_jackknife_leaves_out_each_group_of_consecutive_samples(count, groups):
    real, features = random_features(1, 200, 3), random_features(2, count, 3)
    members = np.array_split(np.arange(count), groups)
    expected = [fid(real, np.delete(features, group, axis=0)) for group in members]
    np.testing.assert_allclose(jackknife_fid(features, reference_of(real), groups).left_out, expected, rtol=1e-8)


def test_jackknife_keeps_its_digits_far_from_the_origin():
    real, features = random_features(1, 200, 4), random_features(2, 60, 4)
    near = jackknife_fid(features, reference_of(real), 6)
    far = jackknife_fid(features + 1e6, reference_of(real + 1e6), 6)
    np.testing.assert_allclose(far.left_out, near.left_out, rtol=1e-6)
    assert far.value == pytest.approx(near.value, rel=1e-6)


def test_jackknife_error_of_fid_matches_its_spread_over_repetitions():
    reference = reference_of(random_features(0, 1000, 3))
    mixing = np.random.default_rng(1).normal(size=(3, 3))
    draws = np.random.default_rng(2).normal(size=(150, 300, 3)) @ mixing
    runs = [jackknife_fid(features, reference, 20) for features in draws]
    errors = [half_width([run]) / stats.t.ppf(0.975, 19) for run in runs]
    assert np.mean(errors) == pytest.approx(np.std([run.value for run in runs], ddof=1), rel=0.2)


@steady
@given(seeds, st.integers(3, 30))
def test_interval_of_a_mean_is_the_students_t_interval(seed, count):
    values = np.random.default_rng(seed).normal(3, 2, size=count)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = interval([leave_one_out_means(values)])
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), *expected), rel=1e-9)


def test_interval_of_a_mean_over_groups_has_the_standard_error_of_the_group_means():
    groups = np.random.default_rng(0).normal(size=(8, 25))
    run = Jackknifed(groups.mean(), np.array([np.delete(groups, k, axis=0).mean() for k in range(8)]))
    assert half_width([run]) == pytest.approx(stats.t.ppf(0.975, 7) * stats.sem(groups.mean(axis=1)), rel=1e-9)


def test_variances_of_independent_seeds_add():
    samples = [np.random.default_rng(seed).normal(seed, 1 + seed, size=12) for seed in range(3)]
    found = interval([leave_one_out_means(values) for values in samples])
    half = stats.t.ppf(0.975, 3 * 11) * np.sqrt(sum(stats.sem(values) ** 2 for values in samples)) / 3
    mean = np.mean(samples)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))


def test_differences_between_seeds_do_not_widen_the_interval():
    values = np.random.default_rng(0).normal(size=12)
    together = [leave_one_out_means(values), leave_one_out_means(values)]
    apart = [leave_one_out_means(values), leave_one_out_means(values + 100)]
    assert half_width(apart) == pytest.approx(half_width(together))


def test_interval_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(1000, 3, 10))
    found = [interval([leave_one_out_means(values) for values in samples]) for samples in draws]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_difference_of_a_run_with_itself_is_exactly_zero():
    runs, _ = noisy_pair(1)
    found = interval(paired_difference(runs, runs))
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_an_interval_of_no_number_is_refused():
    with pytest.raises(ValueError, match="finite number"):
        interval([Jackknifed(1.0, np.array([1.0, np.nan]))])


def test_runs_are_the_same_after_they_were_a_record():
    runs, _ = noisy_pair(1)
    runs.append(Jackknifed(1 / 3, np.array([*runs[0].left_out[:-1], 2 / 3])))
    found = record_of(runs)
    assert (found.mean, found.low, found.high) == tuple(interval(runs).model_dump().values())
    again = runs_of(Jackknife.model_validate_json(found.model_dump_json()))
    assert [one.value for one in again] == [one.value for one in runs]
    for one, other in zip(again, runs, strict=True):
        assert np.array_equal(one.left_out, other.left_out)


def test_paired_difference_subtracts_the_base_seed_by_seed():
    runs = [Jackknifed(5.0, np.array([4.0, 6.0])), Jackknifed(7.0, np.array([7.0, 8.0]))]
    base = [Jackknifed(2.0, np.array([1.0, 2.0])), Jackknifed(9.0, np.array([3.0, 5.0]))]
    first, second = paired_difference(runs, base)
    assert (first.value, second.value) == (3, -2)
    assert (first.left_out.tolist(), second.left_out.tolist()) == ([3, 4], [4, 3])


def test_runs_with_different_numbers_of_seeds_are_not_paired():
    runs, base = noisy_pair(1)
    with pytest.raises(ValueError, match="zip"):
        paired_difference(runs * 2, base)


@pytest.mark.parametrize("seed", range(1, 6))
def test_pairing_narrows_the_interval_of_correlated_runs(seed):
    runs, base = noisy_pair(seed)
    assert half_width(paired_difference(runs, base)) < 0.1 * np.hypot(half_width(runs), half_width(base))
