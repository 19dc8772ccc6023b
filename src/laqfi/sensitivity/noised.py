"""Noised images with random signs: what a model is measured on."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from laqfi.base.random import generator
from laqfi.diffusion.process import add_noise


class Noised(NamedTuple):
    """Images of a chunk at one timestep: where they stand among all, x_t, t [B], the noise in x_t, and signs ±1."""

    part: Tensor
    x: Tensor
    t: Tensor
    noise: Tensor
    probe: Tensor


def noised_chunks(
    purpose: str, images: Tensor, timestep: int, alphas_cumprod: Tensor, *, chunk: int, seed: int
) -> Iterator[Noised]:
    """`images` [N, C, H, W], `chunk` at a time, on the device of `alphas_cumprod`.

    Noise and signs depend on `purpose`, `seed` and `timestep` alone, not on `chunk`.
    """
    random, device = generator(purpose, seed, timestep), alphas_cumprod.device
    noise = torch.from_numpy(random.standard_normal(images.shape, dtype="float32"))
    probe = torch.from_numpy(random.integers(0, 2, images.shape)).float() * 2 - 1
    for part in torch.arange(len(images)).split(chunk):
        x0, e, r = (batch[part].to(device) for batch in (images, noise, probe))
        t = torch.full((len(part),), timestep, device=device)
        yield Noised(part, add_noise(x0, e, t, alphas_cumprod), t, e, r)
