"""Step sizes of rounded inputs, learned block by block (LSQ, Esser et al. 2020, as Q-Diffusion has it).

Not followed: 5,000 iterations, where a setting says how many; zero points stay as measured.
"""

import torch
from torch import Tensor, nn
from tqdm import tqdm

from laqfi.base.random import generator
from laqfi.quant.blocks import Calls, blocks_of, calls_of
from laqfi.quant.calibration import CalibrationSet
from laqfi.storage.activations import PARTS, Inputs, RoundedInput, RoundedInputs, straight_through

LEARNING_RATE, BATCH, POWER = 4e-4, 32, 2.4


def learned_steps(
    network: RoundedInputs,
    teacher: nn.Module,
    about: Inputs,
    kinds: tuple[type[nn.Module], ...],
    found: CalibrationSet,
    iterations: int,
) -> dict[str, Tensor]:
    """Tables like those of `about` with smaller errors at the outputs of blocks; `network` is left with them."""
    inner, layers = network.network, [one.name for one in about.layers]
    for name, inside in tqdm(blocks_of(inner, kinds, layers).items(), "steps", unit="block"):
        expected = calls_of(teacher, name, found).output
        calls = calls_of(network, f"network.{name}", found)
        fit_steps(network, [inner.get_submodule(layer) for layer in inside], name, calls, expected, found, iterations)
    rows = [inner.get_submodule(layer) for layer in layers]
    parts = (torch.cat([row.scale for row in rows]).half(), torch.cat([row.zero_point for row in rows]))
    return dict(zip(PARTS, (part.cpu() for part in parts), strict=True))


def fit_steps(
    network: RoundedInputs,
    quantizers: list[RoundedInput],
    name: str,
    calls: Calls,
    expected: Tensor,
    found: CalibrationSet,
    iterations: int,
) -> None:
    """Adam on the logarithms of the scales; what they end in is put into the quantizers."""
    before = [one.scale.float() for one in quantizers]
    logs = [one.clamp(min=1e-8).log().requires_grad_(True) for one in before]
    block, timesteps, random = network.network.get_submodule(name), found.t, generator("steps", name)
    optimizer = torch.optim.Adam(logs, lr=LEARNING_RATE, fused=True)

    def error(samples: Tensor) -> Tensor:
        network.clock.columns = network.columns_of(timesteps[samples])
        return (block(*calls.of(samples)) - expected[samples]).abs().clamp(min=1e-12)

    def put(scales: list[Tensor]) -> None:
        for one, scale in zip(quantizers, scales, strict=True):
            one.scale = scale

    for one in quantizers:
        one.round = straight_through
    for _ in range(iterations):
        put([log.exp() for log in logs])
        samples = torch.from_numpy(random.integers(0, len(expected), BATCH)).to(expected.device)
        loss = (POWER * error(samples).log()).exp().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one in quantizers:
        one.round = torch.round
    tried = [before, [log.detach().exp().half().float() for log in logs]]
    found_errors = []
    for scales in tried:
        put(scales)
        with torch.no_grad():
            parts = torch.arange(len(expected), device=expected.device).split(256)
            found_errors.append(sum(error(part).square().double().sum().item() for part in parts))
    put(tried[found_errors.index(min(found_errors))])
