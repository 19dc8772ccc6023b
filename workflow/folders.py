"""Record what is in the folders and files that params.yaml names: workflow/folders.yaml, in git.

The settings of a profile hold the hashes; the stages `dataset` and `train` refuse what has another one.
"""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from stages import write

RECORD = Path("workflow/folders.yaml")
PARAMS = Path("params.yaml")
HEAD = (
    "# What the folders hold that params.yaml names: `make folders` writes it, and so do `make repro` and Snakemake.\n"
)


def text(found: dict[str, dict]) -> str:
    """One line for each folder."""
    lines = [f"  {json.dumps(path, ensure_ascii=False)}: {json.dumps(one)}\n" for path, one in found.items()]
    return "".join([HEAD, "folders:\n" if lines else "folders: {}\n", *lines])


def refresh() -> None:
    """Write the record anew if it is another one. Ends the program, with one line, for a folder that cannot be used."""
    try:
        found = listed() if names_any() else {}
    except (yaml.YAMLError, OSError, TypeError, KeyError, AttributeError):
        return  # no params.yaml, as the stage `params` says
    if not RECORD.exists() or RECORD.read_bytes() != text(found).encode():
        write(RECORD, text(found))


def names_any() -> bool:
    """Whether a block of a profile has a path. Most have none, and need not wait for an answer."""
    profiles = yaml.safe_load(PARAMS.read_bytes())["profiles"].values()
    return any("path" in block for profile in profiles for block in profile.values() if isinstance(block, dict))


def listed() -> dict[str, dict]:
    command = ("-m", "laqfi.stages.folders", "--params", PARAMS, "--recorded", RECORD)
    asked = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if asked.returncode:
        sys.exit(asked.stderr.strip())
    return json.loads(asked.stdout)


if __name__ == "__main__":
    refresh()
