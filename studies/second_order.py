"""How far from the limit, if errors make up for others? `python studies/second_order.py data/quick rate_14`.

The report's bound takes weights, and errors, for independent, which those of GPTQ are not. The second-order error of a
row r of a tensor is, by the factors of its curvature, g_r Σ_k D_k e_k² with e_k = δ_k + Σ_{i<k} δ_i U_ik (class
`Compensation`; g_r brings its diagonal to the Fisher information of the row). Whoever codes columns in that order pays
for each e_k by itself, so that water-filling over the g_r D_k bounds it. That is below the bound by the eigenvalues of
the curvature: both are convex in logarithms, and those of the D_k are majorized (Weyl 1949).
"""

import argparse
from pathlib import Path

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before PyTorch is loaded
import numpy as np
import torch
from torch import Tensor

from laqfi import records
from laqfi.quant.gather import read_compensations, read_fisher
from laqfi.quant.prediction import water_filling_bits
from laqfi.report.tables import as_markdown
from laqfi.sensitivity.compensation import Compensation
from laqfi.storage.described import described, output_axes
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import layouts_of
from laqfi.storage.stored_file import read_stored


class Tensors:
    """The model of a profile that was run, with its curvature and Fisher information."""

    def __init__(self, folder: Path):
        self.folder, path = folder, folder / "model.safetensors"
        self.weights, metadata = read_stored(path)
        self.axes = output_axes(described(metadata, path)[0])
        self.fisher = read_fisher(folder / "fisher.safetensors", self.weights).per_weight
        self.compensations = read_compensations(folder / "curvature.safetensors", self.weights, self.axes)

    def stored(self, variant: str) -> dict[str, tuple[Layout, Tensor]]:
        """The matrices of a variant that are stored in integers: their layout and their weight."""
        path = self.folder / f"quantize/{variant}.safetensors"
        tensors, metadata = read_stored(path)
        layouts = layouts_of(tensors, metadata, described(metadata, path)[0], path)
        return {
            name: (layout, layout.restore({part: tensors[f"{name}{part}"] for part in layout.part_shapes()}))
            for name, layout in layouts.items()
            if not layout.format.is_float
        }

    def bound(self, variant: str) -> tuple[float, float]:
        """Fewest bits per weight at the second-order error of a variant, and what steps by column could save of its."""
        error, variances, spread = 0.0, [], 0.0
        for name, (layout, weight) in self.stored(variant).items():
            order, feedback, pivots = factors(self.compensations[name](), layout)
            matrix, fisher = layout.matrix(self.weights[name]).double(), layout.matrix(self.fisher[name].double())
            diagonal = ((feedback + torch.eye(len(order))).square() * pivots).sum(1).mean()
            costs = fisher.mean(1, keepdim=True) / diagonal * pivots
            change = (layout.matrix(weight).double() - matrix)[:, order]
            error += float((costs * (change + change @ feedback).square()).sum())
            variances.append((matrix.square().mean(1, keepdim=True) * costs).flatten().numpy())
            spread += matrix.numel() * float((pivots.mean().log2() - pivots.log2().mean()) / 2)
        every = np.concatenate(variances)
        return water_filling_bits(every, np.ones(len(every)), error), spread / len(every)


def factors(compensation: Compensation, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Of the stored columns: their order, U and D."""
    stored = layout.stored_columns()
    order, feedback = compensation.unpacked(stored, torch.device("cpu"))
    return order, feedback.double(), compensation.pivots[torch.isin(compensation.order, stored)].double()


def rows(folder: Path, variants: list[str]) -> list[dict[str, str]]:
    tensors, table = Tensors(folder), []
    for variant in variants:
        told = records.read(folder / f"choices/{variant}.json", records.Allocation).bits_per_weight
        if told is None:
            continue
        second, columns = tensors.bound(variant)
        table.append(
            {
                "variant": variant,
                "bits per weight": f"{told.bits:.2f}",
                "above the diagonal's bound": f"{told.bits - told.bound:.2f}",
                "above that of the second order": f"{told.bits - second:.2f}",
                "of it by one step for all columns": f"{columns:.2f}",
            }
        )
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a profile that was run: data/quick")
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    told = parser.parse_args()
    print(as_markdown(rows(told.folder, told.variants)))
