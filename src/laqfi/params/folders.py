"""The folders and files that params.yaml names, as they are recorded: by path as written there, each with its hash.

What is settled of a profile holds the hash in place of the path, so that nothing depends on where a folder lies.
"""

from collections.abc import Mapping
from pathlib import Path

from laqfi.base.errors import LaqfiError
from laqfi.params import yaml12

Recorded = Mapping[str, Mapping]  # of each path at least `sha256`


def read(path: Path) -> Recorded:
    """Raises LaqfiError for what is no such record."""
    found = yaml12.read(path)
    listed = found.get("folders") if isinstance(found, dict) else None
    if not isinstance(listed, dict) or not all(
        isinstance(one, dict) and isinstance(one.get("sha256"), str) for one in listed.values()
    ):
        raise LaqfiError(f"{path}: holds no folders with their hashes; `make folders` writes it")
    return listed


def entry(recorded: Recorded | None, path: str, key: str) -> Mapping:
    """What is recorded of the folder that the key of params.yaml names. Raises LaqfiError if that is nothing."""
    if path not in (recorded or {}):
        raise LaqfiError(f"{key}: {path!r} is not in workflow/folders.yaml; `make folders` writes it, then run again")
    return recorded[path]


def without_paths(settings: Mapping[str, object]) -> dict:
    """The settings of a profile; of a block with a hash, without the path that it is the hash of."""
    return {
        key: {name: one for name, one in block.items() if name != "path"}
        if isinstance(block, dict) and "sha256" in block
        else block
        for key, block in settings.items()
    }


def located(record: Path, sha256: str) -> str:
    """The path of the folder that has this hash, as recorded. Raises LaqfiError if there is none."""
    for path, one in read(record).items():
        if one["sha256"] == sha256:
            return path
    raise LaqfiError(f"{record}: has no folder of sha256 {sha256[:16]}…; `make folders` writes it, then run again")
