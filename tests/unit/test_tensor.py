import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laqfi.base.errors import LaqfiError
from laqfi.quant.grid import fit_grid
from laqfi.storage.formats import FLOATS, INTEGERS, Format
from laqfi.storage.layout import Layout
from stored import quantize

steady = settings(deadline=None, derandomize=True, max_examples=60)
SHAPES = {"conv": ((6, 4, 3, 3), 0), "transposed": ((4, 6, 4, 4), 1), "linear": ((6, 10), 0)}
every_shape = pytest.mark.parametrize(("shape", "axis"), SHAPES.values(), ids=SHAPES)
CLOSED = {name: bits for name, bits in INTEGERS.items() if bits <= 8}  # the wider ones are of open grids
every_integer = pytest.mark.parametrize("name", CLOSED)
integers = st.builds(Format, st.sampled_from(sorted(CLOSED)), st.booleans(), st.integers(-1, 30))


@st.composite
def integer_layouts(draw):
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=2, max_size=4)))
    kernel = torch.Size(shape[2:]).numel()
    some = st.none()
    if len(shape) > 2:
        some |= st.sets(st.integers(0, kernel - 1), min_size=1).map(lambda taps: tuple(sorted(taps)))
    return Layout(draw(integers), shape, draw(st.sampled_from([0, 1])), draw(some))


def normal(shape, seed=0):
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def positive(shape):
    return normal(shape, seed=1).square() + 1e-6


def bytes_of(parts):
    return sum(len(part.contiguous().view(torch.uint8).flatten()) for part in parts.values())


@steady
@given(integer_layouts(), st.sampled_from(["max", "mse", "fisher"]))
def test_the_parts_are_those_announced_and_give_the_restored_weight(layout, search):
    weight = normal(layout.shape)
    parts, restored = quantize(weight, layout, search, positive(layout.shape))
    assert {name: (part.dtype, tuple(part.shape)) for name, part in parts.items()} == layout.part_shapes()
    assert bytes_of(parts) == layout.bytes()
    assert torch.equal(layout.restore(parts), restored)
    assert restored.shape == weight.shape


@steady
@given(integer_layouts())
def test_a_layout_survives_json(layout):
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


@steady
@given(integer_layouts())
def test_matrix_and_weight_are_inverse(layout):
    weight = layout.weight(layout.matrix(normal(layout.shape)))
    assert layout.matrix(weight).shape == (layout.rows, layout.columns)
    assert torch.equal(layout.weight(layout.matrix(weight)), weight)


@every_shape
@every_integer
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_output_channel_is_stored_on_a_grid_of_its_own(shape, axis, name, symmetric):
    weight, format = normal(shape), Format(name, symmetric)
    _, restored = quantize(weight, Layout(format, shape, axis), "mse")
    for channel in range(shape[axis]):
        alone = weight.select(axis, channel)
        codes = fit_grid(alone.reshape(1, -1), format, "mse")
        assert torch.equal(restored.select(axis, channel), codes.values().view(alone.shape))


@every_shape
def test_eight_bits_are_nearly_exact_and_each_bit_less_costs(shape, axis):
    weight = normal(shape)
    errors = [
        (quantize(weight, Layout(Format(name), shape, axis), "mse")[1] - weight).abs().mean().item() for name in CLOSED
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.005 * weight.abs().max()


@every_shape
def test_the_whole_tensor_may_share_one_scale(shape, axis):
    weight = normal(shape)
    layout = Layout(Format("int4", group_size=-1), shape, axis)
    parts, restored = quantize(weight, layout, "max")
    assert parts[".scale"].shape == (1,)
    steps = restored / parts[".scale"].float()
    assert torch.allclose(steps, steps.round(), atol=1e-4)


@every_shape
@pytest.mark.parametrize("name", FLOATS)
def test_a_float_format_is_a_plain_cast(shape, axis, name):
    weight, layout = normal(shape), Layout(Format(name), shape, axis)
    parts, restored = quantize(weight, layout, "mse")
    assert parts.keys() == {""}
    assert (parts[""].dtype, tuple(parts[""].shape)) == layout.part_shapes()[""]
    assert torch.equal(restored, weight.to(FLOATS[name]).float())
    assert torch.equal(layout.restore(parts), restored)
    assert layout.bytes() == bytes_of(parts) == weight.numel() * Format(name).bits // 8


@pytest.mark.parametrize(("symmetric", "grid"), [(True, 2), (False, 3)])
@every_integer
def test_size_is_the_bits_of_the_codes_and_a_grid_for_each_group(name, symmetric, grid):
    bits = INTEGERS[name]
    shape = (16, 8, 3, 3)
    count = 16 * 8 * 9
    for size, groups in ((0, 16), (-1, 1), (24, 16 * 3), (8, 16 * 9)):
        layout = Layout(Format(name, symmetric, size), shape)
        assert layout.bytes() == count * bits // 8 + groups * grid


def test_a_group_size_that_does_not_divide_leaves_a_short_last_group():
    weight = normal((3, 10))
    layout = Layout(Format("int4", group_size=4), (3, 10))
    parts, restored = quantize(weight, layout, "mse")
    assert parts[".scale"].shape == (9,)
    for row in range(3):
        for cut in (slice(0, 4), slice(4, 8), slice(8, 10)):
            alone = fit_grid(weight[row : row + 1, cut], layout.format, "mse").values()
            assert torch.equal(restored[row : row + 1, cut], alone)


@pytest.mark.parametrize(("shape", "axis"), [SHAPES["conv"], SHAPES["transposed"]])
@pytest.mark.parametrize("format", [Format("int3"), Format("int5", symmetric=False), Format("int8", group_size=-1)])
def test_weights_outside_the_taps_come_back_zero_and_the_others_as_without(shape, axis, format):
    taps, inside = (1, 4, 8), torch.zeros(shape).flatten(2)
    inside[:, :, (1, 4, 8)] = 1
    inside = inside.view(shape)
    weight, importance = normal(shape), positive(shape)
    few, everything = Layout(format, shape, axis, taps), Layout(format, shape, axis)
    _, restored = quantize(weight, few, "fisher", importance)
    assert (restored[inside == 0] == 0).all()
    assert (restored - weight)[inside == 1].abs().max() < 0.1
    _, expected = quantize(weight * inside, everything, "fisher", importance * inside)
    assert torch.equal(restored, expected)
    assert few.bytes() < everything.bytes()


def test_importance_is_grouped_as_the_weights_are():
    shape = (4, 6, 4, 4)
    layout = Layout(Format("int3", group_size=7), shape, 1, (0, 5, 6, 15))
    weight, importance = normal(shape), positive(shape)
    searched, plain = (
        (importance * (quantize(weight, layout, search, importance)[1] - weight).square()).sum()
        for search in ("fisher", "mse")
    )
    assert searched < plain


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("format", [Format("int4"), Format("int8", symmetric=False), Format("float8_e4m3fn")])
def test_the_weight_is_restored_in_the_dtype_asked_for(format, dtype):
    layout = Layout(format, (6, 10))
    parts, restored = quantize(normal((6, 10)), layout, "mse")
    found = layout.restore(parts, dtype)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), restored, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [*CLOSED, *FLOATS])
def test_weights_that_are_not_finite_are_refused(name, bad):
    weight = normal((6, 10))
    weight[2, 3] = bad
    with pytest.raises(LaqfiError, match="holds values that are not finite"):
        quantize(weight, Layout(Format(name), (6, 10)), "mse")


@pytest.mark.parametrize(
    ("name", "large", "fits"), [("float16", 7e4, 6e4), ("float8_e4m3fn", 500, 448), ("bfloat16", 3.4e38, 3e38)]
)
def test_weights_beyond_a_float_format_are_refused(name, large, fits):
    layout = Layout(Format(name), (1, 2))
    with pytest.raises(LaqfiError, match=rf"does not fit {name}; largest \|w\| is"):
        quantize(torch.tensor([[1.0, -large]]), layout, "mse")
    assert quantize(torch.tensor([[1.0, -fits]]), layout, "mse")[1].isfinite().all()


GOOD = Layout(Format("int4"), (6, 4, 3, 3), 0, (0, 4)).to_json()


def test_the_layout_the_bad_ones_differ_from_is_good():
    assert Layout.from_json(GOOD).taps == (0, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "int13"},
        {"name": "int9", "symmetric": False},
        {"name": "int1"},
        {"name": "float16"},
        {"name": None},
        {"name": ["int4"]},
        {"name": {}},
        {"symmetric": 1},
        {"symmetric": "yes"},
        {"symmetric": None},
        {"group_size": -2},
        {"group_size": 1.5},
        {"group_size": "8"},
        {"group_size": None},
        {"shape": []},
        {"shape": None},
        {"shape": 6},
        {"shape": [6, 0, 3, 3]},
        {"shape": [6, -4, 3, 3]},
        {"shape": ["6", "4"]},
        {"shape": [[6], [4]]},
        {"axis": 2},
        {"axis": -1},
        {"axis": None},
        {"axis": "0"},
        {"axis": [0]},
        {"axis": 1, "shape": [6], "taps": None},
        {"taps": []},
        {"taps": 3},
        {"taps": [9]},
        {"taps": [-1, 0]},
        {"taps": [4, 0]},
        {"taps": [0, 0, 4]},
        {"taps": ["0", "4"]},
        {"taps": [None]},
        {"taps": [[0], [4]]},
        {"taps": [0, 4], "shape": [6, 4]},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_no_layout(change):
    with pytest.raises(LaqfiError, match="not a tensor layout"):
        Layout.from_json(GOOD | change)


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_no_layout(key):
    with pytest.raises(LaqfiError, match=f"not a tensor layout.*{key}"):
        Layout.from_json({k: v for k, v in GOOD.items() if k != key})


@pytest.mark.parametrize("value", [None, 3, "int4", [], ["int4"], True, {}])
def test_what_is_no_object_is_no_layout(value):
    with pytest.raises(LaqfiError, match="not a tensor layout"):
        Layout.from_json(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner, max_size=3),
    max_leaves=6,
)


@settings(steady, max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), json_values))
def test_any_other_value_is_refused_or_stands_for_a_tensor(changes):
    try:
        layout = Layout.from_json(GOOD | changes)
    except LaqfiError:
        return
    assert layout.bytes() > 0


EVERY = [Format(name, symmetric, size) for name in CLOSED for symmetric in (True, False) for size in (0, -1, 5)]


@pytest.mark.parametrize("format", [*EVERY, *map(Format, FLOATS)], ids=str)
@pytest.mark.parametrize("search", ["max", "mse", "fisher"])
def test_weights_of_zeros_an_empty_channel_and_zero_fisher_come_back_right(format, search):
    """Zeros stay zeros, also the zeros of one channel; without Fisher information the search is by squared error."""
    weight = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    layout, nothing = Layout(format, (3, 2, 3, 3)), torch.zeros(3, 2, 3, 3)
    zeros = quantize(torch.zeros_like(weight), layout, search, nothing)[1]
    assert torch.equal(zeros, torch.zeros_like(weight))
    parts, restored = quantize(weight, layout, search, nothing)
    assert torch.equal(restored[1], weight[1])
    assert torch.equal(restored, quantize(weight, layout, "mse" if search == "fisher" else search)[1])
    assert torch.equal(restored, layout.restore(parts))


@pytest.mark.parametrize("format", EVERY[:6], ids=str)
def test_without_any_curvature_gptq_is_rounding_to_nearest(format):
    weight = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    layout = Layout(format, (4, 10))
    nearest = quantize(weight, layout, "mse")[1]
    assert torch.equal(quantize(weight, layout, "mse", curvature=torch.zeros(10, 10))[1], nearest)


def test_a_curvature_that_is_none_is_refused():
    negative = torch.ones(10, 10).fill_diagonal_(0)
    with pytest.raises(LaqfiError, match="not positive semi-definite"):
        quantize(torch.randn(4, 10), Layout(Format("int4"), (4, 10)), "mse", curvature=negative)


@pytest.mark.parametrize("format", EVERY[:6], ids=str)
def test_weights_beyond_a_scale_in_float16_are_refused(format):
    with pytest.raises(LaqfiError, match=r"does not fit scales in float16; largest \|w\| is 1e\+12"):
        quantize(torch.tensor([[1.0, 1e12, -3.0]]), Layout(format, (1, 3)), "mse")


def test_a_tensor_without_values_is_refused():
    with pytest.raises(LaqfiError, match="holds no values"):
        quantize(torch.zeros(0, 3), Layout(Format("int4"), (0, 3)), "mse")
