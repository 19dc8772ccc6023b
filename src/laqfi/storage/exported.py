"""A stored network as a folder that diffusers loads, packed as it is here."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from laqfi.base import at_once, files
from laqfi.base.errors import LaqfiError
from laqfi.models import pretrained
from laqfi.models.diffusers_unet import Diffusers, kind_of, pipeline_of
from laqfi.storage.described import EXTRAS, parted
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import layouts_of
from laqfi.storage.sdnq import Form, form_bytes, form_of, quantization_config

INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
CONFIG, WEIGHTS = "config.json", f"{pretrained.WEIGHTS}.safetensors"
BESIDE = (INDEX, SCHEDULER, "scheduler_config.json")  # what may stand beside the network
EXTRA_WORDS = {
    "activations": "rounds inputs (activations)",
    "correction": "corrects the noise (correct)",
    "buffers": "holds buffers",
}


@dataclass(frozen=True)
class Frame:
    """What a folder of diffusers holds but for the weights.

    config: the network's, as it is written; `prefix` is where that lies, "unet/" in a pipeline. others: the files
    beside it, by path. `where` names all in errors.
    """

    config: dict
    prefix: str
    others: dict[str, bytes]
    where: Path


def frame_of_folder(source: Path) -> Frame:
    """Of a folder, a pipeline or a U-Net alone. Raises LaqfiError for one that cannot be read."""
    unet = pretrained.unet_folder(source)
    pretrained.read_configs(source)
    others = {name: files.read_bytes(source / name) for name in BESIDE if (source / name).is_file()}
    return Frame(pretrained.read_config(unet / CONFIG), "" if unet == source else "unet/", others, unet / CONFIG)


def frame_of_model(settings: Diffusers, where: Path) -> Frame:
    """A pipeline, of what a model file says of its network. Raises LaqfiError if diffusers has none for its sampler."""
    try:
        pipeline = pipeline_of(settings)
    except ValueError as error:
        raise LaqfiError(f"{where}: {error}") from error
    name = settings.scheduler["_class_name"]
    unet = kind_of(settings.unet)
    index = {"_class_name": pipeline, "scheduler": ["diffusers", name], "unet": ["diffusers", unet]}
    return Frame(settings.unet, "unet/", {INDEX: as_json(index), SCHEDULER: as_json(settings.scheduler)}, where)


def as_json(value: Mapping) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def export_folder(frame: Frame, tensors: Mapping[str, Tensor], metadata: Mapping, out: Path, where: Path) -> None:
    """Write the folder `out`: the frame with the stored tensors in it.

    `tensors` and `metadata` are those of a model file, whose parameters have the names that diffusers gives them;
    `where` names it in errors. Raises LaqfiError, before anything is written, for a file with more than weights, for
    one of another network, for tensors that have no form there, and for a folder `out` that is no earlier export.
    """
    if extra := sorted(EXTRAS.keys() & metadata.keys()):
        raise LaqfiError(f"{where}: {EXTRA_WORDS[extra[0]]}, for which a folder of diffusers has no form")
    config = pretrained.without_a_past(frame.config)
    network = network_of(config, frame.where)
    tensors, _ = parted(tensors, metadata)
    check_same(config, metadata, frame.where, where)
    forms = forms_of(network, tensors, dict(metadata), where)
    check_replaceable(out)
    parts = {name: tensor for form in forms.values() for name, tensor in form.tensors.items()}
    content = frame.others | {
        frame.prefix + CONFIG: as_json(frame.config | {"quantization_config": quantization_config(forms)}),
        frame.prefix + WEIGHTS: save(
            {name: tensor.cpu().contiguous() for name, tensor in parts.items()}, {"format": "pt"}
        ),
    }
    at_once.write(out, content)


def network_of(config: Mapping, path: Path) -> nn.Module:
    """The network of a config.json, without memory for its weights. Raises LaqfiError if it describes none."""
    import diffusers  # takes seconds to load

    try:
        with torch.device("meta"):
            return getattr(diffusers, kind_of(config)).from_config(config)
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
