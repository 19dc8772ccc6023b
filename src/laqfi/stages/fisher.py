"""Stage: Fisher information of every weight, and its mean over every (tensor, timestep)."""

from pathlib import Path

import torch
from torch import Tensor, nn

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device, deterministic
from laqfi.base.pictures import from_uint8
from laqfi.base.random import generator
from laqfi.models import families
from laqfi.sensitivity.fisher import FisherMaps, fisher_maps, mean_and_error
from laqfi.sensitivity.keep import write_maps
from laqfi.sensitivity.params import Fisher
from laqfi.stages import command
from laqfi.storage.described import settings_of
from laqfi.storage.model_file import read_model


def fisher(fisher: Fisher, *, dataset: Path, model: Path, out: Path, table: Path) -> None:
    """Write the maps, and the table of the means of every tensor and layer as JSON."""
    images = from_uint8(files.read_array(dataset, "train_images"))
    network, alphas_cumprod, metadata = read_model(model, default_device())
    chosen = torch.from_numpy(generator("fisher", fisher.seed).permutation(len(images))[: fisher.images])
    with deterministic(default_device()):
        maps = fisher_maps(
            network,
            images[chosen],
            alphas_cumprod,
            timesteps=fisher.timesteps,
            bins=fisher.bins,
            chunk=fisher.chunk,
            seed=fisher.seed,
        )
    write_maps(out, maps, {"timesteps": fisher.timesteps, "bins": fisher.bins})
    records.write(table, summarise(network, settings_of(metadata), maps, fisher.timesteps, len(chosen)))


def summarise(
    model: nn.Module, settings: families.Settings, maps: FisherMaps, timesteps: list[int], images: int
) -> records.FisherTable:
    """Mean Fisher with standard error per weight tensor and per layer (all its weights alike), and mean |w|."""
    weights = {name: w for name, w in model.named_parameters() if families.is_scored(settings, name, w)}
    layers = {name: families.group_of(settings, name) for name in weights}
    kinds = {kind: means_of(per_sample, weights, layers) for kind, per_sample in maps.per_sample.items()}
    magnitude = {name: w.abs().mean().item() for name, w in weights.items()}
    return records.FisherTable(images=images, timesteps=timesteps, layers=layers, magnitude=magnitude, **kinds)


def means_of(per_sample: dict[str, Tensor], weights: dict[str, Tensor], layers: dict[str, str]) -> records.FisherKind:
    """per_sample: [timesteps, samples], the mean over the weights of each tensor."""
    by_layer = {}
    for layer in sorted(set(layers.values())):
        members = [name for name in weights if layers[name] == layer]
        total = sum(per_sample[name] * weights[name].numel() for name in members)
        by_layer[layer] = means(total / sum(weights[name].numel() for name in members))
    return records.FisherKind(tensors={name: means(per_sample[name]) for name in weights}, layers=by_layer)


def means(per_sample: Tensor) -> records.Means:
    mean, error = mean_and_error(per_sample)
    return records.Means(mean=mean.tolist(), standard_error=error.tolist())


if __name__ == "__main__":
    command.run(fisher)
