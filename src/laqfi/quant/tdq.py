"""Scales of inputs as a function of the timestep, fitted after training (TDQ, So et al. 2023), folded into a table.

Not followed: fitting one quantizer after the other with the loss of its layer (all are fitted at once, to the inputs
themselves, which needs no pass through the network), and s0 from the mean of x (from that of |x|: of inputs that are
alike on both sides of zero the mean says nothing).
"""

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from laqfi.base.random import generator
from laqfi.quant.calibration import CalibrationSet, watch
from laqfi.storage.activations import Input, levels_of, rounded, straight_through

WIDTH, DEPTH, DROPOUT = 64, 4, 0.2  # of the network behind a scale
FREQUENCIES = 32
VALUES = 1024  # of the inputs of a quantizer at one step that its scale is fitted to
ITERATIONS, LEARNING_RATE = 800, 3e-3


def fitted_scales(network: nn.Module, layers: list[Input], found: CalibrationSet) -> tuple[Tensor, Tensor]:
    """Scale and zero point, twice [quantizers, steps], with a small Σ (x − x_q)² over the inputs of each quantizer."""
    values = seen_values(network, layers, found)
    levels = levels_of(layers)[:, None, None]
    signed = (values < 0).flatten(1).any(1)[:, None, None]
    zero_point = torch.where(signed, levels / 2, 0)
    start = first_scales(values, levels, signed)
    scale = fit(values, levels, zero_point, start, features(found.timesteps))
    scale = scale * values.any(-1)  # inputs that are always zero need no step
    return scale, zero_point[..., 0].expand_as(scale)


def seen_values(network: nn.Module, layers: list[Input], found: CalibrationSet) -> Tensor:
    """Order statistics of every quantizer's inputs at every step, from the least to the largest one, evenly spaced.

    float32 [quantizers, steps, VALUES]. The extremes are among them: what a scale would cut off must be seen.
    """
    values = torch.zeros(sum(one.quantizers for one in layers), len(found.timesteps), VALUES)

    def see(quantizer: int, column: int, x: Tensor) -> None:
        ordered = x.flatten().cpu().sort().values
        values[quantizer, column] = ordered[torch.arange(VALUES) * (len(ordered) - 1) // (VALUES - 1)]

    watch(network, layers, found, see)
    return values


def first_scales(values: Tensor, levels: Tensor, signed: Tensor) -> Tensor:
    """s0 [quantizers]: (mean |x| + 3σ) / (n/2 − 1) where x has both signs, (mean |x| + 16σ) / (n − 1) where not."""
    mean, deviation = values.abs().flatten(1).mean(1), values.flatten(1).std(1)
    both = (mean + 3 * deviation) / (levels[:, 0, 0] / 2 - 1)
    one = (mean + 16 * deviation) / (levels[:, 0, 0] - 1)
    return torch.where(signed[:, 0, 0], both, one).clamp(min=1e-30)


def features(timesteps: list[int]) -> Tensor:
    """Sines and cosines of the timesteps, [steps, 2 · FREQUENCIES]."""
    rates = np.exp(-math.log(10_000) * np.arange(FREQUENCIES) / FREQUENCIES)
    angles = np.array(timesteps)[:, None] * rates
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], 1)).float()


def parameters(start: Tensor) -> list[Tensor]:
    """Weights and biases of one network for every quantizer, side by side; the last bias gives s0 whatever t is."""
    random, count, sizes = generator("tdq"), len(start), [2 * FREQUENCIES, *[WIDTH] * (DEPTH - 1), 1]
    made = []
    for inner, outer in pairwise(sizes):
        bound = 1 / math.sqrt(inner)
        drawn = [random.uniform(-bound, bound, shape) for shape in ((count, inner, outer), (count, 1, outer))]
        made += [torch.from_numpy(one).float() for one in drawn]
    made[-2].zero_()
    made[-1].copy_(torch.from_numpy(np.log(np.expm1(start.double().numpy()))).float()[:, None, None])
    return [one.requires_grad_(True) for one in made]


def scales(weights: list[Tensor], inputs: Tensor, kept: list[Tensor] | None = None) -> Tensor:
    """Softplus of the networks: [quantizers, steps]. kept: what dropout leaves of each hidden layer."""
    hidden = inputs.expand(len(weights[0]), *inputs.shape)
    for depth in range(DEPTH):
        hidden = torch.baddbmm(weights[2 * depth + 1], hidden, weights[2 * depth])
        if depth < DEPTH - 1:
            hidden = F.relu(hidden) if kept is None else F.relu(hidden) * kept[depth]
    return F.softplus(hidden)[..., 0]


def fit(values: Tensor, levels: Tensor, zero_point: Tensor, start: Tensor, inputs: Tensor) -> Tensor:
    """The table [quantizers, steps]; s0 for a quantizer that fitting leaves with a larger error."""
    weights, random = parameters(start), generator("tdq", "dropout")
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE, fused=True)
    norm = values.square().mean((1, 2)).clamp(min=1e-12)
    shape = (len(start), len(inputs), WIDTH)
    for _ in tqdm(range(ITERATIONS), "tdq", unit="step"):
        kept = [torch.from_numpy((random.random(shape) >= DROPOUT) / (1 - DROPOUT)).float() for _ in range(DEPTH - 1)]
        scale = scales(weights, inputs, kept)[..., None]
        error = (rounded(values, scale, zero_point, levels, straight_through) - values).square().mean((1, 2))
        optimizer.zero_grad()
        (error / norm).sum().backward()
        optimizer.step()
    with torch.no_grad():
        found, first = scales(weights, inputs), start[:, None].expand(-1, len(inputs))
        errors = [
            (rounded(values, one[..., None], zero_point, levels) - values).square().mean((1, 2))
            for one in (found, first)
        ]
        return torch.where((errors[0] <= errors[1])[:, None], found, first)
