"""README.md and the pages beside it: what they quote of a run is the run's, what they tell people to type works.

`python tests/workflow/test_readme.py --fix` copies the blocks over.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

ROOT = Path(__file__).parents[2]
README, RUNNING, METHOD = ROOT / "README.md", ROOT / "docs/running.md", ROOT / "docs/method.md"
QUOTING = [README, ROOT / "docs/results.md"]
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# <!-- profile: title --> … <!-- / --> holds what has this title in the profile's summary.md; with
# `Findings, first 3` as a title that many of its lines; with `provenance` what made the results.
BLOCK = re.compile(r"(<!-- (\w+): (.+?) -->\n).*?(<!-- / -->)", re.S)
LIST = re.compile(r"(.+), first (\d+)")


def quoted(profile: str, title: str) -> str:
    if title == "provenance":
        return provenance(profile)
    summary = (ROOT / f"reports/{profile}/summary.md").read_text()
    name, first = LIST.fullmatch(title).groups() if LIST.fullmatch(title) else (title, None)
    parts = re.split(r"^(\S.*):\n\n", summary, flags=re.M)
    blocks = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert name in blocks, f"reports/{profile}/summary.md has no {name!r}, allowed is one of {list(blocks)}"
    lines = blocks[name].strip().splitlines()[: int(first) if first else None]
    return "\n".join(line if line.startswith("|") else wrapped(line) for line in lines) + "\n"


def wrapped(line: str) -> str:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def provenance(profile: str) -> str:
    """What made the results, and whether they are those that dvc.lock records."""
    found = json.loads((ROOT / f"reports/{profile}/provenance.json").read_text())
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    changed = f" with changes in {', '.join(found['changed'])}" if found["changed"] else ""
    made = f"Made by commit `{found['commit'][:12]}`{changed}, on {found['device']}, with {versions}."
    if recorded(f"reports/{profile}/summary.md", f"report@{profile}"):
        return wrapped(f"{made} `dvc.lock` records them: `make verify PROFILE={profile}` makes them again.") + "\n"
    return wrapped(f"{made} `dvc.lock` records other results or none: the code has changed since.") + "\n"


def recorded(path: str, stage: str) -> bool:
    outs = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"].get(stage, {}).get("outs", [])
    return hashlib.md5((ROOT / path).read_bytes()).hexdigest() in {out["md5"] for out in outs if out["path"] == path}


def expected(page: Path) -> str:
    return BLOCK.sub(lambda match: f"{match[1]}{quoted(match[2], match[3])}{match[4]}", page.read_text())


def test_a_block_may_quote_a_table_with_its_rule_and_the_beginning_of_a_list(tmp_path, monkeypatch):
    (tmp_path / "reports/some").mkdir(parents=True)
    text = f"Findings:\n\n- One {'word ' * 30}.\n- Two.\n- Three.\n\nA table:\n\n| a |\n| --- |\n| 1 |\n\nIts rule.\n"
    (tmp_path / "reports/some/summary.md").write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    first, second, *others = quoted("some", "Findings, first 2").splitlines()
    assert (first[:7], second[:7], others) == ("- One w", "  word ", ["- Two."])
    assert quoted("some", "A table") == "| a |\n| --- |\n| 1 |\n\nIts rule.\n"
    with pytest.raises(AssertionError, match=r"has no 'B', allowed is one of \['Findings', 'A table'\]"):
        quoted("some", "B")


@pytest.mark.parametrize("page", QUOTING, ids=lambda page: page.name)
def test_what_is_quoted_is_what_the_reports_say(page):
    assert page.read_text() == expected(page), "run python tests/workflow/test_readme.py --fix"


def test_the_results_quote_all_tables_of_mnist_small_and_say_what_made_them():
    blocks = BLOCK.findall((ROOT / "docs/results.md").read_text())
    titles = {title for _, profile, title, _ in blocks if profile == "mnist_small"}
    summary = (ROOT / "reports/mnist_small/summary.md").read_text()
    assert titles == {*re.findall(r"^(\S.*):\n\n", summary, re.M), "provenance"}


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 110


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!http)(.+?)\)", page.read_text()):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


def headings(page: Path) -> set[str]:
    """As GitHub names them: small letters, without punctuation, spaces as hyphens."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_is_named_exists(page):
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)) | {"help"}
    assert set(re.findall(r"(?:`|^|&& )make ([a-z-]+)", page.read_text(), re.M)) <= targets


def test_every_command_for_pip_names_an_extra_that_exists():
    commands = {found for page in PAGES for found in re.findall(r"pip install .*?'\.\[(\w+)\]'", page.read_text())}
    assert commands
    assert commands <= set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_metrics_diff_that_is_shown_is_that_of_two_commits(tmp_path):
    """In a clone without DVC's cache: metrics are in git."""
    ((command, shown),) = re.findall(r"```console\n\$ (.+)\n((?:.*\n)*?)```", RUNNING.read_text())
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


class Small(nn.Module):
    """A user's model that the examples fit."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, x, timestep):
        return self.last(self.first(x).relu())


def test_the_python_of_the_readme_and_of_the_method_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = Small()
    weights = dict(model.named_parameters())
    names = {"model": model, "images": torch.rand(4, 1, 8, 8) * 2 - 1}
    run_python(README, names)
    assert 0 < Path("smaller.safetensors").stat().st_size < 4 * sum(p.numel() for p in weights.values())
    names |= {"weight": weights["first.weight"].detach(), "fisher": names["measured"].fisher["first.weight"]}
    run_python(METHOD, names)
    assert names["stored"].parts[".packed"].dtype == torch.uint8
    assert names["layout"].restore(names["stored"].parts).shape == names["weight"].shape


def run_python(page: Path, names: dict) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    assert blocks
    exec("\n".join(blocks), names)


if __name__ == "__main__" and sys.argv[1:] == ["--fix"]:
    for page in QUOTING:
        page.write_text(expected(page))
