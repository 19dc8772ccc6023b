"""A tensor of the model with what was measured of it: what policies decide by, and rounding works with."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from torch import Tensor

from laqfi.base.errors import LaqfiError
from laqfi.quant.choice import Choice
from laqfi.quant.grid import Search
from laqfi.quant.rounding import Stored, store, store_together
from laqfi.sensitivity.compensation import Compensation
from laqfi.storage.formats import WHOLE_CHANNEL, Format
from laqfi.storage.layout import Layout

Sizes = Callable[[str, Layout], int]  # bytes of the tensor of that name in a layout, where it is to be written


@dataclass(frozen=True, eq=False)
class Evidence:
    """One tensor of the model.

    `group` is the family's name for the part of the network that the tensor belongs to, for the weight tensors that
    policies of the report decide on (its layers 1 to 6), else None; `score` is its mean Fisher relative to the largest
    of those at one timestep (eq. 2). `axis` is that of the output channels. `fisher` (of the weight's shape) is the
    mean over all timesteps; `counts` says, for each timestep weighting, how many times that it is, Σ_t w_t F_t for the
    whole tensor. `compensation` reads what `laqfi.sensitivity.compensation` made of it, None where there is none.

    What a policy wants is limited by three more. `formats`: "any", "floats" (norms), or "float32" alone.
    `uncompensated` tensors are rounded to nearest. `whole` ones keep the kernel positions without Fisher information.
    `sizes` says what a layout takes where that is no file of this package.
    """

    name: str
    group: str | None
    score: float
    weight: Tensor | None = None
    axis: int = 0
    fisher: Tensor | None = None
    counts: Mapping[str, float] = field(default_factory=lambda: {"uniform": 1.0})
    compensation: Callable[[], Compensation] | None = None
    formats: Literal["any", "floats", "float32"] = "any"
    uncompensated: bool = False
    whole: bool = False
    sizes: Sizes | None = None
    kept: dict[tuple, Stored] = field(default_factory=dict, repr=False)
    costs: dict[tuple, tuple[float, float]] = field(default_factory=dict, repr=False)

    @property
    def is_matrix(self) -> bool:
        """Weights of convolutions and linear layers, not biases and norms."""
        return self.weight.dim() >= 2 and self.formats == "any"

    def layout(self, format: Format) -> Layout:
        """Integer formats leave out the kernel positions without Fisher information: they only ever meet padding.

        Groups as wide as a channel, or wider, which would have to be filled up, are the whole channel.
        """
        shape = tuple(self.weight.shape)
        if self.formats == "float32":
            return Layout(Format("float32"), shape, self.axis)
        if format.is_float:
            return Layout(format, shape, self.axis)
        layout = Layout(format, shape, self.axis, None if self.whole else self.live_taps)
        if format.group_size < layout.columns:
            return layout
        return replace(layout, format=replace(format, group_size=WHOLE_CHANNEL))

    def bytes(self, format: Format) -> int:
        """What the tensor takes in a format."""
        layout = self.layout(format)
        return layout.bytes() if self.sizes is None else self.sizes(self.name, layout)

    @cached_property
    def live_taps(self) -> tuple[int, ...] | None:
        """Kernel positions that move the output at some timestep, None if all do (or none, or there is no kernel)."""
        if self.weight.dim() < 3 or self.fisher is None:
            return None
        live = self.fisher.flatten(2).sum((0, 1)).nonzero().flatten().tolist()
        return tuple(live) if 0 < len(live) < self.weight[0, 0].numel() else None

    def stored(
        self, format: Format, search: Search = "mse", rounding: str = "nearest", step: float | None = None
    ) -> Stored:
        """The tensor in a format, rounded; kept, because several budgets need the same, but of open grids the last.

        Tensors other than matrices have no curvature and are rounded to nearest. Raises LaqfiError, with the tensor's
        name, for weights that cannot be stored so.
        """
        key = (format, search, rounding if self.is_compensated(format) else "nearest", step)
        if key not in self.kept:
            for other in [one for one in self.kept if step is not None and one[-1] is not None]:
                del self.kept[other]
            self.kept[key] = self.store(*key)
        return self.kept[key]

    def store_together(self, wanted: Collection[Choice]) -> None:
        """Keep the tensor as in several choices, of which those with GPTQ are made at once. Errors as of `stored`."""
        by_search: dict[Search, dict[tuple, Layout]] = {}
        for one in sorted(wanted, key=lambda one: one.format.name):
            key = (one.format, one.search, one.rounding, one.step)
            if one.rounding == "gptq" and one.step is None and self.is_compensated(one.format):
                by_search.setdefault(one.search, {})[key] = self.layout(one.format)
            else:
                self.stored(*key)
        for search, layouts in by_search.items():
            compensation = None if self.compensation is None else self.compensation()
            with self.named():
                found = store_together(self.weight, [*layouts.values()], search, self.fisher, compensation)
            self.kept.update(zip(layouts, found, strict=True))

    def is_compensated(self, format: Format) -> bool:
        """Whether a rounding other than to nearest is of use in this format."""
        return self.is_matrix and not format.is_float and not self.uncompensated

    def errors(self, format: Format, search: Search = "mse") -> tuple[float, float]:
        """Σ_j F_j δ_j² and Σ_j δ_j² of the tensor in a format, rounded to nearest. Raises LaqfiError as `stored`."""
        key = (format, search)
        if key not in self.costs:
            squares = self.store(format, search, "nearest").delta.square().double()
            self.costs[key] = float((self.fisher * squares).sum()), float(squares.sum())
        return self.costs[key]

    def store(self, format: Format, search: Search, rounding: str, step: float | None = None) -> Stored:
        compensation = None if rounding == "nearest" or self.compensation is None else self.compensation()
        with self.named():
            return store(self.weight, self.layout(format), search, self.fisher, rounding, compensation, step)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors of what is done with the tensor begin with its name."""
        try:
            yield
        except LaqfiError as error:
            raise LaqfiError(f"{self.name} {error}") from error
