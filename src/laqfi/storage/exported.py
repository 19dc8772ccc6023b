"""A stored network as a folder that diffusers loads, packed as it is here."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from laqfi.base import at_once, files
from laqfi.base.errors import LaqfiError
from laqfi.models import pretrained
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import EXTRAS, layouts_of
from laqfi.storage.sdnq import Form, form_bytes, form_of, quantization_config

CONFIG, WEIGHTS = "config.json", f"{pretrained.WEIGHTS}.safetensors"
BESIDE = ("model_index.json", "scheduler/scheduler_config.json", "scheduler_config.json")  # copied as they are
EXTRA_WORDS = {"activations": "rounds inputs (activations)", "correction": "corrects the noise (correct)"}


def export_folder(source: Path, tensors: Mapping[str, Tensor], metadata: Mapping, out: Path, where: Path) -> None:
    """Write `out` like the folder `source` of diffusers, a pipeline or a U-Net alone, with the stored tensors in it.

    `tensors` and `metadata` are those of a model file, whose parameters have the names that diffusers gives them;
    `where` names it in errors. Raises LaqfiError, before anything is written, for a file with more than weights, for
    one of another network, for tensors that have no form there, and for a folder `out` that is no earlier export.
    """
    if extra := sorted(EXTRAS.keys() & metadata.keys()):
        raise LaqfiError(f"{where}: {EXTRA_WORDS[extra[0]]}, for which a folder of diffusers has no form")
    place, (config, _) = pretrained.unet_folder(source) / CONFIG, pretrained.read_configs(source)
    unet = "unet/" if place.parent != source else ""
    network = network_of(config, place)
    check_same(config, metadata, place, where)
    forms = forms_of(network, dict(tensors), dict(metadata), where)
    check_replaceable(out)
    parts = {name: tensor for form in forms.values() for name, tensor in form.tensors.items()}
    content = {name: files.read_bytes(source / name) for name in BESIDE if (source / name).is_file()}
    config = pretrained.read_config(place) | {"quantization_config": quantization_config(forms)}
    content[unet + CONFIG] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    content[unet + WEIGHTS] = save(
        {name: tensor.cpu().contiguous() for name, tensor in parts.items()}, {"format": "pt"}
    )
    at_once.write(out, content)


def network_of(config: Mapping, path: Path) -> nn.Module:
    """The network of a config.json, without memory for its weights. Raises LaqfiError if it describes none."""
    from diffusers import UNet2DModel  # takes seconds to load

    try:
        with torch.device("meta"):
            return UNet2DModel.from_config(config)
    except (RuntimeError, TypeError, ValueError) as error:
        raise LaqfiError(f"{path}: describes no network ({' '.join(str(error).split())})") from error


def check_same(config: Mapping, metadata: Mapping, path: Path, where: Path) -> None:
    """Raises LaqfiError if the file says that its network had another config than this one."""
    described = metadata.get("model")
    wanted = described.get("unet") if isinstance(described, dict) else None
    wanted = pretrained.without_a_past(wanted) if isinstance(wanted, dict) else None
    for key in sorted(config.keys() | wanted.keys()) if wanted is not None else ():
        if config.get(key) != wanted.get(key):
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


def sizes_in(network: nn.Module) -> Callable[[str, Layout], int]:
    """What a parameter of the network takes in an export, by its name and layout."""
    names = [name for name, _ in network.named_parameters()]

    def size(name: str, layout: Layout) -> int:
        module = network.get_submodule(name.rpartition(".")[0])
        return form_bytes(name, layout, module, halves=name != names[0])

    return size


def check_replaceable(out: Path) -> None:
    """Raises LaqfiError for what is there and is no earlier export: it would be lost."""
    known = {*BESIDE, *(folder + name for folder in ("", "unet/") for name in (CONFIG, WEIGHTS))}
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    configs = [out / name for name in found if name.endswith(f"/{CONFIG}") or name == CONFIG]
    earlier = found <= known and any("quantization_config" in files.read_text(path) for path in configs)
    if out.is_file() or (found and not earlier):
        raise LaqfiError(f"{out}: is there and is no earlier export, allowed is a new or an empty folder")
