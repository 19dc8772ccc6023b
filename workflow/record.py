"""DVC's record, dvc.lock: set aside where a killed run left it damaged, and rid of stages that left the pipeline."""

import itertools
import os
import re
import subprocess
from pathlib import Path

import yaml
from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import parse_yaml
from voluptuous import Invalid

RECORD = Path("dvc.lock")
DAMAGED = Path(".dvc/tmp/dvc.lock.damaged")
ENTRY = re.compile(r"^  (\S+):\n(?:    .*\n?|\n)*", re.MULTILINE)


def mend() -> str | None:
    """Set a damaged record aside, for that of the last commit if there is one; the line that says so.

    DVC writes over the old record in place, so a kill in the middle leaves a part of it. What it recorded is in the
    run-cache too: no stage runs again for that.
    """
    if not os.path.lexists(RECORD) or readable(RECORD.read_bytes()):
        return None
    DAMAGED.unlink(missing_ok=True)
    RECORD.replace(DAMAGED)
    last = subprocess.run(["git", "show", f"HEAD:./{RECORD}"], capture_output=True, check=False)
    committed = last.returncode == 0 and readable(last.stdout)
    if committed:
        write(last.stdout)
    instead = "that of the last commit" if committed else "a new one"
    return f"{RECORD} is damaged, as a killed run leaves it: it is now {DAMAGED}, and {instead} takes its place"


def readable(content: bytes) -> bool:
    """Whether DVC can read it and there are stages in it."""
    try:
        return bool(COMPILED_LOCKFILE_SCHEMA(parse_yaml(content.decode(), RECORD))["stages"])
    except (DvcException, Invalid, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def prune() -> None:
    """Remove the entries of stages, variants and profiles that are in dvc.yaml and params.yaml no more.

    Those of all profiles stay, active or not. Nothing else changes in the file.
    """
    names = possible()
    if not RECORD.exists() or not names:
        return
    text = RECORD.read_text(encoding="utf-8")
    head, stages, entries = text.partition("stages:\n")
    kept = ENTRY.sub(lambda entry: entry[0] if entry[1] in names else "", entries)
    if kept != entries:
        write((head + stages + kept).encode())


def possible() -> set[str]:
    """Every stage as DVC names it, for all profiles; none if the files do not say: DVC says then what is wrong."""
    try:
        stages = yaml.safe_load(Path("dvc.yaml").read_bytes())["stages"]
        blocks = {key.value: block for key, block in yaml.compose(Path("params.yaml").read_bytes()).value}
        choices = {one: [key.value for key, _ in blocks[f"{one}s"].value] for one in ("profile", "variant")}
        return {
            "@".join([name, *(["-".join(items)] if items else [])])
            for name, stage in stages.items()
            for items in itertools.product(*(choices[key] for key in stage.get("matrix", {})))
            if "<<" not in items
        }
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return set()


def write(content: bytes) -> None:
    """The record as a whole, or as it was."""
    new = DAMAGED.with_name("dvc.lock.new")
    new.write_bytes(content)
    new.replace(RECORD)
