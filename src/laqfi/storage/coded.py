"""What a model file holds as one code, under models that adapt: small tensors gain by what was seen of others.

**Integer codes** count from the middle of their format. A code's table is that of the size which is expected of it: of
its band of rows, told before, times that of its column beside the others in the rows before. Rows come in runs, each
half as long as all before it, because what a run is expected to be is known when it begins. Where large codes are
expected, their lowest bits are as good as random, and are coded so.

**Floats** are exponents, each as a step from the one before, signs, and mantissas, which are as good as random; of
vectors, whether one of the last two mantissas comes again.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from laqfi.base.files import Shapes
from laqfi.storage.ans import Coder, Decoder, Encoder
from laqfi.storage.layout import Layout
from laqfi.storage.pack import pack, unpack

BAND = 64  # weights that one size is told of, or a row if that is longer
STEPS = 4  # sizes to a factor of two
FINE = 1 << 5  # sizes begin at 1 / FINE of a code
LEVELS = STEPS * 17  # of sizes, up to that of the codes of 12 bits
EXACT = STEPS * 7  # from this level on, codes of about 4, lowest bits are left to chance
SMOOTH = 4  # rows of the mean size that a column is taken to have had before
REACH = 16  # symbols are from −REACH to REACH − 1; the ends stand for what lies beyond, too
BITS = {  # of a float's exponent and mantissa
    torch.float32: (8, 23),
    torch.float16: (5, 10),
    torch.bfloat16: (8, 7),
    torch.float8_e4m3fn: (4, 3),
}
CHUNK = 12  # bits of a mantissa at a time


@cache
def thresholds() -> np.ndarray:
    """2**(level / STEPS), times 2**16, rounded down, exactly: int64 [LEVELS]."""
    return np.array([isqrt(isqrt(1 << (64 + level))) for level in range(LEVELS)])


def level_of(total: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Levels of the mean of `count` sizes by their sum in parts of FINE, rounded down; 0 for what is less: int64."""
    return np.maximum(np.searchsorted(thresholds(), (total << 16) // count, side="right") - 1, 0)


def encode(tensors: Mapping[str, Tensor], layouts: Mapping[str, Layout], extra: Shapes) -> Tensor:
    """uint8 [bytes] of all parts of the parameters, and of the tensors `extra`."""
    coder = Encoder()
    for _ in walk(coder, layouts, extra, tensors):
        pass
    return torch.from_numpy(coder.finish())


def decode(code: Tensor, layouts: Mapping[str, Layout], extra: Shapes) -> dict[str, Tensor]:
    """The inverse of `encode`. Raises ValueError for what is no code of such tensors."""
    coder = Decoder(code.numpy())
    found = dict(walk(coder, layouts, extra, None))
    coder.finish()
    return found


def walk(
    coder: Coder, layouts: Mapping[str, Layout], extra: Shapes, known: Mapping[str, Tensor] | None
) -> Iterator[tuple[str, Tensor]]:
    """All tensors, one after the other: `known`, or as the coder finds them."""
    for name, layout in layouts.items():
        for part, (dtype, shape) in reversed(layout.part_shapes().items()):  # codes last
            here = None if known is None else known[f"{name}{part}"].cpu()
            if part == ".packed":
                yield f"{name}{part}", packed(coder, layout, here)
            else:
                axes = "matrix" if len(shape) > 1 else "vector"
                yield f"{name}{part}", numbers(coder, (part or axes,), dtype, shape, here)
    for name, (dtype, shape) in extra.items():
        yield name, numbers(coder, ("table",), dtype, shape, None if known is None else known[name].cpu())


def numbers(coder: Coder, name: tuple, dtype: torch.dtype, shape: tuple, known: Tensor | None) -> Tensor:
    """Floats, or bytes, which are all exponent."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    count = torch.Size(shape).numel()
    exponent, mantissa = BITS.get(dtype, (8, 0))
    bits = None
    if known is not None:
        bits = known.contiguous().flatten().view(torch.uint8).numpy().view(unsigned).astype(np.int64)
    name = (*name, str(dtype))
    found = differences(coder, name, 1 << exponent, count, None if bits is None else bits >> mantissa)
    if dtype in BITS:
        sign = coder.adaptive((*name, "sign"), 2, count, None if bits is None else bits >> (exponent + mantissa))
        found |= sign.astype(np.int64) << exponent
    rests = None if bits is None else bits & (1 << mantissa) - 1
    if mantissa and len(shape) == 1:
        found = found << mantissa | recurring(coder, name, mantissa, count, rests)
    else:
        found = found << mantissa | mantissas(coder, mantissa, count, rests)
    return torch.from_numpy(found.astype(unsigned).view(np.uint8)).view(dtype).view(shape)


def mantissas(coder: Coder, bits: int, count: int, known: np.ndarray | None) -> np.ndarray:
    """Numbers of so many bits, all alike likely: int64."""
    found = np.zeros(count, np.int64)
    for low in range(0, bits, CHUNK)[::-1]:
        width = min(CHUNK, bits - low)
        part = coder.even(width, count, None if known is None else known >> low & (1 << width) - 1)
        found = found << width | part
    return found


def recurring(coder: Coder, name: tuple, bits: int, count: int, known: np.ndarray | None) -> np.ndarray:
    """The same, where one of the last two different numbers may come again: 0 and 1 say so, 2 is a new one."""
    ways = None if known is None else ways_of(known.tolist())
    found = coder.adaptive((*name, "again"), 3, count, ways)
    new = mantissas(coder, bits, int((found == 2).sum()), None if ways is None else known[ways == 2])
    last, made, fresh = [0, 0], [], iter(new.tolist())
    for way in found.tolist():
        number = next(fresh) if way == 2 else last[way]
        made.append(number)
        last = last if way == 0 else [number, last[0]]
    return np.array(made, np.int64)


def ways_of(numbers: list[int]) -> np.ndarray:
    last, ways = [0, 0], []
    for number in numbers:
        ways.append(last.index(number) if number in last else 2)
        last = last if number == last[0] else [number, last[0]]
    return np.array(ways, np.int32)


def differences(coder: Coder, name: tuple, size: int, count: int, known: np.ndarray | None) -> np.ndarray:
    """Numbers below `size`, of which most are near the one before: int64."""
    steps = None if known is None else np.diff(known % size, prepend=0) % size
    return np.cumsum(coder.adaptive(name, size, count, steps, centre=0), dtype=np.int64) % size


def packed(coder: Coder, layout: Layout, known: Tensor | None) -> Tensor:
    """Codes of a tensor of integers, packed."""
    count, bits = layout.groups * layout.group_width, layout.format.bits
    middle = layout.format.levels >> 1
    values = None
    if known is not None:
        values = unpack(known, bits, count).numpy().reshape(layout.rows, -1).astype(np.int32) - middle
    found = matrix(coder, bits, (layout.rows, count // layout.rows), values) + middle
    if found.min() < 0 or found.max() >= layout.format.levels:
        raise ValueError(f"holds a code beyond {bits} bits")
    return pack(torch.from_numpy(found), bits)


def matrix(coder: Coder, bits: int, shape: tuple[int, int], known: np.ndarray | None) -> np.ndarray:
    """Codes [rows, columns] from the middle of their format: int32."""
    rows, columns = shape
    height = -(-BAND // columns)
    starts = np.arange(0, rows, height)
    sizes = None if known is None else np.add.reduceat(abs(known).sum(1, dtype=np.int64), starts)
    heights = np.minimum(height, rows - starts)
    told = differences(
        coder, ("size",), LEVELS, len(starts), None if sizes is None else level_of(FINE * sizes, heights * columns)
    )
    of_row = np.repeat(told, heights).astype(np.int16)
    found, totals = np.zeros(shape, np.int32), np.zeros(columns, np.int64)
    start = 0
    while start < rows:
        run = slice(start, min(rows, start + max(height, start // 2)))
        levels = of_row[run, None] + beside(totals, start).astype(np.int16)
        found[run] = codes(coder, bits, levels, None if known is None else known[run])
        totals += abs(found[run]).sum(0, dtype=np.int64)
        start = run.stop
    return found


def beside(totals: np.ndarray, rows: int) -> np.ndarray:
    """How many levels larger than the mean a column is, by the sums of its sizes over `rows`: int64 [columns]."""
    mean = int(totals.sum()) * FINE // len(totals) + 1
    smooth = totals * FINE * max(rows, 1) + SMOOTH * mean
    level = level_of(smooth, max(rows, 1) * (rows + SMOOTH))
    return level - level_of(np.array(mean), max(rows, 1))


def codes(coder: Coder, bits: int, levels: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Codes of which these sizes are expected, level by level: int32 like `levels`."""
    flat = levels.clip(0, LEVELS - 1).astype(np.uint8).reshape(-1)
    order = np.argsort(flat, kind="stable")
    ordered = None if known is None else known.reshape(-1)[order]
    found, start = np.empty(len(flat), np.int32), 0
    for level, count in enumerate(np.bincount(flat, minlength=LEVELS)):
        if count:
            own = slice(start, start + count)
            found[order[own]] = alike(coder, bits, level, count, None if ordered is None else ordered[own])
            start += count
    return found.reshape(levels.shape)


def alike(coder: Coder, bits: int, level: int, count: int, known: np.ndarray | None) -> np.ndarray:
    """Codes of one expected size: int32 [count]."""
    low = max(0, level - EXACT + STEPS) // STEPS
    level = level - STEPS * low
    reach = min(REACH, 1 << (bits - 1))
    tall = None if known is None else known >> low
    inside = None if tall is None else tall.clip(-reach, reach - 1) + reach
    name = ("codes", min(bits, 4), level // 2)
    found = coder.adaptive(name, 2 * reach, count, inside, centre=reach) - reach
    if reach < 1 << (bits - 1):
        for side, end in ((1, reach - 1), (-1, -reach)):
            places = np.flatnonzero(found == end)
            found[places] += side * coder.even(bits, len(places), None if tall is None else abs(tall[places] - end))
    return found << low | coder.even(low, count, None if known is None else known & (1 << low) - 1)
