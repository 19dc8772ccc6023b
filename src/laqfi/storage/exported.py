"""A stored network as a folder that diffusers loads, packed as it is here."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from laqfi.base import at_once, files
from laqfi.base.errors import LaqfiError
from laqfi.storage.model_file import EXTRAS, layouts_of
from laqfi.storage.sdnq import Form, form_of, quantization_config

NETWORKS = ("UNet2DModel", "UNet2DConditionModel")
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
BESIDE = ("model_index.json", "scheduler/scheduler_config.json", "scheduler_config.json")  # copied as they are
PAST = ("_name_or_path", "_diffusers_version")  # of a config: where it came from
EXTRA_WORDS = {"activations": "rounds inputs (activations)", "correction": "corrects the noise (correct)"}


def export_folder(source: Path, tensors: Mapping[str, Tensor], metadata: Mapping, out: Path, where: Path) -> None:
    """Write `out` like the folder `source` of diffusers, a pipeline or a U-Net alone, with the stored tensors in it.

    `tensors` and `metadata` are those of a model file, whose parameters have the names that diffusers gives them;
    `where` names it in errors. Raises LaqfiError, before anything is written, for a file with more than weights, for
    one of another network, for tensors that have no form there, and for a folder `out` that is no earlier export.
    """
    if extra := sorted(EXTRAS.keys() & metadata.keys()):
        raise LaqfiError(f"{where}: {EXTRA_WORDS[extra[0]]}, for which a folder of diffusers has no form")
    unet = "unet/" if (source / "model_index.json").is_file() else ""
    config = files.read_json(source / unet / CONFIG)
    network = network_of(config, source / unet / CONFIG)
    check_same(config, metadata, source / unet / CONFIG, where)
    forms = forms_of(network, dict(tensors), dict(metadata), where)
    check_replaceable(out)
    parts = {name: tensor for form in forms.values() for name, tensor in form.tensors.items()}
    content = {name: files.read_bytes(source / name) for name in BESIDE if (source / name).is_file()}
    config |= {"quantization_config": quantization_config(forms)}
    content[unet + CONFIG] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    content[unet + WEIGHTS] = save(
        {name: tensor.cpu().contiguous() for name, tensor in parts.items()}, {"format": "pt"}
    )
    at_once.write(out, content)


def network_of(config: object, path: Path) -> nn.Module:
    """The network of a config.json, without memory for its weights. Raises LaqfiError for another class of networks."""
    import diffusers  # takes seconds to load

    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind not in NETWORKS:
        raise LaqfiError(f"{path}: _class_name is {kind!r}, allowed is one of {', '.join(NETWORKS)}")
    if "quantization_config" in config:
        raise LaqfiError(f"{path}: the weights are quantized, allowed are plain ones")
    try:
        with torch.device("meta"):
            return getattr(diffusers, kind).from_config(config)
    except (RuntimeError, TypeError, ValueError) as error:
        raise LaqfiError(f"{path}: describes no network ({' '.join(str(error).split())})") from error


def check_same(config: Mapping, metadata: Mapping, path: Path, where: Path) -> None:
    """Raises LaqfiError if the file says that its network had another config than this one."""
    described = metadata.get("model")
    wanted = described.get("unet") if isinstance(described, dict) else None
    for key in sorted(config.keys() | wanted.keys()) if isinstance(wanted, dict) else ():
        if key not in PAST and config.get(key) != wanted.get(key):
            raise LaqfiError(f"{path}: {key} is {config.get(key)!r}, allowed is {wanted.get(key)!r} as in {where}")


def forms_of(network: nn.Module, tensors: dict[str, Tensor], metadata: dict, where: Path) -> dict[str, Form]:
    """Of every parameter. Errors as of `export_folder`.

    diffusers takes the dtype of the first float that it meets for that of the whole network: no half may be that one.
    """
    found = {}
    for place, (name, layout) in enumerate(layouts_of(tensors, metadata, network, where).items()):
        parts = {part: tensors[f"{name}{part}"] for part in layout.part_shapes()}
        module = network.get_submodule(name.rpartition(".")[0])
        try:
            found[name] = form_of(name, layout, parts, module, halves=place > 0)
        except LaqfiError as error:
            raise LaqfiError(f"{where}: {error}") from error
    return found


def check_replaceable(out: Path) -> None:
    """Raises LaqfiError for what is there and is no earlier export: it would be lost."""
    known = {*BESIDE, *(folder + name for folder in ("", "unet/") for name in (CONFIG, WEIGHTS))}
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    configs = [out / name for name in found if name.endswith(f"/{CONFIG}") or name == CONFIG]
    earlier = found <= known and any("quantization_config" in files.read_text(path) for path in configs)
    if out.is_file() or (found and not earlier):
        raise LaqfiError(f"{out}: is there and is no earlier export, allowed is a new or an empty folder")
