"""Clones that an engine has run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clone import Clone
from tiny import ROOT
from warm import served

STAGES = [
    f"laqfi.stages.{file.stem}"
    for file in (ROOT / "src/laqfi/stages").glob("*.py")
    if file.stem not in ("__init__", "command")
] + ["laqfi.models.diffusers_network"]  # which stages load late

ONCE = {
    f"{name}@tiny"
    for name in (
        *("params", "dataset", "features", "reference", "train", "fisher", "curvature", "calibrate"),
        *("controls", "report"),
    )
}


@pytest.fixture(scope="session")
def warm(tmp_path_factory) -> Iterator[Path]:
    """A folder for PATH with engines and stages that start at once."""
    folder = tmp_path_factory.mktemp("warm")
    with served(folder, Clone(tmp_path_factory.mktemp("scratch")).folder, *STAGES) as commands:
        yield commands


@pytest.fixture
def clone(tmp_path, warm) -> Clone:
    return Clone(tmp_path, warm)


@pytest.fixture(scope="session")
def by_dvc(tmp_path_factory, warm) -> Clone:
    """A clone in which DVC ran everything, committed. Tests that change it put it back."""
    made = Clone(tmp_path_factory.mktemp("dvc"), warm)
    assert made.repro() == ONCE | {
        f"{stage}@tiny-{variant}"
        for stage in ("quantize", "sample", "evaluate")
        for variant in ("fp32", "threshold", "ratio", "budget")
    }
    made.commit("first results")
    return made


@pytest.fixture(scope="session")
def by_snakemake(tmp_path_factory, warm) -> Clone:
    """A clone in which Snakemake ran everything, every stage in a process that starts from nothing."""
    made = Clone(tmp_path_factory.mktemp("snakemake"))
    made.call("snakemake", "--cores", "2")
    made.commands = warm
    return made


@pytest.fixture
def restored(by_dvc):
    """The clone DVC ran, put back to its committed state afterwards, without the files of variants that left."""
    before = by_dvc.outputs().keys()
    yield by_dvc
    by_dvc.git(
        "reset", "-q", "--hard", by_dvc.git("rev-list", "--max-count=1", "--grep=first results", "HEAD").stdout.strip()
    )
    by_dvc.call("dvc", "checkout", "--force", "--quiet")
    for left in by_dvc.outputs().keys() - before:
        (by_dvc.folder / left).unlink()
