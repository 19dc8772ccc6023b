"""The JSON files that stages hand to each other, one class for each: written from it, and read back as an equal one.

A file with a key that its class does not have is refused: another version of the code wrote it.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from laqfi.base import files
from laqfi.base.block import Seed
from laqfi.base.errors import LaqfiError, first_line


def number_of_key(key: object) -> object:
    """Keys of JSON objects are texts: "50" is 50. Everything else is left to be refused."""
    return int(key) if isinstance(key, str) and re.fullmatch("[1-9][0-9]{0,8}", key) else key


Timestep = Annotated[int, BeforeValidator(number_of_key), Field(ge=1, lt=10**9)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
NotNegative = Annotated[float, Field(ge=0)]
Precision = Literal["float32", "tf32", "float16"]  # of products on a GPU, finest first; a CPU computes in float32


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Kept = TypeVar("Kept", bound=Record)


class Means(Record):
    """A mean over samples and its standard error, one value of each per timestep."""

    mean: list[NotNegative]
    standard_error: list[NotNegative]


class FisherKind(Record):
    """Mean Fisher information per weight, by weight tensor and by layer."""

    tensors: Annotated[dict[str, Means], Field(min_length=1)]
    layers: Annotated[dict[str, Means], Field(min_length=1)]


class FisherTable(Record):
    """Fisher information of both kinds from `images` images; the layer and the mean |w| of each weight tensor."""

    images: Count
    timesteps: Annotated[list[Count], Field(min_length=1)]
    layers: dict[str, str]
    magnitude: dict[str, NotNegative]
    empirical: FisherKind
    gauss_newton: FisherKind

    def of_kind(self, kind: Literal["empirical", "gauss_newton"]) -> FisherKind:
        return {"empirical": self.empirical, "gauss_newton": self.gauss_newton}[kind]

    @model_validator(mode="after")
    def all_of_one_model(self):
        for kind in (self.empirical, self.gauss_newton):
            for name, rows in (kind.tensors | kind.layers).items():
                if not len(rows.mean) == len(rows.standard_error) == len(self.timesteps):
                    raise ValueError(f"{name!r} has not one value for each of the {len(self.timesteps)} timesteps")
        for names in (self.magnitude.keys(), self.empirical.tensors.keys(), self.gauss_newton.tensors.keys()):
            if unlike := names ^ self.layers.keys():
                raise ValueError(f"its tables are not of one model: only one of them holds {min(unlike)}")
        return self


class Interval(Record):
    """A value and its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @model_validator(mode="after")
    def in_order(self):
        if not self.low <= self.mean <= self.high:
            raise ValueError(f"{self.mean} is not within its interval [{self.low}, {self.high}]")
        return self


class Jackknife(Interval):
    """A measure over seeds, with what paired differences are made of: its values with each group of images left out.

    per_seed: [seeds]; left_out: [seeds, groups].
    """

    per_seed: Annotated[list[float], Field(min_length=1)]
    left_out: list[Annotated[list[float], Field(min_length=2)]]

    @model_validator(mode="after")
    def of_the_same_seeds(self):
        if len(self.left_out) != len(self.per_seed) or len({len(groups) for groups in self.left_out}) > 1:
            raise ValueError(f"left_out holds no equal lists for {len(self.per_seed)} seeds")
        return self


SquaredErrors = Annotated[list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]], Field(min_length=1)]


class Quality(Record):
    """Quality of `images` images of `pixels` values for each seed, and their squared error to FP32's of the same noise.

    `fid_again`: by a second feature network, None where there is none. squared_error: [seeds][images], summed over the
    pixels (0 to 255) of an image.
    """

    images: Count
    pixels: Count
    fid: Jackknife
    fid_again: Jackknife | None
    kid: Jackknife
    squared_error: SquaredErrors

    @model_validator(mode="after")
    def one_error_for_each_image(self):
        if [len(errors) for errors in self.squared_error] != [self.images] * len(self.fid.per_seed):
            raise ValueError(f"squared_error holds not {self.images} errors for each of {len(self.fid.per_seed)} seeds")
        largest = max(map(max, self.squared_error))
        if largest > 255**2 * self.pixels:
            raise ValueError(f"squared_error holds {largest}, more than {self.pixels} pixels can differ by")
        return self


class Evaluation(Quality):
    """What was measured of one variant, and under `headlines` of what it drew again.

    `bytes` are those of its tensors, `file_bytes` those of the whole file; `parameters` counts them by format.
    `noise_mse` is the mean squared difference of the predicted noise to FP32's by timestep (unit: noise variance).
    """

    bytes: Count
    file_bytes: Count
    parameters: dict[str, Count]
    seeds: list[Seed]
    noise_mse: Annotated[dict[Timestep, NotNegative], Field(min_length=1)]
    headlines: dict[str, Quality] = {}


class StoredLayout(Record):
    """What the model file says of a tensor; the report needs its shape."""

    model_config = ConfigDict(extra="allow")
    shape: list[Count]


class AllocatedTensor(Record):
    """How one tensor is stored, and why: `score` is what its policy compared with `threshold`.

    `bits` are per weight as it is in memory, scales included; `squared_error` is the sum over its weights.
    """

    format: str
    bits: NotNegative
    layout: StoredLayout
    rounding: str
    score: NotNegative
    threshold: float | None
    squared_error: NotNegative


class BitsPerWeight(Record):
    """Bits per weight of integer tensors in the file, scales included, and the fewest at the same predicted error."""

    bits: NotNegative
    bound: float


class RoundedInputs(Record):
    bits: Count
    ranges: str
    learn: Annotated[int, Field(ge=0, lt=2**63)]


class LearnedRounding(Record):
    iterations: Count
    batch_size: Count
    lr: NotNegative


class LearnedTensors(Record):
    iterations: Count
    batch_size: Count
    lr: NotNegative
    code_lr: NotNegative
    learn: str
    data: str
    seed: Seed


class Recipe(Record):
    """What was done beside the policy, as params.yaml says it; None: not done.

    `recover` is done to what is stored already: the stage `quantize` knows nothing of it, and the report fills it in.
    """

    activations: RoundedInputs | None
    reconstruct: LearnedRounding | None
    correct: str | None
    recover: LearnedTensors | None

    @property
    def done(self) -> dict[str, object]:
        return {key: value for key, value in self.model_dump().items() if value is not None}


class Allocation(Record):
    """The formats that a policy gave the tensors of a variant, and what the Fisher information predicts of them.

    `coding` is that of the file, `recipe` what was done beside the policy; of rounded inputs, corrected noise and
    recovery nothing is predicted: numbers are of the tensors as they were rounded.
    `predicted_noise_mse`: mean squared change of the predicted noise per pixel, by the last timestep of each bin.
    """

    policy: str
    options: dict[str, object]
    coding: str | None
    recipe: Recipe
    tensors: dict[str, AllocatedTensor]
    predicted_noise_mse: Annotated[dict[Timestep, NotNegative], Field(min_length=1)]
    bits_per_weight: BitsPerWeight | None

    @property
    def bound(self) -> BitsPerWeight | None:
        """`bits_per_weight` where the tensors stayed as they were rounded, which the bound is at the error of."""
        return None if self.recipe.recover else self.bits_per_weight

    def recovered(self, done: LearnedTensors | None) -> "Allocation":
        return self.model_copy(update={"recipe": self.recipe.model_copy(update={"recover": done})})


class StoredQuality(Quality):
    """Quality of the images of a stored model that takes `bytes` in memory, and whose whole file `file_bytes`."""

    bytes: Count
    file_bytes: Count


class ControlRow(Record):
    """A size limit met by one idea of importance; `found` is None where no choice of formats fits the limit.

    `of` and `coding` say which bytes are `ratio` times fewer than float32's: all tensors as they are in memory, or the
    whole file. `precision` is what the products were made in when its images were drawn.
    """

    ratio: float
    of: Literal["file", "resident"]
    coding: Literal["ans"] | None
    importance: str
    precision: Precision
    found: StoredQuality | None

    @model_validator(mode="after")
    def only_files_are_coded(self):
        if self.coding is not None and self.of != "file":
            raise ValueError(f"coding is {self.coding!r} of: {self.of!r}, allowed is none")
        return self


class ControlTable(Record):
    """Every row's images are of the same noise, and are beside what FP32 drew of it in the same precision.

    `bases` are these, by precision; their squared errors are to those in `precision`, which decides.
    """

    seeds: list[Seed]
    precision: Precision
    bases: dict[Precision, Quality]
    rows: Annotated[list[ControlRow], Field(min_length=1)]

    @property
    def base(self) -> Quality:
        return self.bases[self.precision]

    @model_validator(mode="after")
    def every_row_has_a_base(self):
        for precision in (self.precision, *(row.precision for row in self.rows)):
            if precision not in self.bases:
                raise ValueError(f"bases is of {sorted(self.bases)}, allowed is with {precision!r}")
        return self


class Floor(Record):
    """FID and KID of `images` held-out real images against the training images; `fid_again` as in Quality."""

    images: Count
    fid: Interval
    fid_again: Interval | None
    kid: Interval


class Floors(Floor):
    """The floor for as many images as a variant draws, and for as many as each headline draws."""

    headlines: dict[str, Floor] = {}


class ImageCounts(Record):
    train: Count
    test: Count


class FeatureNetwork(Record):
    """The frozen networks that images are judged by; `accuracy` of each trained one, on held-out images."""

    dataset: str
    network: str
    images: ImageCounts
    accuracy: list[Annotated[float, Field(ge=0, le=1)]]
    sha256: str


def write(path: Path, record: Record) -> None:
    files.write_json(path, record.model_dump())


def read(path: Path, kind: type[Kept]) -> Kept:
    """The record of a JSON file. Raises LaqfiError if it is not what `kind` says."""
    try:
        return kind.model_validate(files.read_json(path))
    except ValidationError as error:
        raise LaqfiError(f"{path}: {first_line(error)}") from error
