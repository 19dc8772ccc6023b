import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laqfi.storage.pack import pack, packed_bytes, unpack

WIDTHS = range(1, 9)

steady = settings(deadline=None, derandomize=True, max_examples=50)
every_width = pytest.mark.parametrize("bits", WIDTHS)
widths_and_codes = st.sampled_from(WIDTHS).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, (1 << bits) - 1), max_size=70))
)


def random_codes(bits, *shape):
    return torch.from_numpy(np.random.default_rng(bits).integers(0, 1 << bits, shape, dtype=np.uint8))


def as_one_integer(codes, bits):
    """The packed bytes by big-integer arithmetic: code i starts at bit i * bits."""
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    return number.to_bytes(-(-len(codes) // 8) * bits, "little")


@steady
@given(widths_and_codes)
def test_unpacking_gives_the_packed_codes_back(case):
    bits, codes = case
    packed = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert unpack(packed, bits, len(codes)).tolist() == codes


@steady
@given(widths_and_codes)
def test_packed_bytes_are_those_of_one_big_integer(case):
    bits, codes = case
    packed = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert packed.dtype == torch.uint8
    assert bytes(packed.tolist()) == as_one_integer(codes, bits)


@every_width
def test_every_length_round_trips(bits):
    codes = random_codes(bits, 41)
    for count in range(len(codes) + 1):
        assert torch.equal(unpack(pack(codes[:count], bits), bits, count), codes[:count])


@every_width
def test_there_are_no_gaps(bits):
    for count in range(0, 400, 8):
        assert packed_bytes(count, bits) == count * bits / 8
    for count in range(100):
        assert 0 <= packed_bytes(count, bits) - count * bits / 8 < bits
        assert len(pack(torch.zeros(count, dtype=torch.uint8), bits)) == packed_bytes(count, bits)


@every_width
def test_largest_codes_fill_every_bit(bits):
    packed = pack(torch.full((16,), (1 << bits) - 1, dtype=torch.uint8), bits)
    assert packed.tolist() == [255] * 2 * bits


def test_eight_bits_are_packed_as_they_are():
    codes = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(pack(codes, 8), codes)


@every_width
def test_codes_of_any_shape_and_stride_are_packed_in_reading_order(bits):
    codes = random_codes(bits, 5, 7, 3).movedim(2, 0)
    assert not codes.is_contiguous()
    assert torch.equal(pack(codes, bits), pack(codes.flatten(), bits))


@pytest.mark.parametrize("bits", range(1, 8))
def test_a_code_too_large_is_refused(bits):
    codes = torch.zeros(20, dtype=torch.uint8)
    codes[13] = 1 << bits
    with pytest.raises(ValueError, match=f"code {1 << bits} does not fit {bits} bits"):
        pack(codes, bits)
