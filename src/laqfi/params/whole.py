"""All of params.yaml, checked before any work, and the settings of one profile with every default filled in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, model_validator

from laqfi.base import program
from laqfi.base.block import Block, Name
from laqfi.base.errors import LaqfiError, first_line
from laqfi.data import datasets
from laqfi.data.params import Dataset
from laqfi.diffusion.params import Diffusion, Train
from laqfi.models import families
from laqfi.models.diffusers_unet import pipeline_of
from laqfi.models.scheduler import alphas_cumprod
from laqfi.models.scheduler import timesteps as called_at
from laqfi.params import folders, images, networks, sweeps, yaml12
from laqfi.quality.params import Evaluate, Features
from laqfi.quant.params import Controls, Listed, Quantize
from laqfi.quant.policies import every as policies
from laqfi.quant.recipe import Calibration
from laqfi.records import Precision
from laqfi.sampling.params import Sample, Sampler
from laqfi.sampling.samplers import SAMPLERS, SCHEDULER, takes_eta
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
    def timesteps(self) -> int:
        """Of the diffusion process."""
        config = families.scheduler_of(self.model)
        return self.diffusion.timesteps if config is None else len(alphas_cumprod(config)) - 1

    @property
    def by_scheduler(self) -> bool:
        """Whether the model's own scheduler draws any images."""
        return any(drawn.sampler == SCHEDULER for drawn in (self.sample, *self.sample.headline.values()))

    @model_validator(mode="after")
    def timesteps_are_those_of_the_diffusion(self):
        last = self.timesteps
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


class Params(Block):
    active: Annotated[list[Name], Field(min_length=1)]
    variants: dict[Name, Listed]
    profiles: dict[Name, Profile]

    @model_validator(mode="after")
    def names_exist(self):
        for name in self.active:
            if name not in self.profiles:
                raise ValueError(f"active names {name!r}, allowed is one of {sorted(self.profiles)}")
        if len(set(self.active)) < len(self.active):
            raise ValueError(f"active is {self.active}, allowed is each profile once")
        if "fp32" not in self.variants or self.variants["fp32"].policy != "fp32":
            raise ValueError("variants must hold fp32 with policy fp32: everything is compared with it")
        fp32 = self.variants["fp32"]
        beside = {key for key in ("coding", "recover") if getattr(fp32, key)}
        if given := fp32.given().keys() | beside:
            raise ValueError(f"variants.fp32 holds {min(given)}, allowed is policy fp32 alone")
        return self

    @model_validator(mode="after")
    def variants_are_for_profiles_that_exist(self):
        for name, variant in self.variants.items():
            for profile in variant.profiles or ():
                if profile not in self.profiles:
                    allowed = f"allowed is one of {sorted(self.profiles)}"
                    raise ValueError(f"variants.{name}.profiles names {profile!r}, {allowed}")
        if self.variants["fp32"].profiles is not None:
            raise ValueError("variants.fp32 holds profiles, allowed is none: every profile runs it")
        return self

    @model_validator(mode="after")
    def profiles_run_variants_that_exist(self):
        for key, profile in self.profiles.items():
            named = self.variants if profile.variants is None else profile.variants
            if "fp32" not in named or len(set(named)) < len(named):
                raise ValueError(f"profiles.{key}.variants is {named}, allowed is each variant once, fp32 among them")
            again = {name for drawn in profile.sample.headline.values() for name in drawn.variants}
            runs = self.variants_of(key)
            if profile.by_scheduler and (corrected := [name for name in runs if self.variants[name].correct]):
                raise ValueError(
                    f"variants.{corrected[0]}.correct: found one, allowed is none where a scheduler samples"
                )
            places = {
                "variants": (named, self.variants),
                "sample.headline": (again, runs),
                "export": (profile.export, runs),
            }
            for place, (names, known) in places.items():
                for name in names:
                    if name not in known:
                        allowed = f"allowed is one of {sorted(known)}"
                        raise ValueError(f"profiles.{key}.{place} names {name!r}, {allowed}")
        return self

    @model_validator(mode="after")
    def exports_have_a_form(self):
        for key, profile in self.profiles.items():
            if len(set(profile.export)) < len(profile.export):
                raise ValueError(f"profiles.{key}.export is {profile.export}, allowed is each variant once")
            for name in profile.export:
                if more := {"activations", "correct"} & self.variants[name].given().keys():
                    raise ValueError(
                        f"profiles.{key}.export names {name!r}, allowed are variants without {min(more)}, for which a"
                        " folder of diffusers has no form"
                    )
        return self

    def variants_of(self, profile: str) -> list[str]:
        """Those it runs, in the order of `variants`: all that its list names, or without one all that are for no other,
        and those that name it."""
        named = self.profiles[profile].variants
        return [
            name
            for name, one in self.variants.items()
            if (name in named if named is not None else one.profiles is None)
            or (one.profiles is not None and profile in one.profiles)
        ]

    def exported(self) -> list[str]:
        """Of the `runs` the names of those whose model is exported."""
        return [name for name, run in self.runs().items() if run["variant"] in self.profiles[run["profile"]].export]

    def runs(self) -> dict[str, dict[str, str]]:
        """The pairs of an active profile and a variant, by the name that their stages have in dvc.lock.

        `stored` is the stage that writes what samples of it.
        """
        pairs = [(profile, variant) for profile in self.active for variant in self.variants_of(profile)]
        return {
            f"{profile}-{variant}": {
                "profile": profile,
                "variant": variant,
                "stored": "recover" if self.variants[variant].recover else "quantize",
            }
            for profile, variant in pairs
        }


def load(path: Path, recorded: folders.Recorded | None = None) -> Params:
    """Read and check all of params.yaml; sweeps are written out, variants come with the defaults of their policies.

    `recorded` is what is in the folders that it names. Raises LaqfiError with one line for the first thing wrong.
    """
    found = yaml12.read(path)
    try:
        params = Params.model_validate(sweeps.expanded(found), context=recorded)
    except LaqfiError as error:
        raise LaqfiError(f"{path}: {error}") from error
    except ValidationError as error:
        raise LaqfiError(f"{path}: {first_line(error)}") from error
    variants = {}
    for name, variant in params.variants.items():
        running = [profile for key, profile in params.profiles.items() if name in params.variants_of(key)]
        models = [families.groups(profile.model) for profile in running]
        variants[name] = complete(variant, f"variants.{name}", path, models)
    return params.model_copy(update={"variants": variants})


def complete(variant: Listed, place: str, path: Path, models: list[list[str]]) -> Listed:
    """With every option of its policy; `models` are the groups of the models that it is for.

    Raises LaqfiError for options that the policy does not take, or not for one of the models.
    """
    try:
        checked = [policies.check(variant.policy, variant.model_extra, groups) for groups in models or [None]]
    except ValidationError as error:
        raise LaqfiError(f"{path}: {first_line(error, place)}") from error
    except LaqfiError as error:
        raise LaqfiError(f"{path}: {place}.policy: {error}") from error
    options = checked[0].model_dump()
    if variant.given() and (options.get("target") or {}).get("of") == "file":
        raise LaqfiError(
            f"{path}: {place}.target.of: found 'file', allowed with {min(variant.given())}, which is fitted after the"
            " choice and stored too, is 'resident'"
        )
    kept = {key: getattr(variant, key) for key in ("policy", "coding", "profiles", "recover")} | variant.recipe
    return Listed(**kept, **options)


def resolve(params: Params, profile: str, versions: Mapping[str, str]) -> dict:
    """What stages of `profile` depend on, as JSON: equal settings give equal JSON, however they were written.

    `program` says by stage what its code is; `order` is that of the variants in params.yaml, and of the report's rows;
    `recoveries` holds `recover` of the variants that have it, so that a change of it does not quantize them again.
    """
    order = params.variants_of(profile)
    variants = {name: without_the_undone(params.variants[name]) for name in order}
    recoveries = {name: as_json(one) for name in order if (one := params.variants[name].recover)}
    made_of = {"program": program.programs(versions), "versions": dict(versions)}
    named = {"profile": profile, "order": order, "variants": variants, "recoveries": recoveries}
    return folders.without_paths(as_json(params.profiles[profile])) | named | made_of


def without_the_undone(variant: Listed) -> dict:
    """As JSON, without the keys of a recipe that say nothing, and without what the stage `quantize` does not read."""
    undone = {"profiles", "recover"} | variant.recipe.keys() - variant.given().keys()
    undone |= {"coding"} - variant.coded.keys()
    return {key: value for key, value in as_json(variant).items() if key not in undone}


def as_json(block: BaseModel) -> dict:
    """Zero has no sign: `-0.0` is `0.0`."""
    return json.loads(json.dumps(block.model_dump(), allow_nan=False), parse_float=lambda word: float(word) + 0.0)


def read_versions(path: Path) -> dict[str, str]:
    """Raises LaqfiError for anything but versions by the names of packages."""
    found = yaml12.read(path)
    if not isinstance(found, dict) or not found or not all(isinstance(one, str) and one for one in found.values()):
        raise LaqfiError(f"{path}: holds no versions by package; `make versions` writes it")
    return found


def check_runs(params: Params, path: Path) -> None:
    """Raises LaqfiError unless the file lists what the active profiles run: DVC makes its stages of it."""
    runs = params.runs()
    listed = {
        "runs": runs,
        "recovered": {name: run for name, run in runs.items() if run["stored"] == "recover"},
        "exported": {name: runs[name] for name in params.exported()},
    }
    if not path.exists() or yaml12.read(path) != listed:
        raise LaqfiError(f"{path}: lists other runs than params.yaml; `make runs` writes it, then run again")
