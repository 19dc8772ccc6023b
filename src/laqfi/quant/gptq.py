"""Rounding that compensates: GPTQ (Frantar et al. 2023), on the curvature of `laqfi.sensitivity.curvature`."""

from functools import cache

import torch
from torch import Tensor

from laqfi.base.device import Function, captured

DAMPING = 0.01  # of the mean diagonal, added to it
LAZY = 128  # columns that are rounded before those after them are told of the errors (Algorithm 1)
WHOLE = 1024  # columns that a CPU's cache can hold: up to here it tells all others after every column


def gptq_codes(matrix: Tensor, curvature: Tensor, scale: Tensor, zero_point: Tensor, levels: int) -> Tensor:
    """Codes [rows, columns] for weights on a given grid with a small Σ_rows δ H δᵀ.

    Columns are rounded one after the other, those of the largest curvature first; each column's error is made good, as
    far as the curvature allows, in the columns not yet rounded: in those of its own block at once, in all others with
    one product of matrices when the block is done. scale, zero_point: [rows, columns].
    """
    order, factor = compensation(curvature)
    factor = factor.to(matrix.dtype)
    weights, scale, zero_point = (tensor[:, order].clone() for tensor in (matrix, scale, zero_point))
    top = torch.full((), levels - 1, dtype=matrix.dtype, device=matrix.device)
    round_block, width, codes = on(matrix.device), block_width(matrix), torch.empty_like(weights)
    for start in range(0, len(order), width):
        own, later = slice(start, start + width), slice(start + width, None)
        block = (tensor[:, own] for tensor in (weights, scale, zero_point))
        codes[:, own], errors = round_block(*block, factor[own, own], top)
        weights[:, later] -= errors @ factor[own, later]
    return codes[:, order.argsort()]


def compensation(curvature: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the columns, and the upper Cholesky factor of the inverse of the damped curvature in that order.

    Row i of the factor, over its diagonal, says what an error in column i is made good by in those after it. Raises
    LinAlgError for a curvature that is not positive semi-definite.
    """
    diagonal = curvature.diagonal()
    order = diagonal.argsort(descending=True)
    damped = curvature.double() + torch.eye(len(curvature), device=curvature.device) * (
        DAMPING * diagonal.double().mean().clamp(min=1e-30)
    )
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order]))
    return order, torch.linalg.cholesky(inverse, upper=True)


def block_width(matrix: Tensor) -> int:
    columns = matrix.shape[1]
    return columns if matrix.device.type == "cpu" and columns <= WHOLE else LAZY


@cache
def on(device: torch.device) -> Function:
    """`rounded_block` for a device; on a GPU its graphs, one for each shape, serve all tensors."""
    return captured(rounded_block, device)


def rounded_block(weights: Tensor, scale: Tensor, zero_point: Tensor, factor: Tensor, top: Tensor) -> Tensor:
    """Codes 0 to `top` of a block's columns, one after the other, and what the error of each is to later ones.

    Twice [rows, columns]; factor [columns, columns]. What `weights` holds afterwards is of no use.
    """
    found = torch.empty(2, *weights.shape, dtype=weights.dtype, device=weights.device)
    codes, errors = found
    safe = scale.where(scale != 0, torch.ones_like(scale))
    for i in range(weights.shape[1]):
        codes[:, i] = (weights[:, i] / safe[:, i] + zero_point[:, i]).round().clamp(min=0).minimum(top)
        errors[:, i] = (weights[:, i] - scale[:, i] * (codes[:, i] - zero_point[:, i])) / factor[i, i]
        weights[:, i + 1 :] -= errors[:, i, None] * factor[i, i + 1 :]
    return found
