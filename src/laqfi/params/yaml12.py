"""YAML as DVC reads it: version 1.2. What another reader could take for something else is refused.

Numbers are decimal; `010`, `0x1F`, `1_000`, `1:30`, `.inf`, dates, `yes` and `on` are plain text, which no number or
switch of params.yaml accepts. Tags and directives are refused.
"""

import re
from pathlib import Path

import yaml

from laqfi.base import files
from laqfi.base.errors import LaqfiError

LIMIT = 256 << 10  # bytes of a file
VALUES = 20_000  # in a file, counted wherever an alias or a merge key repeats them
DEPTH = 40  # of nesting
NULL, BOOL, INT, FLOAT, TEXT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))
SCALARS = (
    (NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    (BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    (INT, re.compile(r"^[-+]?(?:0|[1-9][0-9]{0,39})$"), list("-+0123456789")),
    (
        FLOAT,
        re.compile(r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*|(?=[eE])))(?:[eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    ),
)


class Loader(yaml.SafeLoader):
    """Composes nodes; tags and directives are errors."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 PyYAML's own kind of declaration

    def process_directives(self):
        token = self.peek_token()
        if isinstance(token, yaml.DirectiveToken):
            raise yaml.parser.ParserError(None, None, f"the directive %{token.name} is not allowed", token.start_mark)
        return super().process_directives()

    def compose_node(self, parent, index):
        event = self.peek_event()
        if tag := getattr(event, "tag", None):
            raise yaml.composer.ComposerError(None, None, f"the tag {tag!r} is not allowed", event.start_mark)
        return super().compose_node(parent, index)


for tag, pattern, first in SCALARS:
    Loader.add_implicit_resolver(tag, pattern, first)


def read(path: Path):
    """The content of a YAML file as mappings, lists, text, numbers, booleans and None.

    Raises LaqfiError, in one line with the key or the line, for what is no such file: other encodings than UTF-8, keys
    that are no text or there twice, more than VALUES values once aliases are written out.
    """
    payload = files.read_bytes(path, LIMIT)
    if payload.startswith(b"\xef\xbb\xbf"):
        raise LaqfiError(f"{path}: begins with a byte order mark, allowed is UTF-8 without one")
    try:
        loader = Loader(payload.decode())
        return Reader(path).value(loader.get_single_node(), "", 0)
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError) as error:
        raise LaqfiError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


class Reader:
    """Turns nodes into values, and counts them: aliases may stand for far more than is written."""

    def __init__(self, path: Path):
        self.path = path
        self.values = 0

    def refuse(self, place: str, complaint: str) -> LaqfiError:
        return LaqfiError(f"{self.path}: {' '.join(place[:200].split()) or 'the file'}: {complaint}")

    def count(self, place: str, depth: int) -> None:
        self.values += 1
        if self.values > VALUES:
            raise self.refuse(place, f"holds more than {VALUES:,} values, those that aliases repeat included")
        if depth > DEPTH:
            raise self.refuse(place, f"nested deeper than {DEPTH} blocks")

    def value(self, node: yaml.Node | None, place: str, depth: int):
        self.count(place, depth)
        if node is None:
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.value(one, f"{place}.{i}".strip("."), depth + 1) for i, one in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place, depth)
        return scalar(node)

    def mapping(self, node: yaml.MappingNode, place: str, depth: int) -> dict:
        found, merged = {}, None
        for key_node, value_node in node.value:
            merge = isinstance(key_node, yaml.ScalarNode) and key_node.value == "<<" and not key_node.style
            key = "<<" if merge else self.key(key_node, place)
            if key in found or (merge and merged is not None):
                raise self.refuse(place, f"the key {key[:80]!r} is there twice")
            if merge:
                merged = self.merged(value_node, place, depth + 1)
            else:
                found[key] = self.value(value_node, f"{place}.{key}".strip("."), depth + 1)
        return {**(merged or {}), **found}

    def key(self, node: yaml.Node, place: str) -> str:
        key = scalar(node) if isinstance(node, yaml.ScalarNode) else node.value
        if not isinstance(key, str):
            written = node.value[:80] if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
            raise self.refuse(place, f"found {written!r} as a key, allowed are names (that YAML takes for text)")
        return key

    def merged(self, node: yaml.Node, place: str, depth: int) -> dict:
        """What `<<` adds: of a list of mappings, the first that has a key decides it."""
        blocks = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found = {}
        for block in blocks:
            if not isinstance(block, yaml.MappingNode):
                raise self.refuse(place, "<< merges something else than a block")
            found = {**self.value(block, place, depth), **found}
        return found


def scalar(node: yaml.ScalarNode):
    convert = {NULL: lambda _: None, BOOL: lambda word: word.lower() == "true", INT: int, FLOAT: float, TEXT: str}
    return convert[node.tag](node.value)
