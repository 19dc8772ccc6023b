"""Controls: the same format for all."""

from laqfi.quant.choice import Choice, Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.grid import Search
from laqfi.quant.policies.registry import FLOATS_ALONE, FloatFormat, GroupSize, IntegerFormat, Rounding, policy
from laqfi.storage.formats import Format


@FLOATS_ALONE
@policy
def fp32(tensors: list[Evidence]) -> Choices:
    """Control: nothing is quantized."""
    return {}


@policy
def bits(
    tensors: list[Evidence],
    *,
    format: IntegerFormat,
    symmetric: bool = True,
    group_size: GroupSize = 0,
    search: Search = "mse",
    rounding: Rounding = "nearest",
    rest: FloatFormat = "float16",
) -> Choices:
    """Control: one integer format for every convolution and linear layer of the model, `rest` for the others."""
    integer = Format(format, symmetric, group_size)
    return {t.name: Choice(integer if t.is_matrix else Format(rest), search=search, rounding=rounding) for t in tensors}
