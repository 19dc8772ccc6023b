"""Sweeps: where an option is a list and its policy takes one value, the block stands for one variant per value.

`budget` with `target: {ratio: [6, 6.2]}` is `budget_6` and `budget_6_2`. Whoever reads params.yaml after this sees
blocks with one value only, as if they had been written out.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from laqfi.base.errors import SHORT, LaqfiError
from laqfi.quant.params import Listed
from laqfi.quant.policies import every  # noqa: F401 fills the registry
from laqfi.quant.policies.registry import POLICIES

Keys = tuple[str, ...]  # the way from a variant's block to a value in it
WORD = re.compile(r"[a-z0-9_]+")
WRITABLE = "numbers from 0 on, true, false and words of a-z, 0-9 and _"


def expanded(params: object) -> object:
    """The content of params.yaml with every sweep written out, also in the lists of variants that name its block.

    What has another form than params.yaml is left to those who check it. Raises LaqfiError for a sweep without values,
    with values that have no name or the same one, for a name that is taken, and for two sweeps in one block.
    """
    if not isinstance(params, dict) or not isinstance(params.get("variants"), dict):
        return params
    written, sweeps = {}, {}
    for name, block in params["variants"].items():
        made = variants_of(name, block)
        if taken := [one for one in made if one in written or (one != name and one in params["variants"])]:
            raise LaqfiError(f"variants.{name}: its list makes {taken[0]!r}, allowed is a name no other variant has")
        written |= made
        sweeps[name] = list(made)
    found = params | {"variants": written}
    if isinstance(params.get("profiles"), dict):
        found["profiles"] = {key: with_names(profile, sweeps) for key, profile in params["profiles"].items()}
    return found


def variants_of(name: str, block: object) -> dict[str, object]:
    """By name the variants that a block stands for: itself, if there is no sweep in it. Errors as in `expanded`."""
    found = dict(lists_in(block, schema_of(block)))
    if not found:
        return {name: block}
    places = [f"variants.{name}.{'.'.join(keys)}" for keys in found]
    if len(found) > 1:
        raise LaqfiError(f"{places[0]}: found a list, and one in {places[1]}, allowed is one list of values in a block")
    ((keys, values),) = found.items()
    if not values:
        raise LaqfiError(f"{places[0]}: found [], allowed is a value, or a list of at least one")
    made = {}
    for value in values:
        one = f"{name}_{suffix(value, places[0])}"
        if one in made:
            raise LaqfiError(f"{places[0]}: found {SHORT.repr(values)}, {one!r} twice, allowed is each value once")
        made[one] = with_value(block, keys, value)
    return made


def schema_of(block: object) -> dict:
    """The JSON schema of what a variant's block may hold beside its policy; {} for a block without a policy."""
    policy = block.get("policy") if isinstance(block, dict) else None
    if not isinstance(policy, str) or policy not in POLICIES:
        return {}
    schemas = [POLICIES.options(policy).model_json_schema(), Listed.model_json_schema()]
    merged = {key: {k: v for one in schemas for k, v in one.get(key, {}).items()} for key in ("$defs", "properties")}
    return schemas[0] | merged


def lists_in(block: object, schema: dict, keys: Keys = ()) -> Iterator[tuple[Keys, list]]:
    """Every list in a block, and in the blocks inside it, that stands where `schema` has no list."""
    definitions = schema.get("$defs", {})
    for key, value in block.items() if isinstance(block, dict) else ():
        kinds = [kind for one in alternatives(schema, definitions) for kind in kinds_of(one, key, definitions)]
        if isinstance(value, list) and kinds and not any(may_be_list(kind) for kind in kinds):
            yield (*keys, key), value
        for kind in kinds if isinstance(value, dict) else ():
            yield from lists_in(value, kind | {"$defs": definitions}, (*keys, key))


def kinds_of(schema: dict, key: str, definitions: dict) -> list[dict]:
    """What a block of `schema` says its `key` may be; nothing, if it has none of this name."""
    properties = schema.get("properties", {})
    return alternatives(properties[key], definitions) if key in properties else []


def alternatives(schema: dict, definitions: dict) -> list[dict]:
    """The schemas of which any may hold, references followed."""
    if "$ref" in schema:
        return alternatives(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    inside = schema.get("anyOf", schema.get("oneOf"))
    return [schema] if inside is None else [kind for one in inside for kind in alternatives(one, definitions)]


def may_be_list(schema: dict) -> bool:
    """One that names no type holds for anything."""
    return not schema.keys() & {"type", "const", "enum"} or schema.get("type") == "array"


def suffix(value: object, place: str) -> str:
    """How a value is written in a variant's name: 6.2 as 6_2, and equal numbers alike."""
    if isinstance(value, bool):
        return str(value).lower()
    decimal = format(Decimal(repr(value)).normalize(), "f").replace(".", "_") if isinstance(value, float) else None
    word = decimal or str(value)
    if not isinstance(value, int | float | str) or not WORD.fullmatch(word):
        raise LaqfiError(f"{place}: found {SHORT.repr(value)} in a list of values, allowed are {WRITABLE}")
    return word


def with_value(block: dict, keys: Keys, value: object) -> dict:
    first, *others = keys
    return block | {first: with_value(block[first], others, value) if others else value}


def with_names(profile: object, sweeps: dict[str, list[str]]) -> object:
    """A profile whose lists of variants, its own and those of its headlines, name the variants of a sweep's block."""
    found = named(profile, sweeps)
    sample = found.get("sample") if isinstance(found, dict) else None
    headlines = sample.get("headline") if isinstance(sample, dict) else None
    if not isinstance(headlines, dict):
        return found
    return found | {"sample": sample | {"headline": {key: named(one, sweeps) for key, one in headlines.items()}}}


def named(block: object, sweeps: dict[str, list[str]]) -> object:
    names = block.get("variants") if isinstance(block, dict) else None
    if not isinstance(names, list):
        return block
    written = [sweeps.get(name, [name]) if isinstance(name, str) else [name] for name in names]
    return block | {"variants": [one for some in written for one in some]}
