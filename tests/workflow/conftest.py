"""Clones that an engine has run."""

import pytest

from clone import Clone

ONCE = {
    f"{name}@tiny"
    for name in ("params", "dataset", "features", "reference", "train", "fisher", "curvature", "controls", "report")
}


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture(scope="session")
def by_dvc(tmp_path_factory) -> Clone:
    """A clone in which DVC ran everything, committed. Tests that change it put it back."""
    made = Clone(tmp_path_factory.mktemp("dvc"))
    assert made.repro() == ONCE | {
        f"{stage}@tiny-{variant}"
        for stage in ("quantize", "sample", "evaluate")
        for variant in ("fp32", "threshold", "ratio", "budget")
    }
    made.commit("first results")
    return made


@pytest.fixture(scope="session")
def by_snakemake(tmp_path_factory) -> Clone:
    """A clone in which Snakemake ran everything."""
    made = Clone(tmp_path_factory.mktemp("snakemake"))
    made.call("snakemake", "--cores", "2")
    return made


@pytest.fixture
def restored(by_dvc):
    """The clone DVC ran, put back to its committed state afterwards."""
    yield by_dvc
    by_dvc.git(
        "reset", "-q", "--hard", by_dvc.git("rev-list", "--max-count=1", "--grep=first results", "HEAD").stdout.strip()
    )
    by_dvc.call("dvc", "checkout", "--force", "--quiet")
