"""Run a profile anew and say whether it gives the published results byte for byte: `python workflow/verify.py quick`.

Published is what the last commit holds: the record of every output in dvc.lock, made by the code and the parameters of
the same commit. They run in a temporary clone of it, so that nothing here is touched or taken from a cache.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from commands import asked_for
from stages import Stage, items, load

Record = dict[str, str]  # MD5 by path


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def published(profile: str, commit: str) -> Record:
    """What dvc.lock of the commit says of the profile's outputs. Ends the program if that is nothing.

    Without the settings: they say by what code the results were made, which may be the same by other code.
    """
    stages = yaml.load(git("show", f"{commit}:dvc.lock"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    names = [name for name in stages if name.partition("@")[2].split("-")[0] == profile]
    names = [name for name in names if not name.startswith("params@")]
    if not names:
        sys.exit(f"error: {profile}: no results are published in dvc.lock of the last commit")
    return {out["path"]: out["md5"] for name in names for out in stages[name].get("outs", [])}


def gpu_that_made(profile: str, commit: str) -> str | None:
    """The name of the GPU that made the published results, None for a processor."""
    path = f"reports/{profile}/provenance.json"
    if not git("ls-tree", commit, path):
        return None
    made = json.loads(git("show", f"{commit}:{path}"))
    return made["device"] if made["gpu"] else None


def run(commands: Iterable[str], folder: Path, workers: int) -> None:
    """Run the commands in `folder`, several at once, on its own code and on the CPU. Ends the program if one fails."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "CUDA_VISIBLE_DEVICES": ""}

    def call(command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)

    with ThreadPoolExecutor(workers) as pool:
        for ran in pool.map(call, commands):
            if ran.returncode:
                sys.exit(f"error: {ran.args}\n{ran.stderr.strip().splitlines()[-1]}")


def differing(paths: list[str], folder: Path, record: Record) -> list[str]:
    """Those that are not as recorded."""
    return [path for path in paths if hashlib.md5((folder / path).read_bytes()).hexdigest() != record.get(path)]


def verify(stages: dict[str, Stage], profile: str, settings: dict, folder: Path, record: Record, workers: int) -> None:
    """Stage by stage; ends the program at the first whose outputs differ from the record."""
    for name, stage in stages.items():
        jobs = items(stage, profile, settings)
        run([stage.cmd.format(**one) for one in jobs], folder, workers)
        paths = [out.format(**one) for out in stage.outs for one in jobs]
        if others := differing(paths, folder, record):
            sys.exit(f"{name}: differs from the published results: {', '.join(others)}")
        print(f"{name}: {len(paths)} of {len(paths)} files equal", flush=True)


def main() -> None:
    _, profile = asked_for(__doc__)
    commit = git("rev-parse", "HEAD").strip()
    record = published(profile, commit)
    if gpu := gpu_that_made(profile, commit):
        sys.exit(f"error: {profile}: its results were made on a GPU ({gpu}), where another may give other bytes")
    if git("status", "--porcelain", "--", ":!reports", ":!dvc.lock"):
        print(f"note: what is not committed is not in what runs here, which is {commit[:12]}")
    with tempfile.TemporaryDirectory() as folder:
        git("clone", "--quiet", "--shared", ".", folder)
        stages = load(Path(folder) / "dvc.yaml")
        first = stages.pop("params")
        run([first.cmd.format(profile=profile)], Path(folder), workers=1)
        settings = json.loads((Path(folder) / first.outs[0].format(profile=profile)).read_text(encoding="utf-8"))
        verify(stages, profile, settings, Path(folder), record, max(1, (os.cpu_count() or 1) // settings["threads"]))
    print(f"{profile}: all {len(record)} files are those published in {commit[:12]}")


if __name__ == "__main__":
    main()
