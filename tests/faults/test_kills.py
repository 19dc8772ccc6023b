"""kill -9 of a whole run, engine and stages: in the middle of a write of every stage, and at random moments."""

import random
import time
from collections import Counter

import pytest
from runs import ENGINES, Run, assert_nothing_is_half_written, declared, finished, make, one_rerun, paused, wait_until

SEED = 20


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_killed_again_and_again_ends_in_the_same_bytes(clone, engine, undisturbed, expected, survived):
    draw = random.Random(f"{engine} {SEED}")
    writes = {stage: draw.randint(1, files) for stage, files in declared(clone).items()}
    if engine == "snakemake":
        del writes["params"]  # no job: the engine itself writes what it writes
    kills = Counter()
    while writes:
        stage, seconds = kill_in_a_write(clone, engine, writes)
        del writes[stage]
        kills["in the middle of a write, one in every stage"] += 1
        assert_nothing_is_half_written(clone, expected)
        if len(writes) % 2 == 0:
            kills["at random moments"] += kill_after(clone, engine, writes, draw.uniform(0, seconds))
            assert_nothing_is_half_written(clone, expected)
    one_rerun(clone, engine)
    assert finished(clone) == expected
    assert (clone.folder / "dvc.lock").read_text() == (undisturbed.folder / "dvc.lock").read_text()
    survived(engine, kills)


def kill_in_a_write(clone, engine, writes: dict[str, int]) -> tuple[str, float]:
    """The first stage of `writes` that reaches its n-th file is killed in it; its name and the seconds until then."""
    marker = clone.folder.parent / "marker"
    marker.unlink(missing_ok=True)
    began = time.monotonic()
    with Run(clone, *make(engine), LAQFI_PAUSE=paused(writes, marker)) as run:
        wait_until(lambda: not run.running or (marker.is_file() and marker.read_text()), f"a write, see {run.log}")
        assert marker.is_file(), run.text
        seconds = time.monotonic() - began
        stage = marker.read_text()
        assert stage in run.stages()
    return stage, seconds


def kill_after(clone, engine, writes: dict[str, int], seconds: float) -> bool:
    """Whether the run was still going on to be killed; stages that are yet to be killed do not get to their end."""
    with Run(clone, *make(engine), LAQFI_PAUSE=paused(writes, clone.folder.parent / "marker")) as run:
        time.sleep(seconds)
        return run.running


def test_what_a_kill_in_a_write_leaves_is_gone_after_the_next_write(clone):
    clone.resolve()
    command = ("python", "-m", "laqfi.stages.dataset", "--params=data/tiny/params.json")
    command += ("--folders=workflow/folders.yaml", "--out=out/a.npz")
    marker = clone.folder.parent / "marker"
    with Run(clone, *command, LAQFI_PAUSE=paused({"dataset": 1}, marker)):
        wait_until(marker.exists, "it writes")
    assert len(list((clone.folder / "out").iterdir())) == 1
    clone.call(*command)
    assert [file.name for file in (clone.folder / "out").iterdir()] == ["a.npz"]
