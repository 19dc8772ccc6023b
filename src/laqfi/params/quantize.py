"""The block `quantize`."""

from typing import Literal

from laqfi.params.block import Block, Timestep


class Quantize(Block):
    fisher: Literal["empirical", "gauss_newton"]
    timestep: Timestep
