"""What runs again: source files edited and every leaf of params.yaml changed, in turn.

What ought to run follows from the parameters that dvc.yaml states; that these are what a stage imports and reads is
shown by test_programs.py and test_reads.py. DVC names the parameter for which a stage would run, so it can be asked
about several at once. It is asked once the stage `params` has run.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from laqfi.base import program
from laqfi.base.errors import LaqfiError
from laqfi.params import whole
from tiny import leaves, tiny_params

SETTINGS = "data/tiny/params.json"
EDITED = ("report/page.html.j2", "quant/policies/bits.py", "base/random.py", "stages/train.py")
COMMENT = {".py": "\n# edited\n", ".j2": "\n{# edited #}\n"}
WORDS = ["mnist", "gauss_newton", "ddim", "ddpm", "int5", "nearest", "threshold", "budget", "fp32"]

# Leaves that decide which others may stand beside them, so that these change with them.
TOGETHER = {
    "variants.threshold.policy": {"variants.threshold": {"policy": "uniform"}},
    "variants.ratio.policy": {"variants.ratio": {"policy": "uniform"}},
    "variants.budget.policy": {"variants.budget": {"policy": "uniform"}},
    "profiles.tiny.features.network": {"profiles.tiny.features": {"network": "inception", "sha256": "0" * 64}},
    "profiles.tiny.diffusion.timesteps": {
        "profiles.tiny.diffusion.timesteps": 101,
        "profiles.tiny.fisher.bins.1": 101,
    },
    "profiles.tiny.fisher.timesteps.0": {
        "profiles.tiny.fisher.timesteps.0": 2,
        "profiles.tiny.fisher.bins.0": 2,
        "profiles.tiny.quantize.timestep": 2,
    },
    "profiles.tiny.quantize.timestep": {"profiles.tiny.quantize.timestep": 50},
}
# Leaves with one valid value: the only profile there is, and twice the variant that all is compared with.
FIXED = {
    "active.0",
    "variants.fp32.policy",
    "profiles.tiny.model.family",
    "profiles.tiny.sample.headline.ancestral.variants.0",
}
# The same values in other words: keys that are left out, with the value they have then; and other spellings.
REWRITTEN = {
    "profiles.tiny.train.grad_clip": 1,
    "profiles.tiny.controls.budgets.0.ratio": 5,
    "variants.budget.target.ratio": 5,
    "variants.threshold.dtype": "float16",
    "profiles.tiny.sample.eta": 0.0,
    "profiles.tiny.sample.precision": "float32",
    "profiles.tiny.sample.headline.ancestral.eta": 0.0,
    "profiles.tiny.controls.budgets.0.rest": "float16",
    "profiles.tiny.controls.budgets.0.of": "resident",
    "variants.budget.importance": "fisher",
}

Changes = dict[str, object]  # new values by the place they have in params.yaml
Effects = set[tuple[str, str]]  # a stage, and the file or the parameter for which it runs again


def changed(changes: Changes) -> dict:
    params = tiny_params()
    for place, value in changes.items():
        *blocks, last = (int(key) if key.isdigit() else key for key in place.split("."))
        block = params
        for key in blocks:
            block = block[key]
        block[last] = deepcopy(value)
    return params


def others(value) -> list:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [word for word in WORDS if word != value]
    return [value + 1, value - 1, value + 2, 2 * value] if isinstance(value, int) else [value / 2, 2 * value]


@pytest.fixture(scope="module")
def mutations(tmp_path_factory) -> dict[str, Changes]:
    """For every leaf the changes that give it another value which laqfi.params accepts."""
    file = tmp_path_factory.mktemp("params") / "params.yaml"

    def accepted(changes: Changes) -> bool:
        file.write_text(yaml.safe_dump(changed(changes)))
        try:
            whole.load(file)
        except LaqfiError:
            return False
        return True

    candidates = {
        place: [TOGETHER[place]] if place in TOGETHER else [{place: other} for other in others(value)]
        for place, value in leaves(tiny_params())
    }
    found = {place: next(filter(accepted, ways), None) for place, ways in candidates.items()}
    assert {place for place, changes in found.items() if changes is None} == FIXED
    return {place: changes for place, changes in found.items() if changes is not None}


@pytest.fixture(scope="module")
def jobs(by_dvc) -> dict[str, dict]:
    """What every stage states: its deps, outs and params."""
    return by_dvc.ask("dvc_jobs")


def with_all_downstream(jobs: dict[str, dict], first: set[str]) -> set[str]:
    """`first` and all that work on what they make, directly or not."""
    found, grown = set(), set(first)
    while found != grown:
        found = set(grown)
        made = {out for name in found for out in jobs[name]["outs"]}
        grown |= {name for name, job in jobs.items() if made & set(job["deps"])}
    return found


def packed(effects: dict[str, Effects]) -> list[list[str]]:
    """Mutations in groups in which no two have an effect in common: DVC tells the effects in such a group apart."""
    groups: list[tuple[list[str], Effects]] = []
    for mutation, effect in effects.items():
        for members, taken in groups:
            if not taken & effect:
                members.append(mutation)
                taken |= effect
                break
        else:
            groups.append(([mutation], set(effect)))
    return [members for members, _ in groups]


def check_dvc(clone, effects: dict[str, Effects], world: Callable[[list[str]], dict[str, str]]) -> None:
    """DVC sees the effect of every mutation in the stages it has one in; before and after them nothing has changed."""
    assert all(effects.values()), "no stage depends on it"
    of_params = ("params@tiny", SETTINGS)  # that this file is not as it was left
    groups = packed(effects)
    nothing, *found, nothing_again = clone.ask("dvc_changed", [{}, *map(world, groups), {}])
    assert nothing == nothing_again == []
    for members, pairs in zip(groups, found, strict=True):
        seen = set(map(tuple, pairs)) - {of_params}
        assert {name: effects[name] - seen for name in members if effects[name] - seen} == {}, "would not run"
        assert seen - set().union(*(effects[name] for name in members)) == set(), "would run for nothing"


def check_snakemake(clone, jobs, effects: dict[str, Effects], world: Callable[[list[str]], dict[str, str]]) -> None:
    """After a mutation Snakemake runs those stages and all below them; before and after them nothing.

    Of the mutations that concern the same stages one is tried: the rules take all of them the same way, and that they
    name what dvc.yaml does is shown by test_parity.py.
    """
    effects = {frozenset(stage for stage, _ in effect): (name, effect) for name, effect in effects.items()}
    effects = dict(effects.values())
    nothing, *found, nothing_again = clone.ask("snakemake_planned", [{}, *(world([name]) for name in effects), {}])
    assert nothing == nothing_again == []
    wanted = {name: with_all_downstream(jobs, {stage for stage, _ in effect}) for name, effect in effects.items()}
    wanted = {name: stages - {"params@tiny"} for name, stages in wanted.items()}  # the Snakefile does what it does
    found = {name: set(planned) for name, planned in zip(effects, found, strict=True)}
    assert {name: found[name] ^ wanted[name] for name in effects if found[name] != wanted[name]} == {}


@pytest.fixture(scope="module")
def tracked(jobs, mutations) -> dict[str, Effects]:
    """For every leaf the stages, and what they track, that its change falls within."""
    return {
        leaf: {
            (name, key)
            for name, job in jobs.items()
            for key in job["params"]
            for place in changes
            if f"{place.removeprefix('profiles.tiny.')}.".startswith(f"{key}.")
        }
        for leaf, changes in mutations.items()
    }


@pytest.fixture(scope="module")
def settings(by_dvc, tmp_path_factory) -> Callable[[dict], dict]:
    """What the stage `params` makes of the content of params.yaml."""
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    versions = whole.read_versions(by_dvc.folder / "workflow/versions.yaml")

    def resolved(params: dict) -> dict:
        file.write_text(yaml.safe_dump(params, sort_keys=False))
        return whole.resolve(whole.load(file), "tiny", versions)

    return resolved


@pytest.fixture(scope="module")
def change(mutations):
    def written(names: list[str]) -> dict[str, str]:
        params = changed({place: value for name in names for place, value in mutations[name].items()})
        return {"params.yaml": yaml.safe_dump(params, sort_keys=False)}

    return written


def overlaid(base, plain, other):
    """`base` with what differs between `plain` and `other`, which are blocks like it."""
    if not (isinstance(base, dict) and isinstance(plain, dict) and isinstance(other, dict)):
        return base if other == plain else other
    kept = [key for key in base | other if key in other or key not in plain]
    return {key: overlaid(base.get(key), plain.get(key), other.get(key, base.get(key))) for key in kept}


@pytest.fixture(scope="module")
def resolve(mutations, settings):
    """As `change`, in the file that the stage `params` writes; together the changes need not be valid."""

    def written(names: list[str]) -> dict[str, str]:
        found = plain = settings(tiny_params())
        for name in names:
            found = overlaid(found, plain, settings(changed(mutations[name])))
        return {SETTINGS: json.dumps(found, indent=1, sort_keys=True) + "\n"}

    return written


def edit(clone, name: str) -> dict[str, str]:
    """A source file with a comment added."""
    path = f"src/laqfi/{name}"
    return {path: (clone.folder / path).read_text() + COMMENT[Path(name).suffix]}


def test_dvc_runs_params_after_an_edit_and_then_the_stages_with_another_program(by_dvc, jobs):
    found = json.loads((by_dvc.folder / SETTINGS).read_text())
    found["program"] = dict.fromkeys(found["program"], "another")
    worlds = [edit(by_dvc, EDITED[0]), {SETTINGS: json.dumps(found)}]
    source, settings = by_dvc.ask("dvc_changed", worlds)
    assert source == [["params@tiny", "src/laqfi"]]
    stages = {(name, f"program.{name.split('@')[0]}") for name in jobs if name != "params@tiny"}
    assert set(map(tuple, settings)) == stages | {("params@tiny", SETTINGS)}


def test_snakemake_reruns_the_stages_that_import_an_edited_file(by_snakemake, jobs):
    def of_stage(name: str, file: str) -> bool:
        return program.PACKAGE / file in program.closure(program.PACKAGE / f"stages/{name}.py", program.imported)

    effects = {
        file: {(job, file) for job in jobs if job != "params@tiny" and of_stage(job.split("@")[0], file)}
        for file in EDITED
    }
    assert all(effects.values())
    check_snakemake(by_snakemake, jobs, effects, lambda names: edit(by_snakemake, names[0]))


def test_dvc_reruns_the_stages_that_track_a_changed_parameter(by_dvc, tracked, resolve):
    check_dvc(by_dvc, tracked, resolve)


def test_snakemake_reruns_the_stages_that_track_a_changed_parameter(by_snakemake, jobs, tracked, change):
    check_snakemake(by_snakemake, jobs, tracked, change)


def test_a_removed_variant_and_a_new_one_are_seen_by_snakemake(by_snakemake):
    params = tiny_params()
    params["variants"]["half"] = params["variants"].pop("ratio") | {"p": 0.5}
    (planned,) = by_snakemake.ask("snakemake_planned", [{"params.yaml": yaml.safe_dump(params, sort_keys=False)}])
    assert planned == ["evaluate@tiny-half", "quantize@tiny-half", "report@tiny", "sample@tiny-half"]


def reworded() -> str:
    """The values of `tiny_params` in other words and in another order, and a profile that does not run."""
    params = changed(REWRITTEN)
    tiny = dict(reversed(params["profiles"]["tiny"].items()))
    params["profiles"] = {"spare": tiny | {"threads": 2}, "tiny": tiny}
    params["variants"] = {name: dict(reversed(options.items())) for name, options in params["variants"].items()}
    return "# Other words.\n" + yaml.safe_dump(dict(reversed(params.items())), sort_keys=False)


def test_the_same_values_in_other_words_run_nothing_but_params(by_dvc, by_snakemake, settings):
    plain, again = settings(tiny_params()), settings(yaml.safe_load(reworded()))
    assert json.dumps(again, sort_keys=True) == json.dumps(plain, sort_keys=True)
    world = {"params.yaml": reworded()}
    assert by_snakemake.ask("snakemake_planned", [world]) == [[]]
    assert by_dvc.ask("dvc_changed", [world]) == [[["params@tiny", "params.yaml"]]]


@pytest.mark.parametrize("package", ["numpy", "pytorch-fid"])
def test_another_version_of_a_package_is_another_program_of_every_stage(settings, package):
    before = settings(tiny_params())
    after = program.programs(before["versions"] | {package: "0.0.1"})
    assert {stage for stage, one in before["program"].items() if after[stage] != one} == set(before["program"])


def test_every_stage_tracks_its_program(jobs):
    """Which says what versions too: test_programs.py."""
    for name, job in jobs.items():
        tracked = {key for key in job["params"] if key.startswith(("program", "versions"))}
        assert tracked == (set() if name == "params@tiny" else {f"program.{name.split('@')[0]}"})
