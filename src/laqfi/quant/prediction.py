"""What a set of formats costs, as far as the Fisher information can tell before anything is sampled."""

import numpy as np
import torch
from torch import Tensor

from laqfi.storage.layout import Layout


def predicted_change(delta: Tensor, fisher: Tensor) -> float:
    """Σ_j G[j] δ_j² of one tensor: what its change adds to the squared change of the output, summed over pixels."""
    return float((fisher * delta.square()).sum(dtype=torch.float64))


def bits_over_bound(
    layouts: dict[str, Layout],
    weights: dict[str, Tensor],
    changes: dict[str, float],
    fisher: dict[str, Tensor],
    spent: int,
) -> dict[str, float] | None:
    """Mean bits per weight of the integer tensors, which take `spent` bytes, and the fewest that reverse water-filling
    allows.

    Both at the error predicted for these tensors, `changes` by name; a channel's weights count as Gaussian with the
    channel's variance. None if no tensor is stored in integers, or if they are stored without an error, for which there
    is no bound.
    """
    integers = {name: layout for name, layout in layouts.items() if not layout.format.is_float}
    if not integers:
        return None
    variances, counts = [], []
    for name, layout in integers.items():
        weight, importance = layout.matrix(weights[name]), layout.matrix(fisher[name].float())
        variances.append((weight.square().mean(1) * importance.mean(1)).double().cpu().numpy())
        counts.append(np.full(layout.rows, layout.columns))
    distortion = sum(changes[name] for name in integers)
    bound = water_filling_bits(np.concatenate(variances), np.concatenate(counts), distortion)
    return {"bits": 8 * spent / float(np.concatenate(counts).sum()), "bound": bound} if np.isfinite(bound) else None


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
