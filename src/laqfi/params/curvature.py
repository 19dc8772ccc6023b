"""The block `curvature`."""

from laqfi.params.block import Block, Count, Seed, Timesteps


class Curvature(Block):
    timesteps: Timesteps
    images: Count
    chunk: Count
    seed: Seed
