"""Read dvc.yaml, the one declaration of the pipeline, and hand it to Snakemake's rules."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

ITEM = re.compile(r"\$\{item\.(\w+)\}")
WILDCARD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml, with `${item.x}` written as Snakemake's wildcard `{x}`."""

    cmd: str
    deps: list[str]
    outs: list[str]
    params: list[str]

    @property
    def shell(self) -> str:
        return WILDCARD.sub(r"{wildcards.\1}", self.cmd) + " > {log} 2>&1"


def load(path: Path = Path("dvc.yaml")) -> dict[str, Stage]:
    """All stages by name. A dependency on a folder becomes one on its files: Snakemake misses edits inside."""
    stages = {name: parse(raw) for name, raw in yaml.safe_load(path.read_text())["stages"].items()}
    outs = [out for stage in stages.values() for out in stage.outs]
    return {name: replace(stage, deps=expand_folders(stage.deps, outs)) for name, stage in stages.items()}


def parse(raw: dict) -> Stage:
    def names(*keys: str) -> list[str]:
        entries = [entry for key in keys for entry in raw.get(key, [])]
        return [ITEM.sub(r"{\1}", next(iter(e)) if isinstance(e, dict) else e) for e in entries]

    cmd = ITEM.sub(r"{\1}", raw["cmd"])
    return Stage(cmd, names("deps"), names("outs", "metrics", "plots"), names("params"))


def expand_folders(deps: list[str], outs: list[str]) -> list[str]:
    return [path for dep in deps for path in ([out for out in outs if out.startswith(f"{dep}/")] or [dep])]


def inputs(stage: Stage, config: dict):
    """Input function: a wildcard the job does not have takes every value (the report reads all variants)."""

    def resolve(wildcards) -> list[str]:
        choices = {"variant": list(config["variants"])} | {key: [value] for key, value in wildcards.items()}
        return [path for dep in stage.deps for path in fill(dep, choices)]

    return resolve


def fill(pattern: str, choices: dict[str, list[str]]) -> list[str]:
    """Every path `pattern` stands for when its wildcards take all of their `choices`."""
    if not (match := WILDCARD.search(pattern)):
        return [pattern]
    return [path for v in choices[match[1]] for path in fill(pattern.replace(match[0], v), choices)]


def values(stage: Stage, config: dict):
    """Params function: the values the job depends on as sorted JSON, which is stable under the order of keys."""

    def resolve(wildcards) -> str:
        keys = [key.format(**dict(wildcards.items())) for key in stage.params]
        return json.dumps({key: look_up(config, key.split(".")) for key in keys}, sort_keys=True)

    return resolve


def look_up(config: dict, keys: list[str]):
    return look_up(config[keys[0]], keys[1:]) if keys else config


def threads(config: dict):
    return lambda wildcards: config["profiles"][wildcards.profile]["threads"]
