"""The cluster the tests share, the bytes they expect, and clones to run on it."""

import pytest

from clone import Clone
from cluster import Cluster, missing, processes
from heads import TRAINED
from tiny import one_variant_params

STEPS = 300  # training must last some seconds, for a fault to hit it
FIRST_WAIT = "slurm-init-seconds-before-status-checks: "


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if lacking := missing():
        pytest.exit(f"not installed: {', '.join(lacking)}; on Debian: apt-get install slurm-wlm munge", returncode=1)
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder) as started, pytest.MonkeyPatch.context() as patch:
        for name in ("PATH", "SLURM_CONF"):
            patch.setenv(name, started.environment[name])
        yield started
    assert not processes(str(folder)), "something is left running"


@pytest.fixture
def clone(tmp_path) -> Clone:
    """A clone in which nothing has run."""
    return slow_clone(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Clone:
    """A clone in which all stages have run on this machine, without SLURM."""
    clone = slow_clone(tmp_path_factory.mktemp("undisturbed"))
    clone.call("snakemake", "--cores", "2")
    return clone


@pytest.fixture
def untrained(undisturbed, tmp_path) -> Clone:
    """A copy of `undisturbed` that lacks the trained model."""
    clone = undisturbed.copy(tmp_path)
    for path in (*TRAINED, "data/tiny/logs/train.log"):
        (clone.folder / path).unlink()
    return clone


def slow_clone(folder) -> Clone:
    """Tiny, but with a training that lasts, and a profile that looks after its jobs at once."""
    clone = Clone(folder)
    params = one_variant_params()  # few jobs: starting one takes longer than its work
    params["profiles"]["tiny"]["train"]["steps"] = STEPS
    clone.write_params(params)
    profile = folder / "workflow/profiles/slurm/config.yaml"
    assert f"{FIRST_WAIT}20" in profile.read_text()
    profile.write_text(profile.read_text().replace(f"{FIRST_WAIT}20", f"{FIRST_WAIT}1"))
    return clone
