import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laqfi.base.random import NoiseStreams, derive_seed, generator

steady = settings(deadline=None, derandomize=True, max_examples=50)
parts = st.lists(st.integers(-(2**40), 2**40) | st.text(max_size=5), max_size=4).map(tuple)
SHAPE = (1, 3, 3)


def drawn(seed: int, indices: range, times: int = 3) -> np.ndarray:
    streams = NoiseStreams(seed, indices, SHAPE)
    return np.stack([streams.draw() for _ in range(times)])


@steady
@given(parts, parts)
def test_seeds_are_equal_exactly_where_their_parts_are(a, b):
    assert (derive_seed(*a) == derive_seed(*b)) == (a == b)


@steady
@given(parts)
def test_seeds_fit_63_bits(a):
    assert 0 <= derive_seed(*a) < 2**63


def test_seeds_tell_numbers_from_words_and_where_one_part_ends():
    assert len({derive_seed(*a) for a in [(1, 2), ("1", "2"), (12,), ("12",), (2, 1), ("1", 2), ("1, 2",)]}) == 7


def test_seeds_are_the_same_in_another_process():
    code = "from laqfi.base.random import derive_seed; print(derive_seed('train', 0, 'step'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(other) == derive_seed("train", 0, "step")


def test_seed_of_a_training_step_never_changes():
    assert derive_seed("train", 0, 1) == 158178449485906904


def test_noise_of_a_sample_never_changes():
    np.testing.assert_allclose(
        NoiseStreams(0, range(1), (3,)).draw(), [[0.43521497, -0.51277024, 1.8507425]], rtol=1e-6
    )


def test_generators_repeat_themselves_and_differ_from_each_other():
    first, again, other = (generator(*a).random(8).tolist() for a in [("a", 1), ("a", 1), ("a", 2)])
    assert first == again
    assert first != other


@steady
@given(st.integers(0, 9), st.integers(1, 9))
def test_noise_does_not_depend_on_how_samples_are_batched(cut, size):
    whole = drawn(7, range(10))
    split = np.concatenate([drawn(7, range(cut)), drawn(7, range(cut, 10))], axis=1)
    batches = [drawn(7, range(start, min(start + size, 10))) for start in range(0, 10, size)]
    assert np.array_equal(split, whole)
    assert np.array_equal(np.concatenate(batches, axis=1), whole)


def test_noise_does_not_depend_on_the_order_of_samples_or_of_batches():
    forwards = drawn(7, range(5))
    assert np.array_equal(drawn(7, range(4, -1, -1)), forwards[:, ::-1])
    late, early = NoiseStreams(7, range(3, 5), SHAPE), NoiseStreams(7, range(3), SHAPE)
    interleaved = [(late.draw(), early.draw()) for _ in range(3)]
    assert np.array_equal(np.stack([np.concatenate([b, a]) for a, b in interleaved]), forwards)


def test_every_seed_sample_and_draw_has_noise_of_its_own():
    rows = np.concatenate([drawn(seed, range(10)).reshape(30, -1) for seed in (0, 1)])
    assert len(np.unique(rows, axis=0)) == 60


def test_a_draw_is_not_overwritten_by_the_next():
    streams = NoiseStreams(0, range(2), SHAPE)
    first = streams.draw()
    before = first.copy()
    streams.draw()
    assert np.array_equal(first, before)


def test_noise_has_the_asked_shape_in_float32():
    noise = NoiseStreams(0, range(5, 9), (2, 4, 6)).draw()
    assert noise.shape == (4, 2, 4, 6)
    assert noise.dtype == np.float32


def test_noise_is_standard_normal():
    noise = NoiseStreams(0, range(200), (500,)).draw().astype(np.float64).ravel()
    moments = [np.mean(noise**power) for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.06)


def test_streams_of_neighbouring_samples_and_seeds_are_uncorrelated():
    noise = np.concatenate([NoiseStreams(seed, range(10), (4000,)).draw() for seed in (0, 1)])
    correlation = np.corrcoef(noise) - np.eye(20)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)
