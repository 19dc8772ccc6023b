"""Stage: the byte budgets again, with other ideas of which weights matter in place of the Fisher information."""

from pathlib import Path
from typing import get_args

import numpy as np
from torch import Tensor
from tqdm import tqdm

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.models import families
from laqfi.quality.fidelity import carries
from laqfi.quality.judge import Judge
from laqfi.quality.params import Groups
from laqfi.quant.apply import as_file, store_all, store_for_all, stored_size
from laqfi.quant.choice import Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.gather import gather, read_fisher
from laqfi.quant.knapsack import BudgetTooSmallError
from laqfi.quant.params import Budget, Controls, Quantize
from laqfi.quant.policies.budget import BEST, Importance, Target, budget
from laqfi.records import Precision
from laqfi.sampling.drawing import draw_images
from laqfi.sampling.network import arithmetic
from laqfi.sampling.params import Drawing
from laqfi.stages import command
from laqfi.storage.described import parted, settings_of
from laqfi.storage.model_file import model_of
from laqfi.storage.stored_file import read_stored


def controls(
    controls: Controls,
    quantize: Quantize,
    sample: Drawing,
    evaluate: Groups,
    *,
    model: Path,
    table: Path,
    fisher: Path,
    curvature: Path,
    base_samples: Path,
    network: Path,
    reference: Path,
    out: Path,
) -> None:
    """Write size and quality for every budget and importance, all drawn from the noise of FP32's first images.

    `controls.precision` draws first, FP32 beside; where it does not carry, that of the rows of the report draws again.
    """
    file = read_stored(model)
    (tensors, given), metadata = parted(*file), file[1]
    measured = read_fisher(fisher, tensors)
    weights = gather((tensors, metadata), model, quantize, sample, table=table, fisher=measured, curvature=curvature)
    judge, shape = Judge(network, reference, evaluate.groups), tuple(metadata["image"])
    scheduler = families.scheduler_of(settings_of(metadata))

    def draw(tensors: dict[str, Tensor], metadata: dict, precision: Precision) -> np.ndarray:
        denoiser, alphas_cumprod, _ = model_of(tensors, metadata, model, default_device())
        how = sample.model_copy(update={"precision": precision})
        return draw_images(denoiser, alphas_cumprod, shape, how, controls.images, scheduler, progress=False)

    precision, first = arithmetic(sample.precision), arithmetic(controls.precision or sample.precision)
    base_images = {precision: first_images(base_samples, len(sample.seeds), controls.images, shape)}
    if first != precision:
        base_images[first] = draw(*file, first)
    bases = {one: judge.quality(images, base_images[precision]) for one, images in base_images.items()}

    points = [(one, importance) for one in controls.budgets for importance in get_args(Importance)]
    choices = [choose(weights, one, importance) for one, importance in tqdm(points, "budgets")]
    store_for_all(weights, [chosen for chosen in choices if chosen is not None])

    def drawn(chosen: Choices, precision: Precision) -> records.StoredQuality:
        parts = store_all(weights, chosen)
        images = draw(*as_file(parts, metadata, given), precision)
        return records.StoredQuality(bytes=stored_size(parts), **dict(judge.quality(images, base_images[precision])))

    def row(one: Budget, importance: Importance, chosen: Choices | None) -> records.ControlRow:
        used, found = (precision, None) if chosen is None else (first, drawn(chosen, first))
        if used != precision and not carries(bases[first].squared_error, found.squared_error):
            used, found = precision, drawn(chosen, precision)
        return records.ControlRow(ratio=one.ratio, importance=importance, precision=used, found=found)

    rows = [row(*point, chosen) for point, chosen in tqdm(list(zip(points, choices, strict=True)), "controls")]
    records.write(out, records.ControlTable(seeds=sample.seeds, precision=precision, bases=bases, rows=rows))


def first_images(path: Path, seeds: int, images: int, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [seeds, images, *shape] of a file with at least so many. Raises LaqfiError if it holds others."""
    found = files.read_array(path, "images")
    wanted = (seeds, max(images, *found.shape[1:2]), *shape)
    if found.dtype != "uint8" or found.shape != wanted:
        raise LaqfiError(f"{path}: images is {found.dtype} {found.shape}, allowed is uint8 {wanted}")
    return found[:, :images]


def choose(weights: list[Evidence], one: Budget, importance: Importance) -> Choices | None:
    """What the budget allows, None if it is too small for that importance."""
    try:
        return budget(weights, target=Target(ratio=one.ratio), importance=importance, rest=one.rest, **BEST)
    except BudgetTooSmallError:
        return None


if __name__ == "__main__":
    command.run(controls)
