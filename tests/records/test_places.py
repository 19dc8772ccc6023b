"""Where files lie: links, a cache elsewhere, a disk that cannot be written. It works, or ends with one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = {"dvc": ["dvc", "repro"], "snakemake": ["snakemake"]}


@pytest.fixture(params=ENGINES)
def words(request) -> list[str]:
    return ["python", "workflow/alone.py", *ENGINES[request.param]]


@pytest.mark.parametrize("name", ["data", "reports"])
def test_outputs_in_a_folder_that_is_a_link(pipeline, tmp_path, words, name):
    (tmp_path / "elsewhere").mkdir()
    (pipeline.folder / name).symlink_to(tmp_path / "elsewhere")
    result = pipeline.call(*words)
    if name == "data" and words[2] == "dvc":
        assert result.returncode != 0
        assert result.stderr.startswith("error: data is a link out of this folder, which DVC does not follow; ")
        assert result.stderr.count("\n") == 1
    else:
        assert result.returncode == 0, result.stdout + result.stderr
        assert pipeline.read("reports/p/metrics.txt") == pipeline.expected()["reports/p/metrics.txt"]


@pytest.mark.parametrize("name", ["data", "reports"])
def test_a_link_to_nowhere(pipeline, words, name):
    (pipeline.folder / name).symlink_to("/nowhere/at/all")
    result = pipeline.call(*words)
    assert result.returncode != 0
    assert result.stderr == f"error: {name} is a link to /nowhere/at/all, which is not there\n"


def test_a_damaged_file_of_a_cache_elsewhere_is_not_taken(pipeline, tmp_path):
    elsewhere = tmp_path / "cache"
    pipeline.call("dvc", "cache", "dir", "--local", str(elsewhere))
    pipeline.call("dvc", "repro")
    for file in elsewhere.glob("files/md5/??/*"):
        file.chmod(0o644)
        file.write_text("damaged")
        file.chmod(0o444)
    shutil.rmtree(pipeline.folder / "data")
    result = pipeline.call("python", "workflow/alone.py", "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    assert pipeline.expected() == {out: pipeline.read(out) for job in pipeline.jobs().values() for out in job["outs"]}
    assert pipeline.changed_for_dvc() == set()


def test_a_cache_that_is_gone(pipeline, tmp_path):
    pipeline.call("dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    pipeline.call("dvc", "repro")
    shutil.rmtree(tmp_path / "cache")
    result = pipeline.call("python", "workflow/alone.py", "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("links", ["hardlink", "symlink"])
def test_outputs_that_are_links_into_the_cache(pipeline, links):
    pipeline.call("dvc", "config", "--local", "cache.type", links)
    for words in (["dvc", "repro"], ["snakemake"], ["snakemake"]):
        pipeline.write("src/common.txt", words[0])
        result = pipeline.call("python", "workflow/alone.py", *words)
        assert result.returncode == 0, result.stdout + result.stderr
        assert pipeline.changed_for_dvc() == set()
    assert pipeline.planned_by_snakemake() == set()
    result = pipeline.call("python", "workflow/adopt.py", "dvc")
    assert result.returncode == 0, result.stdout + result.stderr
    assert pipeline.planned_by_snakemake() == pipeline.changed_for_dvc() == set()


def test_a_disk_that_is_read_only(pipeline, words, tmp_path):
    """The whole run in a mount of its own, as root may make one."""
    where = pipeline.folder
    script = f'mount --bind {where} {where} && mount -o remount,ro,bind {where} && cd {where} && exec "$@"'
    if subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", "true"], check=False).returncode:
        pytest.skip("needs root, to mount a folder read-only")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert result.stderr == "error: .dvc/tmp: Read-only file system; a run writes to this folder\n"
