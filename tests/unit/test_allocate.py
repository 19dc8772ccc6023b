import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laqfi.base.errors import LaqfiError
from laqfi.quant.knapsack import allocate

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
    """Without rounding, so that nothing small is lost beside something large."""
    return sum(Fraction(options[j]) for options, j in zip(table, chosen, strict=True))


def least_cost(costs, sizes, budget):
    """The optimum by trying everything."""
    every = product(*(range(len(options)) for options in sizes))
    return min(total(costs, chosen) for chosen in every if total(sizes, chosen) <= budget)


def is_optimal(costs, sizes, budget):
    chosen = allocate(costs, sizes, budget)
    assert len(chosen) == len(costs)
    assert total(sizes, chosen) <= budget
    least = least_cost(costs, sizes, budget)
    assert total(costs, chosen) - least <= Fraction(1e-12) * abs(least)


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


free = st.sampled_from([0.0, 0.0, 1e-12, 3.0, 1e6])


@steady
@given(instances(cost=free))
def test_options_may_cost_nothing_or_the_same(instance):
    is_optimal(*instance)


@steady
@given(instances(cost=st.floats(-12, 6).map(lambda exponent: 10**exponent), largest=10**8))
def test_costs_and_sizes_may_span_all_that_a_network_has(instance):
    is_optimal(*instance)


@steady
@given(instances(cost=st.floats(-1, 1)))
def test_costs_may_be_negative(instance):
    is_optimal(*instance)


@steady
@given(instances(cost=free, largest=4))
def test_of_equally_cheap_choices_one_of_the_fewest_bytes_is_taken(instance):
    costs, sizes, budget = instance
    every = product(*(range(len(options)) for options in sizes))
    found = {chosen: (total(costs, chosen), total(sizes, chosen)) for chosen in every}
    best = min(of for of in found.values() if of[1] <= budget)
    assert found[tuple(allocate(costs, sizes, budget))] == best


@steady
@given(instances(largest=1000))
def test_the_unit_of_the_costs_does_not_matter(instance):
    costs, sizes, budget = instance
    scaled = [[cost * 2.0**-60 for cost in options] for options in costs]
    found, expected = allocate(scaled, sizes, budget), allocate(costs, sizes, budget)
    assert found == expected


@steady
@given(instances())
def test_a_larger_budget_never_costs_more(instance):
    costs, sizes, budget = instance
    small, large = (total(costs, allocate(costs, sizes, budget + more)) for more in (0, 10))
    assert large <= small


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


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 10**30])
def test_every_item_may_have_an_option_without_cost(budget):
    assert allocate([[1.0, 0.0]], [[1, 4]], budget) == [int(budget >= 4)]


def test_costs_of_zero_are_allowed_everywhere():
    assert allocate([[0.0, 0.0], [0.0, 0.0]], [[20, 10], [10, 20]], 40) == [1, 0]


def test_of_equal_options_the_first_is_taken():
    assert allocate([[1.0, 1.0, 1.0]] * 3, [[5, 5, 5]] * 3, 15) == [0, 0, 0]


def test_nothing_to_choose_is_no_choice():
    assert allocate([], [], 0) == []
    assert allocate([[7.0], [0.0]], [[3], [4]], 7) == [0, 0]


@pytest.mark.parametrize("cost", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_no_finite_number_is_refused(cost):
    with pytest.raises(LaqfiError, match=r"options cost -?(nan|inf) together, allowed is a finite number$"):
        allocate([[1.0, cost], [1.0, 2.0]], [[1, 2], [1, 2]], 4)


def test_nothing_is_printed(capfd):
    allocate([[1.0, 0.0], [2.0, 1.0]], [[1, 4], [2, 3]], 6)
    assert capfd.readouterr() == ("", "")


def network(kind: str, items: int = 97):
    """Costs and sizes as a network has them, in nine formats, the last of them without error."""
    rng = np.random.default_rng(0)
    bits, counts = np.array([2, 3, 4, 5, 6, 7, 8, 16]), rng.integers(100, 300_000, items)
    spread = {"unlike": 10 ** rng.uniform(-10, 2, items), "alike": np.ones(items)}[kind]
    noise = 1 + 0.1 * rng.uniform(-1, 1, (items, len(bits)))
    errors = counts[:, None] * spread[:, None] * 4.0**-bits * noise
    sizes = [[int(n * b) // 8 + 64 for b in (*bits, 32)] for n in counts]
    return np.append(errors, np.zeros((items, 1)), 1).tolist(), sizes


def priced(costs, sizes, budget):
    """The best lower bound that a price per byte gives, of all at which some option becomes worth its bytes."""
    costs, sizes = np.array(costs), np.array(sizes)
    prices = [
        (costs[:, i] - costs[:, j]) / (sizes[:, j] - sizes[:, i]) for j in range(costs.shape[1]) for i in range(j)
    ]
    paid = [(costs + price * sizes).min(1).sum() - price * budget for price in np.concatenate(prices) if price >= 0]
    return max(paid)


@pytest.mark.parametrize("kind", ["unlike", "alike"])
@pytest.mark.parametrize("factor", [1.1, 1.8, 4.0])
def test_a_network_costs_hardly_more_than_if_options_could_be_had_in_parts(kind, factor):
    """Among so many tensors there are always some that fill the budget to nearly its last byte."""
    costs, sizes = network(kind)
    budget = int(sum(map(min, sizes)) * factor)
    chosen = allocate(costs, sizes, budget)
    assert total(sizes, chosen) <= budget
    bound = priced(costs, sizes, budget)
    assert bound * (1 - 1e-9) <= total(costs, chosen) <= bound * (1 + 1e-2)


@pytest.mark.parametrize("kind", ["unlike", "alike"])
def test_no_exchange_of_two_items_helps(kind):
    costs, sizes = network(kind)
    budget = int(sum(map(min, sizes)) * 1.8)
    chosen = allocate(costs, sizes, budget)
    left = budget - total(sizes, chosen)
    moves = [
        (i, of[k] - of[j], Fraction(cost[k]) - Fraction(cost[j]))
        for i, (of, cost, j) in enumerate(zip(sizes, costs, chosen, strict=True))
        for k in range(len(of))
    ]
    for i, size, cost in moves:
        assert not any(i != other and size + more <= left and cost + dearer < 0 for other, more, dearer in moves)


@pytest.mark.parametrize("budget", [1500, 54_321, 123_456])
def test_costs_that_fall_in_step_with_the_bytes_are_those_of_the_fullest_choice(budget):
    """Each byte saves the same, so that the relaxation tells no choice from another: a sum of subsets."""
    rng = np.random.default_rng(1)
    sizes = [sorted(map(int, rng.choice(np.arange(1, 1000), 4, replace=False))) for _ in range(60)]
    budget += sum(map(min, sizes)) - 1000
    costs = [[float(5000 - size) for size in options] for options in sizes]
    chosen = allocate(costs, sizes, budget)
    assert total(sizes, chosen) == min(budget, sum(map(max, sizes)))


def test_many_like_items_are_solved():
    sizes, costs = [[250 * bits for bits in range(2, 9)]] * 200, [[4.0**-bits for bits in range(2, 9)]] * 200
    budget = 200 * 250 * 5 + 249
    chosen = allocate(costs, sizes, budget)
    assert total(sizes, chosen) <= budget
    assert total(costs, chosen) == 200 * Fraction(4.0**-5)
