"""The whole tiny profile on other processors, and in other surroundings: every output has the same bytes."""

import os
import subprocess

import pytest

from clone import Clone
from commands import commands
from portable.processors import PROCESSORS, needs_emulator, python_on
from stages import load
from tiny import ROOT, VARIANTS

SETTINGS = {"order": list(VARIANTS), "recoveries": {}, "export": []}
# What differs between machines and must not matter: overridden, or never looked at.
SURROUNDINGS = {
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "SkylakeX",
    "ATEN_CPU_CAPABILITY": "avx512",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "2",
    "PYTHONHASHSEED": "7",
    "LC_ALL": "C",
    "TZ": "Asia/Seoul",
}


def run_by(clone: Clone, python: list[str], **environment: str) -> dict[str, str]:
    """The outputs of all stages, run in one process of `python`."""
    given = "\n".join(commands(load(ROOT / "dvc.yaml"), "tiny", SETTINGS))
    subprocess.run(
        [*python, ROOT / "tests/portable/run_stages.py"],
        cwd=clone.folder,
        env=clone.environment | {"OMP_NUM_THREADS": "1"} | environment,
        input=given,
        text=True,
        check=True,
    )
    return clone.outputs()


@pytest.fixture(scope="session")
def natively(tmp_path_factory) -> dict[str, str]:
    """Every output, made by this machine's processor, each stage in a process of its own."""
    clone = Clone(tmp_path_factory.mktemp("native"))
    for command in commands(load(ROOT / "dvc.yaml"), "tiny", SETTINGS):
        clone.call("sh", "-c", command)
    return clone.outputs()


@pytest.mark.parametrize("processor", [pytest.param(name, marks=needs_emulator) for name in PROCESSORS])
def test_another_processor_makes_the_same_bytes(natively, tmp_path, processor):
    found = run_by(Clone(tmp_path), python_on(processor))
    print(f"{processor}: {len(found)} outputs, {len(found.items() & natively.items())} equal")
    assert found == natively


def test_other_surroundings_make_the_same_bytes(natively, tmp_path):
    before = os.umask(0o077)
    try:
        found = run_by(Clone(tmp_path), python_on(None), **SURROUNDINGS)
    finally:
        os.umask(before)
    assert found == natively
