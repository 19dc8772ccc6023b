"""Bits from a byte budget: the multiple-choice knapsack, solved exactly by integer programming."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from laqfi.errors import LaqfiError


def allocate(costs: list[list[float]], sizes: list[list[int]], budget: int) -> list[int]:
    """One option per item so that the summed cost is least and the summed size within `budget`.

    costs[i][j], sizes[i][j]: cost and size of option j of item i. Returns the option of every item. Raises LaqfiError,
    with the smallest feasible budget, if there is no solution.
    """
    smallest = sum(min(options) for options in sizes)
    if smallest > budget:
        raise LaqfiError(f"a budget of {budget} bytes is too small, the smallest feasible is {smallest}")
    owner = np.concatenate([np.full(len(options), item) for item, options in enumerate(sizes)])
    one_each = LinearConstraint((np.arange(len(sizes))[:, None] == owner).astype(float), 1, 1)
    flat_costs, flat_sizes = np.concatenate(costs), np.concatenate(sizes).astype(float)
    # In units that keep the solver's absolute tolerances harmless: costs span many orders of magnitude.
    unit = max(float(np.sum([min(options) for options in costs])), np.finfo(float).tiny)
    fits = LinearConstraint(flat_sizes[None] / budget, -np.inf, 1)
    result = milp(
        flat_costs / unit,
        constraints=[one_each, fits],
        integrality=np.ones_like(flat_costs),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    if result.x is None:
        raise LaqfiError(f"no allocation was found for a budget of {budget} bytes: {result.message}")
    chosen = np.flatnonzero(result.x > 0.5)
    starts = np.cumsum([0, *[len(options) for options in sizes[:-1]]])
    return (chosen - starts).tolist()


def water_filling_bits(variances: np.ndarray, counts: np.ndarray, distortion: float) -> float:
    """Fewest bits per weight at which independent Gaussian weights can be coded with a summed squared error.

    Reverse water-filling (Cover and Thomas, theorem 10.3.3): Σ_c n_c min(v_c, θ) = distortion gives
    Σ_c n_c ½ log2(v_c / θ)⁺ / Σ_c n_c. variances, counts [C]: of classes of like weights; an error weighted by Fisher
    information is that of weights whose variance is weighted by it. None are needed where nothing varies.
    """
    if not variances.any():
        return 0.0
    if distortion <= 0:
        return float("inf")
    low, high = 0.0, float(variances.max())
    for _ in range(200):
        level = (low + high) / 2
        if (counts * np.minimum(variances, level)).sum() > distortion:
            high = level
        else:
            low = level
    above = variances > low
    bits = 0.5 * counts[above] * np.log2(variances[above] / low) if low > 0 else np.array([np.inf])
    return float(bits.sum() / counts.sum())
