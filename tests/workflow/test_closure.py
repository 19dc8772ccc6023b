"""Every stage of dvc.yaml lists exactly the source files it runs.

`python tests/workflow/test_closure.py --fix` writes the lists.
"""

import ast
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
DATA_FILES = {"laqfi/report/page.py": ["laqfi/report/page.html.j2"]}  # read at run time by the module


def files_of(module: str) -> list[Path]:
    """Files that importing `module` executes, its packages' __init__ first; none if it is not ours."""
    parts, files = module.split("."), []
    for end in range(1, len(parts) + 1):
        base = SRC.joinpath(*parts[:end])
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if not file.exists():
            break
        files.append(file)
    return files


def imports_of(file: Path) -> set[str]:
    """What importing the file imports; of what stands under `if TYPE_CHECKING:`, nothing."""
    names = set()
    for node in ast.walk(Running().visit(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide what a stage depends on"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


class Running(ast.NodeTransformer):
    """Leaves out the code that only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def closure(module: str) -> list[str]:
    seen: set[Path] = set()
    todo = [module]
    while todo:
        for file in files_of(todo.pop()):
            if file not in seen:
                seen.add(file)
                todo += imports_of(file)
    names = {str(file.relative_to(SRC)) for file in seen}
    names |= {data for name in names for data in DATA_FILES.get(name, [])}
    return sorted(f"src/{name}" for name in names)


def declared() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def module_of(stage: dict) -> str:
    return re.search(r"-m (\S+)", stage["cmd"])[1]


def test_every_stage_lists_its_import_closure():
    for name, stage in declared().items():
        listed = [dep for dep in stage["deps"] if dep.startswith("src/")]
        assert listed == closure(module_of(stage)), f"{name}: run python {Path(__file__).relative_to(ROOT)} --fix"


def test_only_stages_and_nothing_else_import_stages():
    for file in SRC.rglob("*.py"):
        assert not any(name.startswith("laqfi.stages") for name in imports_of(file)), file


def test_src_imports_no_engine_and_workflow_imports_no_src():
    for file in SRC.rglob("*.py"):
        assert not {name.split(".")[0] for name in imports_of(file)} & {"dvc", "snakemake"}, file
    for file in (ROOT / "workflow").rglob("*.py"):
        assert not any(name.startswith("laqfi") for name in imports_of(file)), file


def test_the_closure_follows_indirect_imports_and_packages():
    found = closure("laqfi.stages.fisher")
    assert "src/laqfi/__init__.py" in found
    assert "src/laqfi/base/errors.py" in found  # through laqfi.base.files
    assert "src/laqfi/report/plots.py" not in found


def fix() -> None:
    lines, stage, kept = (ROOT / "dvc.yaml").read_text().splitlines(), None, []
    stages = declared()
    for line in lines:
        if match := re.fullmatch(r"  (\w+):", line):
            stage = match[1]
        if re.match(r"      - src/", line):
            continue
        kept.append("    deps:" if line.startswith("    deps:") else line)
        if line.startswith("    deps:"):
            kept += [f"      - {name}" for name in closure(module_of(stages[stage]))]
    (ROOT / "dvc.yaml").write_text("\n".join(kept) + "\n")


if __name__ == "__main__" and sys.argv[1:] == ["--fix"]:
    fix()
