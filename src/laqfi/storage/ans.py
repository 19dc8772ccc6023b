"""Symbols to bytes and back by asymmetric numeral systems (Duda 2013), under frequencies that both sides count alike.

A walk over what is coded calls `take` for some symbols at a time: an `Encoder` is told them, a `Decoder` finds them,
and so one walk does for both. Frequencies are whole numbers. constriction (Bamler 2022) makes probabilities of them by
sums and products of IEEE 754, which are the same on every processor.
"""

from abc import ABC, abstractmethod

import numpy as np
from constriction import stream

Model = stream.model.Model
GAIN = 24  # what one symbol seen counts, where one that never was counts 1
MEMORY = GAIN * 8192  # counts beyond it are halved: what was seen last counts most
WORD = np.dtype("<u4")
END = 0xA5  # what every code has behind its last symbol
ALONE = END << 16  # the coder's number where nothing else is left: symbols only ever add to it
AT_ONCE = 1 << 22  # symbols that are found before it is seen whether there can have been so many


class Table:
    """How often each of `size` symbols was seen; before any was, those near `centre` count more."""

    def __init__(self, size: int, centre: int | None = None):
        places = np.arange(size)
        far = 0 * places if centre is None else np.minimum(abs(places - centre), size - abs(places - centre))
        self.counts = 1 + (GAIN >> np.minimum(far, 8))
        self.model: Model | None = None

    def current(self) -> Model:
        if self.model is None:
            self.model = stream.model.Categorical(self.counts.astype(np.float64), perfect=False, lazy=False)
        return self.model

    def learn(self, symbols: np.ndarray) -> None:
        self.counts += GAIN * np.bincount(symbols, minlength=len(self.counts))
        while self.counts.sum() > MEMORY:
            self.counts = (self.counts + 1) >> 1
        self.model = None


class Coder(ABC):
    """Tables by what they are of: sizes and centres go with the name of a table, so that equal names are one table."""

    def __init__(self):
        self.tables: dict[tuple, Table] = {}

    def adaptive(
        self, name: tuple, size: int, count: int, known: np.ndarray | None, centre: int | None = None
    ) -> np.ndarray:
        """`count` symbols below `size`, int32, under the frequencies counted so far in the table `name`."""
        if not count:
            return np.zeros(0, np.int32)
        table = self.tables.setdefault((*name, size), Table(size, centre))
        found = self.take(table.current(), count, known)
        table.learn(found)
        return found

    def even(self, bits: int, count: int, known: np.ndarray | None) -> np.ndarray:
        """`count` numbers of `bits` bits, all alike likely: int32."""
        return self.take(stream.model.Uniform(1 << bits), count, known) if count and bits else np.zeros(count, np.int32)

    @abstractmethod
    def take(self, model: Model, count: int, known: np.ndarray | None) -> np.ndarray:
        """`count` symbols, int32: those that are `known`, or those that are found in a code."""


class Encoder(Coder):
    """What it takes is `known`; a stack, so that the last is coded first."""

    def __init__(self):
        super().__init__()
        self.taken: list[tuple[np.ndarray, Model]] = []

    def take(self, model: Model, count: int, known: np.ndarray | None) -> np.ndarray:
        symbols = np.ascontiguousarray(known, np.int32)
        self.taken.append((symbols, model))
        return symbols

    def finish(self) -> np.ndarray:
        """The code: uint8 [bytes]."""
        coder = stream.stack.AnsCoder()
        coder.encode_reverse(np.array([END], np.int32), stream.model.Uniform(1 << 8))
        for symbols, model in reversed(self.taken):
            coder.encode_reverse(symbols, model)
        return coder.get_compressed().astype(WORD).view(np.uint8)


class Decoder(Coder):
    """Finds what an `Encoder` was told. Raises ValueError for what is no code."""

    def __init__(self, code: np.ndarray):
        super().__init__()
        if not len(code) or len(code) % WORD.itemsize:
            raise ValueError(f"has {len(code)} bytes, allowed are whole words")
        self.coder = stream.stack.AnsCoder(code.view(WORD).astype(np.uint32))

    def take(self, model: Model, count: int, known: np.ndarray | None) -> np.ndarray:
        found = []
        for start in range(0, count, AT_ONCE):
            found.append(self.coder.decode(model, min(AT_ONCE, count - start)))
            if self.coder.num_words() < 2 and int(self.coder.get_compressed().sum()) < ALONE:
                raise ValueError("ends before the last tensor")
        return found[0] if len(found) == 1 else np.concatenate(found)

    def finish(self) -> None:
        """Raises ValueError unless the code ends where the walk does, as every code that was not damaged."""
        if self.coder.decode(stream.model.Uniform(1 << 8), 1).tolist() != [END] or not self.coder.is_empty():
            raise ValueError("does not end with the last code")
