"""No stage, but before all: what is in the folders and files that params.yaml names, for workflow/folders.yaml."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from laqfi.base.errors import LaqfiError
from laqfi.data import folder as images
from laqfi.models import conditioning, pretrained
from laqfi.params import folders, yaml12

# What a block of a profile says if it names a folder or a file: its key, a key of its own with the value, and the key
# of the path. What lists it.
KINDS: dict[tuple[str, str, str, str], Callable[[Path], Mapping]] = {
    ("dataset", "name", "folder", "path"): lambda folder: images.listed(folder).model_dump(),
    ("model", "family", "diffusers", "path"): lambda folder: pretrained.listed(folder).model_dump(),
    ("model", "family", "diffusers", "embeddings"): lambda file: conditioning.listed(file).model_dump(),
}


def held(params: Path, record: Path) -> dict[str, Mapping]:
    """By path, what is in these. Of one that is not there, as on another machine, what was recorded stays."""
    before, found = recorded(record), {}
    for path, lists in named(yaml12.read(params)):
        place = Path(path).expanduser()
        found[path] = before[path] if path in before and not place.exists() else lists(place)
    return found


def recorded(path: Path) -> Mapping:
    try:
        return folders.read(path)
    except LaqfiError:
        return {}  # it is made anew


def named(params: object) -> Iterator[tuple[str, Callable[[Path], Mapping]]]:
    """Each path once, with what lists it. What has another form than params.yaml is left to those who check it."""
    profiles = params.get("profiles") if isinstance(params, dict) else None
    seen = set()
    for profile in profiles.values() if isinstance(profiles, dict) else ():
        for (key, kind, value, place), lists in KINDS.items():
            block = profile.get(key) if isinstance(profile, dict) else None
            path = block.get(place) if isinstance(block, dict) and block.get(kind) == value else None
            if isinstance(path, str) and path and path not in seen:
                seen.add(path)
                yield path, lists


def main() -> None:
    """Print it as JSON, by path."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--recorded", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        print(json.dumps(held(arguments.params, arguments.recorded)))
    except LaqfiError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
