"""What a policy decides about one tensor."""

from dataclasses import dataclass

from laqfi.quant.grid import Search
from laqfi.storage.formats import Format


@dataclass(frozen=True)
class Choice:
    """The format a tensor is stored in, how its scale is searched and its codes are rounded.

    `threshold` is the one that the tensor's score met (None: none).
    """

    format: Format
    threshold: float | None = None
    search: Search = "mse"
    rounding: str = "nearest"


Choices = dict[str, Choice]  # by tensor; one that is not named stays in float32
