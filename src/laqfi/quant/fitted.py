"""A quantized model with what its recipe adds: learned rounding, rounded inputs, corrected noise."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from laqfi.base.device import default_device
from laqfi.models import families
from laqfi.quant.adaround import reconstruct
from laqfi.quant.apply import as_file
from laqfi.quant.calibration import CalibrationSet, inputs_of
from laqfi.quant.choice import Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.ptqd import measured_correction
from laqfi.quant.ranges import measured_inputs
from laqfi.quant.recipe import Activations, Recipe
from laqfi.quant.resume import Resume
from laqfi.quant.rounding import Stored
from laqfi.quant.steps import learned_steps
from laqfi.storage.activations import Inputs, RoundedInputs
from laqfi.storage.described import parted, settings_of
from laqfi.storage.formats import WHOLE_CHANNEL
from laqfi.storage.model_file import model_of

File = tuple[dict[str, Tensor], dict]  # tensors and metadata of a model file


def split_at_seams(weights: list[Evidence], choices: Choices, network: nn.Module, found: CalibrationSet) -> Choices:
    """`choices`, where a convolution with one scale per channel reads a raw concatenation with several.

    Groups are as wide as both halves allow, so that none holds weights of both (Q-Diffusion, Li et al. 2023).
    """
    seams = {f"{one.name}.weight": one.seam for one in inputs_of(network, *found.first(), 8) if one.seam}
    split = dict(choices)
    for one in weights:
        chosen = choices.get(one.name)
        if one.name in seams and chosen and not chosen.format.is_float and chosen.format.group_size == WHOLE_CHANNEL:
            inputs = one.weight.shape[1 - one.axis]
            taps = one.layout(chosen.format).columns // inputs
            size = taps * math.gcd(seams[one.name], inputs)
            split[one.name] = replace(chosen, format=replace(chosen.format, group_size=size))
    return split


def fitted(
    recipe: Recipe, stored: dict[str, Stored], model: File, path: Path, found: CalibrationSet, resume: Resume
) -> tuple[dict[str, Stored], File]:
    """The tensors with learned rounding, and the model file with all that the recipe adds.

    `model` is FP32's file, named `path` in errors; `resume` holds what a killed run had finished.
    """
    metadata, kinds = model[1], families.blocks(settings_of(model[1]))
    teacher, student = (network_of(tensors, metadata, path) for tensors in (model[0], begun(stored, model[0], recipe)))
    layers = [one.name for one in inputs_of(teacher, *found.first(), 8)]
    if recipe.reconstruct is not None:
        stored = reconstruct(student, teacher, stored, kinds, layers, found, recipe.reconstruct, resume)
    tensors, header = as_file(stored, metadata, parted(*model)[1])
    if recipe.activations is not None:
        about, tables = rounded_inputs(student, teacher, recipe.activations, kinds, found)
        tensors, header = tensors | tables, header | {"activations": about.model_dump()}
    if recipe.correct is not None:
        quantized = model_of(tensors, header, path, default_device())[0]
        correction, tables = measured_correction(quantized, teacher, found)
        tensors, header = tensors | tables, header | {"correction": correction.model_dump()}
    return stored, (tensors, header)


def network_of(tensors: dict[str, Tensor], metadata: dict, path: Path) -> nn.Module:
    """An ordinary network in float32, which no gradient is wanted of."""
    whole = {name: tensor.float().clone() for name, tensor in tensors.items()}
    return model_of(whole, metadata, path, default_device())[0].requires_grad_(False)


def begun(stored: dict[str, Stored], base: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """What fitting begins with: FP32's tensors, but weights as stored unless their rounding is yet to be learned."""
    kept = {name: one for name, one in stored.items() if one.layout.format.is_float or not recipe.reconstruct}
    return base | {name: one.layout.restore(one.parts).cpu() for name, one in kept.items()}


def rounded_inputs(
    student: nn.Module,
    teacher: nn.Module,
    settings: Activations,
    kinds: tuple[type[nn.Module], ...],
    found: CalibrationSet,
) -> tuple[Inputs, dict[str, Tensor]]:
    """What the file says of rounded inputs, and its tables, for a network with the stored weights."""
    about, tables = measured_inputs(student, settings, found)
    if settings.learn:
        network = RoundedInputs(deepcopy(student), about, tables).to(default_device())
        tables = learned_steps(network, teacher, about, kinds, found, settings.learn)
    return about, tables
