"""Run an engine in this folder, alone: `python workflow/alone.py dvc repro`.

Two runs at once would delete and write each other's files: the second one ends, with one line that says why. What a
killed run left behind is cleared away first: locks, and a record of DVC that it had half written; that no engine and no
stage works here any more is made sure of before. DVC is made to check what it takes from its cache.
"""

import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # DVC and Snakemake both need it
from dvc.exceptions import DvcException
from dvc.repo import Repo

import active_runs
import folders
import record
import versions
from stages import load, resolved, write_settings
from untold import UNTOLD, remember, tell_dvc

LOCK = Path(".dvc/tmp/alone.lock")  # the system lifts it when its process has ended, in whatever way
OUTPUTS = (Path("data"), Path("reports"))
LEFT_BEHIND = (Path(".snakemake/locks"), Path(".dvc/tmp/rwlock"))


def workers() -> Iterator[str]:
    """Engines and stages that work in this folder, however they were started."""
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = [word for word in (process.info["cmdline"] or [])[1:3] if word != "-m"]
        name = Path(words[0]).name if words else ""
        here = process.info["cwd"] == str(Path.cwd())
        if here and (name in {"dvc", "snakemake"} or name.startswith("laqfi.stages.")):
            yield f"process {process.info['pid']} ({name})"


def doubt(cache: Path) -> None:
    """A read-only file DVC believes; another it hashes, and drops if it is damaged. Files of other users stay."""
    for file in cache.rglob("*"):
        with suppress(OSError):
            file.chmod(file.stat().st_mode | stat.S_IWUSR)


def refuse_places(engine: str) -> None:
    """Ends with one line where the outputs have no place that the engine can use."""
    for folder in OUTPUTS:
        if folder.is_symlink() and not folder.exists():
            sys.exit(f"error: {folder} is a link to {folder.readlink()}, which is not there")
        if folder.exists() and not os.access(folder, os.W_OK):
            sys.exit(f"error: {folder}: cannot be written")
    if engine == "dvc" and not Path("data").resolve().is_relative_to(Path.cwd()):
        sys.exit(
            "error: data is a link out of this folder, which DVC does not follow; allowed is a folder (its large files "
            "may lie elsewhere: dvc cache dir --local), or ENGINE=snakemake"
        )


def has_run(config: dict) -> bool:
    """Whether a stage of an active profile has left anything."""
    settings = {profile: Path("data", profile, "params.json") for profile in config["active"]}
    return any(file != settings[profile] for profile in settings for file in Path("data", profile).glob("*"))


def prepare(engine: str) -> int:
    """Make sure that this run is alone, and clear up after a killed one; the descriptor that holds the lock."""
    refuse_places(engine)
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(LOCK, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("error: another `make repro` works in this folder; wait until it has ended, then run again")
    if found := ", ".join(workers()):
        sys.exit(f"error: {found} works in this folder; wait until it has ended, or end it, then run again")
    for path in LEFT_BEHIND:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    versions.refresh()
    folders.refresh()
    settings = load()["params"]
    config = resolved(settings)  # what is wrong with params.yaml is said before anything runs
    active_runs.refresh(config)
    mended = [line for line in (record.mend(), record.prune(config)) if line]
    with Repo() as repo:
        doubt(Path(repo.cache.local.path))
    for line in mended:
        print(line, file=sys.stderr)
    if engine == "snakemake" and write_settings(settings, config):
        remember()
    untold = engine == "snakemake" and (mended or UNTOLD.exists())
    if untold and has_run(config):  # it may have nothing to do now, and tells nothing then
        tell_dvc()
    return descriptor


def main() -> None:
    engine = sys.argv[1]
    try:
        os.set_inheritable(prepare(engine), True)
        os.execvp(engine, sys.argv[1:])
    except OSError as error:
        sys.exit(f"error: {error.filename or Path.cwd()}: {error.strerror}; a run writes to this folder")
    except DvcException as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
