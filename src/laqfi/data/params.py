"""The block `dataset`."""

from typing import Literal

from laqfi.base.block import Block


class Dataset(Block):
    name: Literal["digits", "mnist", "fashion_mnist", "kmnist"]
