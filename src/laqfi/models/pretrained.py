"""A folder that diffusers wrote: a pipeline, or its U-Net alone. Only JSON and safetensors are read."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from laqfi.base import files, folders
from laqfi.base.block import Block
from laqfi.base.errors import LaqfiError

NETWORKS = ("UNet2DModel", "UNet2DConditionModel")
PARTS = {"unet", "scheduler"}  # of a pipeline that makes images of noise alone
WEIGHTS = "diffusion_pytorch_model"
NO_LIMIT = ("lambda_min_clipped", -math.inf)
SUFFIXES = {".json", ".safetensors"}  # of what is hashed
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class NetworkFolder(Block):
    """What is recorded of a folder: params.yaml is checked against it. No `scheduler` where the folder has none.

    `pipeline` is its kind, None for a U-Net alone; `parameters` is how many weights the network has.
    """

    sha256: str
    unet: dict[str, object]
    scheduler: dict[str, object] | None
    pipeline: str | None = None
    parameters: int | None = None


def listed(folder: Path) -> NetworkFolder:
    """What is recorded of a folder. Raises LaqfiError if it is none that can be read."""
    unet, scheduler = read_configs(folder)
    parameters = sum(map(count_of, weight_files(folder)))
    return NetworkFolder(
        sha256=folders.digest(folders.hashes(folder, SUFFIXES)),
        unet=unet,
        scheduler=scheduler,
        pipeline=pipeline_in(folder),
        parameters=parameters,
    )


def count_of(path: Path) -> int:
    """Numbers in a safetensors file, of which the header alone is read. Raises LaqfiError if it cannot be."""
    with files.readable(path) as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def pipeline_in(folder: Path) -> str | None:
    """The kind of pipeline in the folder. Raises LaqfiError for an index that names none."""
    if not (index := folder / "model_index.json").is_file():
        return None
    found = read_config(index).get("_class_name")
    if not isinstance(found, str):
        raise LaqfiError(f"{index}: _class_name is {found!r}, allowed is the name of a pipeline")
    return found


def unet_folder(folder: Path) -> Path:
    """Where the network's config.json and weights lie. Raises LaqfiError for no such folder, or of another pipeline."""
    if not (folder / "model_index.json").is_file():
        return folder
    index = read_config(folder / "model_index.json")
    parts = {name for name, value in index.items() if not name.startswith("_") and value not in ([None, None], None)}
    if others := sorted(name for name in parts - PARTS if isinstance(index[name], list)):
        raise LaqfiError(f"{folder}: its pipeline has {others[0]!r}, allowed is one of unet and scheduler alone")
    return folder / "unet"


def read_configs(folder: Path) -> tuple[dict, dict | None]:
    """The configs of the network and of its scheduler, None where the folder has none.

    Raises LaqfiError for what is no such folder.
    """
    if not folder.is_dir():
        raise LaqfiError(f"{folder}: no such folder")
    unet = read_config(unet_folder(folder) / "config.json")
    if (found := unet.get("_class_name")) not in NETWORKS:
        allowed = f"allowed is {' or '.join(NETWORKS)}"
        raise LaqfiError(f"{unet_folder(folder) / 'config.json'}: _class_name is {found!r}, {allowed}")
    if "quantization_config" in unet:
        raise LaqfiError(f"{unet_folder(folder) / 'config.json'}: the weights are quantized, allowed are plain ones")
    places = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    scheduler = next((read_config(path) for path in places if path.is_file()), None)
    return without_a_past(unet), None if scheduler is None else without_a_past(scheduler)


def read_config(path: Path) -> dict:
    """Raises LaqfiError for anything but a JSON object of finite numbers.

    Some schedulers write the one infinity that stands for no limit, which is what they take for granted without it.
    """
    try:
        found = json.loads(files.read_text(path))
        if not isinstance(found, dict):
            raise ValueError("no object")
        found = {key: value for key, value in found.items() if (key, value) != NO_LIMIT}
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise LaqfiError(f"{path}: not valid JSON ({error})") from error
    return found


def without_a_past(config: dict) -> dict:
    """Without what says where a config came from, which version wrote it and what was left at its default."""
    return {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the network: one, or those that its index names; of half precision if there is no other.

    Raises LaqfiError, with its name, for a pickle in their place.
    """
    unet = unet_folder(folder)
    for variant in ("", ".fp16", ".bf16"):
        stem = f"{WEIGHTS}{variant}"
        index = unet / f"{WEIGHTS}.safetensors.index{variant}.json"
        if (unet / f"{stem}.safetensors").is_file():
            return [unet / f"{stem}.safetensors"]
        if index.is_file():
            return sharded(index)
    if pickles := sorted(path for path in unet.glob("*") if path.suffix in PICKLES):
        raise LaqfiError(f"{pickles[0]}: is a pickle, which is never read; allowed is {WEIGHTS}.safetensors")
    raise LaqfiError(f"{unet}: holds no {WEIGHTS}.safetensors")


def sharded(index: Path) -> list[Path]:
    """Errors as of `weight_files`."""
    named = read_config(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise LaqfiError(f"{index}: no weight_map of file names")
    if outside := sorted(
        file for file in named.values() if Path(file).name != file or not file.endswith(".safetensors")
    ):
        raise LaqfiError(f"{index}: names {outside[0]!r}, allowed are safetensors files beside it")
    return [index.parent / file for file in sorted(set(named.values()))]


def read_weights(folder: Path, sha256: str) -> dict[str, Tensor]:
    """The network's tensors by name, as float32. Raises LaqfiError for a damaged file, or a name in two files,
    and for a folder that `sha256` was not made of.
    """
    folders.check(folder, folders.hashes(folder, SUFFIXES), sha256)
    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with files.readable(path) as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if name in found:
                    raise LaqfiError(f"{path}: {name} is in another file, too")
                if not tensor.is_floating_point() or not tensor.isfinite().all():
                    raise LaqfiError(f"{path}: {name} holds other than finite floats")
                found[name] = tensor.to(torch.float32)
    return found
