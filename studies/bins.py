"""Does one map of Fisher information per weight do for all timesteps? `python studies/bins.py data/quick`.

The change that 4-bit weights are predicted to make in each bin: by one map times the tensor's own ratio in the bin, as
`quantize` predicts it, over that by a map of the bin alone.
"""

import argparse
from pathlib import Path

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before PyTorch is loaded
import numpy as np
import torch

from laqfi.base import files
from laqfi.base.pictures import from_uint8
from laqfi.base.random import generator
from laqfi.quant.gather import MeasuredFisher
from laqfi.quant.prediction import predicted_change
from laqfi.quant.rounding import store
from laqfi.report.tables import as_markdown
from laqfi.sensitivity.fisher import bin_of, fisher_maps
from laqfi.sensitivity.params import Fisher
from laqfi.storage.described import output_axes
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import read_model


def ratios(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """By bin: for every matrix what is predicted by one map, and by the bin's own."""
    settings = Fisher(**files.read_json(folder / "params.json")["fisher"])
    images = from_uint8(files.read_array(folder / "dataset.npz", "train_images"))
    chosen = torch.from_numpy(generator("fisher", settings.seed).permutation(len(images))[: settings.images])
    model, alphas_cumprod, _ = read_model(folder / "model.safetensors", torch.device("cpu"))
    given = model, images[chosen], alphas_cumprod
    whole = fisher_maps(
        *given, timesteps=settings.timesteps, bins=settings.bins, chunk=settings.chunk, seed=settings.seed
    )
    axes = output_axes(model)
    deltas = {
        name: store(weight.detach(), Layout(Format("int4"), tuple(weight.shape), axes[name]), "mse").delta
        for name, weight in model.named_parameters()
        if weight.dim() > 1
    }
    measured, found = MeasuredFisher(settings.bins, whole.per_weight, whole.per_bin), {}
    for edge in settings.bins:
        members = [t for t in settings.timesteps if bin_of(t, settings.bins) == edge]
        own = fisher_maps(*given, timesteps=members, bins=[settings.bins[-1]], chunk=settings.chunk, seed=settings.seed)
        by_one, by_own = [], []
        for name, delta in deltas.items():
            by_one.append(predicted_change(delta, whole.per_weight[name]) * measured.relative(name)[edge])
            by_own.append(predicted_change(delta, own.per_weight[name]))
        found[edge] = {"one map": np.array(by_one), "its own map": np.array(by_own)}
    return found


def rows(found: dict[int, dict[str, np.ndarray]]) -> list[dict[str, str]]:
    table = []
    for edge, of in found.items():
        seen = of["its own map"] > 0
        each = of["one map"][seen] / of["its own map"][seen]
        table.append(
            {
                "bin ends at": str(edge),
                "all tensors": f"{of['one map'].sum() / of['its own map'].sum():.3f}",
                "half of them within": f"{100 * np.median(abs(each - 1)):.0f} %",
                "smallest": f"{each.min():.2f}",
                "largest": f"{each.max():.2f}",
            }
        )
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a profile that was run: data/quick")
    print(as_markdown(rows(ratios(parser.parse_args().folder))))
