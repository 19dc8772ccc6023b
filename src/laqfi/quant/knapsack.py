"""Bits from a byte budget: the multiple-choice knapsack, solved exactly.

A price per byte, that of the relaxation without integers, bounds from below what any choice costs (Sinha and Zoltners
1979); dynamic programming runs over the choices that this bound leaves (Pisinger 1995). Every step is a comparison, a
sum of integers or one rounded operation of IEEE 754, so that the same costs give the same choice on every machine.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from laqfi.base.errors import LaqfiError

WIDTH, WIDER = 300, 40  # partial choices kept at first, and how many times more for as long as some are left out
ROUNDING = 1e-12  # relative, far more than sums over thousands of items are off by
PROVEN = 1e-13  # a choice that comes as near to the lower bound, relatively, is the best one


class BudgetTooSmallError(LaqfiError):
    """No choice fits."""


@dataclass(frozen=True, eq=False)
class Item:
    """The options for which no other is both as small and as cheap, from the smallest to the largest.

    `costs` are above the item's cheapest; `penalties` are costs with the bytes paid for, above the least of these.
    `index` and `places` are where the item and its options stood in what was given.
    """

    index: int
    places: np.ndarray
    sizes: np.ndarray
    costs: np.ndarray
    penalties: np.ndarray

    @property
    def relaxed(self) -> int:
        """The option that the relaxation takes."""
        return int(self.penalties.argmin())

    @property
    def step(self) -> float:
        """The least penalty of another option."""
        return sorted([*self.penalties.tolist(), math.inf])[1]


def allocate(costs: list[list[float]], sizes: list[list[int]], budget: int) -> list[int]:
    """One option per item so that the summed cost is least and the summed size within `budget`.

    costs[i][j], sizes[i][j]: cost and size of option j of item i. Returns the option of every item; of choices that
    cost the same, one of the smallest size. Raises LaqfiError for costs that are not finite, BudgetTooSmallError, with
    the smallest feasible budget, if there is no solution.
    """
    total = sum(abs(cost) for options in costs for cost in options)
    if not math.isfinite(total):
        raise LaqfiError(f"the options cost {total} together, allowed is a finite number")
    smallest = sum(map(min, sizes))
    if smallest > budget:
        raise BudgetTooSmallError(f"a budget of {budget} bytes is too small, the smallest feasible is {smallest}")
    budget = min(budget, sum(map(max, sizes)))
    worthwhile = [undominated(np.array(of), np.array(some, float)) for of, some in zip(sizes, costs, strict=True)]
    price = price_of_a_byte(worthwhile, budget)
    items = [Item(i, *options, penalties(*options[1:], price)) for i, options in enumerate(worthwhile)]
    items.sort(key=lambda item: item.step)
    bound = lower_bound(items, price, budget)
    best = sum(float(item.costs[0]) for item in items)
    slack = ROUNDING * (best + price * budget)
    width = WIDTH
    while True:
        chosen, cost, known = search(items, budget, best, bound - slack, width)
        if known or cost - bound <= PROVEN * cost:
            return chosen
        best, width = min(best, cost), width * WIDER


def undominated(sizes: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, sizes, and costs above the cheapest, of an item's options that are worth a look."""
    kept = frontier(sizes, costs)
    return kept, sizes[kept], costs[kept] - costs[kept[-1]]


def frontier(sizes: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Where those stand that cost less than all that are as small, by rising size."""
    order = np.lexsort((costs, sizes))
    cheapest = np.minimum.accumulate(np.append(np.inf, costs[order]))
    return order[costs[order] < cheapest[:-1]]


def price_of_a_byte(worthwhile: list[tuple[np.ndarray, np.ndarray, np.ndarray]], budget: int) -> float:
    """What the last byte of the budget saves when parts of options can be had, those that save most per byte first."""
    upgrades = []
    for _, sizes, costs in worthwhile:
        at = 0
        while at + 1 < len(sizes):
            saved = (costs[at] - costs[at + 1 :]) / (sizes[at + 1 :] - sizes[at])
            to = at + 1 + int(saved.argmax())
            upgrades.append((float(saved.max()), int(sizes[to] - sizes[at])))
            at = to
    left = budget - sum(int(sizes[0]) for _, sizes, _ in worthwhile)
    for saved, size in sorted(upgrades, reverse=True):
        left -= size
        if left < 0:
            return saved
    return 0.0


def penalties(sizes: np.ndarray, costs: np.ndarray, price: float) -> np.ndarray:
    paid = costs + price * sizes
    return paid - paid.min()


def lower_bound(items: list[Item], price: float, budget: int) -> float:
    """No choice within the budget costs less, whatever the price; without rounding but for the last."""
    exact = Fraction(price)
    least = sum(
        min(Fraction(cost) + exact * size for cost, size in zip(item.costs.tolist(), item.sizes.tolist(), strict=True))
        for item in items
    )
    return float(least - exact * budget)


def search(items: list[Item], budget: int, best: float, bound: float, width: int) -> tuple[list[int], float, bool]:
    """The cheapest choice found, its cost (infinite if none was), and whether it is known to be the cheapest.

    Choices grow by one item after the other, the rest as the relaxation has them. One goes on if its penalties lie
    within what `best`, the cost of some choice, is above `bound`, if it can still end within the budget, and if no
    other is as small and as cheap; and if it is among the `width` with the least penalties, else that is not known.
    """
    sizes, costs, paid = np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
    grown, known = [], True
    for item, rest in zip(items, remaining(items), strict=True):
        options = np.flatnonzero(item.penalties <= best - bound)
        sizes, costs, paid = (
            np.add.outer(of, more[options]).ravel()
            for of, more in ((sizes, item.sizes), (costs, item.costs), (paid, item.penalties))
        )
        kept = np.flatnonzero((paid <= best - bound) & (sizes + rest.smallest <= budget))
        kept = kept[frontier(sizes[kept], costs[kept])]
        fitting = kept[sizes[kept] + rest.size <= budget]
        if len(fitting):
            best = min(best, float(costs[fitting[-1]]) + rest.cost)
        if len(kept) > width:
            distance = abs(sizes[kept] + rest.size - budget)
            kept = kept[np.sort(np.lexsort((distance, paid[kept]))[:width])]
            known = False
        grown.append((kept, options))
        sizes, costs, paid = sizes[kept], costs[kept], paid[kept]
    if not len(costs):
        return [], math.inf, known
    chosen, at = [0] * len(items), len(costs) - 1
    for item, (kept, options) in zip(reversed(items), reversed(grown), strict=True):
        at, option = divmod(int(kept[at]), len(options))
        chosen[item.index] = int(item.places[options[option]])
    return chosen, float(costs[-1]), known


class Rest(NamedTuple):
    """Items that a choice has still to grow by: their size at least, and size and cost as the relaxation has them."""

    smallest: int
    size: int
    cost: float


def remaining(items: list[Item]) -> list[Rest]:
    """What remains after each of them."""
    rests = [Rest(0, 0, 0.0)]
    for item in reversed(items):
        at, last = item.relaxed, rests[-1]
        smallest, size = last.smallest + int(item.sizes[0]), last.size + int(item.sizes[at])
        rests.append(Rest(smallest, size, last.cost + float(item.costs[at])))
    return rests[-2::-1]
