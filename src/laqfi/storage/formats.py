"""Number formats: what a weight may be rounded to.

A weight tensor is seen as a matrix [output channels, weights of one channel]. A scale (and a zero point) belongs to
a group: some weights of one channel, a whole channel, or the whole tensor.
"""

from dataclasses import dataclass

import torch

FLOATS = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
}
DTYPES = {dtype: name for name, dtype in FLOATS.items()}
INTEGERS = {f"int{bits}": bits for bits in range(2, 13)}

WHOLE_CHANNEL, WHOLE_TENSOR = 0, -1
LEAST, MOST = 2.0**-24, torch.finfo(torch.float16).max  # |scale| is between them, or 0: what float16 holds


@dataclass(frozen=True)
class Format:
    """A float format by its dtype's name, or int2 to int8; up to int12 where a grid is open at its ends.

    `group_size` weights of a channel share a scale; 0 means the whole channel, -1 the whole tensor. A symmetric grid
    has the fixed zero point 2**(bits - 1) and a signed scale, which puts its one extra level on the side that needs it.
    """

    name: str
    symmetric: bool = True
    group_size: int = WHOLE_CHANNEL

    @property
    def is_float(self) -> bool:
        return self.name in FLOATS

    @property
    def bits(self) -> int:
        return FLOATS[self.name].itemsize * 8 if self.is_float else INTEGERS[self.name]

    @property
    def levels(self) -> int:
        return 1 << self.bits
