"""Folders of a user: what is in them, as hashes. Results depend on those, not on where a folder lies."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from laqfi.base import files
from laqfi.base.errors import SHORT, LaqfiError

UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and what Python makes of other bytes


def hashes(folder: Path, suffixes: Collection[str]) -> dict[str, str]:
    """SHA-256 of every file below `folder` with one of the `suffixes`, given in lower case, by relative name, sorted.

    Names have `/` between their parts. Whatever begins with a dot is left out, and so are files of other kinds. The
    folder may be a link, and a link to a file is that file. Raises LaqfiError for a folder that is not there or holds
    no such file, for one inside that is a link (it may lead in circles), a file that cannot be read, and a name that is
    no line of UTF-8.
    """
    found = {name: files.sha256(folder / name) for name in sorted(names(folder, suffixes))}
    if not found:
        raise LaqfiError(f"{folder}: holds no file of {', '.join(sorted(suffixes))}")
    return found


def names(folder: Path, suffixes: Collection[str]) -> Iterator[str]:
    """The relative names of these files, in any order; errors as in `hashes`."""
    if not folder.is_dir():
        raise LaqfiError(f"{folder}: no such folder")
    for place, inside, here in os.walk(folder, onerror=unreadable):
        inside[:] = [name for name in inside if not name.startswith(".")]
        if links := [name for name in inside if (Path(place) / name).is_symlink()]:
            raise LaqfiError(f"{Path(place) / links[0]}: is a link to a folder, allowed are folders and links to files")
        for name in here:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                relative = (Path(place) / name).relative_to(folder).as_posix()
                if UNWRITABLE.search(relative):
                    raise LaqfiError(f"{folder}: {SHORT.repr(relative)} is no name in UTF-8 on one line")
                if not (folder / relative).is_file():
                    raise LaqfiError(f"{folder / relative}: is no file")
                yield relative


def unreadable(error: OSError) -> None:
    raise LaqfiError(f"{error.filename}: cannot be read ({error.strerror})") from error


def digest(found: Mapping[str, str]) -> str:
    """One SHA-256 for what `hashes` returns: of its JSON, names sorted."""
    return hashlib.sha256(json.dumps(dict(found), sort_keys=True).encode()).hexdigest()


def check(folder: Path, found: Mapping[str, str], sha256: str) -> None:
    """Raises LaqfiError if `found`, what `hashes` returns of `folder`, is not what `sha256` was made of."""
    if digest(found) != sha256:
        raise LaqfiError(
            f"{folder}: holds other files than those recorded (sha256 {sha256[:16]}…); `make folders` records them,"
            " then run again"
        )
