"""Sheets of images as PNG bytes."""

import io

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

SHORTEST = 32  # pixels an image is at least enlarged to, by whole factors, so that an eye can judge it
SEAM = 90  # grey of the line between images


def sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 [N, C, H, W] as one picture [rows·h, columns·w, C] of enlarged images; N is cut to whole rows."""
    whole = images[: len(images) // columns * columns]
    factor = -(-SHORTEST // images.shape[-1])
    enlarged = whole.repeat(factor, axis=-2).repeat(factor, axis=-1)
    framed = np.pad(enlarged, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=SEAM)
    return rearrange(framed, "(row column) c h w -> (row h) (column w) c", column=columns)


def png(picture: np.ndarray) -> bytes:
    """[H, W, 1] or [H, W, 3] uint8 to PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(buffer, "PNG")
    return buffer.getvalue()


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] to 0..255 by one fixed mapping, the same for every image."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_uint8(images: np.ndarray) -> Tensor:
    """uint8 [N, C, H, W] to float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1
