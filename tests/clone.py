"""Temporary clones of this repository with a tiny params.yaml, run by the real engines."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from copy import copy
from pathlib import Path

import yaml
from pydantic import ValidationError

import active_runs
from engines import planned_jobs
from laqfi.params import sweeps, whole
from tiny import ROOT, tiny_params

MAKES = ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")  # what `make test` tells a make it starts, which a user's is not told


def runs_of(params: dict) -> dict[str, dict[str, str]]:
    """What the active profiles run; of parameters that only a clone's own code allows, as far as lists of names say."""
    try:
        return whole.Params.model_validate(sweeps.expanded(params)).runs()
    except ValidationError:
        return {
            f"{profile}-{variant}": {"profile": profile, "variant": variant, "stored": "quantize"}
            for profile in params["active"]
            for variant in params["profiles"][profile].get("variants", params["variants"])
        }


def plan_of(params: dict) -> dict:
    exported = [f"{profile}-{name}" for profile in params["active"] for name in exports(params, profile)]
    return {"runs": runs_of(params), "exported": exported}


def exports(params: dict, profile: str) -> list[str]:
    return params["profiles"].get(profile, {}).get("export", [])


class Clone:
    """A repository of its own with the working tree's tracked files.

    `commands` is a folder with the engines and `python`: this environment's, or those of warm.py.
    """

    def __init__(self, folder: Path, commands: Path = Path(sys.executable).parent):
        self.folder, self.commands = folder, commands
        listed = self.git("ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).stdout
        for name in listed.split("\0"):
            if name and not name.startswith("reports/") and name != "dvc.lock" and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        self.write_params(tiny_params())
        self.git("init", "-q", "-b", "main")
        self.commit("start")

    def copy(self, folder: Path) -> "Clone":
        """Another clone in the same state, what has run included."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        made = copy(self)
        made.folder = folder
        return made

    def cloned(self, folder: Path) -> "Clone":
        """What another person gets by `git clone`: what is committed here, nothing else."""
        self.git("clone", "-q", str(self.folder), str(folder))
        made = copy(self)
        made.folder = folder
        return made

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.commands}{os.pathsep}{os.environ['PATH']}"
        inherited = {k: v for k, v in os.environ.items() if k not in MAKES}
        return inherited | {"PATH": path, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}

    def call(self, *command, cwd=None, check=True, input=None):
        result = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def git(self, *arguments, cwd=None):
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        return self.call("git", *who, *arguments, cwd=cwd)

    def commit(self, message):
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def write_params(self, params):
        """With the runs that `make repro` would record, so that a plain `dvc repro` goes by it."""
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        (self.folder / "workflow/runs.yaml").write_text(active_runs.text(plan_of(params)))

    def resolve(self) -> None:
        """Write data/tiny/params.json, which all other stages read."""
        files = ("--params", "params.yaml", "--versions", "workflow/versions.yaml", "--runs", "workflow/runs.yaml")
        files += ("--folders", "workflow/folders.yaml")
        self.call("python", "-m", "laqfi.stages.params", *files, "--profile", "tiny", "--out", "data/tiny/params.json")

    def repro(self) -> set[str]:
        """Run DVC; the stages it ran, not those it took from its cache."""
        return set(re.findall(r"Running stage '(.+?)'", self.call("dvc", "repro").stdout))

    def make(self, *arguments, check=True):
        """Run a make target with the environment the tests run in."""
        venv = self.folder / ".venv"
        venv.symlink_to(sys.prefix)
        try:
            return self.call(
                "make", "--assume-old=.venv/.installed", "--assume-old=.venv/.slurm", *arguments, check=check
            )
        finally:
            venv.unlink()

    def planned(self) -> set[str]:
        """What Snakemake would run, named as DVC names it."""
        return planned_jobs(self.call("snakemake", "--dry-run").stdout)

    def ask(self, question: str, about=None):
        """The answer of `engines.py` in this clone."""
        script = Path(__file__).with_name("engines.py")
        return json.loads(self.call("python", script, question, input=json.dumps(about)).stdout.splitlines()[-1])

    def outputs(self) -> dict[str, str]:
        """SHA-256 of every output that dvc.yaml declares."""
        folders = [self.folder / "data/tiny", self.folder / "reports/tiny"]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        left_out = {"logs", "benchmarks", "resume"}
        return {
            str(file.relative_to(self.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if not left_out & set(file.parts) and file.name not in {".gitignore", ".snakemake_timestamp"}
        }
