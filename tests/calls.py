"""Which functions and classes of a package a module may call, directly or not: read from the source, nothing is run."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

Name = tuple[str, str]  # a module, and what is defined in it; "" is what the module runs when it is imported
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Package:
    """The modules below the folder `src`, by dotted name."""

    def __init__(self, src: Path):
        self.src = src
        self.tree = cache(self.tree)
        self.imports = cache(self.imports)
        self.definitions = cache(self.definitions)

    def tree(self, module: str) -> ast.Module | None:
        base = self.src.joinpath(*module.split("."))
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        return ast.parse(file.read_text()) if file.is_file() else None

    def imports(self, module: str) -> dict[str, str]:
        """What names stand for, wherever in the module they are imported."""
        found = {}
        for node in ast.walk(self.tree(module)):
            if isinstance(node, ast.Import):
                found |= {alias.asname: alias.name for alias in node.names if alias.asname}
                found |= {name: name for name in (alias.name.split(".")[0] for alias in node.names if not alias.asname)}
            elif isinstance(node, ast.ImportFrom):
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return found

    def definitions(self, module: str) -> dict[str, ast.AST]:
        return {node.name: node for node in self.tree(module).body if isinstance(node, DEFINITIONS)}

    def run_on_import(self, module: str) -> Iterator[ast.AST]:
        """Statements outside functions, and functions that a decorator of the package takes note of."""
        for node in self.tree(module).body:
            decorators = node.decorator_list if isinstance(node, DEFINITIONS) else []
            if not isinstance(node, DEFINITIONS) or any(self.meant(module, one) for one in decorators):
                yield node

    def meant(self, module: str, expression: ast.AST) -> Name | None:
        """What of the package `a` or `a.b.c` in a module stands for."""
        parts = []
        while isinstance(expression, ast.Attribute):
            parts.insert(0, expression.attr)
            expression = expression.value
        if not isinstance(expression, ast.Name):
            return None
        if expression.id in self.definitions(module):
            return module, expression.id
        path = ".".join([self.imports(module).get(expression.id, ""), *parts]).split(".")
        for end in range(len(path), 0, -1):
            if self.tree(".".join(path[:end])):
                return ".".join(path[:end]), path[end] if end < len(path) else ""
        return None

    def uses(self, name: Name) -> set[Name]:
        module, defined = name
        nodes = (
            [self.definitions(module)[defined]] if defined in self.definitions(module) else self.run_on_import(module)
        )
        inside = [node for outer in nodes for node in ast.walk(outer)]
        found = {self.meant(module, node) for node in inside if isinstance(node, ast.Name | ast.Attribute)} - {None}
        imported = {self.meant(module, ast.Name(alias)) for alias in self.imports(module)} - {None}
        return found | {(other, "") for other, _ in found | imported} | {(module, "")}

    def may_call(self, module: str) -> set[Name]:
        """All that the module itself defines counts as called."""
        found: set[Name] = set()
        todo = {(module, ""), *((module, name) for name in self.definitions(module))}
        while todo:
            name = todo.pop()
            found.add(name)
            todo |= self.uses(name) - found
        return found
