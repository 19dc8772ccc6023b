"""Stage: params.yaml checked, and the settings of one profile with every default filled in."""

import argparse
import json
import sys
from pathlib import Path

from laqfi.base import files, sources, versions
from laqfi.base.errors import LaqfiError
from laqfi.params import folders, whole


def params(
    params: Path, recorded: Path, listed: Path, profile: str | None, runs: Path | None, out: Path | None
) -> None:
    """Write the settings of `profile` as JSON, with the versions and the folders' hashes that are recorded in files.

    Without `profile` those of all profiles are printed, with the names of the active ones and what they run: what
    engines plan by.
    """
    found, packages = whole.load(params, folders.read(listed)), whole.read_versions(recorded)
    versions.check(packages, recorded)
    resolved = {name: whole.resolve(found, name, packages) for name in found.profiles}
    if edited := sources.changed():
        raise LaqfiError(f"{edited} was changed while the stage ran by what it held before; run again")
    if profile is None:
        plan = {"active": found.active, "runs": found.runs(), "exported": found.exported(), "profiles": resolved}
        print(json.dumps(plan))
    elif profile in resolved:
        whole.check_runs(found, runs)
        files.write_json(out, resolved[profile])
    else:
        raise LaqfiError(f"{params}: profiles: found no {profile!r}, allowed is one of {sorted(resolved)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.removeprefix("Stage: "))
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--versions", type=Path, required=True)
    parser.add_argument("--folders", type=Path, required=True, help="what is in the folders that params.yaml names")
    parser.add_argument("--profile", help="without it, all are printed")
    parser.add_argument("--runs", type=Path, help="what DVC makes its stages of, to be as params.yaml says")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if len({arguments.profile is None, arguments.runs is None, arguments.out is None}) > 1:
        parser.error("--profile, --runs and --out go together")
    try:
        params(
            arguments.params,
            arguments.versions,
            arguments.folders,
            arguments.profile,
            arguments.runs,
            arguments.out,
        )
    except LaqfiError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
