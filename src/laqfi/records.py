"""The JSON files that stages hand to each other: what their readers need of them; more is allowed."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from laqfi.base import files
from laqfi.base.errors import LaqfiError, first_line

Timestep = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
Count = Annotated[int, Field(ge=1, lt=2**63)]
NotNegative = Annotated[float, Field(ge=0)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Means(Record):
    mean: list[NotNegative]
    standard_error: list[NotNegative]


class Kind(Record):
    tensors: Annotated[dict[str, Means], Field(min_length=1)]
    layers: Annotated[dict[str, Means], Field(min_length=1)]


class FisherTable(Record):
    timesteps: Annotated[list[Count], Field(min_length=1)]
    layers: dict[str, str]
    magnitude: dict[str, NotNegative]
    empirical: Kind
    gauss_newton: Kind

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
    mean: float
    low: float
    high: float


class Measured(Interval):
    """An FID with what paired differences are made of: its value per seed, and those with a group left out."""

    per_seed: Annotated[list[float], Field(min_length=1)]
    left_out: list[Annotated[list[float], Field(min_length=2)]]

    @model_validator(mode="after")
    def of_the_same_seeds(self):
        if len(self.left_out) != len(self.per_seed) or len({len(groups) for groups in self.left_out}) > 1:
            raise ValueError(f"left_out holds no equal lists for {len(self.per_seed)} seeds")
        return self


class Quality(Record):
    images: Count
    fid: Measured
    fid_difference: Interval
    fid_band: str
    kid: float
    verdict: str
    psnr: float | None


class Evaluation(Quality):
    bytes: Count
    parameters: dict[str, Count]
    reduction: Annotated[float, Field(lt=1)]
    size_band: str
    headline: dict[str, Quality] = {}
    noise_mse: Annotated[dict[Timestep, NotNegative], Field(min_length=1)]


class StoredShape(Record):
    shape: list[Count]


class Reason(Record):
    bits: NotNegative
    layout: StoredShape


class Bits(Record):
    bits: NotNegative
    bound: float


class Choices(Record):
    policy: str
    tensors: dict[str, Reason]
    predicted_noise_mse: Annotated[dict[Timestep, NotNegative], Field(min_length=1)]
    bits_per_weight: Bits | None


class Compared(Record):
    bytes: Count
    fid: Measured
    fid_difference: Interval
    psnr: float | None


class Control(Record):
    ratio: float
    importance: str
    found: Compared | None


class Controls(Record):
    images: Count
    rows: Annotated[list[Control], Field(min_length=1)]


class RealFloor(Record):
    fid: float
    low: float
    high: float
    kid: float
    images: Count


class Floor(RealFloor):
    headline: dict[str, RealFloor] = {}


class Images(Record):
    train: Count
    test: Count


class Info(Record):
    dataset: str
    network: str
    images: Images
    accuracy: Annotated[float, Field(ge=0, le=1)] | None
    sha256: str


def read(path: Path, record: type[Record]) -> dict:
    """The content of a JSON file as it is. Raises LaqfiError if it is not what `record` says."""
    content = files.read_json(path)
    try:
        record.model_validate(content)
    except ValidationError as error:
        raise LaqfiError(f"{path}: {first_line(error)}") from error
    return content
