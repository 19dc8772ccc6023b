"""Run an engine in this folder, alone: `python workflow/alone.py dvc repro`.

Two runs at once would delete and write each other's files: the second one ends, with one line that says why. Locks that
a killed run left behind are removed first; that no engine and no stage works here any more is made sure of before.
DVC is made to check what it takes from its cache.
"""

import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil  # DVC and Snakemake both need it
import yaml

import versions
from stages import load, resolved

LOCK = Path(".dvc/tmp/alone.lock")  # the system lifts it when its process has ended, in whatever way
CACHE = Path(".dvc/cache/files")
RECORD = Path("dvc.lock")
LEFT_BEHIND = (Path(".snakemake/locks"), Path(".dvc/tmp/rwlock"))


def workers() -> Iterator[str]:
    """Engines and stages that work in this folder, however they were started."""
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = [word for word in (process.info["cmdline"] or [])[1:3] if word != "-m"]
        name = Path(words[0]).name if words else ""
        here = process.info["cwd"] == str(Path.cwd())
        if here and (name in {"dvc", "snakemake"} or name.startswith("laqfi.stages.")):
            yield f"process {process.info['pid']} ({name})"


def readable(record: Path) -> bool:
    """Whether it can be DVC's record. DVC writes over the old one in place: a kill in the middle leaves a mixture."""
    try:
        return "stages" in yaml.load(record.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, TypeError, UnicodeDecodeError):
        return False


def main() -> None:
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(LOCK, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("error: another `make repro` works in this folder; wait until it has ended, then run again")
    if found := ", ".join(workers()):
        sys.exit(f"error: {found} works in this folder; wait until it has ended, or end it, then run again")
    if RECORD.exists() and not readable(RECORD):
        sys.exit(f"error: {RECORD} is damaged; take it from git (git checkout {RECORD}) or remove it, then run again")
    versions.refresh()
    resolved(load()["params"])  # what is wrong with params.yaml is said before anything runs
    for path in LEFT_BEHIND:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for file in CACHE.rglob("*"):  # a read-only file DVC believes; another it hashes, and drops if it is damaged
        file.chmod(file.stat().st_mode | stat.S_IWUSR)
    os.set_inheritable(descriptor, True)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
