"""The settings that make bytes the same on every processor, and one of each operation on another one."""

import json
import os
import subprocess
import sys

import pytest

from laqfi.base.errors import LaqfiError
from laqfi.base.portable import NEEDED, SETTINGS, UNSET, processor_flags, settle
from portable.processors import PROCESSORS, needs_emulator, python_on
from tiny import ROOT

CAPABLE = {"fpu", *NEEDED}


def test_settings_are_put_into_an_environment_without_them():
    environ = {"HOME": "/home/a"}
    assert settle(environ, ["sys"], CAPABLE) is None
    assert environ == {"HOME": "/home/a"} | SETTINGS
    assert settle(environ, ["torch"], CAPABLE) is None, "a process whose parent had the settings"


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", ["", "other"])
def test_another_value_is_overridden_with_one_line(name, value):
    environ = SETTINGS | {name: value}
    line = settle(environ, ["sys"], CAPABLE)
    assert f"{name}={value} overridden" in line
    assert "\n" not in line
    assert environ == SETTINGS


@pytest.mark.parametrize("name", UNSET)
def test_what_works_against_the_settings_is_left_out_with_one_line(name):
    environ = SETTINGS | {name: "1"}
    assert f"{name}=1 overridden" in settle(environ, ["sys"], CAPABLE)
    assert environ == SETTINGS


@pytest.mark.parametrize("library", ["numpy", "scipy", "sklearn", "torch"])
def test_a_library_that_was_loaded_without_the_settings_is_a_refusal(library):
    environ = {}
    with pytest.raises(LaqfiError, match=f"^{library} was loaded before laqfi.stages"):
        settle(environ, ["sys", library], CAPABLE)
    assert environ == {}


@pytest.mark.parametrize("flags", [set(), {"avx"}, {"avx2"}])
def test_a_processor_without_avx2_runs_as_it_can_and_says_so(flags):
    environ = {}
    assert "no x86-64 processor with AVX2" in settle(environ, ["torch"], flags)
    assert environ == {}


def test_flags_of_a_processor_that_the_kernel_does_not_describe(tmp_path):
    assert processor_flags(tmp_path / "cpuinfo") == set()
    (tmp_path / "cpuinfo").write_text("processor: 0\n")
    assert processor_flags(tmp_path / "cpuinfo") == set()


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name not in {*SETTINGS, *UNSET}}
    return subprocess.run(
        [sys.executable, *arguments], env=clean | environment, capture_output=True, text=True, check=False
    )


def test_a_user_s_import_leaves_their_process_alone():
    code = "import os; before = dict(os.environ); import laqfi, laqfi.api; assert os.environ == before"
    assert python("-c", code).returncode == 0


@pytest.mark.skipif(not processor_flags() >= NEEDED, reason="needs an x86-64 processor with AVX2")
def test_a_stage_overrides_what_its_environment_says_with_one_line():
    ran = python("-m", "laqfi.stages.dataset", "--help", MKL_CBWR="AVX2", OPENBLAS_CORETYPE="SkylakeX")
    assert ran.returncode == 0
    assert ran.stderr.splitlines() == [
        "note: MKL_CBWR=AVX2, OPENBLAS_CORETYPE=SkylakeX overridden: results are to be the same on every processor"
    ]


@pytest.mark.skipif(not processor_flags() >= NEEDED, reason="needs an x86-64 processor with AVX2")
def test_a_stage_into_which_a_library_was_loaded_first_ends_with_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import numpy\n")
    source = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    ran = python("-m", "laqfi.stages.dataset", "--help", PYTHONPATH=source)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "error: numpy was loaded before laqfi.stages, which makes results the same on every processor"
    ]


def operations(processor: str | None) -> dict[str, str]:
    command = [*python_on(processor), str(ROOT / "tests/portable/operations.py")]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return operations(None)


def test_two_processes_give_the_same_bytes(here):
    assert operations(None) == here


@needs_emulator
@pytest.mark.skipif(not processor_flags() >= NEEDED, reason="needs an x86-64 processor with AVX2")
def test_another_processor_gives_the_same_bytes(here):
    """One of each operation; `make portable-test` runs whole stages, on more processors."""
    there = operations(PROCESSORS[0])
    assert {name: there[name] for name in here if there[name] != here[name]} == {}
