"""A model in the formats a policy chose: tensors and metadata of its file, and what the rounding did."""

from dataclasses import dataclass
from functools import cache

from torch import Tensor

from laqfi.base.errors import LaqfiError
from laqfi.quant.policy import Choice, Choices, WeightTensor
from laqfi.quant.rounding import quantize
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout


@dataclass(frozen=True, eq=False)
class Stored:
    """One stored tensor: its layout, its parts by their suffix, and what rounding added to the weight."""

    layout: Layout
    parts: dict[str, Tensor]
    delta: Tensor


class Storage:
    """Stores tensors, each in each format once; `curvature` is what GPTQ rounds by, by weight name."""

    def __init__(self, weights: list[WeightTensor], curvature: dict[str, Tensor]):
        self.weights = weights
        self.curvature = curvature
        self.store = cache(self.store)

    def store(self, t: WeightTensor, choice: Choice) -> Stored:
        """Raises LaqfiError, with the tensor's name, for weights that cannot be stored so."""
        layout = t.layout(choice.format)
        second_order = None
        if choice.rounding == "gptq" and t.name in self.curvature:
            second_order = self.curvature[t.name].to(t.weight.device)
        try:
            parts, restored = quantize(t.weight, layout, choice.search, t.fisher[choice.weighting], second_order)
        except LaqfiError as error:
            raise LaqfiError(f"{t.name} {error}") from error
        return Stored(layout, parts, restored - t.weight)

    def store_all(self, chosen: Choices) -> dict[str, Stored]:
        """Every tensor as chosen; those not named stay in float32."""
        return {t.name: self.store(t, chosen.get(t.name, Choice(Format("float32")))) for t in self.weights}


def as_file(stored: dict[str, Stored], metadata: dict) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata of the model file, for `io.write_tensors` and `quant.model.unet_of`."""
    tensors = {f"{name}{part}": tensor for name, one in stored.items() for part, tensor in one.parts.items()}
    formats = {name: one.layout.to_json() for name, one in stored.items() if not one.layout.format.is_float}
    return tensors, metadata | ({"formats": formats} if formats else {})


def stored_size(stored: dict[str, Stored]) -> int:
    """Bytes of all parts."""
    return sum(one.layout.bytes() for one in stored.values())
