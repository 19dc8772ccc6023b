"""Training that is stopped, politely and not, under the real engines: it goes on where it was, to the same bytes."""

import re
from pathlib import Path

import pytest
from runs import ENGINES, STEPS, Run, finished, forget, make, wait_until

from laqfi.base import files


def said(run: Run) -> str:
    """What training wrote: Snakemake keeps it in a log, DVC shows it."""
    log = run.clone.folder / "data/tiny/logs/train.log"
    return run.text + (log.read_text() if log.is_file() else "")


def until_step(run: Run, step: int) -> None:
    """Wait until training has done more than `step` steps."""
    wait_until(
        lambda: not run.running or any(int(n) > step for n in re.findall(rf"(\d+)/{STEPS} ", said(run))),
        f"training goes on, see {run.log}",
    )
    assert run.running, said(run)


def state(clone) -> Path:
    """The one state that training left to go on from."""
    (path,) = (clone.folder / "data/tiny/resume").iterdir()
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_training_goes_on_after_sigterm_and_after_kill_9(complete, engine, expected, survived):
    forget(complete, "train")
    (complete.folder / "data/tiny/logs/train.log").unlink()
    with Run(complete, *make(engine)) as run:
        until_step(run, 5)
        run.stages()["train"].terminate()
        assert run.wait() != 0
        (stopped,) = set(
            re.findall(r"error: train: stopped by SIGTERM after step (\d+); run again", said(run))
        )  # Snakemake shows it again
        assert "Traceback" not in said(run)
    step = len(files.read_tensors(state(complete))[0]["losses"])
    assert step == int(stopped)
    assert not (complete.folder / "data/tiny/model.safetensors").exists()

    (complete.folder / "data/tiny/logs/train.log").unlink(missing_ok=True)
    with Run(complete, *make(engine)) as run:
        until_step(run, step)
    assert len(files.read_tensors(state(complete))[0]["losses"]) == step

    with Run(complete, *make(engine)) as run:
        assert run.wait() == 0, run.text
        assert re.search(rf"train: +\d+%\|[^|]*\| {step}/{STEPS} \[00:00<\?", said(run)), "it goes on, not from step 0"
    assert finished(complete) == expected
    assert not list((complete.folder / "data/tiny/resume").iterdir())
    survived(engine, {"in training with a saved state": 1})
