"""Rounding that compensates: GPTQ (Frantar et al. 2023), on the curvature of `laqfi.sensitivity.curvature`."""

import torch
from torch import Tensor

DAMPING = 0.01  # of the mean diagonal, added to it


def gptq_codes(matrix: Tensor, curvature: Tensor, scale: Tensor, zero_point: Tensor, levels: int) -> Tensor:
    """Codes [rows, columns] for weights on a given grid with a small Σ_rows δ H δᵀ.

    Columns are rounded one after the other, those of the largest curvature first; each column's error is made good, as
    far as the curvature allows, in the columns not yet rounded. scale, zero_point: [rows, columns].
    """
    diagonal = curvature.diagonal()
    order = diagonal.argsort(descending=True)
    damped = curvature.double() + torch.eye(len(curvature), device=curvature.device) * (
        DAMPING * diagonal.double().mean().clamp(min=1e-30)
    )
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True).to(matrix.dtype)
    weights, scale, zero_point = (tensor[:, order].clone() for tensor in (matrix, scale, zero_point))
    safe = scale.where(scale != 0, torch.ones_like(scale))
    codes = torch.empty_like(weights)
    for i in range(len(order)):
        codes[:, i] = (weights[:, i] / safe[:, i] + zero_point[:, i]).round().clamp(0, levels - 1)
        error = (weights[:, i] - scale[:, i] * (codes[:, i] - zero_point[:, i])) / factor[i, i]
        weights[:, i + 1 :] -= error[:, None] * factor[i, i + 1 :]
    return codes[:, order.argsort()]
