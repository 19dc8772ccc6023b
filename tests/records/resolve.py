"""The stage `params` of the stub pipeline."""

import argparse
import json
import sys
from pathlib import Path

import yaml
from stage import runs, settings


def resolve(found: dict, profile: str | None, recorded: str | None, out: str | None) -> None:
    if profile:
        if yaml.safe_load(Path(recorded).read_text())["runs"] != runs(found):
            sys.exit(f"error: {recorded}: lists other runs than params.yaml")
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(settings(found, profile), indent=1, sort_keys=True) + "\n")
    else:
        profiles = {name: settings(found, name) for name in found["profiles"]}
        print(json.dumps({"active": found["active"], "runs": runs(found), "exported": [], "profiles": profiles}))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--params", "--profile", "--runs", "--out"):
        parser.add_argument(name)
    asked = parser.parse_args()
    try:
        resolve(json.loads(Path(asked.params).read_text()), asked.profile, asked.runs, asked.out)
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: params.yaml: {error!r}")


if __name__ == "__main__":
    main()
