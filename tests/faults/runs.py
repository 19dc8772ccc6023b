"""Runs that a test disturbs, and what must hold of the files afterwards."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

from clone import Clone
from stages import load

ENGINES = ("dvc", "snakemake")
STEPS = 100  # of training: some seconds
PAUSE = Path(__file__).parent / "pause"
TEMPORARY = re.compile(r"\.\w.*\.\w{8}")  # what laqfi.base.files writes to before the file has its name


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def make(engine: str) -> tuple[str, ...]:
    """The documented command; the environment is the one that runs the tests."""
    return ("make", "--no-print-directory", "--assume-old=.venv/.installed", "repro", f"ENGINE={engine}")


class Run:
    """A command in the background. A context manager: afterwards nothing of it runs."""

    def __init__(self, clone: Clone, *command: str, **environment: str):
        self.clone = clone
        self.log = clone.folder.parent / f"{clone.folder.name}.log"
        path = f"{PAUSE}{os.pathsep}{clone.environment['PYTHONPATH']}"
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                cwd=clone.folder,
                env=clone.environment | {"PYTHONPATH": path} | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stages(self) -> dict[str, psutil.Process]:
        """The stages of this clone that run now, by name."""
        found = {}
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or []
            if process.info["cwd"] == str(self.clone.folder) and words[1:2] == ["-m"]:
                found[words[2].removeprefix("laqfi.stages.")] = process
        return found

    def kill(self) -> None:
        """SIGKILL to the whole process group: no one is told, no one can tidy up."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()
        wait_until(lambda: not self.stages(), "the stages are gone")

    def wait(self) -> int:
        return self.process.wait(timeout=600)


def one_rerun(clone: Clone, engine: str) -> str:
    """What a user does after a fault: the same command again, and it must succeed."""
    result = clone.call(*make(engine))
    return result.stdout + result.stderr


def temporary_files(clone: Clone) -> list[str]:
    return [path for path in clone.outputs() if TEMPORARY.fullmatch(Path(path).name)]


def finished(clone: Clone) -> dict[str, str]:
    """SHA-256 of the files that have their names."""
    return {path: digest for path, digest in clone.outputs().items() if not TEMPORARY.fullmatch(Path(path).name)}


def assert_nothing_is_half_written(clone: Clone, expected: dict[str, str]) -> None:
    """Every output that is there is the one of the undisturbed run, and so is every file in DVC's cache."""
    assert finished(clone).items() <= expected.items()
    for file in (clone.folder / ".dvc/cache/files/md5").glob("??/" + "[0-9a-f]" * 30 + "*"):
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        assert file.name.removesuffix(".dir") == digest[2:], file


def declared(clone: Clone) -> dict[str, int]:
    """The stages of dvc.yaml and how many files each of them writes."""
    return {name: len(stage.outs) for name, stage in load(clone.folder / "dvc.yaml").items()}


def forget(clone: Clone, stage: str) -> None:
    """As if `stage` had never run: neither its files are there, nor what DVC remembers of them."""
    record = clone.folder / "dvc.lock"
    lock = yaml.safe_load(record.read_text())
    (name,) = [name for name in lock["stages"] if name.split("@")[0] == stage]
    for out in lock["stages"].pop(name)["outs"]:
        (clone.folder / out["path"]).unlink()
        (clone.folder / cached(out["md5"])).unlink(missing_ok=True)
    record.write_text(yaml.safe_dump(lock, sort_keys=False))
    shutil.rmtree(clone.folder / ".dvc/cache/runs")


def cached(md5: str) -> Path:
    """Where DVC keeps a file."""
    return Path(".dvc/cache/files/md5", md5[:2], md5[2:])


def use_this_environment(clone: Clone) -> Clone:
    (clone.folder / ".venv").symlink_to(sys.prefix)
    return clone


def paused(writes: dict[str, int], marker: Path) -> str:
    """The LAQFI_PAUSE of pause/sitecustomize.py."""
    return json.dumps({"writes": writes, "marker": str(marker)})
