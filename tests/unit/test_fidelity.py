"""PSNR image by image: closed forms, exact integers, and medians whose intervals cover."""

import math

import numpy as np
import pytest
from scipy import stats

from laqfi.quality.fidelity import ROUNDING_SHARE, Median, carries, fidelity, median, median_gain, psnr, squared_errors

PIXELS = 16


@pytest.mark.parametrize("step", [1, 5, 255])
def test_psnr_of_a_constant_difference_has_its_closed_form(step):
    dark = np.zeros((3, 2, 1, 4, 4), dtype=np.uint8)
    expected = 20 * np.log10(255 / step)
    for images, originals in ((dark + np.uint8(step), dark), (dark, dark + np.uint8(step))):
        errors = squared_errors(images, originals)
        assert errors.tolist() == [[step**2 * PIXELS] * 2] * 3
        np.testing.assert_allclose(psnr(errors, PIXELS), expected, rtol=1e-12)


def test_psnr_of_identical_images_is_infinite():
    images = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    assert psnr(squared_errors(images, images.copy()), 64).tolist() == [math.inf]


def test_one_image_moves_the_pooled_psnr_and_not_the_median():
    errors = [[PIXELS] * 99 + [255**2 * PIXELS]]
    found = fidelity(errors, PIXELS)
    assert found.median == Median(*[pytest.approx(20 * np.log10(255))] * 3)
    assert found.pooled == pytest.approx(10 * np.log10(255**2 / (0.99 + 0.01 * 255**2)))
    expected = stats.binomtest(1, 100).proportion_ci(0.95, method="wilson")
    assert (found.tipped.mean, found.tipped.low, found.tipped.high) == pytest.approx((0.01, *expected))


def test_images_that_equal_fp32s_are_identical():
    found = fidelity([[0] * 20, [0] * 20], PIXELS)
    assert (found.median, found.pooled) == (Median(*[math.inf] * 3), math.inf)
    assert (found.tipped.mean, found.tipped.low) == (0, 0)


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (20, 6), (100, 40)])
def test_the_interval_of_a_median_has_the_ranks_of_published_tables(count, rank):
    """Ranks as in Conover (1999), Practical Nonparametric Statistics, table A3."""
    values = np.random.default_rng(0).permutation(count) + 1.0
    assert median(values) == Median((count + 1) / 2, rank, count + 1 - rank)


def test_the_interval_of_the_median_of_five_values_has_no_ends():
    assert median(np.arange(5.0)) == Median(2, -math.inf, math.inf)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_interval_of_a_median_covers_it_as_often_as_it_says(confidence):
    draws = np.random.default_rng(1).standard_cauchy(size=(4000, 61))
    found = [median(values, confidence) for values in draws]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    k = int(stats.binom.ppf((1 - confidence) / 2, 61, 0.5))
    exact = 1 - 2 * stats.binom.cdf(k - 1, 61, 0.5)
    assert exact >= confidence
    assert covered == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))


def test_a_gain_is_formed_image_by_image_and_has_its_sign():
    ours, others = [[1, 0, 4, 0] * 10], [[10, 0, 40, 5] * 10]
    found = median_gain(ours, others, PIXELS)
    assert found.value == pytest.approx(10)
    opposite = median_gain(others, ours, PIXELS)
    assert (opposite.value, opposite.low, opposite.high) == pytest.approx((-10, -found.high, -found.low))


def test_images_that_both_equal_fp32s_are_no_gain():
    assert median_gain([[0] * 40], [[0] * 40], PIXELS) == Median(0, 0, 0)


def test_coarse_products_carry_where_their_errors_are_a_tenth_of_what_is_found():
    rounding = [[5, 4, 6], [5, 5, 900]]
    assert carries(rounding, [[100] * 3] * 2)
    assert not carries(rounding, [[99] * 3] * 2)
    assert not carries(rounding, [[0] * 3] * 2)
    assert carries([[0]], [[0]]), "without any error all carries"


def test_what_carries_hides_at_most_half_a_decibel():
    """Two independent errors as large as they may be, beside a change: the PSNR that both sides' images show."""
    random, pixels = np.random.default_rng(0), 100_000
    change = 20 * random.normal(size=pixels)
    size = math.sqrt(ROUNDING_SHARE / 2 / (1 - ROUNDING_SHARE)) * 20
    ours, its = (size * random.normal(size=pixels) for _ in range(2))
    true, found = (psnr(np.square(image).sum(), pixels) for image in (change, change + ours - its))
    assert carries([[np.square(its).sum() * 0.98]], [[np.square(change + ours - its).sum()]])
    assert true - found == pytest.approx(-10 * math.log10(1 - ROUNDING_SHARE), abs=0.05)
