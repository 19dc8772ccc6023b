"""A disk that is full while a stage, or DVC itself, writes to it."""

import resource
import subprocess
from copy import copy
from pathlib import Path

import pytest
from runs import assert_nothing_is_half_written, finished, forget, make, temporary_files

CURVATURE = "data/tiny/curvature.safetensors"


@pytest.fixture(scope="session")
def may_mount(tmp_path_factory):
    command = ("unshare", "--mount", "mount", "-t", "tmpfs", "none", tmp_path_factory.mktemp("mount"))
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root, to mount a small tmpfs ({error})")


@pytest.mark.usefixtures("may_mount")
@pytest.mark.parametrize(("engine", "room"), [("dvc", 0.5), ("dvc", 1.5), ("snakemake", 0.5)])
def test_one_rerun_repairs_after_the_disk_was_full(complete, engine, room, expected):
    """Room for half of a stage's file; room for it but not for DVC's copy of it."""
    parent = complete.folder.parent
    size = (complete.folder / CURVATURE).stat().st_size
    forget(complete, "curvature")
    script = Path(__file__).parent / "full_disk.sh"
    command = ("unshare", "--mount", "sh", script, complete.folder, str(int(size * room) // 1024), *make(engine))
    complete.call(*command, cwd=parent)
    full, freed = copy(complete), copy(complete)
    full.folder, freed.folder = parent / "full", parent / "freed"
    log = (parent / "full.log").read_text()
    assert (parent / "full.code").read_text() != "0\n", log
    assert "No space left on device" in log
    assert not temporary_files(full)
    assert_nothing_is_half_written(full, expected)
    assert ((full.folder / CURVATURE).exists()) == (room > 1)

    assert (complete.folder.parent / "freed.code").read_text() == "0\n", (
        complete.folder.parent / "freed.log"
    ).read_text()
    assert finished(freed) == expected


def test_a_stage_that_cannot_write_says_so_in_one_line(clone):
    clone.resolve()
    command = ("python", "-m", "laqfi.stages.dataset", "--params=data/tiny/params.json")
    command += ("--folders=workflow/folders.yaml", "--out=out/a.npz")
    result = subprocess.run(
        command,
        cwd=clone.folder,
        env=clone.environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert result.returncode == 1
    assert not list((clone.folder / "out").iterdir())
    (line,) = result.stderr.splitlines()
    assert line == "error: out/a.npz: cannot be written (File too large)"
