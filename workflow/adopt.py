"""Tell one engine what the other has made: `python workflow/adopt.py snakemake` tells DVC, `... dvc` tells Snakemake.

An engine is told only of what the other one calls current now, so that no stale file gets into its record.
"""

import os
import subprocess
import sys
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage

import active_runs
from stages import files_in, load, resolved, unwritten_settings, write_settings
from untold import UNTOLD

# What the whole workflow lacks, whatever flags or settings of the user the last run had.
PLAN = (
    *("--profile", "none", "--workflow-profile", "workflow/profiles/default", "--quiet", "all"),
    *("--rerun-triggers", "code", "input", "mtime", "params", "software-env", "--summary"),
)
TOUCH = ("--workflow-profile", "workflow/profiles/default", "--quiet", "all", "--touch", "--forceall", "--cores", "1")


def snakemake(*arguments: str) -> str:
    """What Snakemake prints; where it fails, its words are the last ones."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "SNAKEMAKE_PROFILE"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"error: Snakemake does not say what is current: {' '.join(result.stderr.split()) or result.stdout}")
    return result.stdout


def pending() -> dict[str, str]:
    """The outputs Snakemake would make again, and what it says of them."""
    rows = [line.split("\t") for line in snakemake(*PLAN).splitlines()]
    return {row[0]: row[-2] for row in rows if row[-1] == "update pending"}


def stamps(stages: list[PipelineStage], outs: bool) -> dict[str, tuple[int, int, int] | None]:
    """What tells an edit of the stages' inputs (and outputs), of their parameters or of dvc.yaml."""
    paths = {path for stage in stages for dep in stage.deps for path in files_in([dep.fs_path])} | {"dvc.yaml"}
    made = {out.fs_path for stage in stages for out in stage.outs}
    return {path: stamp(path) for path in (paths | made if outs else paths - made)}


def stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def tell_dvc(repo: Repo) -> str:
    """Put every stage that Snakemake calls current into DVC's record and cache; say which, and which not."""
    stages, settings = list(repo.index.stages), load()["params"]
    config = resolved(settings)
    write_settings(settings, config)
    before = stamps(stages, outs=True)
    lacking = pending() | {str(path): "params.yaml changed meanwhile" for path in unwritten_settings(settings, config)}
    left_out = {stage.addressing: [out for out in outs(stage) if out in lacking] for stage in stages}
    current = [stage for stage in stages if not left_out[stage.addressing]]
    for stage in current:
        stage.save(run_cache=False)
        stage.commit(relink=False)  # a link would be another file, with another time, than Snakemake's job left
    if stamps(stages, outs=True) != before:
        sys.exit("error: files changed meanwhile, so DVC was told nothing; later: make adopt-snakemake")
    for stage in current:
        repo.stage_cache.save(stage)
    if current:
        current[0].dvcfile.dump_stages(current, update_pipeline=False)
    UNTOLD.unlink(missing_ok=True)
    reasons = [f"{name} ({lacking[paths[0]]})".removesuffix(" (ok)") for name, paths in left_out.items() if paths]
    rest = f"; Snakemake would run again: {shortened(reasons)}" if reasons else ""
    return f"DVC knows {len(current)} of {len(stages)} stages as Snakemake made them{rest}"


def tell_snakemake(repo: Repo) -> str:
    """Make Snakemake's record say that all is current, if DVC says so."""
    stages = list(repo.index.stages)
    before = stamps(stages, outs=False)
    if changed := list(repo.status()):
        sys.exit(f"error: Snakemake was told nothing: DVC would run again {shortened(changed)}; first: dvc repro")
    snakemake(*TOUCH)
    if stamps(stages, outs=False) != before:
        for path in {out for stage in stages for out in outs(stage)}:
            os.utime(path)  # which Snakemake's record does not vouch for then
        sys.exit("error: files changed meanwhile, so Snakemake was told nothing; again: make adopt-dvc")
    return f"Snakemake takes all {len(stages)} stages as DVC made them"


def outs(stage: PipelineStage) -> list[str]:
    return [out.def_path for out in stage.outs]


def shortened(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


TELL = {"snakemake": tell_dvc, "dvc": tell_snakemake}


def main() -> None:
    try:
        active_runs.refresh(resolved(load()["params"]))  # of which DVC makes its stages
        with Repo() as repo, lock_repo(repo):
            print(TELL[sys.argv[1]](repo))
    except (DvcException, OSError) as error:
        sys.exit(f"error: nothing was adopted: {' '.join(str(error).split())}; later: make adopt-{sys.argv[1]}")


if __name__ == "__main__":
    main()
