"""A model file whose tensors learned from FP32: the same names, formats and bytes with other values."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.quant.calibration import CalibrationSet
from laqfi.quant.fitted import File, network_of
from laqfi.quant.fitting import NEAR, finest
from laqfi.quant.knapsack import BudgetTooSmallError
from laqfi.quant.learned import LearnedTensor
from laqfi.quant.ptqd import measured_correction
from laqfi.quant.recipe import Recover
from laqfi.quant.recovery import Recovery, draws, recover
from laqfi.storage.activations import RoundedInput, straight_through
from laqfi.storage.described import alphas_cumprod_of
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import model_of, unwrapped, with_tables
from laqfi.storage.modules import StoredTensor
from laqfi.storage.stored_file import stored_file

TRIES, FARTHEST = 64, 256  # how finely it is tried by how far codes moved, and up to where, in units of codes


def recovered(
    settings: Recover, file: File, base: File, images: Tensor, found: CalibrationSet, path: Path, resume: Path
) -> tuple[File, tuple[float, float]]:
    """The file with what learning ended in, or as it was where that is no better; the errors before and after.

    A coded file with a limit stays within it: codes go back to what they were until it does, or all that was learned.

    `base` is FP32's file, `images` [N, C, H, W] are those of training. Rounded inputs keep their ranges, and weights
    learn behind them; what corrects the noise is measured anew, of the network that it is to correct. `path` names the
    file in errors; in `resume` is what a killed run left. Raises LaqfiError where there is nothing to learn.
    """
    tensors, metadata = file
    student, learned = learning_network(file, settings, path)
    teacher = network_of(*base, path)
    tried = draws(settings, images, alphas_cumprod_of(metadata).float(), found)
    recovery = Recovery(student, teacher, learned, tried, settings, over_limit(file, learned))
    before, after = recover(recovery, resume)
    if "limit" in metadata:
        after = recovery.tried_error() if fit(file, learned) else before
    if after < before:
        tensors = tensors | parts_of(learned)
    if "correction" in metadata:
        plain = {name: one for name, one in tensors.items() if not name.startswith("correction/")}
        quantized = model_of(plain, uncorrected(metadata), path, default_device())[0]
        tensors = tensors | measured_correction(quantized, teacher, found)[1]
    return (tensors, metadata), (before, min(before, after))


def parts_of(learned: dict[str, LearnedTensor]) -> dict[str, Tensor]:
    return {f"{name}{part}": one.cpu() for name, whole in learned.items() for part, one in whole.parts().items()}


def over_limit(file: File, learned: dict[str, LearnedTensor]) -> Callable[[], int] | None:
    """By how many bytes the file would be above its limit, or rather a little below it; None if it has none."""
    tensors, metadata = file
    if "limit" not in metadata:
        return None
    aim = metadata["limit"] - metadata["limit"] // NEAR
    return lambda: len(stored_file(tensors | parts_of(learned), metadata)) - aim


def fit(file: File, learned: dict[str, LearnedTensor]) -> bool:
    """Take codes back until the file is within its limit; whether that could be.

    First those that grew, then any; those that moved least before others.
    """
    tensors, metadata = file
    codes = {name: one for name, one in learned.items() if one.places is not None}
    ended = {name: one.places.detach().clone() for name, one in codes.items()}

    def put(place: int, growth: bool) -> None:
        for name, one in codes.items():
            one.places.data.copy_(ended[name])
            one.places.data.copy_(one.taken_back(place / TRIES, growth))

    def size(place: int, growth: bool) -> int:
        put(place, growth)
        return len(stored_file(tensors | parts_of(learned), metadata))

    for growth in (True, False):
        try:
            place = finest(partial(size, growth=growth), metadata["limit"], 0, 1.0, (0, FARTHEST * TRIES))
        except BudgetTooSmallError:
            continue
        put(place, growth)
        return True
    return False


def learning_network(file: File, settings: Recover, path: Path) -> tuple[nn.Module, dict[str, LearnedTensor]]:
    """The network as it samples but for its correction, and what of it learns by the name of the parameter."""
    tensors, metadata = file
    network, layouts, tables = unwrapped(tensors, metadata, path)
    check_learnable(layouts, settings, path)
    learned = {}
    for name, layout in layouts.items():
        parts = {part: tensors[f"{name}{part}"].to(default_device()) for part in layout.part_shapes()}
        learned[name] = LearnedTensor(layout, parts, settings.learn)
    take_place(network, learned)
    network = with_tables(network, uncorrected(metadata), tables, path).to(default_device())
    for module in network.modules():
        if isinstance(module, RoundedInput):
            module.round = straight_through
    return network.eval(), learned


def uncorrected(metadata: dict) -> dict:
    return {key: value for key, value in metadata.items() if key != "correction"}


def check_learnable(layouts: dict[str, Layout], settings: Recover, path: Path) -> None:
    """Raises LaqfiError where there is nothing to recover, or where `learn` asks for codes and the file has none."""
    if all(one.format.name == "float32" for one in layouts.values()):
        raise LaqfiError(f"{path}: all tensors are in float32, recover is for a variant that stores some in less")
    if settings.learn != "norms" and all(one.format.is_float for one in layouts.values()):
        raise LaqfiError(f"{path}: has no integer codes, recover.learn is {settings.learn!r}, allowed is 'norms'")


def take_place(network: nn.Module, learned: dict[str, LearnedTensor]) -> None:
    """Learning tensors in the place of stored ones, wherever layers hold these."""
    new = {id(network.get_submodule(name)): one for name, one in learned.items()}
    for module in list(network.modules()):
        for key, child in module._modules.items():
            if isinstance(child, StoredTensor):
                module._modules[key] = new[id(child)]
