"""The program of a stage is what it imports: all of it and nothing else, and the versions of packages."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from laqfi.base import program
from laqfi.base.errors import LaqfiError
from tiny import ROOT

SRC = ROOT / "src"
STAGES = sorted(program.programs({}))
TEMPLATES = {"page.html.j2", "page.css.j2", "page.js.j2"}
# What the stages import that is not ours, once; then each stage in a process that has nothing of ours.
EXECUTED = """
import importlib, json, os, sys
import jinja2, matplotlib.pyplot, numpy, pydantic, scipy, sklearn.datasets, torch, torchvision
for stage in sys.argv[1:]:
    if os.fork() == 0:
        importlib.import_module(f"laqfi.stages.{stage}")
        ours = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "laqfi"]
        print(json.dumps([stage, ours]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def executed() -> dict[str, set[str]]:
    """By stage, the files of the package that importing it executes."""
    ran = subprocess.run([sys.executable, "-c", EXECUTED, *STAGES], capture_output=True, text=True, check=True)
    return {stage: set(files) for stage, files in map(json.loads, ran.stdout.splitlines())}


def test_the_program_of_a_stage_is_what_importing_it_executes_and_its_templates(executed):
    """So no import is hidden, as one by name would be. What loads late, only where it is needed, counts too."""
    late = {
        str(program.PACKAGE / f"{name}.py")
        for name in ("data/fetched", "models/diffusers_network", "models/prediction")
    }
    for stage in STAGES:
        found = {str(path) for path in program.closure(program.PACKAGE / f"stages/{stage}.py", program.imported)}
        templates = {path for path in found if path.endswith(".j2")}
        assert found - templates - late == executed[stage], stage
        assert {path.rpartition("/")[2] for path in templates} == (TEMPLATES if stage == "report" else set())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `laqfi` of two stages in two wings."""
    folder = tmp_path / "laqfi"
    monkeypatch.setattr(program, "PACKAGE", folder)
    files = {
        "stages/a.py": "from laqfi.base.files import read\n",
        "stages/b.py": "import laqfi.report.page\n",
        "stages/command.py": "",
        "base/files.py": "def f():\n    from laqfi.base import errors\n",
        "base/errors.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from laqfi.base import unused\n",
        "base/unused.py": "",
        "report/page.py": "import json, torch\n",
        "report/page.html.j2": "",
    }
    inits = {f"{wing}__init__.py": "" for wing in ("", "base/", "report/", "stages/")}
    for name, text in (files | inits).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("edited", "concerned"),
    [
        ("__init__.py", "ab"),
        ("stages/__init__.py", "ab"),
        ("stages/a.py", "a"),
        ("base/__init__.py", "a"),
        ("base/files.py", "a"),
        ("base/errors.py", "a"),  # imported by a function of another file
        ("base/unused.py", ""),
        ("report/page.py", "b"),
        ("report/page.html.j2", "b"),
        ("report/other.html.j2", "b"),  # a new one
        ("base/new.py", ""),
    ],
)
def test_an_edit_changes_the_programs_of_the_stages_that_import_the_file(package, edited, concerned):
    before = program.programs({"torch": "1"})
    assert before.keys() == {"a", "b"}
    with (package / edited).open("a") as file:
        file.write("# edited\n")
    after = program.programs({"torch": "1"})
    assert {stage for stage in before if after[stage] != before[stage]} == set(concerned)
    assert after["a"] == program.program(package / "stages/a.py", {"torch": "1"})


def test_a_new_file_counts_as_soon_as_it_is_imported(package):
    (package / "base/new.py").write_text("")
    (package / "base/files.py").write_text("import laqfi.base.new as new\n")
    before = program.programs({})
    (package / "base/new.py").write_text("edited = 1\n")
    assert {stage for stage, one in program.programs({}).items() if one != before[stage]} == {"a"}


def test_versions_decide_programs_in_whatever_order_they_are_written(package):
    found = program.programs({"numpy": "1", "torch": "1"})
    assert found == program.programs({"torch": "1", "numpy": "1"})
    assert set(found.values()).isdisjoint(program.programs({"numpy": "2", "torch": "1"}).values())


def test_of_the_two_sides_of_type_checking_the_one_that_runs_counts(tmp_path):
    file = tmp_path / "one.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import laqfi.api\nelse:\n    import laqfi.records\n"
    )
    assert {path.name for path in program.imported(file)} == {"__init__.py", "records.py"}


def test_a_source_file_that_is_no_python_is_named(package):
    (package / "base/errors.py").write_text("def :\n")
    with pytest.raises(LaqfiError, match=r"base/errors\.py: not valid Python \(invalid syntax"):
        program.programs({})


def imports_of(file: Path) -> set[str]:
    found = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [getattr(node, "module", None) or alias.name for node in found for alias in node.names]
    return {name.split(".")[0] for name in modules}


def test_src_imports_no_engine_and_workflow_imports_no_src():
    for file in SRC.rglob("*.py"):
        assert not imports_of(file) & {"dvc", "snakemake"}, file
    for file in (ROOT / "workflow").rglob("*.py"):
        assert "laqfi" not in imports_of(file), file
