"""Second-order error of a layer: what a change of its weights does to the model's output, through its real inputs.

For a layer y = W x the change of the predicted noise is, to second order, Σ_rows δ H δᵀ with H = E Σ_positions g² x xᵀ,
where x is the layer's input patch at a position and g² the mean over output channels of the squared derivative of the
output by y there (GuidedQuant, Kim et al. 2025; with g² = 1 this is the matrix of GPTQ, Frantar et al. 2023).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from laqfi.base.errors import LaqfiError
from laqfi.sensitivity import params as settings
from laqfi.sensitivity.compensation import Compensation, ascending
from laqfi.sensitivity.inputs import check_inputs, checked
from laqfi.sensitivity.layers import LAYERS, Watch, channels_first, flow_back, is_plain, patches
from laqfi.sensitivity.measuring import measuring
from laqfi.sensitivity.noised import noised_chunks
from laqfi.storage.kinds import full_name

BLOCK = 1024  # rows of H that are summed with one product
ROOM = 128 << 20  # bytes of H of a small model: one pass over the images does for all of its layers


class Curvature:
    """H [columns, columns] of one layer while it is summed: its lower triangle, in blocks of rows.

    `seen`: whether anything was, as is not of a layer that is never called, but whose weight is read.
    """

    def __init__(self, like: Tensor, columns: int):
        self.columns, self.dtype, self.seen = columns, like.dtype, False
        rows = [range(start, min(start + BLOCK, columns)) for start in range(0, columns, BLOCK)]
        self.blocks = {some: like.new_zeros(len(some), some.stop) for some in rows}

    def add(self, x: Tensor, weights: Tensor) -> None:
        """x: patches [B, columns, positions]. weights: g² [B, 1, positions]."""
        self.seen = True
        weighted, x = (tensor.transpose(0, 1).flatten(1) for tensor in (x * weights, x))
        for rows, block in self.blocks.items():
            block.addmm_(weighted[rows.start : rows.stop], x[: rows.stop].T)

    def ordered(self, samples: int) -> tuple[Tensor, Tensor]:
        """Mean over so many samples with rows and columns in the order of `ascending`, and that order.

        Nothing is left here: while the matrix is factored, no second one is in memory.
        """
        order = ascending(torch.cat([block[:, rows.start :].diagonal() for rows, block in self.blocks.items()]))
        place, whole = order.argsort(), order.new_empty(self.columns, self.columns, dtype=self.dtype)
        while self.blocks:
            rows, block = self.blocks.popitem()
            own, others = place[rows.start : rows.stop], place[: rows.stop]
            whole[others[:, None], own] = block.T
            whole[own[:, None], others] = block
        return whole.div_(samples), order


def columns_of(module: nn.Module) -> int:
    """Weights of one output channel."""
    return module.weight.numel() // module.weight.shape[1 if isinstance(module, nn.ConvTranspose2d) else 0]


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every convolution and linear layer that `patches` knows, by the name of its weight, which no other module has."""
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    layers = {path: m for path, m in model.named_modules() if type(m) in LAYERS and is_plain(m)}
    return {full_name(path, "weight"): m for path, m in layers.items() if owners[id(m.weight)] == 1}


def passes(layers: dict[str, nn.Module], room: int) -> Iterator[dict[str, nn.Module]]:
    """Layers one after the other, as many at a time as have their triangles of H in `room` bytes; at least one."""
    some, left = {}, room
    for name, module in layers.items():
        needed = 2 * columns_of(module) ** 2
        if some and needed > left:
            yield some
            some, left = {}, room
        some[name] = module
        left -= needed
    if some:
        yield some


def curvatures(
    model: nn.Module,
    layers: dict[str, nn.Module],
    images: Tensor,
    alphas_cumprod: Tensor,
    *,
    timesteps: list[int],
    chunk: int,
    seed: int,
    weights: Mapping[int, float] | None = None,
) -> dict[str, Curvature]:
    """H of some layers of the model, summed over images [N, C, H, W] and `timesteps`, each as often as `weights` say.

    The derivative is that of r·ε_θ with random signs r, as for the Gauss–Newton Fisher, of which H is the off-diagonal
    completion.
    """
    alphas_cumprod = alphas_cumprod.to(next(model.parameters()).device)
    sums = {name: Curvature(module.weight.detach(), columns_of(module)) for name, module in layers.items()}

    def add(name: str, module: nn.Module, x: Tensor, gradient: Tensor) -> None:
        weights = channels_first(module, gradient).square().mean(1, keepdim=True)
        sums[name].add(patches(module, x), weights)

    for timestep in tqdm(timesteps, "curvature", unit="timestep"):
        for seen in noised_chunks("curvature", images, timestep, alphas_cumprod, chunk=chunk, seed=seed):
            scale = 1.0 if weights is None else math.sqrt(weights[timestep])
            with Watch(model, layers, add):
                flow_back((scale * seen.probe * model(seen.x, seen.t)).sum())
    return sums


def compensations(
    model: nn.Module,
    images: Tensor,
    alphas_cumprod: Tensor,
    *,
    timesteps: list[int],
    chunk: int,
    seed: int,
    weights: Mapping[int, float] | None = None,
) -> Iterator[tuple[str, Compensation | None]]:
    """What `curvatures` tell of every layer, in the order of the model, by the name of its weight; None if nothing.

    However large the model, the matrices of only so many layers are summed at a time as have room in its own memory,
    each time with another pass over the images. The model is left as it was. Raises LaqfiError, before anything is
    measured, for what `check_inputs` and the block `curvature` of params.yaml do not allow; and, with the name, for a
    matrix that is not finite or not positive semi-definite.
    """
    given = checked(settings.Curvature, timesteps=list(timesteps), images=max(1, len(images)), chunk=chunk, seed=seed)
    images = check_inputs(model, images, alphas_cumprod, given)
    return compensated(model, images, alphas_cumprod, timesteps=timesteps, chunk=chunk, seed=seed, weights=weights)


def compensated(
    model: nn.Module, images: Tensor, alphas_cumprod: Tensor, **how: Any
) -> Iterator[tuple[str, Compensation | None]]:
    room = max(ROOM, sum(p.numel() * p.element_size() for p in model.parameters()))
    for some in passes(layers_of(model), room):
        with measuring(model):
            sums = curvatures(model, some, images, alphas_cumprod, **how)
        for name in some:
            one = sums.pop(name)
            try:
                samples = len(images) * len(how["timesteps"])
                yield name, Compensation.of_ordered(*one.ordered(samples)) if one.seen else None
            except LaqfiError as error:
                raise LaqfiError(f"{name} {error}") from error
