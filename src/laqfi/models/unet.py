"""The 6-layer diffusion U-Net: three layers down, three up, a time embedding in every residual block."""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from laqfi.base.block import Block, Fraction

MULTIPLIERS = (1, 2, 4, 8, 8, 6)  # width of layers 1 to 6 in units of base_channels
DOWN = (1, 2, 3)


class Unet(Block):
    """Settings of the network; base_channels = 64 is paper scale (37 M parameters).

    attention: which of the layers 1 to 6 hold self-attention. dropout: share of activations zeroed in training.
    """

    family: Literal["unet"]
    base_channels: Annotated[int, Field(ge=4, le=4096, multiple_of=4)]
    attention: list[Annotated[int, Field(ge=1, le=6)]]
    heads: Annotated[int, Field(ge=1, le=4096)]
    dropout: Fraction

    @model_validator(mode="after")
    def heads_divide_channels(self):
        if self.base_channels % self.heads:
            raise ValueError(f"heads is {self.heads}, allowed is a divisor of base_channels = {self.base_channels}")
        return self


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels: smaller groups would erase what a narrow layer says."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


def zero_init(module: nn.Module) -> nn.Module:
    """Zeroed, so that the branch it ends starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class TimeEmbedding(nn.Module):
    """Sinusoidal features of the timestep (Vaswani et al. 2017), then a two-layer MLP: [B] -> [B, dim]."""

    def __init__(self, base_channels: int, dim: int):
        super().__init__()
        self.frequencies = base_channels // 2
        self.linear1 = nn.Linear(base_channels, dim)
        self.linear2 = nn.Linear(dim, dim)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        exponents = torch.arange(self.frequencies, device=timestep.device) / self.frequencies
        angles = timestep[:, None].float() * torch.exp(-math.log(10_000) * exponents)
        features = torch.cat([angles.sin(), angles.cos()], dim=1).to(dtype)
        return self.linear2(F.silu(self.linear1(features)))


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, Conv2d, twice; the time embedding scales and shifts in between."""

    def __init__(self, channels: int, time_dim: int, dropout: float):
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Linear(time_dim, 2 * channels)
        self.norm2 = group_norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = rearrange(self.time(F.silu(time)), "b (two c) -> two b c 1 1", two=2)
        h = self.norm2(h) * (1 + scale) + shift
        return x + self.conv2(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Multi-head self-attention over the pixels."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        tokens = rearrange(self.norm(x), "b c h w -> b (h w) c")
        q, k, v = rearrange(self.qkv(tokens), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        mixed = rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)")
        return x + rearrange(self.out(mixed), "b (h w) c -> b c h w", h=height)


BLOCKS = (ResidualBlock, Attention)  # what is fitted as a whole where rounding is learned


class Layer(nn.Module):
    """Residual block, attention where asked, residual block, then a strided convolution down or up."""

    def __init__(self, channels: int, down: bool, attention: bool, time_dim: int, settings: Unet):
        super().__init__()
        self.block1 = ResidualBlock(channels, time_dim, settings.dropout)
        self.attention = Attention(channels, settings.heads) if attention else nn.Identity()
        self.block2 = ResidualBlock(channels, time_dim, settings.dropout)
        if down:
            self.resample = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        else:
            self.resample = nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """The resampled features, and the ones before resampling (the skip connection)."""
        x = self.block2(self.attention(self.block1(x, time)), time)
        return self.resample(x), x


class UNet(nn.Module):
    """Predicts the noise in x_t: (x [B, C, H, W], timestep [B]) -> [B, C, H, W]; H and W divide by 8."""

    def __init__(self, settings: Unet, image_channels: int):
        super().__init__()
        width = settings.base_channels
        time_dim = 4 * width
        self.time_embedding = TimeEmbedding(width, time_dim)
        self.conv_in = nn.Conv2d(image_channels, width, 3, padding=1)
        self.layers = nn.ModuleDict()
        for number, multiplier in enumerate(MULTIPLIERS, start=1):
            self.layers[str(number)] = Layer(
                width * multiplier, number in DOWN, number in settings.attention, time_dim, settings
            )
        late = width * (MULTIPLIERS[-1] // 2 + MULTIPLIERS[0])
        self.conv_late = nn.Conv2d(late, late // 2, 3, padding=1)
        self.conv_out = zero_init(nn.Conv2d(late // 2, image_channels, 1))

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        time = self.time_embedding(timestep, x.dtype)
        x = self.conv_in(x)
        skips = []
        for number, layer in self.layers.items():
            x, skip = layer(x, time)
            if int(number) in DOWN:
                skips.append(skip)
            else:
                x = torch.cat([x, skips.pop()], dim=1)
        return self.conv_out(F.silu(self.conv_late(x)))


def build(settings: Unet, image: tuple[int, int, int]) -> UNet:
    """A network for images [C, H, W]. Raises ValueError if H or W is no multiple of 8."""
    check_image(settings, image)
    return UNet(settings, image[0])


def check_image(settings: Unet, image: tuple[int, int, int]) -> None:
    _, height, width = image
    if height % 8 or width % 8:
        raise ValueError(f"image is {list(image)}, allowed is [C, H, W] with H and W multiples of 8")


def group_of(name: str) -> str | None:
    """Which of the layers 1 to 6 a parameter belongs to; None outside of them."""
    return name.split(".")[1] if name.startswith("layers.") else None


def groups(settings: Unet) -> list[str]:
    """Names of the layers."""
    return [str(number) for number in range(1, len(MULTIPLIERS) + 1)]
