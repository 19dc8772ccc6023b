"""The stage `params` of the stub pipeline."""

import argparse
import json
from pathlib import Path

from stage import settings

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--params", "--profile", "--out"):
        parser.add_argument(name)
    asked = parser.parse_args()
    found = json.loads(Path(asked.params).read_text())
    if asked.profile:
        Path(asked.out).parent.mkdir(parents=True, exist_ok=True)
        Path(asked.out).write_text(json.dumps(settings(found, asked.profile), indent=1, sort_keys=True) + "\n")
    else:
        profiles = {name: settings(found, name) for name in found["profiles"]}
        print(json.dumps({"active": found["active"], "variants": list(found["variants"]), "profiles": profiles}))
