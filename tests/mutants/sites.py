"""Where src/laqfi can be mutated, by the operators of cosmic-ray, and the mutants a seed draws.

Left out, because no test could or should tell:
- annotations, and in params.py all that stands outside functions: declarations, whose bounds pydantic checks;
- what stands in a `raise`: the words of an error message;
- `frozen`, `eq` and `repr` of a dataclass, `strict` of a zip and `disable` of a bar: guards and display;
- replacements that do not parse, or to the same syntax tree;
- operators that give nonsense every test notices (`+` to `<<`), equal integers to the same integer (`==` to `is`), or
  take a decorator away (`cache`, `no_grad`: speed and memory only).
"""

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider
from parso.tree import NodeOrLeaf, search_ancestor

SWAPS = {
    "ReplaceBinaryOperator": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv Pow_Mul BitAnd_BitOr "
    "BitOr_BitAnd LShift_RShift RShift_LShift",
    "ReplaceComparisonOperator": "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot "
    "IsNot_Is",
    "ReplaceUnaryOperator": "Delete_USub Delete_Not Delete_Invert",
}
NAMES = [f"{kind}_{swap}" for kind, swaps in SWAPS.items() for swap in swaps.split()] + [
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer"),
    "ZeroIterationForLoop",
]
OPERATORS = {name: OperatorProvider()[name]() for name in NAMES}
GUARDS = {"frozen", "eq", "repr", "disable"}


@dataclass(frozen=True)
class Mutant:
    """One file with one replacement; `line` counts from 1, `before` and `after` are that line's text."""

    file: Path
    line: int
    operator: str
    before: str
    after: str
    code: str


def left_out(node: NodeOrLeaf, file: Path) -> bool:
    """Whether a mutation of the node is none that tests should catch (the module's docstring lists them)."""
    if search_ancestor(node, "raise_stmt") or (file.name == "params.py" and not search_ancestor(node, "funcdef")):
        return True
    while node.parent:
        child, node = node, node.parent
        if node.type == "tfpdef" or (node.type in {"annassign", "funcdef"} and _annotates(child, node)):
            return True
        if node.type == "argument" and node.children[0].type == "name" and _guards(node):
            return True
    return False


def _annotates(child: NodeOrLeaf, parent: NodeOrLeaf) -> bool:
    return child is (parent.children[1] if parent.type == "annassign" else parent.annotation)


def _guards(argument: NodeOrLeaf) -> bool:
    call = search_ancestor(argument, "atom_expr")
    name = argument.children[0].value
    return name in GUARDS or (name == "strict" and bool(call) and call.children[0].get_code().strip() == "zip")


def sites(file: Path) -> Iterator[list[tuple[str, int]]]:
    """For each place of the file: the operators that replace what stands there, each with its count in the file."""
    nodes = list(ast_nodes(get_ast(file.read_text())))
    found = {}
    for name, operator in OPERATORS.items():
        places = [(node, place) for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (node, (start, _)) in enumerate(places):
            if not left_out(node, file):
                found.setdefault(start, []).append((name, occurrence))
    return iter(found[start] for start in sorted(found))


def mutant(file: Path, name: str, occurrence: int) -> Mutant | None:
    """None where the replacement does not parse or changes nothing."""
    source = file.read_text()
    try:
        code = mutate_code(source, OPERATORS[name], occurrence)
    except AttributeError:  # cosmic-ray replaces no exception with a dotted name
        return None
    try:
        if ast.dump(ast.parse(code)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    lines = enumerate(zip(source.splitlines(), code.splitlines(), strict=False), 1)
    line, (before, after) = next((i, pair) for i, pair in lines if pair[0] != pair[1])
    return Mutant(file, line, name, before.strip(), after.strip(), code)


def draw(files: list[Path], count: int, seed: int) -> tuple[list[Mutant], int]:
    """As many mutants as `count`, at different places, each place as likely; and the number of places."""
    places = [(file, site) for file in sorted(files) for site in sites(file)]
    random.Random(seed).shuffle(places)
    drawn = []
    for file, site in places:
        made = [one for one in (mutant(file, *choice) for choice in site) if one]
        if made and len(drawn) < count:
            drawn.append(random.Random(f"{seed} {len(drawn)}").choice(made))
        elif len(drawn) == count:
            break
    return drawn, len(places)
