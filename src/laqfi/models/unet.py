"""The 6-layer diffusion U-Net: three layers down, three up, a time embedding in every residual block."""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

MULTIPLIERS = (1, 2, 4, 8, 8, 6)  # width of layers 1 to 6 in units of base_channels
DOWN = (1, 2, 3)


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network; base_channels = 64 is paper scale (37 M parameters)."""

    image_channels: int
    base_channels: int
    attention: tuple[int, ...]  # which of the layers 1 to 6 hold self-attention
    heads: int
    dropout: float

    def to_json(self) -> dict:
        return asdict(self) | {"attention": list(self.attention)}

    @classmethod
    def from_json(cls, value: dict) -> "UNetConfig":
        return cls(**(value | {"attention": tuple(value["attention"])}))


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


class Layer(nn.Module):
    """Residual block, attention where asked, residual block, then a strided convolution down or up."""

    def __init__(self, channels: int, down: bool, attention: bool, time_dim: int, config: UNetConfig):
        super().__init__()
        self.block1 = ResidualBlock(channels, time_dim, config.dropout)
        self.attention = Attention(channels, config.heads) if attention else nn.Identity()
        self.block2 = ResidualBlock(channels, time_dim, config.dropout)
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

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        width = config.base_channels
        time_dim = 4 * width
        self.time_embedding = TimeEmbedding(width, time_dim)
        self.conv_in = nn.Conv2d(config.image_channels, width, 3, padding=1)
        self.layers = nn.ModuleDict()
        for number, multiplier in enumerate(MULTIPLIERS, start=1):
            self.layers[str(number)] = Layer(
                width * multiplier, number in DOWN, number in config.attention, time_dim, config
            )
        late = width * (MULTIPLIERS[-1] // 2 + MULTIPLIERS[0])
        self.conv_late = nn.Conv2d(late, late // 2, 3, padding=1)
        self.conv_out = zero_init(nn.Conv2d(late // 2, config.image_channels, 1))

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


def layer_of(name: str) -> int | None:
    """Number (1 to 6) of the layer a parameter belongs to, None outside of them."""
    return int(name.split(".")[1]) if name.startswith("layers.") else None
