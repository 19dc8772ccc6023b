"""Stub pipelines, and engines that start at once."""

import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import Pipeline
from warm import shims


def pytest_addoption(parser):
    parser.addoption("--walks", type=int, default=24, help="how many random walks test_records.py goes")


def pytest_generate_tests(metafunc):
    if "walk" in metafunc.fixturenames:
        metafunc.parametrize("walk", range(metafunc.config.getoption("--walks", 24)))


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> Path:
    """A folder for PATH with the engines."""
    folder = tmp_path_factory.mktemp("warm")
    address = str(folder / "socket")
    shims(folder / "bin", address)
    scratch = Pipeline(folder / "scratch", folder / "bin").folder
    server_command = [sys.executable, Path(__file__).with_name("warm.py"), address, folder / "bin/python", scratch]
    with subprocess.Popen(server_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        while server.stdout.readline() not in (b"ready\n", b""):
            pass
        yield folder / "bin"
        server.stdin.close()


@pytest.fixture
def pipeline(commands, tmp_path) -> Pipeline:
    """One in which nothing has run."""
    return Pipeline(tmp_path / "pipeline", commands)
