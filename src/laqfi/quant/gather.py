"""What was measured of a model, read from the files of the stages that measured it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from laqfi import records
from laqfi.base import files, streamed
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.models import families
from laqfi.quant.evidence import Evidence
from laqfi.quant.params import Quantize
from laqfi.sampling.params import Sampler
from laqfi.sampling.samplers import error_gains
from laqfi.sensitivity.compensation import Compensation
from laqfi.sensitivity.fisher import bin_of, bin_shares
from laqfi.sensitivity.image import ImageImportance
from laqfi.storage.described import alphas_cumprod_of, described, output_axes
from laqfi.storage.model_file import layouts_of

WEIGHTINGS = ("last", "uniform", "sampler")


@dataclass(frozen=True)
class MeasuredFisher:
    """Gauss–Newton Fisher of a model: of every weight, the mean over all timesteps; of every tensor, in every bin.

    What a weight matters in one bin is what it matters on the mean, times what its tensor matters there relative to its
    mean: the maps of single bins would take five times the room and tell little more.
    """

    bins: list[int]
    per_weight: dict[str, Tensor]
    per_bin: dict[str, Tensor]

    def relative(self, name: str) -> dict[int, float]:
        """What a tensor matters in every bin, as a multiple of what it matters on the mean."""
        shares, found = bin_shares(self.bins), dict(zip(self.bins, self.per_bin[name].tolist(), strict=True))
        mean = sum(shares[edge] * value for edge, value in found.items())
        return {edge: value / mean if mean else 0.0 for edge, value in found.items()}


def gather(
    model: tuple[dict[str, Tensor], dict],
    path: Path,
    settings: Quantize,
    sampler: Sampler,
    *,
    table: Path,
    fisher: MeasuredFisher,
    curvature: Path,
    image: Path | None = None,
) -> list[Evidence]:
    """All tensors of a model with what was measured of them.

    model: tensors and metadata of its file, which `path` names in errors. image: what the stage `calibrate` wrote, if a
    policy weighs by it. Raises LaqfiError for files that are not of one model.
    """
    tensors, metadata = model
    network, header = described(metadata, path)
    layouts_of(tensors, metadata, network, path)
    axes, alphas_cumprod = output_axes(network), alphas_cumprod_of(metadata)
    scores = normalised_scores(records.read(table, records.FisherTable), settings, table)
    groups = {name: families.group_of(header.model, name) for name in tensors}
    scored = {name for name, tensor in tensors.items() if families.is_scored(header.model, name, tensor)}
    if unlike := set(scores) ^ scored:
        raise LaqfiError(f"{table} and {path} are not of one model: only one of them holds {min(unlike)}")
    compensations = read_compensations(curvature, tensors, axes)
    if (last := fisher.bins[-1]) < len(alphas_cumprod) - 1:
        raise LaqfiError(f"{path}: has {len(alphas_cumprod) - 1} timesteps, the bins of its Fisher maps end at {last}")
    sampling = sampler.model_dump(include=set(Sampler.model_fields))
    sampling["scheduler"] = families.scheduler_of(header.model)
    bins = {kind: bin_weights(kind, fisher.bins, alphas_cumprod, **sampling) for kind in WEIGHTINGS}
    matters = None if image is None else ImageImportance.read(image, [*dict(network.named_parameters())]).tensors
    counts = {name: counts_of(name, fisher, bins, matters) for name in tensors}
    return [
        Evidence(
            name,
            groups[name] if name in scores else None,
            scores.get(name, 0.0),
            tensor.to(default_device()),
            axes[name],
            fisher.per_weight[name],
            counts[name],
            compensations.get(name),
        )
        for name, tensor in tensors.items()
    ]


def counts_of(
    name: str, fisher: MeasuredFisher, bins: dict[str, dict[int, float]], image: dict[str, float] | None
) -> dict[str, float]:
    """By weighting, how many times its mean over all timesteps the Fisher information of a tensor counts."""
    found = {kind: sum(of[edge] * one for edge, one in fisher.relative(name).items()) for kind, of in bins.items()}
    if image is not None:
        mean = float(fisher.per_weight[name].mean(dtype=torch.float64))
        found["image"] = image[name] / mean if mean > 0 else 0.0
    return found


def normalised_scores(table: records.FisherTable, settings: Quantize, path: Path) -> dict[str, float]:
    """Mean Fisher of every weight tensor at the chosen timestep, relative to the largest of them (eq. 2)."""
    if settings.timestep not in table.timesteps:
        raise LaqfiError(f"{path}: holds the timesteps {table.timesteps}, not {settings.timestep}")
    column = table.timesteps.index(settings.timestep)
    means = {name: rows.mean[column] for name, rows in table.of_kind(settings.fisher).tensors.items()}
    top = max(means.values())
    return {name: mean / top if top > 0 else 0.0 for name, mean in means.items()}


def read_fisher(path: Path, tensors: Mapping[str, Tensor]) -> MeasuredFisher:
    """What the stage `fisher` wrote of these tensors. Raises LaqfiError if it is of others, or none."""
    found, header = files.read_tensors(path)
    bins = header.get("bins")
    if not (isinstance(bins, list) and bins and all(type(edge) is int and edge > 0 for edge in bins)) or (
        bins != sorted(set(bins))
    ):
        raise LaqfiError(f"{path}: bins is {bins!r}, allowed is a list of increasing timesteps")
    wanted = {f"weight/{name}": (torch.bfloat16, tuple(t.shape)) for name, t in tensors.items()}
    files.check_tensors(path, found, wanted | {f"bin/{name}": (torch.float32, (len(bins),)) for name in tensors})
    if negative := [name for name, fisher in found.items() if (fisher < 0).any()]:
        raise LaqfiError(f"{path}: {negative[0]} holds values below 0")
    per_weight = {name: found[f"weight/{name}"].to(default_device()) for name in tensors}
    return MeasuredFisher(bins, per_weight, {name: found[f"bin/{name}"] for name in tensors})


def read_compensations(
    path: Path, tensors: Mapping[str, Tensor], axes: Mapping[str, int]
) -> dict[str, Callable[[], Compensation]]:
    """By every convolution and linear weight, a function that reads its compensation.

    Only the last one is held, because all together are larger than the model. Raises LaqfiError if one is missing or of
    another shape; what its numbers say is checked when it is read.
    """
    shapes, tensor = streamed.open_tensors(path)
    columns = {name: t.numel() // t.shape[axes[name]] for name, t in tensors.items() if t.dim() >= 2}
    wanted = {key: shape for name, size in columns.items() for key, shape in Compensation.shapes(name, size).items()}
    files.check_shapes(path, shapes, wanted)

    @lru_cache(maxsize=1)
    def read(name: str) -> Compensation:
        parts = {key: tensor(key) for key in Compensation.shapes(name, columns[name])}
        files.check_tensors(path, parts, {key: wanted[key] for key in parts})
        try:
            return Compensation.of_parts(*parts.values())
        except LaqfiError as error:
            raise LaqfiError(f"{path}: {name} {error}") from error

    return {name: partial(read, name) for name in columns}


def bin_weights(
    weighting: str,
    bins: list[int],
    alphas_cumprod: Tensor,
    *,
    sampler: str,
    steps: int,
    eta: float,
    scheduler: dict | None = None,
) -> dict[int, float]:
    """What each timestep bin counts.

    "last": the bin of t = 1 alone, as in the seed report; "uniform": every timestep alike; "sampler": the squared gain
    to the final image of the sampler's steps in the bin.
    """
    if weighting == "last":
        return {edge: float(edge == bins[0]) for edge in bins}
    if weighting == "uniform":
        return bin_shares(bins)
    weights = dict.fromkeys(bins, 0.0)
    gains = error_gains(alphas_cumprod, sampler=sampler, steps=steps, eta=eta, scheduler=scheduler)
    for timestep, gain in gains.items():
        weights[bin_of(timestep, bins)] += gain
    return weights
