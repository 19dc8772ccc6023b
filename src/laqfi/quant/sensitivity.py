"""What policies may know of a model's tensors: their Fisher scores, and the Fisher information of every weight."""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from laqfi import io
from laqfi.config import Profile
from laqfi.diffusion import linear_alphas_cumprod
from laqfi.errors import LaqfiError
from laqfi.fisher import WEIGHTINGS, bin_weights
from laqfi.quant.model import empty_unet, is_quantizable, output_axes
from laqfi.quant.policy import WeightTensor
from laqfi.unet import layer_of


def weight_tensors(
    profile: Profile, model: Path, table: Path, maps: dict[str, dict[str, Tensor]]
) -> list[WeightTensor]:
    """All tensors of the model with what the policies may know of them."""
    tensors, metadata = io.read_tensors(model)
    axes = output_axes(empty_unet(metadata, model))
    scores = normalised_scores(io.read_json(table), profile)
    if unlike := set(scores) ^ {name for name, tensor in tensors.items() if is_quantizable(name, tensor)}:
        raise LaqfiError(f"{table} and {model} are not of one model: only one of them holds {min(unlike)}")
    alphas_cumprod = linear_alphas_cumprod(**metadata["diffusion"])
    sampler = profile.sample.model_dump(include={"sampler", "steps", "eta"})
    bins = {kind: bin_weights(kind, [int(edge) for edge in maps], alphas_cumprod, **sampler) for kind in WEIGHTINGS}
    return [
        WeightTensor(
            name,
            layer_of(name) if name in scores else None,
            scores.get(name, 0.0),
            tensor,
            axes[name],
            {kind: sum(w * maps[str(edge)][name] for edge, w in of.items()) for kind, of in bins.items()},
        )
        for name, tensor in tensors.items()
    ]


def normalised_scores(table: dict, profile: Profile) -> dict[str, float]:
    """Mean Fisher of every weight tensor at the chosen timestep, over the largest of them (eq. 2)."""
    column = table["timesteps"].index(profile.quantize.timestep)
    means = {name: rows["mean"][column] for name, rows in table[profile.quantize.fisher]["tensors"].items()}
    top = max(means.values())
    return {name: mean / top if top > 0 else 0.0 for name, mean in means.items()}


def fisher_by_bin(path: Path, names: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Gauss–Newton Fisher of every weight, by timestep bin and name."""
    maps, header = io.read_tensors(path)
    try:
        return {str(edge): {name: maps[f"gauss_newton/{edge}/{name}"] for name in names} for edge in header["bins"]}
    except KeyError as error:
        raise LaqfiError(f"{path}: holds no Fisher information {error.args[0]!r}") from error
