"""Whether the code of a stage stayed as it was while the stage ran.

Else its outputs would stand in an engine's record as made by what the code was before, or is now.
"""

import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
TEMPLATES = "*.j2"  # belong to the modules beside them
Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """What tells one content of a file from the next: its time, size and inode; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def stamps() -> dict[Path, Stamp | None]:
    """Those of all code of this package."""
    return {path: stamp(path) for kind in ("*.py", TEMPLATES) for path in PACKAGE.rglob(kind)}


AT_START = stamps()  # `laqfi.stages` imports this module before any other


def edited() -> Path | None:
    """A file of this process's own code, if there is one, that is not as it was when the process began."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("laqfi", "__main__")]
    loaded = {Path(module.__file__) for module in modules if getattr(module, "__file__", None)}
    own = {path for file in loaded for path in (file, *file.parent.glob(TEMPLATES))}
    return next((path for path in sorted(own & AT_START.keys()) if stamp(path) != AT_START[path]), None)


def changed() -> Path | None:
    """Any file of this package that came, went or was edited since the process began."""
    now = stamps()
    return next((path for path in sorted(now | AT_START) if now.get(path) != AT_START.get(path)), None)
