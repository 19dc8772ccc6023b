"""The largest size that a limit allows, of what can be made finer step by step."""

from collections.abc import Callable

from laqfi.quant.knapsack import BudgetTooSmallError

NEAR = 1000  # a size within one part of so many below the limit is near enough
PATIENCE = 12  # sizes on one side of the limit, after which it is tried whether there is another side


def finest(size: Callable[[int], int], limit: int, start: int, slope: float, ends: tuple[int, int]) -> int:
    """A place whose size, in bytes, is within `limit` and as near to it as the search finds.

    Sizes fall with the place, by about `slope` bytes each, from the first of `ends` to the last. False position with
    halving: it ends with a size near the limit, or with the finest place that fits between two neighbours. `size` may
    be slow, and is asked once for each place. Raises BudgetTooSmallError if not even the last fits.
    """
    first, last = ends
    sizes: dict[int, int] = {}
    place = min(max(start, first), last)
    while True:
        sizes[place] = size(place)
        fitting = [one for one, found in sizes.items() if found <= limit]
        larger = [one for one, found in sizes.items() if found > limit and one < min(fitting, default=last + 1)]
        low, high = max(larger, default=first - 1), min(fitting, default=last + 1)
        if low >= last:
            raise BudgetTooSmallError(f"a target of {limit} bytes is too small, the smallest feasible is {sizes[last]}")
        if high <= last and (high - low == 1 or limit - sizes[high] <= limit // NEAR):
            return high
        place = between(sizes, limit, slope, low, high)


def between(sizes: dict[int, int], limit: int, slope: float, low: int, high: int) -> int:
    """Where to look next: low < place < high, of which either may lie beyond all that was tried."""
    aim = limit - limit // (2 * NEAR)
    if low in sizes and high in sizes:
        if len(sizes) % 4 == 0:
            return (low + high) // 2
        share = (sizes[low] - aim) / (sizes[low] - sizes[high])
        return min(max(low + round(share * (high - low)), low + 1), high - 1)
    known = low if low in sizes else high
    if len(sizes) >= PATIENCE:
        return high - 1 if known == low else low + 1
    moved = round((sizes[known] - aim) / seen_slope(sizes, known, slope)) * 2 ** (len(sizes) // 4)
    step = max(moved, 1) if known == low else min(moved, -1)
    return min(max(known + step, low + 1), high - 1)


def seen_slope(sizes: dict[int, int], place: int, slope: float) -> float:
    """Bytes by which sizes fell a place, up to `place` or from there on, whose sizes are known; `slope` if none did."""
    other = min((one for one in sizes if one != place), key=lambda one: abs(one - place), default=place)
    fallen = (sizes[other] - sizes[place]) * (1 if other < place else -1)
    return fallen / abs(other - place) if fallen > 0 else slope
