"""The search for the scale (and zero point) of an integer grid, and the nearest codes on it."""

from typing import Literal

import torch
from torch import Tensor

from laqfi.storage.formats import Format
from laqfi.storage.layout import Codes, affine_grid

CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3)

Search = Literal["max", "mse", "fisher"]


def round_to_grid(groups: Tensor, scale: Tensor, zero_point: Tensor, levels: int) -> Codes:
    """Nearest codes. A group with scale 0 holds zeros only and gets the code of zero."""
    codes = (groups / scale.where(scale != 0, torch.ones_like(scale)) + zero_point).round().clamp(0, levels - 1)
    return Codes(codes, scale, zero_point)


def candidate_grids(groups: Tensor, format: Format, clip: float):
    """The grids for one clipping factor, as (scale, zero_point): both signs of a symmetric one, or the affine one.

    Scales are rounded to the float16 they are stored in, so that the error measured is the error that stays.
    """
    if format.symmetric:
        scale = clip * groups.abs().amax(1, keepdim=True) / (format.levels / 2)
        zero_point = torch.full_like(scale, format.levels // 2)
        return [((sign * scale).half().float(), zero_point) for sign in (1, -1)]
    ends = clip * groups.amin(1, keepdim=True), clip * groups.amax(1, keepdim=True)
    return [affine_grid(*ends, format.levels)]


def fit_grid(groups: Tensor, format: Format, search: Search, importance: Tensor | None = None) -> Codes:
    """Codes of weights [groups, n] on the grid with the least error.

    `search` "max" keeps the largest weight in range; "mse" tries clipping factors for the least Σ (q − w)², "fisher"
    for the least Σ F·(q − w)² with F = `importance` [groups, n]. A group without any importance falls back to "mse".
    """
    weight = torch.ones_like(groups)
    if search == "fisher":
        weight = importance.where(importance.sum(1, keepdim=True) > 0, weight)
    best, best_error = None, None
    for clip in CLIPS[:1] if search == "max" else CLIPS:
        for scale, zero_point in candidate_grids(groups, format, clip):
            tried = round_to_grid(groups, scale, zero_point, format.levels)
            error = (weight * (tried.values() - groups) ** 2).sum(1, keepdim=True)
            if best is None:
                best, best_error = tried, error
                continue
            better = error < best_error
            best = Codes(
                *(
                    torch.where(better, new, old)
                    for new, old in zip(vars(tried).values(), vars(best).values(), strict=True)
                )
            )
            best_error = error.minimum(best_error)
    return best
