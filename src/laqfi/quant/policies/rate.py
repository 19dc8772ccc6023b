"""One step for all: what is left to an entropy code, which makes of frequent codes few bits."""

import math
from typing import Literal

from laqfi.base.errors import LaqfiError
from laqfi.quant.apply import store_all, stored_size
from laqfi.quant.choice import Choice, Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.fitting import finest
from laqfi.quant.policies.budget import Target, size_in
from laqfi.quant.policies.registry import FileSize, FloatFormat, Rounding, Weighting, policy
from laqfi.quant.rounding import check_values
from laqfi.storage.formats import Format

WIDEST = "int12"  # that an open grid may need
FINE = 256  # c is 2**(k / FINE) for whole k
ENDS = (-64 * FINE, 64 * FINE)


class FileTarget(Target):
    """A size, of the whole file unless it says another."""

    of: Literal["file", "resident"] = "file"


@policy
def rate(
    tensors: list[Evidence],
    file_size: FileSize,
    *,
    target: FileTarget,
    weighting: Weighting = "uniform",
    rounding: Rounding = "gptq",
    group_size: Literal[0, -1] = -1,
    rest: FloatFormat = "float16",
) -> Choices:
    """Open grids of the step c / √(mean Fisher) for all matrices, with the finest c that fits.

    One for each tensor (`group_size` -1) or output channel (0, nearer to the bound where codes are rounded to nearest).
    An entropy code, `coding: ans`, needs the fewest bits where every grid costs as much. Biases and norms get `rest`.
    Raises BudgetTooSmallError, with the smallest feasible size, for a target that no step meets.
    """
    widest = Format(WIDEST, symmetric=True, group_size=group_size)
    roots = {t.name: root_of(t, widest, weighting) for t in tensors if t.is_matrix}

    def chosen(k: int) -> Choices:
        steps = {t.name: 2.0 ** (k / FINE) / math.sqrt(t.counts[weighting] or 1.0) for t in tensors if t.is_matrix}
        matrices = {name: Choice(widest, rounding=rounding, step=step) for name, step in steps.items()}
        return {t.name: matrices.get(t.name, Choice(Format(rest))) for t in tensors}

    def size(k: int) -> int:
        return file_size(chosen(k)) if target.of == "file" else stored_size(store_all(tensors, chosen(k)))

    parameters = sum(t.weight.numel() for t in tensors)
    limit = target.limit(parameters, lambda name: size_in(tensors, Format(name), rest))
    return chosen(finest(size, limit, *first_guess(tensors, roots, limit), ENDS))


def root_of(t: Evidence, format: Format, weighting: str) -> float:
    """√ of the mean Fisher of the weights that are stored. Raises LaqfiError if it or a weight is no finite number."""
    with t.named():
        check_values(t.weight)
    found = math.sqrt(t.counts[weighting] * float(t.layout(format).matrix(t.fisher.double()).mean()))
    if not math.isfinite(found):
        raise LaqfiError(f"{t.name}: the mean Fisher information is {found**2}, allowed is a finite number")
    return found


def first_guess(tensors: list[Evidence], roots: dict[str, float], limit: int) -> tuple[int, float]:
    """k at which all would take about `limit` bytes, and by how many they fall there with every k."""
    sizes = [
        (t.weight.numel(), roots[t.name] ** 2 * float(t.weight.double().square().mean()))
        for t in tensors
        if roots.get(t.name) and t.weight.any()
    ]
    most = limit * sum(n for n, _ in sizes) / sum(t.weight.numel() for t in tensors)
    low, high = ENDS
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if gaussian_bytes(sizes, middle) > most else (low, middle)
    return low, max(1.0, gaussian_bytes(sizes, low - 1) - gaussian_bytes(sizes, low))


def gaussian_bytes(sizes: list[tuple[int, float]], k: int) -> float:
    """Of the codes of tensors of so many weights with the variance (σ / Δ)² · 4^(k / FINE), as if they were Gaussian.

    Those of small steps take log2(σ / Δ) + 2.05 bits each, those of large ones less and less.
    """
    scale = 2 * math.pi * math.e * 4.0 ** (-k / FINE)
    return sum(n * math.log2(1 + scale * variance) for n, variance in sizes) / 16
