"""Rounding that compensates: GPTQ (Frantar et al. 2023) in its form without an inverse (LDLQ, Chee et al. 2023)."""

from functools import cache

import torch
from torch import Tensor

from laqfi.base.device import Function, captured

LAZY = 128  # columns that are rounded before those after them are told of the errors (Algorithm 1)
WHOLE = 1024  # columns that a CPU's cache can hold: up to here it tells all others after every column


def gptq_codes(
    matrix: Tensor, order: Tensor, feedback: Tensor, scale: Tensor, zero_point: Tensor, levels: int | Tensor
) -> Tensor:
    """Codes [rows, columns] for weights on a given grid with a small Σ_rows δ H δᵀ.

    `levels`: codes that there are, or [rows], of each row.

    Columns are rounded one after the other, as `order` [columns] says; each column's error is made good, as far as the
    curvature allows, in the columns not yet rounded: in those of its own block at once, in all others with one product
    of matrices when the block is done. feedback [columns, columns]: U of `Compensation`, in that order. scale,
    zero_point: [rows, columns].
    """
    weights, scale, zero_point = (tensor[:, order].clone() for tensor in (matrix, scale, zero_point))
    top = torch.as_tensor(levels - 1, dtype=matrix.dtype, device=matrix.device)
    round_block, width, codes = on(matrix.device), block_width(matrix), torch.empty_like(weights)
    for start in range(0, len(order), width):
        own, later = slice(start, start + width), slice(start + width, None)
        told = feedback[own].to(matrix.dtype)
        codes[:, own], errors = round_block(
            weights[:, own], matrix[:, order[own]], scale[:, own], zero_point[:, own], told[:, own], top
        )
        weights[:, later] += errors @ told[:, later]
    return codes[:, order.argsort()]


def block_width(matrix: Tensor) -> int:
    columns = matrix.shape[1]
    return columns if matrix.device.type == "cpu" and columns <= WHOLE else LAZY


@cache
def on(device: torch.device) -> Function:
    """`rounded_block` for a device; on a GPU its graphs, one for each shape, serve all tensors."""
    return captured(rounded_block, device)


def rounded_block(
    aims: Tensor, weights: Tensor, scale: Tensor, zero_point: Tensor, feedback: Tensor, top: Tensor
) -> Tensor:
    """Codes 0 to `top`, one number or [rows], of a block's columns, one after the other, and the error of each.

    Twice [rows, columns]. aims: the weights with what earlier blocks ask of them; weights: as they are in the model;
    feedback [columns, columns]. What `aims` holds afterwards is of no use.
    """
    found = torch.empty(2, *weights.shape, dtype=weights.dtype, device=weights.device)
    codes, errors = found
    safe = scale.where(scale != 0, torch.ones_like(scale))
    for i in range(weights.shape[1]):
        codes[:, i] = (aims[:, i] / safe[:, i] + zero_point[:, i]).round().clamp(min=0).minimum(top)
        errors[:, i] = weights[:, i] - scale[:, i] * (codes[:, i] - zero_point[:, i])
        aims[:, i + 1 :] += errors[:, i, None] * feedback[i, i + 1 :]
    return found
