"""What an undisturbed run makes, clones to disturb, and the count of kills that were survived."""

import pytest
from runs import STEPS, one_rerun, use_this_environment

from clone import Clone
from tiny import one_variant_params

SURVIVED = pytest.StashKey[dict[str, dict[str, int]]]()


def small_clone(folder) -> Clone:
    """Tiny, with one variant, so that every stage runs once, and a training that lasts long enough to be hit."""
    clone = Clone(folder)
    params = one_variant_params()
    params["profiles"]["tiny"]["train"]["steps"] = STEPS
    clone.write_params(params)
    return use_this_environment(clone)


@pytest.fixture
def clone(tmp_path) -> Clone:
    """A clone in which nothing has run."""
    return small_clone(tmp_path / "clone")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Clone:
    """A clone that nothing disturbed; both engines' records of it are current. Tests leave it as it is."""
    clone = small_clone(tmp_path_factory.mktemp("undisturbed") / "clone")
    one_rerun(clone, "snakemake")
    return clone


@pytest.fixture(scope="session")
def expected(undisturbed) -> dict[str, str]:
    """SHA-256 of every output of a run that nothing disturbed."""
    return undisturbed.outputs()


@pytest.fixture
def complete(undisturbed, tmp_path) -> Clone:
    """A copy of `undisturbed`."""
    return undisturbed.copy(tmp_path / "complete")


@pytest.fixture
def survived(request):
    """Call it with an engine and how many kills of which kinds it survived."""
    counts = request.config.stash.setdefault(SURVIVED, {})

    def add(engine: str, kinds: dict[str, int]) -> None:
        for kind, number in kinds.items():
            of_engine = counts.setdefault(engine, {})
            of_engine[kind] = of_engine.get(kind, 0) + number

    return add


def pytest_terminal_summary(terminalreporter, config):
    counts = config.stash.get(SURVIVED, {})
    for engine, kinds in counts.items():
        listed = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        terminalreporter.write_line(f"kills survived under {engine}: {sum(kinds.values())} ({listed})")
    if counts:
        total = sum(sum(kinds.values()) for kinds in counts.values())
        terminalreporter.write_line(f"kills survived: {total}, each followed by the same bytes")
