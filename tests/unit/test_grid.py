from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laqfi.quant.grid import CLIPS, fit_grid
from laqfi.storage.formats import INTEGERS, Format
from stored import as_groups, as_matrix

steady = settings(deadline=None, derandomize=True, max_examples=40)
cases = pytest.mark.parametrize("symmetric", [True, False])
CLOSED = {name: bits for name, bits in INTEGERS.items() if bits <= 8}  # the wider ones are of open grids
every_integer = pytest.mark.parametrize("name", CLOSED)
formats = st.builds(Format, st.sampled_from(sorted(CLOSED)), st.booleans())


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def weights(draw):
    """Weights [groups, n] of very unlike groups: scales, offsets, outliers, zeros."""
    rows, columns, seed = draw(st.integers(1, 5)), draw(st.integers(1, 40)), draw(st.integers(0, 10_000))
    scale = torch.tensor(draw(st.lists(st.sampled_from([0.0, 0.01, 0.3, 5.0]), min_size=rows, max_size=rows)))
    offset = draw(st.sampled_from([0.0, 0.0, -2.0, 1.0]))
    groups = (normal(rows, columns, seed=seed) + offset) * scale[:, None]
    groups[0, 0] *= draw(st.sampled_from([1.0, 20.0]))
    return groups


def importance_of(groups, seed=1):
    return (3 * normal(*groups.shape, seed=seed)).exp()


def errors(codes, groups, weight=1.0):
    return (weight * (codes.values() - groups).double().square()).sum(1)


def levels_of(codes, format):
    """Every value a group could take [groups, levels]."""
    return codes.scale * (torch.arange(format.levels) - codes.zero_point)


@steady
@given(weights(), formats, st.sampled_from(["max", "mse", "fisher"]))
def test_every_weight_gets_its_nearest_level(groups, format, search):
    codes = fit_grid(groups, format, search, importance_of(groups))
    nearest = (groups[:, :, None] - levels_of(codes, format)[:, None]).abs().amin(2)
    assert torch.allclose((codes.values() - groups).abs(), nearest, rtol=1e-4, atol=1e-6)


@steady
@given(weights(), formats, st.sampled_from(["max", "mse", "fisher"]))
def test_inside_the_range_the_error_is_at_most_half_a_step(groups, format, search):
    codes = fit_grid(groups, format, search, importance_of(groups))
    levels = levels_of(codes, format)
    inside = (groups >= levels.amin(1, keepdim=True)) & (groups <= levels.amax(1, keepdim=True))
    bound = codes.scale.abs().expand_as(groups) / 2
    assert ((codes.values() - groups).abs()[inside] <= bound[inside] * 1.0001 + 1e-6).all()


@steady
@given(weights(), formats, st.sampled_from(["max", "mse", "fisher"]))
def test_codes_scales_and_zero_points_are_what_their_storage_holds(groups, format, search):
    codes = fit_grid(groups, format, search, importance_of(groups))
    assert torch.equal(codes.scale.half().float(), codes.scale)
    assert torch.equal(codes.codes.to(torch.uint8).float(), codes.codes)
    assert torch.equal(codes.zero_point.to(torch.uint8).float(), codes.zero_point)
    assert codes.codes.max() < format.levels
    assert codes.zero_point.max() < format.levels
    assert codes.scale.shape == codes.zero_point.shape == (len(groups), 1)
    if format.symmetric:
        assert (codes.zero_point == 2 ** (format.bits - 1)).all()


@steady
@given(weights(), formats)
def test_searching_for_the_squared_error_never_does_worse_than_the_largest_weight(groups, format):
    searched, plain = (errors(fit_grid(groups, format, search), groups) for search in ("mse", "max"))
    assert (searched <= plain * (1 + 1e-5) + 1e-12).all()


@steady
@given(weights(), formats)
def test_searching_with_importance_never_has_a_larger_weighted_error(groups, format):
    importance = importance_of(groups)
    weighted, plain = (
        errors(fit_grid(groups, format, search, importance), groups, importance) for search in ("fisher", "mse")
    )
    assert (weighted <= plain * (1 + 1e-5) + 1e-12).all()


@steady
@given(weights(), formats)
def test_equal_importance_is_the_squared_error(groups, format):
    by_fisher = fit_grid(groups, format, "fisher", torch.ones_like(groups))
    by_error = fit_grid(groups, format, "mse")
    assert torch.equal(by_fisher.values(), by_error.values())


@steady
@given(weights(), formats)
def test_groups_without_importance_are_searched_by_squared_error(groups, format):
    importance = importance_of(groups)
    importance[0] = 0
    assert torch.equal(
        fit_grid(groups, format, "fisher", importance).values()[0], fit_grid(groups, format, "mse").values()[0]
    )


@steady
@given(weights(), formats, st.sampled_from(["max", "mse", "fisher"]))
def test_groups_do_not_influence_each_other(groups, format, search):
    importance = importance_of(groups)
    together = fit_grid(groups, format, search, importance).values()
    alone = [fit_grid(groups[i : i + 1], format, search, importance[i : i + 1]).values() for i in range(len(groups))]
    assert torch.equal(together, torch.cat(alone))


@steady
@given(weights(), formats, st.sampled_from(["max", "mse", "fisher"]))
def test_zero_stays_exactly_zero(groups, format, search):
    groups[:, ::2] = 0
    codes = fit_grid(groups, format, search, importance_of(groups))
    assert (codes.values()[:, ::2] == 0).all()


@cases
@every_integer
@pytest.mark.parametrize("search", ["max", "mse", "fisher"])
def test_a_group_of_zeros_is_exact_beside_one_that_is_not(name, symmetric, search):
    groups = torch.stack([torch.zeros(8), normal(8)])
    codes = fit_grid(groups, Format(name, symmetric), search, torch.ones_like(groups))
    assert (codes.values()[0] == 0).all()
    assert codes.values().isfinite().all()
    assert codes.values()[1].abs().max() > 0


@pytest.mark.parametrize("sign", [1, -1])
@every_integer
def test_all_levels_of_a_symmetric_grid_are_exact_with_the_extra_one_on_either_side(name, sign):
    half = 2 ** (INTEGERS[name] - 1)
    groups = sign * torch.arange(-half, half)[None] * 0.25
    codes = fit_grid(groups, Format(name), "max")
    assert torch.equal(codes.values(), groups)
    assert codes.scale.item() == sign * 0.25


@every_integer
@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_all_levels_of_an_affine_grid_are_exact_wherever_zero_lies(name, share):
    levels = 2 ** INTEGERS[name]
    below = round(share * (levels - 1))
    groups = (torch.arange(levels)[None] - below) * 0.5
    codes = fit_grid(groups, Format(name, symmetric=False), "max")
    assert torch.equal(codes.values(), groups)
    assert (codes.scale.item(), codes.zero_point.item()) == (0.5, below)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("search", ["max", "mse"])
@every_integer
def test_an_affine_grid_holds_one_sided_weights_better(name, sign, search):
    groups = sign * (0.1 + torch.rand(20, 64, generator=torch.Generator().manual_seed(0)))
    affine, symmetric = (errors(fit_grid(groups, Format(name, s), search), groups).sum() for s in (False, True))
    assert affine < 0.7 * symmetric


@cases
def test_eight_bits_are_nearly_exact(symmetric):
    groups = 0.1 * normal(10, 50)
    restored = fit_grid(groups, Format("int8", symmetric), "max").values()
    assert (restored - groups).abs().max() < groups.abs().max() / 127


@cases
@pytest.mark.parametrize("search", ["max", "mse", "fisher"])
def test_every_bit_more_lowers_the_error(symmetric, search):
    groups = normal(10, 100)
    importance = importance_of(groups)
    weight = importance if search == "fisher" else 1.0
    found = [
        errors(fit_grid(groups, Format(name, symmetric), search, importance), groups, weight).sum() for name in CLOSED
    ]
    assert all(more < 0.6 * fewer for fewer, more in pairwise(found))


@cases
def test_smaller_groups_have_a_smaller_error(symmetric):
    matrix = normal(6, 64) * torch.logspace(-2, 0, 6)[:, None] * torch.linspace(0.2, 2, 64)
    errors_of = []
    for size in (-1, 0, 16, 4):
        groups = as_groups(matrix, size)
        restored = as_matrix(fit_grid(groups, Format("int4", symmetric, size), "mse").values(), size, *matrix.shape)
        errors_of.append((restored - matrix).square().sum())
    assert errors_of == sorted(errors_of, reverse=True)


def test_an_outlier_is_clipped_when_that_lowers_the_squared_error():
    groups = torch.cat([normal(1, 1000), torch.tensor([[8.0]])], dim=1)
    plain, searched = (fit_grid(groups, Format("int3"), search) for search in ("max", "mse"))
    assert searched.scale.abs().item() < 0.8 * plain.scale.abs().item()
    assert errors(searched, groups) < 0.8 * errors(plain, groups)


def test_only_weights_of_importance_decide_the_scale():
    groups = torch.tensor([[0.1, -0.2, 0.3, -0.4, 1.0]])
    importance = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    restored = fit_grid(groups, Format("int3"), "fisher", importance).values()
    assert torch.allclose(restored[0, :4], groups[0, :4], atol=1e-4)
    assert restored[0, 4] < 0.5


@steady
@given(st.integers(1, 6), st.integers(1, 30), st.integers(-1, 40))
def test_cutting_in_groups_is_undone(rows, columns, size):
    matrix = normal(rows, columns)
    groups = as_groups(matrix, size)
    assert torch.equal(as_matrix(groups, size, rows, columns), matrix)
    assert groups.shape[1] == (rows * columns if size == -1 else size or columns)
    assert groups.count_nonzero() == matrix.count_nonzero()


def test_groups_follow_the_channels_and_the_last_is_filled_up_with_zeros():
    matrix = torch.arange(1, 11).view(2, 5)
    assert as_groups(matrix, -1).tolist() == [list(range(1, 11))]
    assert as_groups(matrix, 0).tolist() == matrix.tolist()
    assert as_groups(matrix, 3).tolist() == [[1, 2, 3], [4, 5, 0], [6, 7, 8], [9, 10, 0]]


@pytest.mark.parametrize(
    ("name", "bits"),
    [("float32", 32), ("float16", 16), ("bfloat16", 16), ("float8_e4m3fn", 8), ("int2", 2), ("int8", 8)],
)
def test_a_format_knows_its_bits(name, bits):
    assert Format(name).bits == bits
    assert Format(name).is_float == ("float" in name)


def test_the_search_tries_all_clipping_factors_from_one_down():
    assert tuple(round(1 - 0.05 * step, 2) for step in range(15)) == CLIPS


def test_a_zero_point_stays_a_code_where_the_scale_itself_is_rounded_a_lot():
    """Scales below the normal range of float16 have few digits."""
    found = fit_grid(torch.tensor([[-2.27e-5, 0.0]]), Format("int8", symmetric=False), "max")
    assert found.zero_point.item() == 255
