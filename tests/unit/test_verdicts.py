import numpy as np
import pytest

from laqfi.records import Interval
from laqfi.report.verdicts import FID_BANDS, fid_band, short_verdict, size_band, verdict

SHORT = {"identical": "same", "not": "no difference", "worse": "worse", "better": "better"}


def interval(low: float, high: float) -> Interval:
    return Interval(mean=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.0, 0.0, "identical to FP32"),
        (-1.0, 2.0, "not distinguishable from FP32"),
        (0.0, 2.0, "not distinguishable from FP32"),
        (-1.0, 0.0, "not distinguishable from FP32"),
        (1e-9, 2.0, "worse than FP32"),
        (-2.0, -1e-9, "better than FP32"),
        (0.5, 0.5, "worse than FP32"),
    ],
)
def test_verdict_says_where_zero_lies(low, high, word):
    found = interval(low, high)
    assert verdict(found) == word
    assert verdict(found, "uniform") == word.replace("FP32", "uniform")
    assert short_verdict(found) == SHORT[word.split()[0]]


@pytest.mark.parametrize(
    ("edge", "below", "at"),
    [
        (0.10, "none", "slight"),
        (0.20, "slight", "meaningful"),
        (0.30, "meaningful", "noticeable"),
        (0.40, "noticeable", "large"),
        (0.50, "large", "beyond 50 %"),
    ],
)
def test_size_band_changes_at_its_edge(edge, below, at):
    around = (np.nextafter(edge, 0), edge, np.nextafter(edge, 1))
    assert [size_band(reduction) for reduction in around] == [below, at, at]


@pytest.mark.parametrize(("reduction", "word"), [(-0.2, "none"), (0.0, "none"), (0.75, "beyond 50 %")])
def test_size_band_has_a_word_beyond_its_edges(reduction, word):
    assert size_band(reduction) == word


@pytest.mark.parametrize("base", [1.0, 22.7])
@pytest.mark.parametrize(
    ("edge", "below", "at"), [(1.013, "excellent", "good"), (1.035, "good", "fair"), (1.057, "fair", "degraded")]
)
def test_fid_band_changes_at_its_edge(base, edge, below, at):
    around = (np.nextafter(edge * base, 0), edge * base, np.nextafter(edge * base, 1e9))
    assert [fid_band(value, base) for value in around] == [below, at, at]


def test_fid_bands_are_those_of_the_seed_report_at_its_own_best_fid():
    assert [round(22.7 * edge, 1) for edge in FID_BANDS] == [23.0, 23.5, 24.0]


@pytest.mark.parametrize(("value", "word"), [(0.0, "excellent"), (22.7, "excellent"), (100.0, "degraded")])
def test_fid_band_has_a_word_beyond_its_edges(value, word):
    assert fid_band(value, 22.7) == word
