"""What was measured of a model, read from the files of the stages that measured it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.models import families
from laqfi.quant.evidence import Evidence
from laqfi.quant.params import Quantize
from laqfi.sampling.params import Sampler
from laqfi.sampling.samplers import error_gains
from laqfi.sensitivity.fisher import bin_of
from laqfi.storage.model_file import described, layouts_of, output_axes

WEIGHTINGS = ("last", "uniform", "sampler")


def gather(
    model: tuple[dict[str, Tensor], dict],
    path: Path,
    settings: Quantize,
    sampler: Sampler,
    *,
    table: Path,
    maps: Mapping[str, Mapping[str, Tensor]],
    curvature: Path,
) -> list[Evidence]:
    """All tensors of a model with what was measured of them.

    model: tensors and metadata of its file, which `path` names in errors. maps: of `fisher_by_bin`. Raises LaqfiError
    for files that are not of one model.
    """
    tensors, metadata = model
    network, header = described(metadata, path)
    layouts_of(tensors, metadata, network, path)
    axes, alphas_cumprod = output_axes(network), linear_alphas_cumprod(**header.diffusion.model_dump())
    scores = normalised_scores(records.read(table, records.FisherTable), settings, table)
    groups = {name: families.group_of(header.model, name) for name in tensors}
    scored = {name for name, tensor in tensors.items() if families.is_scored(header.model, name, tensor)}
    if unlike := set(scores) ^ scored:
        raise LaqfiError(f"{table} and {path} are not of one model: only one of them holds {min(unlike)}")
    matrices = read_curvature(curvature, tensors, axes)
    if (last := max(map(int, maps))) < header.diffusion.timesteps:
        raise LaqfiError(
            f"{path}: has {header.diffusion.timesteps} timesteps, the bins of its Fisher maps end at {last}"
        )
    edges, sampling = [int(edge) for edge in maps], sampler.model_dump(include=set(Sampler.model_fields))
    bins = {kind: bin_weights(kind, edges, alphas_cumprod, **sampling) for kind in WEIGHTINGS}
    return [
        Evidence(
            name,
            groups[name] if name in scores else None,
            scores.get(name, 0.0),
            tensor.to(default_device()),
            axes[name],
            {kind: sum(w * maps[str(edge)][name] for edge, w in of.items()) for kind, of in bins.items()},
            matrices.get(name),
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


def read_curvature(path: Path, tensors: Mapping[str, Tensor], axes: Mapping[str, int]) -> dict[str, Tensor]:
    """H [columns, columns] of every convolution and linear weight. Raises LaqfiError if one is missing or no such."""
    matrices, _ = files.read_tensors(path)
    columns = {name: t.numel() // t.shape[axes[name]] for name, t in tensors.items() if t.dim() >= 2}
    files.check_tensors(path, matrices, {name: (torch.float32, (size, size)) for name, size in columns.items()})
    if negative := [name for name, matrix in matrices.items() if (matrix.diagonal() < 0).any()]:
        raise LaqfiError(f"{path}: {negative[0]} has a diagonal below 0")
    return matrices


def bin_weights(
    weighting: str, bins: list[int], alphas_cumprod: Tensor, *, sampler: str, steps: int, eta: float
) -> dict[int, float]:
    """What each timestep bin counts.

    "last": the bin of t = 1 alone, as in the seed report; "uniform": every timestep alike; "sampler": the squared gain
    to the final image of the sampler's steps in the bin.
    """
    if weighting == "last":
        return {edge: float(edge == bins[0]) for edge in bins}
    if weighting == "uniform":
        return {edge: (edge - start) / bins[-1] for start, edge in zip([0, *bins], bins, strict=False)}
    weights = dict.fromkeys(bins, 0.0)
    for timestep, gain in error_gains(alphas_cumprod, sampler=sampler, steps=steps, eta=eta).items():
        weights[bin_of(timestep, bins)] += gain
    return weights
