"""Two runs in one folder: the second ends with one line, whatever engine and however started; the first is unharmed."""

import re

import psutil
import pytest
from runs import ENGINES, Run, finished, forget, make, one_rerun, paused, wait_until


@pytest.fixture
def interrupted(complete):
    """A clone without its training, and how to start a command there that stops in the training's write."""
    forget(complete, "train")
    marker = complete.folder.parent / "marker"

    def start(*command: str) -> Run:
        run = Run(complete, *command, LAQFI_PAUSE=paused({"train": 1}, marker))
        wait_until(lambda: marker.exists() or not run.running, f"training writes, see {run.log}")
        assert marker.exists(), run.text
        return run

    return complete, start, marker


def refusal(clone, engine: str) -> str:
    """The one line that a second run ends with; after it only make's own."""
    result = clone.call(*make(engine), check=False)
    assert result.returncode != 0
    assert result.stdout == ""
    line, from_make = result.stderr.splitlines()
    assert from_make.startswith("make: ***")
    return line


@pytest.mark.parametrize("engine", ENGINES)
def test_two_make_repro_at_once(interrupted, engine, expected):
    clone, start, marker = interrupted
    with start(*make(engine)) as first:
        for other in ENGINES:
            assert refusal(clone, other) == (
                "error: another `make repro` works in this folder; wait until it has ended, then run again"
            )
        marker.unlink()
        assert first.wait() == 0, first.text
    assert finished(clone) == expected


@pytest.mark.parametrize(("engine", "command"), [("dvc", ["dvc", "repro"]), ("snakemake", ["snakemake"])])
def test_make_repro_beside_an_engine_that_was_started_by_hand(interrupted, engine, command, expected):
    clone, start, marker = interrupted
    with start(*command) as first:
        assert re.fullmatch(
            rf"error: .*process {first.process.pid} \({engine}\).* works? in this folder; .*, then run again",
            refusal(clone, engine),
        )
        marker.unlink()
        assert first.wait() == 0, first.text
    assert finished(clone) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_only_the_engine_was_killed_and_its_stage_works_on(interrupted, engine, expected, survived):
    clone, start, marker = interrupted
    with start(*make(engine)) as first:
        training = first.stages()["train"]
        for process in psutil.Process(first.process.pid).children(recursive=True):
            if re.search(rf"bin/{engine}\b", " ".join(process.cmdline())):
                process.kill()
        assert first.wait() != 0
        assert re.match(
            rf"error: .*process {training.pid} \(laqfi\.stages\.train\).* works in this folder; .*, then run again",
            refusal(clone, engine),
        )
        marker.unlink()
        wait_until(lambda: not first.stages(), "the stage has ended")
    one_rerun(clone, engine)
    assert finished(clone) == expected
    survived(engine, {"of the engine alone": 1})
