"""Stored tensors in the form of SDNQ, the quantizer that diffusers loads convolutions of 1 to 8 bits with.

There a weight is code · scale (signed kinds, "int4") or code · scale + zero_point ("uint4"); float kinds are numbers in
that dtype, times a scale. Written from what the form looks like; nothing of SDNQ is needed to write it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from laqfi.base.errors import LaqfiError
from laqfi.storage.formats import WHOLE_TENSOR
from laqfi.storage.kinds import CONVOLUTIONS, TRANSPOSED
from laqfi.storage.layout import Codes, Layout

LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.Embedding)  # whose weights have a packed form there
PLAIN = ("float32", "float16", "bfloat16")  # that a plain tensor of a file may have; a network in float32 widens them
ALL_CHANNELS = -1
# Without these, small layers would be left out, and layers be left out or computed with by rules of its own.
FIXED = {
    "quant_method": "sdnq",
    "weights_dtype": "int8",
    "group_size": ALL_CHANNELS,
    "quant_conv": True,
    "quant_embedding": True,
    "minimum_allowed_numel": 1,
    "minimum_allowed_channel_size": 1,
    "add_skip_keys": False,
    "dequantize_fp32": True,
    "use_quantized_matmul": False,
    "use_quantized_matmul_conv": False,
}
Field = tuple[int, int, int]  # a code of the block, the first of its bits, how many of them

# Where the bits of a block of codes lie: for every byte its fields, from the lowest bit on.
DENSE = {bits: [[(code, 0, bits) for code in range(8 // bits)]] for bits in (1, 2, 4, 8)}
BLOCKS: dict[int, list[list[Field]]] = DENSE | {
    3: [
        [(0, 0, 3), (3, 0, 3), (6, 0, 2)],
        [(1, 0, 3), (4, 0, 3), (7, 0, 2)],
        [(2, 0, 3), (5, 0, 3), (6, 2, 1), (7, 2, 1)],
    ],
    5: [
        [(0, 0, 5), (5, 0, 3)],
        [(1, 0, 5), (6, 0, 3)],
        [(2, 0, 5), (7, 0, 3)],
        [(3, 0, 5), (5, 3, 2), (7, 4, 1)],
        [(4, 0, 5), (6, 3, 2), (7, 3, 1)],
    ],
    6: [[(byte, 0, 6), (3, 4 - 2 * byte, 2)] for byte in range(3)],
    7: [[(byte, 0, 7), (7, 6 - byte, 1)] for byte in range(7)],
}


def block_of(bits: int) -> int:
    """How many codes of `bits` make a block, which the form has no part of."""
    return 8 * len(BLOCKS[bits]) // bits


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes below 2**bits, whole blocks of them, to uint8 [blocks, bytes]; [bytes] where a block is one byte.

    Raises ValueError for a part of a block.
    """
    if codes.numel() % block_of(bits):
        raise ValueError(f"{codes.numel()} codes of {bits} bits are no whole blocks of {block_of(bits)}")
    blocks = codes.reshape(-1, block_of(bits)).to(torch.int16)
    packed = [byte_of(blocks, fields) for fields in BLOCKS[bits]]
    return packed[0] if len(packed) == 1 else torch.stack(packed, dim=1)


def byte_of(blocks: Tensor, fields: list[Field]) -> Tensor:
    """uint8 [blocks] of int16 codes [blocks, codes]."""
    byte, place = torch.zeros_like(blocks[:, 0]), 0
    for code, first, count in fields:
        byte |= (blocks[:, code] >> first & (1 << count) - 1) << place
        place += count
    return byte.to(torch.uint8)


@dataclass(frozen=True)
class Form:
    """What stands there for one parameter: the name of its kind (None: a plain tensor), and its tensors by name.

    `group_size`: so many input channels share a scale, -1 for all.
    """

    kind: str | None
    tensors: dict[str, Tensor]
    group_size: int = ALL_CHANNELS


def form_of(name: str, layout: Layout, parts: Mapping[str, Tensor], module: nn.Module, *, halves: bool = True) -> Form:
    """The parameter `name` of `module`, which is stored as `parts`, with exactly the values that these stand for.

    Biases, norms, and matrices in float32 are plain tensors; without `halves`, matrices in other floats too. Raises
    LaqfiError for groups that have no form there.
    """
    if is_integer(name, layout, module):
        return integer_form(name, layout, layout.codes(dict(parts)))
    if is_float_kind(name, layout, module, halves):
        scale = torch.ones([1] * len(layout.shape))
        return Form(layout.format.name, {name: parts[""], beside(name, "scale"): scale})
    kept = layout.format.name in PLAIN
    return Form(None, {name: parts[""] if kept else layout.restore(dict(parts), torch.float32)})


def is_integer(name: str, layout: Layout, module: nn.Module) -> bool:
    return isinstance(module, LAYERS) and name.endswith(".weight") and not layout.format.is_float


def is_float_kind(name: str, layout: Layout, module: nn.Module, halves: bool) -> bool:
    """Whether it is a weight in a kind of floats with a scale, and no plain tensor."""
    return isinstance(module, LAYERS) and name.endswith(".weight") and halves and layout.format.name != "float32"


def form_bytes(name: str, layout: Layout, module: nn.Module, *, halves: bool = True) -> int:
    """What the tensors of `form_of` take in a file."""
    count = torch.Size(layout.shape).numel()
    if is_integer(name, layout, module):
        grids = 4 * layout.groups * (1 if layout.format.symmetric else 2)
        return count * width_of(layout.format.bits, count) // 8 + grids
    if is_float_kind(name, layout, module, halves):
        return layout.bytes() + 4
    return layout.bytes() if layout.format.name in PLAIN else 4 * count


def width_of(bits: int, count: int) -> int:
    """The fewest bits from `bits` on whose blocks so many codes fill."""
    return next(width for width in range(bits, 9) if count % block_of(width) == 0)


def integer_form(name: str, layout: Layout, codes: Codes) -> Form:
    """Signed kinds for symmetric grids, unsigned ones with a zero point for the others; errors as of `form_of`.

    Codes that do not fill whole blocks take the next width whose blocks they fill. Kernel positions that are not stored
    get the code of zero.
    """
    if layout.format.bits > 8:
        raise LaqfiError(f"{name}: is in {layout.format.bits} bits, allowed are up to 8")
    group_size = group_size_of(name, layout)
    centred = layout.weight(layout.ungrouped(codes.codes - codes.zero_point))
    if group_size != ALL_CHANNELS:
        centred = centred.unflatten(1, (-1, group_size))
    bits = width_of(layout.format.bits, centred.numel())
    scale = beside_weights(codes.scale, layout, centred.dim())
    if layout.format.symmetric:
        packed = centred.to(torch.int8) if bits == 8 else pack((centred + 2 ** (bits - 1)).to(torch.uint8), bits)
        return Form(f"int{bits}", {name: packed, beside(name, "scale"): scale}, group_size)
    zero_point = beside_weights(codes.zero_point, layout, centred.dim())
    unsigned = (centred + zero_point).to(torch.uint8)
    grid = {beside(name, "scale"): scale, beside(name, "zero_point"): -zero_point * scale}
    return Form(f"uint{bits}", {name: unsigned if bits == 8 else pack(unsigned, bits)} | grid, group_size)


def beside(name: str, part: str) -> str:
    """The name of what belongs to a weight."""
    return f"{name.removesuffix('weight')}{part}"


def group_size_of(name: str, layout: Layout) -> int:
    """How many input channels share a scale, -1 for all. Raises LaqfiError where groups are no whole channels."""
    if layout.format.group_size == WHOLE_TENSOR or layout.groups == layout.rows:
        return ALL_CHANNELS
    positions = layout.kernel if layout.taps is None else len(layout.taps)
    channels, part = divmod(layout.group_width, positions)
    if layout.axis or part or layout.shape[1] % channels:
        raise LaqfiError(
            f"{name}: {layout.group_width} weights share a scale, allowed is a whole output channel, or as many input"
            f" channels of {positions} weights as divide {layout.shape[1]}"
        )
    return channels


def beside_weights(grid: Tensor, layout: Layout, axes: int) -> Tensor:
    """[groups, 1] of scales or zero points, shaped to stand beside weights with so many axes; float32."""
    shape = [1] * axes
    if layout.format.group_size != WHOLE_TENSOR:
        shape[layout.axis] = layout.rows
    if axes > len(layout.shape):
        shape[1] = layout.groups // layout.rows
    return grid.float().reshape(shape)


def quantization_config(forms: Mapping[str, Form]) -> dict:
    """The block of that name in the network's config.json; `forms` by the parameter's name."""
    kinds: dict[str, list[str]] = {}
    for name, form in sorted(forms.items()):
        kinds.setdefault(form.kind, []).append(name)
    plain = kinds.pop(None, [])
    grouped = {name: {"group_size": form.group_size} for name, form in forms.items() if form.group_size != ALL_CHANNELS}
    return FIXED | {
        "modules_dtype_dict": kinds,
        "modules_to_not_convert": [name for name in plain if name.endswith(".weight")],
        "modules_quant_config": grouped,
    }
