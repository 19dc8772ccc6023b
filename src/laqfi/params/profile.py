"""What params.yaml may say of one profile, checked."""

from typing import Annotated, get_args

from pydantic import Field, ValidationInfo, model_validator
from torch import Tensor

from laqfi.base.block import Block, Name
from laqfi.base.errors import LaqfiError
from laqfi.data import datasets
from laqfi.data.params import Dataset
from laqfi.diffusion.params import Diffusion, Train
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.models import families
from laqfi.models.diffusers_unet import pipeline_of
from laqfi.models.scheduler import alphas_cumprod
from laqfi.models.scheduler import timesteps as called_at
from laqfi.params import images, networks
from laqfi.quality.params import Evaluate, Features
from laqfi.quant.params import Controls, Quantize
from laqfi.quant.recipe import Calibration
from laqfi.records import Precision
from laqfi.sampling.params import Sample, Sampler
from laqfi.sampling.samplers import SAMPLERS, SCHEDULER, takes_eta
from laqfi.sensitivity.inputs import check_schedule
from laqfi.sensitivity.params import Curvature, Fisher


class Profile(Block):
    """One complete run: what it is made of, from the data to the measures; `variants` names those it runs, None all."""

    variants: list[Name] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)]
    dataset: Dataset
    features: Features
    diffusion: Diffusion | None = None
    model: families.Settings
    train: Train | None = None
    fisher: Fisher
    curvature: Curvature
    calibration: Calibration
    quantize: Quantize
    sample: Sample
    evaluate: Evaluate
    controls: Controls
    export: list[Name] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def network_is_there(cls, values: object, info: ValidationInfo) -> object:
        """With what is recorded of a network's folder."""
        block = values.get("model") if isinstance(values, dict) else None
        try:
            return values if block is None else values | {"model": networks.settled(block, info.context)}
        except LaqfiError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def model_is_trained_or_brought(self):
        brought = families.scheduler_of(self.model) is not None
        for key in ("diffusion", "train"):
            if (getattr(self, key) is None) != brought:
                word = "none: the model brings its own" if brought else f"a block, which {self.model.family} needs"
                raise ValueError(f"{key}: found {'one' if brought else 'none'}, allowed is {word}")
        return self

    @model_validator(mode="after")
    def exports_are_of_diffusers(self):
        if self.export and self.model.family != "diffusers":
            raise ValueError(
                f"export: found {self.export}, allowed is none for the family {self.model.family!r}: exports are for"
                " models of the diffusers family"
            )
        if self.export:
            try:
                pipeline_of(self.model)
            except ValueError as error:
                raise ValueError(f"export: {error}") from error
        return self

    @property
    def alphas_cumprod(self) -> Tensor:
        """[T + 1], of the diffusion process or of the model's own scheduler."""
        config = families.scheduler_of(self.model)
        return linear_alphas_cumprod(**dict(self.diffusion)) if config is None else alphas_cumprod(config)

    @property
    def timesteps(self) -> int:
        return len(self.alphas_cumprod) - 1

    @property
    def by_scheduler(self) -> bool:
        """Whether the model's own scheduler draws any images."""
        return any(drawn.sampler == SCHEDULER for drawn in (self.sample, *self.sample.headline.values()))

    @model_validator(mode="after")
    def timesteps_are_those_of_the_diffusion(self):
        last = self.timesteps
        try:
            check_schedule(self.alphas_cumprod, last)
        except LaqfiError as error:
            raise ValueError(str(error)) from error
        limits = {
            "fisher.timesteps": max(self.fisher.timesteps),
            "curvature.timesteps": max(self.curvature.timesteps),
            "evaluate.noise_timesteps": max(self.evaluate.noise_timesteps),
            "sample.steps": self.sample.steps,
            **{f"sample.headline.{name}.steps": again.steps for name, again in self.sample.headline.items()},
        }
        if self.calibration.steps > self.sample.steps:
            raise ValueError(
                f"calibration.steps is {self.calibration.steps}, allowed is 1 to sample.steps = {self.sample.steps}"
            )
        for key, value in limits.items():
            if value > last:
                raise ValueError(f"{key} holds {value}, allowed is 1 to the diffusion's last timestep, {last}")
        if self.fisher.bins[-1] < last:
            raise ValueError(
                f"fisher.bins ends at {self.fisher.bins[-1]}, allowed is the diffusion's last timestep, {last}"
            )
        if self.quantize.timestep not in self.fisher.timesteps:
            raise ValueError(
                f"quantize.timestep is {self.quantize.timestep}, allowed is one of fisher.timesteps"
                f" {self.fisher.timesteps}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def data_set_is_there(cls, values: object, info: ValidationInfo) -> object:
        """With every option of the data set; of a folder, with its hash. The context is what is recorded of folders."""
        block = values.get("dataset") if isinstance(values, dict) else None
        if not isinstance(block, dict) or not isinstance(block.get("name"), str):
            return values  # which the field itself refuses
        try:
            options = datasets.check(block["name"], {key: value for key, value in block.items() if key != "name"})
            dataset = images.settled(Dataset(name=block["name"], **options.model_dump()), info.context)
        except LaqfiError as error:
            raise ValueError(str(error)) from error
        return values | {"dataset": dataset.model_dump()}

    @model_validator(mode="after")
    def samplers_are_there(self):
        for name, drawn in {"sample": self.sample, **self.sample.headline}.items():
            place = name if name == "sample" else f"sample.headline.{name}"
            self.check_sampler(drawn, place)
            if drawn.eta != 0 and not takes_eta(drawn.sampler):
                takers = [sampler for sampler in SAMPLERS if takes_eta(sampler)]
                raise ValueError(f"{place}.eta: {drawn.sampler} takes none; allowed is 0, or a sampler of {takers}")
        return self

    def check_sampler(self, drawn: Sampler, place: str) -> None:
        config = families.scheduler_of(self.model)
        allowed = [*sorted(SAMPLERS), *([] if config is None else [SCHEDULER])]
        if drawn.sampler not in allowed:
            raise ValueError(f"{place}.sampler: found {drawn.sampler!r}, allowed is one of {allowed}")
        if drawn.sampler == SCHEDULER:
            try:
                called_at(config, drawn.steps)
            except ValueError as error:
                raise ValueError(f"{place}.{error}") from error
        if (drawn.sampler == SCHEDULER) != (self.sample.clip is None):
            word = "none: a scheduler clips as its config says" if self.sample.clip is not None else "true or false"
            raise ValueError(f"sample.clip: found {self.sample.clip}, allowed for {drawn.sampler} is {word}")

    @model_validator(mode="after")
    def there_are_as_many_images(self, info: ValidationInfo):
        train, test = images.counts(self.dataset, info.context)
        limits = {
            "fisher.images": (self.fisher.images, train, "training"),
            "curvature.images": (self.curvature.images, train, "training"),
            "evaluate.noise_images": (self.evaluate.noise_images, test, "test"),
        }
        for key, (value, there, kind) in limits.items():
            if value > there:
                raise ValueError(f"{key} is {value}, allowed are the {there} {kind} images of {self.dataset.name}")
        least = 2 * self.evaluate.groups
        if test < least:
            raise ValueError(
                f"evaluate.groups is {self.evaluate.groups}, allowed is up to half of the {test} test images of"
                f" {self.dataset.name}"
            )
        if min(drawn.images for drawn in (self.sample, *self.sample.headline.values())) < least:
            raise ValueError(f"sample.images must be at least 2 x evaluate.groups = {least}")
        if not least <= self.controls.images <= self.sample.images:
            raise ValueError(
                f"controls.images is {self.controls.images}, allowed is 2 x evaluate.groups = {least}"
                f" to sample.images = {self.sample.images}"
            )
        return self

    @model_validator(mode="after")
    def networks_take_the_images(self, info: ValidationInfo):
        try:
            images.check_networks(self.dataset, self.model, self.features, info.context)
        except (LaqfiError, ValueError) as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def what_decides_is_no_coarser(self):
        finest_first, rows, controls = get_args(Precision), self.sample.precision, self.controls.precision
        if controls and finest_first.index(controls) < finest_first.index(rows):
            allowed = finest_first[finest_first.index(rows) :]
            raise ValueError(
                f"controls.precision is {controls!r}, allowed is one of {list(allowed)}:"
                f" what it does not carry is drawn in sample.precision = {rows!r}"
            )
        return self
