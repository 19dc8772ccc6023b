"""Second-order error of a layer: what a change of its weights does to the model's output, through its real inputs.

For a layer y = W x the change of the predicted noise is, to second order, Σ_rows δ H δᵀ with H = E Σ_positions g² x xᵀ,
where x is the layer's input patch at a position and g² the mean over output channels of the squared derivative of the
output by y there (GuidedQuant, Kim et al. 2025; with g² = 1 this is the matrix of GPTQ, Frantar et al. 2023).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from laqfi.sensitivity.noised import noised_chunks

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def patches(module: nn.Module, x: Tensor) -> Tensor:
    """Inputs of every output position, in the column order of `Layout.matrix`: [B, columns, positions]."""
    if isinstance(module, nn.Linear):
        return x.flatten(1, -2).transpose(1, 2) if x.dim() > 2 else x[:, :, None]
    if isinstance(module, nn.Conv2d):
        return F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    # A transposed convolution is a convolution of the input, spread out by the stride, with the kernel turned around.
    (rows, columns), (stride, _), (kernel, _) = x.shape[2:], module.stride, module.kernel_size
    spread = x.new_zeros(*x.shape[:2], (rows - 1) * stride + 1, (columns - 1) * stride + 1)
    spread[:, :, ::stride, ::stride] = x
    unfolded = F.unfold(spread, module.kernel_size, padding=kernel - 1 - module.padding[0])
    return unfolded.unflatten(1, (-1, kernel * kernel)).flip(2).flatten(1, 2)


def output_weights(module: nn.Module, gradient: Tensor) -> Tensor:
    """g² of every output position: [B, 1, positions]."""
    channels_last = isinstance(module, nn.Linear)
    squared = gradient.square().mean(-1 if channels_last else 1)
    return squared.flatten(1)[:, None] if squared.dim() > 1 else squared[:, None, None]


class Watched:
    """Sums H of every convolution and linear layer of a model while gradients flow back through it."""

    def __init__(self, model: nn.Module):
        self.layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
        self.inputs: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.hooks = [module.register_forward_hook(self.hook(name)) for name, module in self.layers.items()]

    def hook(self, name: str) -> Callable:
        def remember(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
            self.inputs[name] = arguments[0].detach()
            output.register_hook(lambda gradient: self.add(name, gradient))

        return remember

    def add(self, name: str, gradient: Tensor) -> None:
        x = patches(self.layers[name], self.inputs.pop(name))
        weighted = x * output_weights(self.layers[name], gradient)
        product = torch.einsum("bip,bjp->ij", weighted, x)
        self.sums[name] = self.sums[name] + product if name in self.sums else product

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()


def curvatures(
    model: nn.Module, images: Tensor, alphas_cumprod: Tensor, *, timesteps: list[int], chunk: int, seed: int
) -> dict[str, Tensor]:
    """H [columns, columns] of every convolution and linear layer, by the name of its weight.

    Mean over images [N, C, H, W] and `timesteps`; the derivative is that of r·ε_θ with random signs r, as for the
    Gauss–Newton Fisher, of which H is the off-diagonal completion.
    """
    alphas_cumprod = alphas_cumprod.to(next(model.parameters()).device)
    watched = Watched(model)
    try:
        for timestep in tqdm(timesteps, "curvature", unit="timestep"):
            for seen in noised_chunks("curvature", images, timestep, alphas_cumprod, chunk=chunk, seed=seed):
                (seen.probe * model(seen.x, seen.t)).sum().backward()
                model.zero_grad()
    finally:
        watched.remove()
    return {f"{name}.weight": total / (len(images) * len(timesteps)) for name, total in watched.sums.items()}
