"""Rounding: from weights to the parts that store them."""

import torch
from torch import Tensor

from laqfi.base.errors import LaqfiError
from laqfi.quant.gptq import gptq
from laqfi.quant.grid import Codes, fit_grid
from laqfi.storage.formats import FLOATS
from laqfi.storage.layout import Layout, as_groups, as_matrix, dequantize
from laqfi.storage.pack import pack


def quantize(
    weight: Tensor,
    layout: Layout,
    search: str,
    importance: Tensor | None = None,
    curvature: Tensor | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """The parts that store `weight`, and the weight they stand for.

    `importance` (of the weight's shape) is what the search "fisher" weighs errors by. With `curvature` [columns of the
    whole weight, twice] integer codes are rounded by GPTQ, else to nearest. Raises LaqfiError for weights that are not
    finite, before or after a cast, and for a curvature that is none.
    """
    if not weight.numel():
        raise LaqfiError("holds no values")
    if not weight.isfinite().all():
        raise LaqfiError("holds values that are not finite")
    if layout.format.is_float:
        stored = weight.to(FLOATS[layout.format.name])
        if not stored.float().isfinite().all():
            raise LaqfiError(f"does not fit {layout.format.name}; largest |w| is {weight.abs().max().item():g}")
        return {"": stored}, stored.float()
    groups = as_groups(layout.matrix(weight.float()), layout.format.group_size)
    if importance is not None:
        importance = as_groups(layout.matrix(importance.float()), layout.format.group_size)
    codes = fit_grid(groups, layout.format, search, importance)
    if curvature is not None:
        codes = compensated(codes, layout, weight, curvature)
    if not codes.scale.isfinite().all():
        raise LaqfiError(f"does not fit scales in float16; largest |w| is {weight.abs().max().item():g}")
    parts = {".packed": pack(codes.codes.to(torch.uint8), layout.format.bits), ".scale": codes.scale[:, 0].half()}
    if not layout.format.symmetric:
        parts[".zero_point"] = codes.zero_point[:, 0].to(torch.uint8)
    return parts, dequantize(parts, layout)


def compensated(codes: Codes, layout: Layout, weight: Tensor, curvature: Tensor) -> Codes:
    """The codes GPTQ finds on the same grid."""
    matrix = layout.matrix(weight.float())
    scale, zero_point = (
        as_matrix(part.expand(codes.codes.shape), *matrix.shape) for part in (codes.scale, codes.zero_point)
    )
    stored = layout.stored_columns()
    try:
        rounded = gptq(matrix, curvature[stored][:, stored], scale, zero_point, layout.format.levels)
    except torch.linalg.LinAlgError as error:
        raise LaqfiError("has a curvature that is not positive semi-definite") from error
    return Codes(as_groups(rounded, layout.format.group_size), codes.scale, codes.zero_point)
