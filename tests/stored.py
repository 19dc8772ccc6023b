"""Tensors stored and restored, in the few words most tests need."""

from torch import Tensor

from laqfi.quant.rounding import store
from laqfi.sensitivity.compensation import Compensation
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout


def quantize(weight: Tensor, layout: Layout, search: str, importance=None, curvature=None) -> tuple[dict, Tensor]:
    """The parts that store `weight`, and the weight they stand for; GPTQ rounds where there is a curvature."""
    compensation = None if curvature is None else Compensation.of(curvature)
    parts = store(weight, layout, search, importance, "nearest" if curvature is None else "gptq", compensation).parts
    return parts, layout.restore(parts)


def as_groups(matrix: Tensor, group_size: int) -> Tensor:
    return Layout(Format("int4", True, group_size), tuple(matrix.shape)).grouped(matrix)


def as_matrix(groups: Tensor, group_size: int, rows: int, columns: int) -> Tensor:
    return Layout(Format("int4", True, group_size), (rows, columns)).ungrouped(groups)
