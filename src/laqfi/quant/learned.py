"""Stored tensors whose values learn: what a layer computes with is, at every step, what would be stored.

Rounding has the derivative of what it rounds (straight-through), so that the values between the grid's points, from
which codes are rounded, learn what the codes should.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from laqfi.quant.recipe import Learn
from laqfi.storage.activations import straight_through
from laqfi.storage.formats import LEAST, MOST
from laqfi.storage.layout import Layout


class LearnedTensor(nn.Module):
    """In the place of a `StoredTensor` of a layer, beginning with what it holds; `parts()` is what is stored of it now.

    `values` are those of a float tensor, in its own units; `logs` the logarithms of what scales are multiplied by;
    `places` the codes before rounding, in units of codes. Those that do not learn are None, and their parts stay as
    they are: `learn` "norms" is for float tensors with one axis, "scales" for scales too, "codes" for everything.
    """

    def __init__(self, layout: Layout, parts: Mapping[str, Tensor], learn: Learn):
        super().__init__()
        self.layout, self.begun, self.dtype = layout, dict(parts), torch.float32
        self.values = self.logs = self.places = None
        if layout.format.is_float:
            if len(layout.shape) < 2 or learn == "codes":
                self.values = nn.Parameter(self.begun[""].float())
            return
        self.grid = layout.codes(self.begun)
        if learn != "norms":
            self.logs = nn.Parameter(torch.zeros_like(self.grid.scale))
            size = self.grid.scale.abs().where(self.grid.scale != 0, torch.ones_like(self.grid.scale))
            self.log_range = (LEAST / size).log(), (MOST / size).log()
        if learn == "codes":
            self.places = nn.Parameter(self.grid.codes.clone())

    @property
    def range(self) -> tuple[int, int]:
        return 0, self.layout.format.levels - 1

    def forward(self, dtype: torch.dtype) -> Tensor:
        """The weight."""
        if self.layout.format.is_float:
            return self.float_value().to(dtype)
        found = replace(self.grid, codes=self.codes(), scale=self.scale())
        return self.layout.weight(self.layout.ungrouped(found.values())).to(dtype)

    def float_value(self) -> Tensor:
        if self.values is None:
            return self.begun[""].float()
        return as_stored(self.values, self.begun[""].dtype)

    def codes(self) -> Tensor:
        return self.grid.codes if self.places is None else straight_through(self.places)

    def scale(self) -> Tensor:
        return self.grid.scale if self.logs is None else as_stored(self.grid.scale * self.logs.exp(), torch.float16)

    def bits(self) -> Tensor:
        """About what a code of all codes takes that learn, with the derivative of what a longer or shorter one takes.

        Of each |code|, from the middle of its format, as much is expected as of its row and its column, and its bits
        are those of the two-sided geometric distribution with that mean: p(q) ∝ θ^|q|, E|q| = 2 θ / (1 − θ²).
        """
        return BitsOfCodes.apply(self.places.view(self.layout.rows, -1), self.layout.format.levels // 2)

    @torch.no_grad()
    def taken_back(self, until: float, growth: bool) -> Tensor:
        """What `places` would be, had no code moved that moved by less than `until`, in units of codes.

        `growth`: of those codes alone that are larger than they were.
        """
        middle, begun = self.layout.format.levels / 2, self.grid.codes
        larger = (self.places.round() - middle).abs() > (begun - middle).abs()
        near = (self.places - begun).abs() < until
        return begun.where(near & larger if growth else near, self.places)

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """What learning moved beyond the grid, or beyond what its format holds, back to the end of it."""
        if self.places is not None:
            self.places.clamp_(*self.range)
        if self.values is not None:
            most = torch.finfo(self.begun[""].dtype).max
            self.values.clamp_(-most, most)
        if self.logs is not None:
            self.logs.clamp_(*self.log_range)

    @torch.no_grad()
    def parts(self) -> dict[str, Tensor]:
        """Of the same dtypes and shapes as those that it began with."""
        if self.layout.format.is_float:
            kept = self.begun[""] if self.values is None else self.values.to(self.begun[""].dtype)
            return {"": kept}
        zero_point = torch.as_tensor(self.grid.zero_point, dtype=torch.float32, device=self.grid.scale.device)
        found = replace(
            self.grid, codes=self.codes(), scale=self.scale(), zero_point=zero_point.expand_as(self.grid.scale)
        )
        return self.layout.parts(found)


class BitsOfCodes(torch.autograd.Function):
    """Of places [rows, columns], from the middle of their format; this runs in every iteration, over all codes."""

    @staticmethod
    def forward(ctx: FunctionCtx, places: Tensor, middle: int) -> Tensor:
        sizes = (places.round() - middle).abs()
        theta = theta_of(expected(sizes))
        longer = theta.log2().neg_()
        ctx.save_for_backward((places - middle).sign_().mul_(longer))
        return sizes.mul_(longer).sum() - ((1 - theta) / (1 + theta)).log2_().sum()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


def expected(sizes: Tensor) -> Tensor:
    """Of sizes [rows, columns] each by the means of its row and its column; never quite 0."""
    mean = sizes.mean() + 1 / sizes.numel()
    return (sizes.mean(1, keepdim=True) * sizes.mean(0, keepdim=True) / mean).clamp(min=1 / sizes.numel())


def theta_of(mean: Tensor) -> Tensor:
    """θ of the two-sided geometric distribution p(q) ∝ θ^|q| of whole numbers with this mean of |q|."""
    return mean / (1 + (1 + mean.square()).sqrt())


def as_stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded to `dtype`, with the derivative of x itself.

    x and its rounding are within a factor of two of each other or one of them is 0, so that their difference and with
    it the sum are exact (Sterbenz): what computes is what is stored. The same holds for rounding to whole numbers.
    """
    return x + (x.to(dtype).float() - x).detach()
