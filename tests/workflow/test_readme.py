"""The README's tables are those of the reports. `python tests/workflow/test_readme.py --fix` copies them over."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# <!-- profile: title --> … <!-- / --> holds the table that has this title in the profile's summary.md.
BLOCK = re.compile(r"(<!-- (\w+): (.+?) -->\n).*?(<!-- / -->)", re.S)


def table(profile: str, title: str) -> str:
    summary = (ROOT / f"reports/{profile}/summary.md").read_text()
    return re.search(rf"^{re.escape(title)}:\n\n((?:\|.*\n)+)", summary, re.M)[1]


def expected() -> str:
    return BLOCK.sub(lambda match: f"{match[1]}{table(match[2], match[3])}{match[4]}", README.read_text())


def test_the_tables_are_those_of_the_reports():
    assert len(BLOCK.findall(README.read_text())) >= 3
    assert README.read_text() == expected(), "run python tests/workflow/test_readme.py --fix"


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_metrics_diff_of_the_readme_is_that_of_two_commits(tmp_path):
    """In a clone without DVC's cache: metrics are in git."""
    ((command, shown),) = re.findall(r"```console\n\$ (.+)\n((?:.*\n)*?)```", README.read_text())
    if not (ROOT / ".git").exists():
        pytest.skip("needs the history of the repository, this is a copy of its files")
    if git("rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        pytest.skip("needs the history of the repository, this is a shallow clone: git fetch --unshallow")
    for commit in re.findall(r"\b[0-9a-f]{7}\b", command):
        assert git("merge-base", "--is-ancestor", commit, "HEAD").returncode == 0, f"{commit} is not in the history"
    git("clone", "--quiet", str(ROOT), str(tmp_path))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == shown, found.stderr


def test_every_file_the_readme_links_to_exists():
    links = re.findall(r"\]\((?!http)(.+?)\)", README.read_text())
    assert links
    assert all((ROOT / link).exists() for link in links)


class OneConvolution(nn.Module):
    """The smallest user's model the README's example fits."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, timestep):
        return self.conv(x)


def test_the_python_of_the_readme_runs():
    model = OneConvolution()
    names = {"model": model, "images": torch.rand(4, 1, 8, 8) * 2 - 1, "weight": model.conv.weight.detach()}
    exec("\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.S)), names)
    assert names["stored"].parts[".packed"].dtype == torch.uint8
    assert names["layout"].restore(names["stored"].parts).shape == names["weight"].shape


if __name__ == "__main__" and sys.argv[1:] == ["--fix"]:
    README.write_text(expected())
