"""Stub pipelines, and engines that start at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline import Pipeline

from warm import served


def pytest_addoption(parser):
    parser.addoption("--walks", type=int, default=12, help="how many random walks test_records.py goes")


def pytest_generate_tests(metafunc):
    if "walk" in metafunc.fixturenames:
        metafunc.parametrize("walk", range(metafunc.config.getoption("--walks", 12)))


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> Iterator[Path]:
    """A folder for PATH with the engines."""
    folder = tmp_path_factory.mktemp("warm")
    scratch = Pipeline(folder / "scratch", folder / "bin").folder
    with served(folder, scratch) as commands:
        yield commands


@pytest.fixture
def pipeline(commands, tmp_path) -> Pipeline:
    """One in which nothing has run."""
    return Pipeline(tmp_path / "pipeline", commands)
