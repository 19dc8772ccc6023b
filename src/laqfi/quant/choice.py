"""What a policy decides about one tensor."""

from dataclasses import dataclass

from laqfi.quant.grid import Search
from laqfi.storage.formats import Format


@dataclass(frozen=True)
class Choice:
    """The format a tensor is stored in, how its scale is searched and its codes are rounded.

    `threshold` is the one that the tensor's score met (None: none). With a `step` the grid is open: a group's is this
    over the root of its mean Fisher information, without search and ends, and of the bits of an integer format the
    tensor takes as many as its codes turn out to need.
    """

    format: Format
    threshold: float | None = None
    search: Search = "mse"
    rounding: str = "nearest"
    step: float | None = None


Choices = dict[str, Choice]  # by tensor; one that is not named stays in float32
