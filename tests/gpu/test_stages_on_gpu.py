"""All stages of the tiny profile, twice on one GPU, in processes of their own."""

import subprocess
import sys
from pathlib import Path

from clone import Clone
from commands import commands
from stages import load
from tiny import ROOT, tiny_params

SETTINGS = {"order": ["fp32", "threshold", "budget", "ratio"], "recoveries": {}, "export": []}


def outputs(folder: Path) -> dict[str, str]:
    clone, params = Clone(folder), tiny_params()
    params["profiles"]["tiny"]["controls"]["precision"] = "tf32"
    clone.write_params(params)
    clone.call("python", "workflow/versions.py")
    given = "\n".join(commands(load(ROOT / "dvc.yaml"), "tiny", SETTINGS))
    subprocess.run(
        [sys.executable, ROOT / "tests/portable/run_stages.py"],
        cwd=clone.folder,
        env=clone.environment,
        input=given,
        text=True,
        check=True,
    )
    return clone.outputs()


def test_every_stage_gives_the_same_bytes_twice(tmp_path):
    (first, second) = (tmp_path / "first", tmp_path / "second")
    found = [outputs(folder) for folder in (first, second) if not folder.mkdir()]
    assert {name for name, digest in found[0].items() if found[1][name] != digest} == set()
