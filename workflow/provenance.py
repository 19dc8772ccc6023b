"""Write what made the results of a profile: reports/<profile>/provenance.json. Run it where and when they were made."""

import hashlib
import json
import platform
import subprocess
from pathlib import Path

import torch

import versions
from commands import asked_for


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def parameters_hash(params: dict, profile: str) -> str:
    """SHA-256 of the profile's settings, defaults filled in, as sorted JSON."""
    used = {key: value for key, value in params["profiles"][profile].items() if key not in ("program", "versions")}
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()


def device() -> str:
    """The GPU's name, or the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def provenance(params: dict, profile: str) -> dict:
    """`changed` names tracked files that differ from the commit, but for results, which the run itself writes."""
    changed = git("diff", "--name-only", "HEAD", "--", ".", ":!reports", ":!dvc.lock").splitlines()
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": changed,
        "parameters_sha256": parameters_hash(params, profile),
        "device": device(),
        "gpu": torch.cuda.is_available(),
        "versions": {"python": platform.python_version()} | versions.installed(),
    }


def main() -> None:
    params, profile = asked_for(__doc__)
    path = Path(f"reports/{profile}/provenance.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(provenance(params, profile), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
