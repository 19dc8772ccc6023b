"""A tensor of the model with what was measured of it: what policies decide by, and rounding works with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from laqfi.base.errors import LaqfiError
from laqfi.quant.grid import Search
from laqfi.quant.rounding import Stored, store
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout


@dataclass(frozen=True, eq=False)
class Evidence:
    """One tensor of the model.

    `group` is the family's name for the part of the network that the tensor belongs to, for the weight tensors that
    policies of the report decide on (its layers 1 to 6), else None; `score` is its mean Fisher relative to the largest
    of those at one timestep (eq. 2). `axis` is that of the output channels. `fisher` holds Σ_t w_t F_t of every weight,
    for each timestep weighting; `curvature` [columns, columns] is None where none was measured.
    """

    name: str
    group: str | None
    score: float
    weight: Tensor | None = None
    axis: int = 0
    fisher: Mapping[str, Tensor] = field(default_factory=dict)
    curvature: Tensor | None = None
    kept: dict[tuple, Stored] = field(default_factory=dict, repr=False)

    @property
    def is_matrix(self) -> bool:
        """Weights of convolutions and linear layers, not biases and norms."""
        return self.weight.dim() >= 2

    def layout(self, format: Format) -> Layout:
        """Integer formats leave out the kernel positions without Fisher information: they only ever meet padding."""
        return Layout(format, tuple(self.weight.shape), self.axis, None if format.is_float else self.live_taps)

    @cached_property
    def live_taps(self) -> tuple[int, ...] | None:
        """Kernel positions that move the output at some timestep, None if all do (or none, or there is no kernel)."""
        if self.weight.dim() < 3 or "uniform" not in self.fisher:
            return None
        live = self.fisher["uniform"].flatten(2).sum((0, 1)).nonzero().flatten().tolist()
        return tuple(live) if 0 < len(live) < self.weight[0, 0].numel() else None

    def stored(
        self, format: Format, search: Search = "mse", weighting: str = "uniform", rounding: str = "nearest"
    ) -> Stored:
        """The tensor in a format, rounded; kept, because the search for a budget and the result need the same.

        Tensors other than matrices have no curvature and are rounded to nearest. Raises LaqfiError, with the tensor's
        name, for weights that cannot be stored so.
        """
        key = (format, search, weighting, rounding if self.is_matrix and not format.is_float else "nearest")
        if key not in self.kept:
            curvature = None if self.curvature is None else self.curvature.to(self.weight.device)
            try:
                self.kept[key] = store(
                    self.weight, self.layout(format), search, self.fisher.get(weighting), key[-1], curvature
                )
            except LaqfiError as error:
                raise LaqfiError(f"{self.name} {error}") from error
        return self.kept[key]
