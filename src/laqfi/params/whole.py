"""All of params.yaml, checked before any work, and the settings of one profile with every default filled in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError, model_validator

from laqfi.base import program
from laqfi.base.block import Block, Name
from laqfi.base.errors import LaqfiError, first_line
from laqfi.models import families
from laqfi.params import folders, sweeps, yaml12
from laqfi.params.profile import Profile
from laqfi.quant.params import Listed
from laqfi.quant.policies import every as policies
from laqfi.quant.policies.registry import stores_codes


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
    def what_is_weighed_by_is_measured(self):
        for key, profile in self.profiles.items():
            by_image = [name for name in self.variants_of(key) if self.variants[name].by_image]
            if by_image and profile.calibration.weighting != "image":
                raise ValueError(
                    f"variants.{by_image[0]}.weighting: found 'image', allowed where calibration.weighting is 'image',"
                    f" which in profiles.{key} is {profile.calibration.weighting!r}"
                )
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
    if complaint := nothing_to_recover(variant, options):
        raise LaqfiError(f"{path}: {place}.{complaint}")
    kept = {key: getattr(variant, key) for key in ("policy", "coding", "profiles", "recover")} | variant.recipe
    return Listed(**kept, **options)


def nothing_to_recover(variant: Listed, options: Mapping) -> str | None:
    """Why there is nothing to recover, as far as the policy tells; None where there may be."""
    if variant.recover is None:
        return None
    if variant.policy == "fp32":
        return "recover: found one, allowed is none: the policy fp32 leaves nothing to recover"
    if variant.recover.learn != "norms" and not stores_codes(variant.policy, options):
        found = f"recover.learn: found {variant.recover.learn!r}, allowed is 'norms'"
        return f"{found}: the policy {variant.policy} has no integer formats here"
    return None


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
    undone |= {"coding"} if variant.coding is None else set()
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
