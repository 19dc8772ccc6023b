"""How far quantization moves the predicted noise: as the Fisher information predicts it, and as measured."""

import math
from collections.abc import Iterable

from scipy import stats

from laqfi.base.errors import LaqfiError
from laqfi.records import Allocation, Evaluation


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)  # built-in `sum` adds up in another way since Python 3.12


def changes(evaluations: dict[str, Evaluation], allocations: dict[str, Allocation]) -> dict[str, tuple[float, float]]:
    """(predicted, measured) mean squared change of the noise of every variant that changes it.

    Both are means over the timestep bins that hold a measured timestep. Raises LaqfiError for a timestep in no bin.
    """
    points = {}
    for name, evaluation in evaluations.items():
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


def spearman(points: dict[str, tuple[float, float]]) -> float:
    """Rank correlation of the two coordinates; NaN for fewer than three points."""
    return float(stats.spearmanr(*zip(*points.values(), strict=True)).statistic) if len(points) > 2 else float("nan")
