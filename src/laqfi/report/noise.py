"""How far quantization moves the predicted noise: as the Fisher information predicts it, and as measured."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy import stats
from scipy.special import ndtri

from laqfi.base.errors import LaqfiError
from laqfi.quality.fidelity import Fidelity
from laqfi.records import Allocation, Evaluation

# Parts of a recipe that the Fisher information of rounded weights says nothing of.
BESIDE_WEIGHTS = {"activations", "correct", "recover"}


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)  # built-in `sum` adds up in another way since Python 3.12


def changes(evaluations: dict[str, Evaluation], allocations: dict[str, Allocation]) -> dict[str, tuple[float, float]]:
    """(predicted, measured) mean squared change of the noise of every variant that only rounds weights.

    Both are means over the timestep bins that hold a measured timestep. Raises LaqfiError for a timestep in no bin.
    """
    points = {}
    for name, evaluation in evaluations.items():
        if allocations[name].recipe.done.keys() & BESIDE_WEIGHTS:
            continue
        predicted = allocations[name].predicted_noise_mse
        measured: dict[int, list[float]] = {}
        for timestep, value in evaluation.noise_mse.items():
            edge = min((edge for edge in predicted if edge >= timestep), default=None)
            if edge is None:
                raise LaqfiError(f"{name}: its choices predict up to timestep {max(predicted)}, not {timestep}")
            measured.setdefault(edge, []).append(value)
        if any(any(values) for values in measured.values()):
            points[name] = mean(predicted[edge] for edge in measured), mean(map(mean, measured.values()))
    return points


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ with its 95 % interval."""

    rho: float
    low: float
    high: float


def spearman(points: Mapping[str, tuple[float, float]]) -> Correlation | None:
    """Rank correlation of the two coordinates; None for fewer than five points.

    The interval is symmetric in atanh ρ, with the standard error √((1 + ρ²/2) / (n - 3)) of Bonett and Wright (2000),
    which takes the points for independent draws; ρ = ± 1 has no width by it and gets that of the nearest ρ that one
    swapped pair of neighbours would give.
    """
    n = len(points)
    if n < 5:
        return None
    rho = float(stats.spearmanr(*zip(*points.values(), strict=True)).statistic)
    if math.isnan(rho):
        return None
    one_swap = 1 - 12 / (n * (n * n - 1))  # Σ d² = 2 in ρ = 1 - 6 Σ d² / (n (n² - 1))
    near = max(-one_swap, min(one_swap, rho))
    half = float(ndtri(0.975)) * math.sqrt((1 + near**2 / 2) / (n - 3))
    low, high = math.tanh(math.atanh(near) - half), math.tanh(math.atanh(near) + half)
    return Correlation(rho, min(low, rho), max(high, rho))


def image_changes(
    changes: Mapping[str, tuple[float, float]], fidelities: Mapping[str, Fidelity]
) -> dict[str, tuple[float, float]]:
    """(predicted change of the noise, error of the median image) of every variant whose median image is not FP32's.

    The error is mean squared, relative to the square of the largest pixel value: 10^(-PSNR / 10).
    """
    found = {name: (predicted, fidelities[name].median.value) for name, (predicted, _) in changes.items()}
    return {name: (predicted, 10 ** (-psnr / 10)) for name, (predicted, psnr) in found.items() if math.isfinite(psnr)}
