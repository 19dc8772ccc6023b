"""Whether the code of a stage stayed as it was while the stage ran.

DVC takes the hashes of a stage's inputs when the stage has ended. Of a file that was edited meanwhile that is another
content than the one it ran by, and DVC would call its outputs current.
"""

import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from the next: its time, size and inode; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def stamps() -> dict[Path, tuple[int, int, int] | None]:
    return {path: stamp(path) for path in PACKAGE.rglob("*.py")}


AT_START = stamps()  # `laqfi.stages` imports this module before any other


def edited() -> Path | None:
    """A file of this process's own code, if there is one, that is not as it was when the process began."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("laqfi", "__main__")]
    loaded = {Path(module.__file__) for module in modules if getattr(module, "__file__", None)}
    return next((path for path in sorted(loaded & AT_START.keys()) if stamp(path) != AT_START[path]), None)
