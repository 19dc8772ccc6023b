"""Print the stage commands of one profile, in order: what a machine with only Python and torch needs to run it."""

import argparse

import active_runs
import folders
from stages import Stage, items, load, resolved


def commands(stages: dict[str, Stage], profile: str, settings: dict) -> list[str]:
    """One shell command per stage, or per stage and variant, in dvc.yaml's order."""
    return [stage.cmd.format(**item) for stage in stages.values() for item in items(stage, profile, settings)]


def asked_for(description: str) -> tuple[dict, str]:
    """What `stages.resolved` says, and the one of its profiles that the command line names."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("profile")
    profile = parser.parse_args().profile
    folders.refresh()
    params = resolved(load()["params"])
    if profile not in params["profiles"]:
        parser.error(f"found no profile {profile!r} in params.yaml, allowed is one of {sorted(params['profiles'])}")
    return params, profile


def main() -> None:
    params, profile = asked_for(__doc__)
    active_runs.refresh(params)  # which the first of the commands checks
    print("\n".join(commands(load(), profile, params["profiles"][profile])))


if __name__ == "__main__":
    main()
