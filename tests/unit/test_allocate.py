from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laqfi.errors import LaqfiError
from laqfi.quant.allocate import allocate

steady = settings(deadline=None, derandomize=True, max_examples=40)


plain = st.integers(1, 1000).map(float)


@st.composite
def instances(draw, cost=plain, largest=60):
    """Costs and sizes of up to five items with up to four options each, and a feasible budget."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    costs = [draw(st.lists(cost, min_size=n, max_size=n)) for n in counts]
    sizes = [draw(st.lists(st.integers(1, largest), min_size=n, max_size=n)) for n in counts]
    low, high = sum(map(min, sizes)), sum(map(max, sizes))
    return costs, sizes, draw(st.integers(low, high + 1))


def total(table, chosen):
    return sum(options[j] for options, j in zip(table, chosen, strict=True))


def least_cost(costs, sizes, budget):
    """The optimum by trying everything."""
    every = product(*(range(len(options)) for options in sizes))
    return min(total(costs, chosen) for chosen in every if total(sizes, chosen) <= budget)


def is_optimal(costs, sizes, budget):
    chosen = allocate(costs, sizes, budget)
    assert len(chosen) == len(costs)
    assert total(sizes, chosen) <= budget
    assert total(costs, chosen) == pytest.approx(least_cost(costs, sizes, budget), rel=1e-6, abs=0)


@steady
@given(instances())
def test_no_other_choice_within_the_budget_costs_less(instance):
    is_optimal(*instance)


@steady
@given(instances(cost=st.floats(-12, 0).map(lambda exponent: 10**exponent)))
def test_costs_may_span_twelve_orders_of_magnitude(instance):
    is_optimal(*instance)


@steady
@given(instances(cost=st.floats(-30, -18).map(lambda exponent: 10**exponent)))
def test_costs_may_all_be_tiny(instance):
    is_optimal(*instance)


@steady
@given(instances(largest=1000))
def test_the_unit_of_the_costs_does_not_matter(instance):
    costs, sizes, budget = instance
    scaled = [[cost * 2.0**-60 for cost in options] for options in costs]
    found, expected = allocate(scaled, sizes, budget), allocate(costs, sizes, budget)
    assert total(costs, found) == pytest.approx(total(costs, expected))


@steady
@given(instances())
def test_a_larger_budget_never_costs_more(instance):
    costs, sizes, budget = instance
    small, large = (total(costs, allocate(costs, sizes, budget + more)) for more in (0, 10))
    assert large <= small * (1 + 1e-9)


@steady
@given(instances(), st.integers(1, 5))
def test_an_infeasible_budget_names_the_smallest_feasible_one(instance, missing):
    costs, sizes, _ = instance
    smallest = sum(map(min, sizes))
    with pytest.raises(LaqfiError, match=rf"{smallest - missing} bytes .* smallest feasible is {smallest}$"):
        allocate(costs, sizes, smallest - missing)
    assert total(sizes, allocate(costs, sizes, smallest)) == smallest


def test_enough_budget_gives_every_item_its_cheapest_option():
    assert allocate([[3.0, 2.0, 1.0], [5.0, 9.0]], [[1, 2, 4], [7, 1]], 11) == [2, 0]


def test_bytes_go_where_they_save_most():
    # One upgrade fits: the second item's saves 100 where the first's saves 1.
    assert allocate([[2.0, 1.0], [200.0, 100.0]], [[10, 20], [10, 20]], 30) == [0, 1]


def test_costs_of_zero_are_allowed_everywhere():
    chosen = allocate([[0.0, 0.0], [0.0, 0.0]], [[10, 20], [10, 20]], 30)
    assert total([[10, 20], [10, 20]], chosen) <= 30


def test_as_many_items_as_a_network_has_are_solved_within_the_budget():
    rng = np.random.default_rng(0)
    sizes = [[int(n * bits) for bits in range(2, 9)] for n in rng.integers(1000, 300_000, 90)]
    costs = [[float(scale * 4.0**-bits) for bits in range(2, 9)] for scale in 10 ** rng.uniform(-10, 2, 90)]
    budget = int(sum(map(min, sizes)) * 1.8)
    chosen = allocate(costs, sizes, budget)
    assert total(sizes, chosen) <= budget
    left = budget - total(sizes, chosen)
    upgrades = [
        some[better] - some[j] for some, j in zip(sizes, chosen, strict=True) for better in range(j + 1, len(some))
    ]
    assert min(upgrades) > left
