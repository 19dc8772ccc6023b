"""What policies may know of a model's tensors: their Fisher scores, and the Fisher information of every weight."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.models.unet import layer_of
from laqfi.quant.params import Quantize
from laqfi.quant.policy import WeightTensor
from laqfi.sampling.params import Sampler
from laqfi.sampling.samplers import error_gains
from laqfi.sensitivity.fisher import bin_of
from laqfi.storage.model_file import described, is_quantizable, layouts_of, output_axes

WEIGHTINGS = ("last", "uniform", "sampler")


def weight_tensors(
    settings: Quantize, sampler: Sampler, model: Path, table: Path, maps: dict[str, dict[str, Tensor]]
) -> list[WeightTensor]:
    """All tensors of the model with what the policies may know of them."""
    tensors, metadata = files.read_tensors(model)
    unet, alphas_cumprod = described(metadata, model)
    layouts_of(tensors, metadata, unet, model)
    axes = output_axes(unet)
    scores = normalised_scores(records.read(table, records.FisherTable), settings, table)
    if unlike := set(scores) ^ {name for name, tensor in tensors.items() if is_quantizable(name, tensor)}:
        raise LaqfiError(f"{table} and {model} are not of one model: only one of them holds {min(unlike)}")
    edges, sampling = [int(edge) for edge in maps], sampler.model_dump(include=set(Sampler.model_fields))
    bins = {kind: bin_weights(kind, edges, alphas_cumprod, **sampling) for kind in WEIGHTINGS}
    return [
        WeightTensor(
            name,
            layer_of(name) if name in scores else None,
            scores.get(name, 0.0),
            tensor.to(default_device()),
            axes[name],
            {kind: sum(w * maps[str(edge)][name] for edge, w in of.items()) for kind, of in bins.items()},
        )
        for name, tensor in tensors.items()
    ]


def normalised_scores(table: records.FisherTable, settings: Quantize, path: Path) -> dict[str, float]:
    """Mean Fisher of every weight tensor at the chosen timestep, relative to the largest of them (eq. 2)."""
    if settings.timestep not in table.timesteps:
        raise LaqfiError(f"{path}: holds the timesteps {table.timesteps}, not {settings.timestep}")
    column = table.timesteps.index(settings.timestep)
    means = {name: rows.mean[column] for name, rows in table.of_kind(settings.fisher).tensors.items()}
    top = max(means.values())
    return {name: mean / top if top > 0 else 0.0 for name, mean in means.items()}


def fisher_by_bin(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Gauss–Newton Fisher of every weight of `tensors`, by timestep bin and name. Raises LaqfiError for others."""
    maps, header = files.read_tensors(path)
    bins = header.get("bins")
    if not (isinstance(bins, list) and bins and all(type(edge) is int and edge > 0 for edge in bins)):
        raise LaqfiError(f"{path}: bins is {bins!r}, allowed is a list of timesteps")
    wanted = {f"gauss_newton/{edge}/{name}": t for edge in bins for name, t in tensors.items()}
    if missing := wanted.keys() - maps.keys():
        raise LaqfiError(f"{path}: holds no Fisher information {min(missing)!r}")
    found = {key: maps[key] for key in wanted}
    files.check_tensors(path, found, {key: (torch.float32, tuple(t.shape)) for key, t in wanted.items()})
    if negative := [key for key, fisher in found.items() if (fisher < 0).any()]:
        raise LaqfiError(f"{path}: {negative[0]} holds values below 0")
    device = default_device()
    return {str(edge): {name: maps[f"gauss_newton/{edge}/{name}"].to(device) for name in tensors} for edge in bins}


def read_curvature(path: Path, weights: Iterable[WeightTensor]) -> dict[str, Tensor]:
    """H [columns, columns] of every convolution and linear weight. Raises LaqfiError if one is missing or no such."""
    matrices, _ = files.read_tensors(path)
    columns = {t.name: t.weight.numel() // t.weight.shape[t.axis] for t in weights if t.is_matrix}
    files.check_tensors(path, matrices, {name: (torch.float32, (size, size)) for name, size in columns.items()})
    if negative := [name for name, matrix in matrices.items() if (matrix.diagonal() < 0).any()]:
        raise LaqfiError(f"{path}: {negative[0]} has a diagonal below 0")
    return matrices


def bin_weights(
    weighting: str, bins: list[int], alphas_cumprod: Tensor, *, sampler: str, steps: int, eta: float
) -> dict[int, float]:
    """What each timestep bin counts: "last" only the bin of t = 1 (the seed report), "uniform" every timestep alike,
    "sampler" the squared gain to the final image of the sampler's steps in the bin."""
    if weighting == "last":
        return {edge: float(edge == bins[0]) for edge in bins}
    if weighting == "uniform":
        return {edge: (edge - start) / bins[-1] for start, edge in zip([0, *bins], bins, strict=False)}
    weights = dict.fromkeys(bins, 0.0)
    for timestep, gain in error_gains(alphas_cumprod, sampler=sampler, steps=steps, eta=eta).items():
        weights[bin_of(timestep, bins)] += gain
    return weights
