"""A whole model in the formats that a policy chose."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor
from tqdm import tqdm

from laqfi.base.errors import LaqfiError
from laqfi.quant.choice import Choice, Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.policies.budget import Target
from laqfi.quant.rounding import Stored
from laqfi.storage.formats import Format
from laqfi.storage.stored_file import stored_file

UNCHANGED = Choice(Format("float32"))
NOTHING: Mapping[str, Tensor] = MappingProxyType({})


def store_all(tensors: list[Evidence], choices: Choices) -> dict[str, Stored]:
    """Every tensor as chosen; those not named stay in float32.

    Raises LaqfiError for weights that cannot be stored, and, before any is rounded, where GPTQ has no curvature.
    """
    for t in tensors:
        one = choices.get(t.name, UNCHANGED)
        if one.rounding == "gptq" and t.is_compensated(one.format) and t.compensation is None:
            raise LaqfiError(f"{t.name} has no curvature, by which the rounding gptq works")
    found = {}
    for t in tqdm(tensors, "rounding", unit="tensor", disable=None, leave=False):  # on a terminal alone
        one = choices.get(t.name, UNCHANGED)
        found[t.name] = t.stored(one.format, one.search, one.rounding, one.step)
    return found


def store_for_all(tensors: list[Evidence], several: list[Choices]) -> None:
    """Round every tensor in all the formats that several choices give it: what compensates for it is read once."""
    for t in tensors:
        t.store_together({choices.get(t.name, UNCHANGED) for choices in several})


def as_file(
    stored: dict[str, Stored], metadata: dict, given: Mapping[str, Tensor] = NOTHING
) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata of the model file, for `write_stored` and `model_file.model_of`.

    `given`: what its network is given beside image and timestep, by name.
    """
    tensors = {f"{name}{part}": tensor for name, one in stored.items() for part, tensor in one.parts.items()} | given
    formats = {name: one.layout.to_json() for name, one in stored.items() if not one.layout.format.is_float}
    return tensors, metadata | ({"formats": formats} if formats else {})


def told_of_coding(coding: str | None, target: Target | None, tensors: list[Evidence]) -> dict:
    """What the metadata of a coded file say of it: also its limit in bytes, where it has one. Nothing if not coded."""
    if coding is None:
        return {}
    if target is None or target.of != "file":
        return {"coding": coding}
    return {"coding": coding, "limit": target.limit(sum(t.weight.numel() for t in tensors))}


def file_size(
    tensors: list[Evidence], metadata: dict, given: Mapping[str, Tensor] = NOTHING
) -> Callable[[Choices], int]:
    """What the model file takes in bytes, header and all, with the tensors as chosen; the same choices are one file.

    `given` as of `as_file`.
    """
    known: dict[tuple[Choice, ...], int] = {}

    def size(choices: Choices) -> int:
        key = tuple(choices.get(t.name, UNCHANGED) for t in tensors)
        if key not in known:
            known[key] = len(stored_file(*as_file(store_all(tensors, choices), metadata, given)))
        return known[key]

    return size


def stored_size(stored: dict[str, Stored]) -> int:
    """Bytes of all parts."""
    return sum(one.layout.bytes() for one in stored.values())
