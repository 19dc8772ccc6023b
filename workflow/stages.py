"""Read dvc.yaml, the one declaration of the pipeline, and make Snakemake's rules of it."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

ITEM = re.compile(r"\$\{item\.(\w+)\}")
WILDCARD = re.compile(r"\{(\w+)\}")
IGNORED = re.compile(r"\.|__pycache__$")  # names of files and folders; as .dvcignore has it
RESOLVED = Path(".snakemake/laqfi")
LOCKS = Path(".snakemake/locks")
SIZED = 40  # million parameters of the largest model that dvc.yaml states memory and run time for
MEMORY = 40  # MB for each million beyond: ten times its bytes in float32


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml, with `${item.x}` written as Snakemake's wildcard `{x}`.

    `params` are the keys it reads of what the stage `params` writes; `resources` are what a cluster has to know of a
    job (memory in MB, run time in minutes, GPUs); a `local` one runs on the head node, which may reach the network;
    one that holds the model is `sized` by it; `descriptions` are those of the outputs that have one. There is one job
    for each of `each`: of the profiles, or of a list in workflow/runs.yaml.
    """

    name: str
    cmd: str
    deps: list[str]
    outs: list[str]
    params: list[str]
    resources: dict[str, int] = field(default_factory=dict)
    local: bool = False
    sized: bool = False
    descriptions: dict[str, str] = field(default_factory=dict)
    each: str = "profiles"

    @property
    def item(self) -> str:
        """Its name, or a path that tells the jobs of one profile apart."""
        return f"{self.name}/{{variant}}" if "{variant}" in self.cmd else self.name


def load(path: Path = Path("dvc.yaml")) -> dict[str, Stage]:
    """All stages by name. A dependency on a folder of outputs becomes one on these."""
    stages = {name: parse(name, raw) for name, raw in yaml.safe_load(path.read_text())["stages"].items()}
    outs = [out for stage in stages.values() for out in stage.outs]
    return {name: replace(stage, deps=expand_folders(stage.deps, outs)) for name, stage in stages.items()}


def parse(name: str, raw: dict) -> Stage:
    each = raw.get("foreach", "${profiles}")[2:-1]
    raw = raw.get("do", raw)

    def entries(*keys: str) -> dict[str, dict]:
        found = [entry if isinstance(entry, dict) else {entry: {}} for key in keys for entry in raw.get(key, [])]
        return {ITEM.sub(r"{\1}", name): about for entry in found for name, about in entry.items()}

    outs = entries("outs", "metrics", "plots")
    cmd = ITEM.sub(r"{\1}", raw["cmd"])
    tracked = [ITEM.sub(r"{\1}", key) for entry in raw.get("params", []) for keys in entry.values() for key in keys]
    meta = {"local": False, "model": False} | raw.get("meta", {})
    local, sized = meta.pop("local"), meta.pop("model")
    described = {out: about["desc"] for out, about in outs.items() if "desc" in about}
    return Stage(name, cmd, list(entries("deps")), list(outs), tracked, meta, local, sized, described, each)


def expand_folders(deps: list[str], outs: list[str]) -> list[str]:
    return [path for dep in deps for path in ([out for out in outs if out.startswith(f"{dep}/")] or [dep])]


def resolved(stage: Stage) -> dict:
    """What the stage `params` makes of params.yaml: `active`, its `runs`, and the settings by profile.

    It is asked once for every content of the files it depends on, but for what is made of its answer. Ends the program,
    with its one line, if it refuses.
    """
    deps = [dep for dep in stage.deps if dep != "workflow/runs.yaml"]
    kept = RESOLVED / f"{content(deps)}.json"
    while not kept.exists():
        _, *arguments = stage.cmd.split(" --profile ")[0].split()
        asked = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if asked.returncode:
            sys.exit(asked.stderr.strip())
        if content(deps) == kept.stem:  # else a file was edited meanwhile: which content was read is not known
            write(kept, asked.stdout)
        kept = RESOLVED / f"{content(deps)}.json"
    return json.loads(kept.read_text())


def files_in(paths: list[str]) -> list[str]:
    """Every folder of `paths` as its files: Snakemake misses edits inside a folder, and so does its time."""
    return [file for path in paths for file in (below(Path(path)) if Path(path).is_dir() else [path])]


def below(folder: Path) -> list[str]:
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [str(file) for file in found if not any(IGNORED.match(part) for part in file.relative_to(folder).parts)]


def content(paths: list[str]) -> str:
    """A hash of what is in the files; one that is not there is told apart from an empty one."""
    digest = hashlib.sha256()
    for path in map(Path, files_in(paths)):
        payload = path.read_bytes() if path.is_file() else None
        digest.update(f"{path} {payload is None} {len(payload or b'')} ".encode() + (payload or b""))
    return digest.hexdigest()


def unwritten_settings(stage: Stage, config: dict) -> dict[Path, str]:
    """What the stage `params` would write for each profile, where it is not there yet."""
    texts = {
        Path(stage.outs[0].format(profile=profile)): json.dumps(settings, indent=1, sort_keys=True) + "\n"
        for profile, settings in config["profiles"].items()
    }
    return {path: text for path, text in texts.items() if not path.exists() or path.read_bytes() != text.encode()}


def write_settings(stage: Stage, config: dict) -> bool:
    """Whether there were any to write. Not while a run works in this folder: its jobs go on as they were planned."""
    found = {} if any(LOCKS.glob("*")) else unwritten_settings(stage, config)
    for path, text in found.items():
        write(path, text)
    return bool(found)


def write(path: Path, text: str) -> None:
    """All of it or nothing, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def items(stage: Stage, profile: str, settings: dict) -> list[dict[str, str]]:
    """What the stage's wildcards stand for in each of its jobs in a profile with these settings, as workflow/runs.yaml.

    What samples of a variant is `stored` by the stage `recover` where the variant has such a block, else by `quantize`.
    """
    if stage.each == "profiles":
        return [{"profile": profile}]
    runs = [
        {"profile": profile, "variant": name, "stored": "recover" if name in settings["recoveries"] else "quantize"}
        for name in settings["order"]
    ]
    if stage.each == "exported":
        return [one for one in runs if one["variant"] in settings["export"]]
    return [one for one in runs if stage.each == "runs" or one["stored"] == "recover"]


def item_of(stage: Stage, config: dict, wildcards) -> dict[str, str]:
    """The item of one job of Snakemake's, whose wildcards are those of its outputs."""
    known = dict(wildcards.items())
    found = items(stage, wildcards.profile, config["profiles"][wildcards.profile])
    return next((one for one in found if one.items() >= known.items()), known)


def command(stage: Stage, config: dict):
    """Params function: the shell command of a job."""
    return lambda wildcards: stage.cmd.format(**item_of(stage, config, wildcards))


def inputs(stage: Stage, config: dict):
    """Input function: a job without a variant takes every variant of its profile (the report reads all)."""

    def resolve(wildcards) -> list[str]:
        item = item_of(stage, config, wildcards)
        choices = {"variant": config["profiles"][wildcards.profile]["order"]} | {k: [v] for k, v in item.items()}
        return files_in([path for dep in stage.deps for path in fill(dep, choices)])

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
        settings = config["profiles"][wildcards.profile]
        return json.dumps({key: look_up(settings, key.split(".")) for key in keys}, sort_keys=True)

    return resolve


def look_up(config: dict, keys: list[str]):
    return look_up(config[keys[0]], keys[1:]) if keys else config


def priority(wildcards) -> int:
    """First go the jobs that many wait for: those of no variant, and of that which all others are compared with."""
    return int(wildcards.get("variant", "fp32") == "fp32")


def threads(config: dict):
    return lambda wildcards: config["profiles"][wildcards.profile]["threads"]


def resources(stage: Stage, config: dict) -> dict:
    """What a job of the stage asks of a cluster, by kind; of one that holds the model, functions of the wildcards."""
    if not stage.sized:
        return stage.resources
    asked = {
        kind: lambda wildcards, kind=kind: grown(kind, stage, config["profiles"][wildcards.profile]["model"])
        for kind in ("mem_mb", "runtime")
    }
    return stage.resources | asked


def grown(kind: str, stage: Stage, model: dict) -> int:
    """For a model of diffusers larger than `SIZED`: more memory, and run time in proportion to its parameters."""
    millions = (model.get("parameters") or 0) / 1e6
    if millions <= SIZED:
        return stage.resources[kind]
    if kind == "mem_mb":
        return stage.resources[kind] + round(MEMORY * (millions - SIZED))
    return round(stage.resources[kind] * millions / SIZED)
