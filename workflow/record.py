"""DVC's record, dvc.lock: set aside where a killed run left it damaged, and rid of stages that left the pipeline."""

import os
import re
import subprocess
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import parse_yaml
from voluptuous import Invalid

from stages import items, load

RECORD = Path("dvc.lock")
DAMAGED = Path(".dvc/tmp/dvc.lock.damaged")
LAST = re.compile(rb"^  \S[^\n]*(\n(?!  \S)[^\n]*)*\Z", re.MULTILINE)  # entry, or what there is of it
ENTRY = re.compile(r"^  (\S+):\n(?:    .*\n?|\n)*", re.MULTILINE)


def mend() -> str | None:
    """Set a damaged record aside, for what is whole of it or that of the last commit; the line that says so.

    DVC writes over the old record in place, so a kill in the middle leaves a part of it. What it recorded is in the
    run-cache too: no stage runs again for that.
    """
    if not os.path.lexists(RECORD) or readable(damaged := RECORD.read_bytes()):
        return None
    DAMAGED.write_bytes(damaged)
    last_commit = subprocess.run(["git", "show", f"HEAD:./{RECORD}"], capture_output=True, check=False).stdout
    instead = {"what is whole of it": LAST.sub(b"", damaged), "that of the last commit": last_commit}
    taken = next((name for name, content in instead.items() if readable(content)), None)
    if taken:
        write(instead[taken].rstrip() + b"\n")
    else:
        RECORD.unlink()
    place = f"it is now {DAMAGED}, and {taken or 'a new one'} takes its place"
    return f"{RECORD} is damaged, as a killed run leaves it: {place}"


def readable(content: bytes) -> bool:
    """Whether DVC can read it and there are stages in it."""
    try:
        return bool(COMPILED_LOCKFILE_SCHEMA(parse_yaml(content.decode(), RECORD))["stages"])
    except (DvcException, Invalid, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def prune(config: dict) -> str | None:
    """Remove the entries of stages, variants and profiles that are no more in dvc.yaml and in what `resolved` says.

    Those of all profiles stay, active or not. Nothing else changes in the file; but a last entry that was cut goes too,
    and the line returned says so: DVC would run its stage again, where without an entry it looks into the run-cache.
    """
    outs = possible(config)
    if not RECORD.exists():
        return None
    text = RECORD.read_text(encoding="utf-8")
    head, stages, entries = text.partition("stages:\n")
    found = list(ENTRY.finditer(entries))
    cut = found and found[-1][1] in outs and not whole(found[-1][0], outs[found[-1][1]])
    kept = [entry[0] for entry in found[: -1 if cut else None] if entry[1] in outs]
    if not kept:
        RECORD.unlink()  # without stages DVC cannot read it
    elif len(kept) < len(found):
        write("".join([head, stages, *kept]).encode())
    return f"{RECORD} lost its end, as a killed run leaves it: {found[-1][1]} is looked up again" if cut else None


def whole(entry: str, outs: int) -> bool:
    """Whether the entry goes on to the size of the last of its outputs."""
    listed = entry.partition("    outs:\n")[2].splitlines(keepends=True)
    sizes = [line for line in listed if line.startswith("      size: ") and line.endswith("\n")]
    return len(sizes) == outs


def possible(config: dict) -> dict[str, int]:
    """Every stage as DVC names it, for all profiles and the variants that each runs, and how many outputs it has."""
    found = {}
    for name, stage in load().items():
        for profile, settings in config["profiles"].items():
            for one in items(stage, profile, settings):
                found["-".join([f"{name}@{profile}", *([one["variant"]] if "variant" in one else [])])] = len(
                    stage.outs
                )
    return found


def write(content: bytes) -> None:
    """The record as a whole, or as it was."""
    new = DAMAGED.with_name("dvc.lock.new")
    new.write_bytes(content)
    new.replace(RECORD)
