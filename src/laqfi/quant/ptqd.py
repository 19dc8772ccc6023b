"""Statistics of the noise that quantization adds to a prediction (PTQD, He et al. 2023), on the same x_t for both.

That what is left is nearly Gaussian, as taking its variance off that of a step supposes, is the paper's word and not
tested here.
"""

import torch
from torch import Tensor, nn

from laqfi.quant.calibration import CalibrationSet
from laqfi.storage.correction import BIAS, DEVIATION, SLOPE, Correction


def measured_correction(
    network: nn.Module, base: nn.Module, found: CalibrationSet
) -> tuple[Correction, dict[str, Tensor]]:
    """What the file says of it, and its tables, for a quantized network and the one in FP32."""
    expected, predicted = found.predictions(base).cpu(), found.predictions(network).cpu()
    parts = [statistics(*pair) for pair in zip(predicted, expected, strict=True)]
    slope, bias, deviation = (torch.stack(some).float() for some in zip(*parts, strict=True))
    about = Correction(timesteps=found.timesteps, channels=bias.shape[1])
    return about, {SLOPE: slope, BIAS: bias, DEVIATION: deviation}


def statistics(predicted: Tensor, expected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k, b [C] and σ_q of Δ = ε_q − ε at one step, from twice [B, C, H, W].

    k = max(0, slope of Δ on ε) is the part that goes along with the noise; of what it leaves, b is the mean of every
    channel and σ_q the standard deviation about it.
    """
    predicted, expected = predicted.double(), expected.double()
    change = predicted - expected
    centred = expected - expected.mean()
    variance = centred.square().sum()
    slope = ((change * centred).sum() / variance if variance > 0 else variance).clamp(min=0)
    residual = change - slope * expected
    bias = residual.mean((0, 2, 3))
    left = residual - bias[:, None, None]
    return slope, bias, torch.from_numpy(left.numpy().std(keepdims=True)).flatten()[0]
