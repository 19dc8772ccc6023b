"""Codes of 2 to 12 bits in uint8 bytes without gaps.

Eight codes fill exactly `bits` bytes, so codes are packed in blocks of eight; the last block is padded with zeros. Of
codes beyond 8 bits the low bytes of all stand first, and the bits above them behind.
"""

import torch
from torch import Tensor

BLOCK = 8
BYTE = 8


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes take."""
    return -(-count // BLOCK) * bits


def pack(codes: Tensor, bits: int) -> Tensor:
    """Integer codes below 2**bits, any shape, to uint8 [packed_bytes]. Raises ValueError if a code does not fit."""
    if codes.numel() and int(codes.max()) >= 1 << bits:
        raise ValueError(f"code {int(codes.max())} does not fit {bits} bits")
    if bits > BYTE:
        codes = torch.nn.functional.pad(codes.flatten(), (0, -codes.numel() % BLOCK))
        return torch.cat([pack(codes & 0xFF, BYTE), pack(codes >> BYTE, bits - BYTE)])
    flat = codes.flatten().to(torch.int64)
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    words = sum(blocks[:, i] << (i * bits) for i in range(BLOCK))
    return torch.stack([words >> (8 * i) & 0xFF for i in range(bits)], dim=1).to(torch.uint8).flatten()


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes of uint8 [packed_bytes], as uint8 [count], int16 beyond 8 bits; for 8 a view of `packed`.

    A code lies in at most two neighbouring bytes, so only 16-bit integers are needed. Every forward pass unpacks, so
    the usual widths are as fast as they can be: two 4-bit codes become the two bytes of one 16-bit integer.
    """
    if bits > BYTE:
        whole = packed_bytes(count, BYTE)
        return packed[:count].to(torch.int16) | unpack(packed[whole:], bits - BYTE, count).to(torch.int16) << BYTE
    if bits == BYTE:
        return packed[:count]
    if bits == 4:
        pairs = packed.to(torch.int16)
        return ((pairs | pairs << 4) & 0x0F0F).view(torch.uint8)[:count]
    columns = packed.view(-1, bits).to(torch.int16)
    mask = (1 << bits) - 1
    codes = torch.empty(len(columns), BLOCK, dtype=torch.uint8, device=packed.device)
    for i in range(BLOCK):
        byte, shift = divmod(i * bits, 8)
        low = columns[:, byte] >> shift
        if shift + bits > 8:
            low = low | columns[:, byte + 1] << (8 - shift)
        codes[:, i] = low & mask
    return codes.view(-1)[:count]
