"""What makes good the rounding error of one weight by the weights that are not yet rounded."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import lapack
from torch import Tensor

from laqfi.base.errors import LaqfiError

DAMPING = 0.01  # of the mean diagonal of the curvature, added to it
ROWS = 1024  # of a factor that are rounded and packed at a time


@dataclass(frozen=True, eq=False)
class Compensation:
    """The factors of a damped curvature H of n columns, taken in `order`: H = (U + 1) D (U + 1)ᵀ.

    An error δ of the weights of one output channel then costs Σ_k D_k (δ_k + Σ_{i<k} δ_i U_ik)²: whoever rounds column
    k after the columns i < k makes it least by aiming at w_k − Σ_i δ_i U_ik (LDLQ, Chee et al. 2023, who prove that it
    is GPTQ; without an inverse of H). order: int32 [n], columns of the largest curvature first. pivots: float32 [n], D.
    feedback: float16, the strict upper triangle of U row by row, n (n − 1) / 2 numbers of which none exceeds
    √(n / DAMPING), and zeros up to a multiple of four.
    """

    order: Tensor
    pivots: Tensor
    feedback: Tensor

    @classmethod
    def of(cls, curvature: Tensor) -> "Compensation":
        """Of a symmetric H [n, n]. Raises LaqfiError if it is no curvature."""
        order = ascending(curvature.diagonal())
        return cls.of_ordered(curvature[order][:, order], order)

    @classmethod
    def of_ordered(cls, curvature: Tensor, order: Tensor) -> "Compensation":
        """Of H with its rows and columns in the order of `ascending`, which is overwritten: no other is needed.

        Columns without curvature, which only ever meet padding, do not count for the damping.
        """
        diagonal = curvature.diagonal()
        diagonal += DAMPING * diagonal[diagonal > 0].mean().nan_to_num(1.0)
        factor = cholesky(curvature)
        pivots = factor.diagonal().clone()
        feedback = torch.from_numpy(np.concatenate(list(strict_rows(factor, pivots)))).flip(0)
        return cls(order.flip(0).int().cpu(), pivots.flip(0).square().cpu(), F.pad(feedback, (0, -len(feedback) % 4)))

    @classmethod
    def of_parts(cls, order: Tensor, pivots: Tensor, feedback: Tensor) -> "Compensation":
        """Of what a file holds. Raises LaqfiError for an order that is none, and for pivots that are not positive."""
        if not torch.equal(order.sort().values, torch.arange(len(order), dtype=order.dtype)):
            raise LaqfiError("has an order that does not name every column once")
        if not (pivots > 0).all():
            raise LaqfiError("has pivots that are not positive")
        return cls(order, pivots, feedback)

    @staticmethod
    def shapes(name: str, columns: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """What a file holds for the weight `name`, in the order of the fields."""
        triangle = columns * (columns - 1) // 2
        return {
            f"order/{name}": (torch.int32, (columns,)),
            f"pivots/{name}": (torch.float32, (columns,)),
            f"feedback/{name}": (torch.float16, (triangle + -triangle % 4,)),
        }

    def unpacked(self, stored: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of the columns `stored` alone: their order, as places in `stored`, and U [stored, stored], on `device`.

        The others are to have no curvature.
        """
        size, start = len(self.order), 0
        upper, feedback = np.zeros((size, size), dtype="float16"), self.feedback.numpy()
        for row in range(size):  # some ten times faster than by a mask of the whole matrix
            upper[row, row + 1 :] = feedback[start : start + size - row - 1]
            start += size - row - 1
        place = torch.full((size,), -1)
        place[stored] = torch.arange(len(stored))
        order = place[self.order.long()]
        kept = order >= 0
        return order[kept].to(device), torch.from_numpy(upper).to(device)[kept][:, kept]


def strict_rows(factor: Tensor, pivots: Tensor) -> Iterator[np.ndarray]:
    """What stands below the diagonal of a lower `factor` over its `pivots`, as float16, some rows at a time.

    All at once it would be the third matrix of that size in memory.
    """
    for start in range(0, len(factor), ROWS):
        rows = (factor[start : start + ROWS] / pivots).half().cpu().numpy()
        yield rows[np.tri(*rows.shape, k=start - 1, dtype=bool)]


def ascending(diagonal: Tensor) -> Tensor:
    """Columns by their curvature: the last is the first to be rounded, because Cholesky's factor is a lower one."""
    return diagonal.argsort(stable=True)


def cholesky(matrix: Tensor) -> Tensor:
    """Lower factor of a float32 matrix, which is overwritten; what stands above the diagonal is of no use.

    Where many columns say nearly the same, float32 may not do for it, and float64 does. Raises LaqfiError if the matrix
    is not positive definite.
    """
    diagonal = matrix.diagonal().clone()
    factor = factored(matrix)
    if factor is None:
        upper = matrix.triu(1).double()  # is still what it was
        factor = factored(upper + upper.T + diagonal.double().diag())
    if factor is None:
        raise LaqfiError("has a curvature that is not positive semi-definite")
    return factor.float()


def factored(matrix: Tensor) -> Tensor | None:
    """The factor in the lower triangle, on a CPU in place; None if there is none.

    On a CPU it is SciPy's, whose bytes are the same on every processor; PyTorch's are not. LAPACK counts by columns: to
    it, our lower triangle is the upper one.
    """
    if matrix.device.type == "cpu":
        potrf = lapack.spotrf if matrix.dtype == torch.float32 else lapack.dpotrf
        found, failed = potrf(matrix.numpy().T, lower=0, clean=0, overwrite_a=1)
        factor = torch.from_numpy(found.T)
    else:
        factor, failed = torch.linalg.cholesky_ex(matrix)
    return None if failed or not factor.diagonal().isfinite().all() else factor
