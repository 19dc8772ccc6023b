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
from laqfi.quant.apply import as_file, file_size, store_all, store_for_all, stored_size, told_of_coding
from laqfi.quant.choice import Choices
from laqfi.quant.evidence import Evidence
from laqfi.quant.gather import gather, read_fisher
from laqfi.quant.knapsack import BudgetTooSmallError
from laqfi.quant.params import Budget, Controls, Quantize
from laqfi.quant.policies.budget import BEST, Importance, Target, budget
from laqfi.quant.policies.registry import FileSize
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
    judge = Judge(network, reference, evaluate.groups)
    drawings = Drawings(file, model, controls, sample, judge, base_samples)

    sizes = {one: file_size(weights, metadata | coding_of(one, weights), given) for one in controls.budgets}
    points = [(one, importance) for one in controls.budgets for importance in get_args(Importance)]
    choices = [choose(weights, sizes[one], one, importance) for one, importance in tqdm(points, "budgets")]
    store_for_all(weights, [chosen for chosen in choices if chosen is not None])

    def row(one: Budget, importance: Importance, chosen: Choices | None) -> records.ControlRow:
        precision, found = drawings.precision, None
        if chosen is not None:
            parts = store_all(weights, chosen)
            precision, quality = drawings.judged(*as_file(parts, metadata, given))
            sized = {"bytes": stored_size(parts), "file_bytes": sizes[one](chosen)}
            found = records.StoredQuality(**sized, **dict(quality))
        asked = one.model_dump(include={"ratio", "of", "coding"})
        return records.ControlRow(**asked, importance=importance, precision=precision, found=found)

    rows = [row(*point, chosen) for point, chosen in tqdm(list(zip(points, choices, strict=True)), "controls")]
    found = {"precision": drawings.precision, "bases": drawings.bases, "rows": rows}
    records.write(out, records.ControlTable(seeds=sample.seeds, **found))


class Drawings:
    """Draws images of stored models, and judges them beside what FP32 drew of the same noise in the same precision.

    `precision` is that of the rows of the report, which decides; `bases` is the quality of FP32's own images by the
    precision they were drawn in, beside those in `precision`.
    """

    def __init__(
        self,
        base: tuple[dict[str, Tensor], dict],
        model: Path,
        controls: Controls,
        sample: Drawing,
        judge: Judge,
        base_samples: Path,
    ):
        """`base`: FP32's tensors and metadata, of the file `model`. Errors as of `first_images`."""
        self.model, self.images, self.sample, self.judge = model, controls.images, sample, judge
        self.shape, self.scheduler = tuple(base[1]["image"]), families.scheduler_of(settings_of(base[1]))
        self.precision, self.first = arithmetic(sample.precision), arithmetic(controls.precision or sample.precision)
        originals = first_images(base_samples, len(sample.seeds), controls.images, self.shape)
        self.base_images = {self.precision: originals}
        if self.first != self.precision:
            self.base_images[self.first] = self.draw(*base, self.first)
        self.bases = {one: judge.quality(images, originals) for one, images in self.base_images.items()}

    def draw(self, tensors: dict[str, Tensor], metadata: dict, precision: Precision) -> np.ndarray:
        """uint8 [seeds, images, channels, side, side]."""
        denoiser, alphas_cumprod, _ = model_of(tensors, metadata, self.model, default_device())
        how = self.sample.model_copy(update={"precision": precision})
        return draw_images(denoiser, alphas_cumprod, self.shape, how, self.images, self.scheduler, progress=False)

    def judged(self, tensors: dict[str, Tensor], metadata: dict) -> tuple[Precision, records.Quality]:
        """The quality of a model's images, and the precision they were drawn in: the first one, if it carries."""
        found = self.quality(tensors, metadata, self.first)
        if self.first == self.precision or carries(self.bases[self.first].squared_error, found.squared_error):
            return self.first, found
        return self.precision, self.quality(tensors, metadata, self.precision)

    def quality(self, tensors: dict[str, Tensor], metadata: dict, precision: Precision) -> records.Quality:
        return self.judge.quality(self.draw(tensors, metadata, precision), self.base_images[precision])


def first_images(path: Path, seeds: int, images: int, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [seeds, images, *shape] of a file with at least so many. Raises LaqfiError if it holds others."""
    found = files.read_array(path, "images")
    wanted = (seeds, max(images, *found.shape[1:2]), *shape)
    if found.dtype != "uint8" or found.shape != wanted:
        raise LaqfiError(f"{path}: images is {found.dtype} {found.shape}, allowed is uint8 {wanted}")
    return found[:, :images]


def coding_of(one: Budget, weights: list[Evidence]) -> dict:
    """What the metadata of a file within the budget say of its coding."""
    return told_of_coding(one.coding, target_of(one), weights)


def target_of(one: Budget) -> Target:
    return Target(ratio=one.ratio, of=one.of)


def choose(weights: list[Evidence], size: FileSize, one: Budget, importance: Importance) -> Choices | None:
    """What the budget allows, None if it is too small for that importance; `size` is that of its file.

    A budget of the file has the whole model stored and coded about ten times, which takes a core 0.05 s for every
    million weights, beside the rounding: two minutes for all importances at paper scale (37 million weights).
    """
    try:
        return budget(weights, size, target=target_of(one), importance=importance, rest=one.rest, **BEST)
    except BudgetTooSmallError:
        return None


if __name__ == "__main__":
    command.run(controls)
