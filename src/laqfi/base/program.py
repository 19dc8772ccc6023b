"""What a stage is made of: the files of this package that it imports, and the packages beside it.

Settings hold its hash by the name of the stage, so that one line in an engine's record stands for all of them.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from laqfi.base.errors import LaqfiError
from laqfi.base.sources import PACKAGE, TEMPLATES

NO_STAGES = ("__init__", "command", "folders", "params")  # in the folder `stages`; `params` depends on all code


def programs(versions: Mapping[str, str]) -> dict[str, str]:
    """By the name of every stage, its `program`."""
    imports = cache(imported)
    stages = sorted(file for file in (PACKAGE / "stages").glob("*.py") if file.stem not in NO_STAGES)
    return {file.stem: digest(closure(file, imports), versions) for file in stages}


def program(stage: Path, versions: Mapping[str, str]) -> str:
    """A hash of the files that the stage in the file `stage` imports, directly or not, and of the packages' versions.

    With another program its results may be others; with the same one they are the same.
    """
    return digest(closure(stage, imported), versions)


def digest(files: set[Path], versions: Mapping[str, str]) -> str:
    """Begins with a word: YAML could take the digits alone for a number."""
    code = [(str(path.relative_to(PACKAGE)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(files)]
    return "sha256-" + hashlib.sha256(json.dumps([code, dict(sorted(versions.items()))]).encode()).hexdigest()[:16]


def closure(file: Path, imports: Callable[[Path], list[Path]]) -> set[Path]:
    """The files of this package that running `file` executes, and the templates beside them."""
    found, todo = set(), [file, *packages(file)]
    while todo:
        if (path := todo.pop()) not in found:
            found.add(path)
            todo += imports(path)
    return found | {template for path in found for template in path.parent.glob(TEMPLATES)}


def imported(file: Path) -> list[Path]:
    """What of this package the imports in `file` execute; of those that only type checkers read, nothing.

    Raises LaqfiError for a file that is no Python.
    """
    try:
        tree = Running().visit(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError) as error:
        raise LaqfiError(f"{file}: not valid Python ({' '.join(str(error).split())})") from error
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [path for name in names for path in files_of(name)]


def files_of(name: str) -> Iterator[Path]:
    """The modules on the way to a dotted name, packages first; its last word may stand for something in a module."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        base = PACKAGE.parent.joinpath(*parts[:end])
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file() and parts[0] == PACKAGE.name:
                yield path


def packages(file: Path) -> list[Path]:
    return [folder / "__init__.py" for folder in file.parents if folder.is_relative_to(PACKAGE)]


class Running(ast.NodeTransformer):
    """Leaves out the code under `if TYPE_CHECKING:`."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node
