"""Rounding up or down, learned block by block on the quantized prefix's outputs (AdaRound, Nagel et al. 2020; in the
walk of BRECQ and Q-Diffusion, Li et al. 2021 and 2023).

Not followed: 20,000 iterations at a rate of 1e-3, where a setting says how many, at a rate that fits so many; the walk
starts from grids found by the policy's search, not by minimum and maximum; and a block whose learned codes are worse on
the whole calibration set than those it started with keeps these.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from tqdm import tqdm

from laqfi.base.random import generator
from laqfi.quant.blocks import Calls, blocks_of, calls_of, run, whole_error
from laqfi.quant.calibration import CalibrationSet
from laqfi.quant.recipe import Reconstruct
from laqfi.quant.resume import Resume
from laqfi.quant.rounding import Stored
from laqfi.storage.layout import Codes

STRETCH = (1.2, -0.1)  # ζ − γ and γ of the rectified sigmoid (eq. 23)
PENALTY, WARM_UP = 0.01, 0.2  # λ, and the share of iterations without it
SHARPNESS = (20.0, 2.0)  # b, from the end of the warm-up to the end


@dataclass(frozen=True, eq=False)
class Soft:
    """A stored tensor whose codes lie between the grid's neighbours of each weight: floor + h, h in [0, 1]."""

    stored: Stored
    grid: Codes  # codes: floor
    alpha: Tensor

    @classmethod
    def of(cls, stored: Stored) -> "Soft":
        """On the stored grid, with h so that every weight stands for itself."""
        layout = stored.layout
        found = layout.codes(stored.parts)
        zero_point = torch.as_tensor(found.zero_point, dtype=torch.float32, device=found.scale.device)
        groups = layout.grouped(layout.matrix(stored.weight.float()))
        place = groups / found.scale.where(found.scale != 0, torch.ones_like(found.scale)) + zero_point
        floor = place.floor().clamp(0, layout.format.levels - 1)
        share = (place - floor).clamp(0.01, 0.99)
        alpha = -(STRETCH[0] / (share - STRETCH[1]) - 1).log()
        return cls(stored, Codes(floor, found.scale, zero_point), alpha.requires_grad_(True))

    def h(self) -> Tensor:
        return (STRETCH[0] * self.alpha.sigmoid() + STRETCH[1]).clamp(0, 1)

    def weight(self, h: Tensor) -> Tensor:
        layout = self.stored.layout
        codes = (self.grid.codes + h).clamp(max=layout.format.levels - 1)
        return layout.weight(layout.ungrouped(replace(self.grid, codes=codes).values()))

    def hard(self) -> Stored:
        """What is stored of it once every h is 0 or 1."""
        layout = self.stored.layout
        codes = (self.grid.codes + (self.h() >= 0.5)).clamp(max=layout.format.levels - 1)
        zero_point = self.grid.zero_point.expand_as(self.grid.scale)
        return replace(self.stored, parts=layout.parts(Codes(codes, self.grid.scale, zero_point)))


def penalty(h: Tensor, sharpness: float) -> Tensor:
    """Σ (1 − |2h − 1|^b): none where h is 0 or 1 (eq. 24)."""
    distance = (2 * h - 1).abs().clamp(min=1e-12)
    return (1 - (sharpness * distance.log()).exp()).sum()


def sharpness_at(progress: float) -> float | None:
    """b at a share of all iterations; None in the warm-up, which has no penalty."""
    if progress < WARM_UP:
        return None
    first, last = SHARPNESS
    return last + (first - last) * (1 - (progress - WARM_UP) / (1 - WARM_UP))


def reconstruct(
    student: nn.Module,
    teacher: nn.Module,
    stored: dict[str, Stored],
    kinds: tuple[type[nn.Module], ...],
    layers: list[str],
    found: CalibrationSet,
    settings: Reconstruct,
    resume: Resume,
) -> dict[str, Stored]:
    """`stored` with learned codes for all integer weights of `layers`, block by block.

    `student` has the weights of FP32 and all other tensors as stored; when this ends, its weights are those returned.
    What a block gets is of the student, whose earlier blocks are rounded; what it should give, of `teacher`.
    """
    learned = dict(stored)
    blocks = blocks_of(student, kinds, layers)
    for name, inside in tqdm(blocks.items(), "reconstruct", unit="block"):
        own = {f"{layer}.weight": stored[f"{layer}.weight"] for layer in inside}
        own = {weight: one for weight, one in own.items() if not one.layout.format.is_float}
        if own and (kept := resume.read(name, own)) is None:
            expected = calls_of(teacher, name, found).output
            kept = fit_block(student.get_submodule(name), name, own, calls_of(student, name, found), expected, settings)
            resume.add(name, kept)
        learned |= kept if own else {}
        with torch.no_grad():
            for weight in [f"{layer}.weight" for layer in inside]:
                one = learned[weight]
                student.get_parameter(weight).copy_(one.layout.restore(one.parts))
    return learned


def fit_block(
    block: nn.Module, name: str, own: dict[str, Stored], calls: Calls, expected: Tensor, settings: Reconstruct
) -> dict[str, Stored]:
    """Codes for the weights of one block, by their full names, or those in `own` where learning made none better."""
    soft = {weight: Soft.of(one) for weight, one in own.items()}
    local = {weight: weight.removeprefix(f"{name}.") for weight in own}
    optimizer = torch.optim.Adam([one.alpha for one in soft.values()], lr=settings.lr, fused=True)
    random = generator("adaround", name)
    for iteration in range(settings.iterations):
        samples = torch.from_numpy(random.integers(0, len(expected), settings.batch_size)).to(expected.device)
        h = {weight: one.h() for weight, one in soft.items()}
        weights = {local[weight]: one.weight(h[weight]) for weight, one in soft.items()}
        change = (run(block, weights, calls.of(samples)) - expected[samples]).square()
        loss = change.mean() * change.shape[1]  # summed over channels, as published
        sharpness = sharpness_at(iteration / settings.iterations)
        if sharpness is not None:
            loss = loss + PENALTY * sum(penalty(one, sharpness) for one in h.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        hard = {weight: one.hard() for weight, one in soft.items()}
    return min(own, hard, key=lambda chosen: error_of(block, local, chosen, calls, expected))


def error_of(
    block: nn.Module, local: dict[str, str], chosen: dict[str, Stored], calls: Calls, expected: Tensor
) -> float:
    weights = {local[weight]: one.layout.restore(one.parts) for weight, one in chosen.items()}
    return whole_error(lambda part: run(block, weights, calls.of(part)), expected)
