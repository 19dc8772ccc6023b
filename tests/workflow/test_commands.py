"""`make commands` prints what the engines run."""

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
VARIANTS = [
    name
    for name, one in yaml.safe_load((ROOT / "params.yaml").read_text())["variants"].items()
    if "profiles" not in one
]


def printed(profile: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "workflow/commands.py", profile], cwd=ROOT, capture_output=True, text=True)


def test_every_stage_in_order_and_once_for_every_variant():
    lines = printed("mnist").stdout.splitlines()
    once = ["params", "dataset", "features", "reference", "train", "fisher", "calibrate", "curvature"]
    each = [stage for stage in ("quantize", "sample", "evaluate") for _ in VARIANTS]
    stages = [*once, *each, "controls", "report"]
    assert [line.split()[2] for line in lines] == [f"laqfi.stages.{stage}" for stage in stages]
    assert all(" --params data/mnist/params.json " in line and "{" not in line for line in lines[1:])
    assert [line.split("--variant ")[1].split()[0] for line in lines if ".quantize " in line] == VARIANTS


def test_an_unknown_profile_is_refused():
    found = printed("none_such")
    assert found.returncode != 0
    assert "found no profile 'none_such'" in found.stderr
