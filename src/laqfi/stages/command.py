"""Run a stage function from the command line: its signature is its interface."""

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from threadpoolctl import threadpool_limits

from laqfi.base import device, files, sources, versions
from laqfi.base.block import Block
from laqfi.base.errors import LaqfiError, first_line
from laqfi.base.program import program

OF_VARIANTS = {"variant": "variants", "recovery": "recoveries"}  # blocks by variant, of which a stage gets one
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def run(stage: Callable[..., None]) -> None:
    """Call `stage(block, ..., key=path)` with what the command line says, and exit.

    `--params` names the settings that the stage `params` wrote. A positional parameter gets the block of its name, of
    which it may read what its annotation declares. `--variant` names a variant: a positional parameter of `OF_VARIANTS`
    gets the variant's block, one called `name` the name alone, which makes the stage depend on no setting. Every
    keyword-only parameter is a `--flag` with a path, or a dataclass of paths, each of whose fields is a flag. A
    LaqfiError becomes one line and exit code 1.
    """
    signature = inspect.signature(stage).parameters
    hints = get_type_hints(stage, include_extras=True)
    blocks = [name for name, parameter in signature.items() if parameter.kind is not parameter.KEYWORD_ONLY]
    paths = {name: hints[name] for name in signature if name not in blocks}
    arguments = parse(stage.__doc__ or "", bool({*OF_VARIANTS, "name"} & set(blocks)), paths)
    try:
        before = files.read_bytes(arguments.params)
        settings = files.read_json(arguments.params)
        check_program(stage, settings, arguments.params)
        for one in OF_VARIANTS.keys() & set(blocks):
            named = block(settings, OF_VARIANTS[one], dict[str, dict], arguments.params)
            settings[one] = choose(named, arguments.variant, f"{arguments.params}: {OF_VARIANTS[one]}")
        given = [
            arguments.variant if name == "name" else block(settings, name, hints[name], arguments.params)
            for name in blocks
        ]
        limit_threads(block(settings, "threads", int, arguments.params))
        device.settle()
        stage(*given, **{name: paths_from(arguments, name, kind) for name, kind in paths.items()})
        check_unchanged(settings_file=arguments.params, before=before)
    except LaqfiError as error:
        sys.exit(f"error: {error}")


def parse(doc: str, variant: bool, paths: dict[str, type]) -> argparse.Namespace:
    """The command line of a stage: `--params`, `--variant` where it takes one, and a flag for every path."""
    parser = argparse.ArgumentParser(description=next(iter(doc.splitlines()), ""))
    parser.add_argument("--params", type=Path, required=True)
    if variant:
        parser.add_argument("--variant", required=True)
    for flag in [flag for name, kind in paths.items() for flag in flags_of(name, kind)]:
        parser.add_argument(f"--{flag.replace('_', '-')}", type=Path, required=True)
    return parser.parse_args()


def flags_of(name: str, kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else [name]


def paths_from(arguments: argparse.Namespace, name: str, kind: type) -> object:
    found = {flag: getattr(arguments, flag) for flag in flags_of(name, kind)}
    return kind(**found) if dataclasses.is_dataclass(kind) else found[name]


def block(settings: object, name: str, kind: object, path: Path):
    """The value called `name`, as `kind`; of a block, only the keys that the class declares, each of which is there."""
    value = choose(settings, name, str(path))
    if inspect.isclass(kind) and issubclass(kind, Block):
        value = {key: choose(value, key, f"{path}: {name}") for key in kind.model_fields}
    try:
        config = None if inspect.isclass(kind) and issubclass(kind, BaseModel) else STRICT
        return TypeAdapter(kind, config=config).validate_python(value)
    except ValidationError as error:
        raise LaqfiError(f"{path}: {first_line(error, name)}") from error


def check_program(stage: Callable[..., None], settings: object, path: Path) -> None:
    """Raises LaqfiError if the settings are of other packages or of other code than this stage runs by.

    Its outputs would else be taken for those of the code that the settings name.
    """
    packages = block(settings, "versions", dict[str, str], path)
    versions.check(packages, path)
    file = Path(inspect.getfile(stage))
    wanted = choose(block(settings, "program", dict[str, str], path), file.stem, f"{path}: program")
    if program(file, packages) != wanted:
        raise LaqfiError(f"{path}: program.{file.stem}: the code has changed since; run the stage `params`, then this")


def check_unchanged(*, settings_file: Path, before: bytes) -> None:
    """Raises LaqfiError if the code or the settings of this run were changed meanwhile.

    The run then ends as failed, and its outputs stand in no engine's record as made of what there is now.
    """
    changed = settings_file if files.read_bytes(settings_file) != before else sources.edited()
    if changed:
        raise LaqfiError(f"{changed} was changed while the stage ran by what it held before; run again")


def choose(blocks: object, name: str, where: str):
    if not isinstance(blocks, dict):
        raise LaqfiError(f"{where}: no block of settings")
    if name not in blocks:
        raise LaqfiError(f"{where}: found no {name!r}, allowed is one of {sorted(blocks)}")
    return blocks[name]


def limit_threads(threads: int) -> None:
    """Fix the number of threads: the order of floating-point sums, and with it the bytes, depends on it."""
    threadpool_limits(threads)
    torch.set_num_threads(threads)
