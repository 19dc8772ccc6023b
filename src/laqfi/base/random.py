"""Random streams that depend on what they are for, never on batch size, device or order of work."""

import hashlib
import json
from collections.abc import Iterable

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of `parts`, such as ("train", seed, step)."""
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator of its own for `parts`."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*parts)))


class NoiseStreams:
    """One standard-normal stream per sample (as in NVlabs/edm `generate.py`).

    Sample i of `seed` draws the same numbers whatever batch it is in, on every device.
    """

    def __init__(self, seed: int, indices: Iterable[int], shape: tuple[int, ...]):
        self.generators = [generator("sample", seed, index) for index in indices]
        self.shape = shape

    def draw(self) -> np.ndarray:
        """The next draw of every stream: float32 [indices, *shape]."""
        noise = np.empty((len(self.generators), *self.shape), dtype=np.float32)
        for stream, row in zip(self.generators, noise, strict=True):
            stream.standard_normal(out=row, dtype=np.float32)
        return noise
