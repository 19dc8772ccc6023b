"""Write a folder of files at once: it is there with all of them, or as it was before."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from laqfi.base import files
from laqfi.base.errors import LaqfiError


def write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Write `folder` with exactly these files, by their path in it, in place of what is there.

    What a killed run left of an earlier attempt is removed. Raises LaqfiError if it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.????????"):
            shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            replace(made, folder, content)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise LaqfiError(f"{folder}: cannot be written ({error.strerror})") from error


def replace(made: Path, folder: Path, content: Mapping[str, bytes]) -> None:
    """A folder can be renamed to the place of an empty one only, so what was there is moved aside first."""
    new, old = made / "new", made / "old"
    new.mkdir()
    for name, payload in content.items():
        files.write_bytes(new / name, payload)
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
