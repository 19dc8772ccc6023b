"""docs/tutorial.md, followed from its first block to its last in a temporary clone whose profile `quick` is tiny."""

import re
from dataclasses import dataclass

import pytest
import yaml

from clone import Clone
from tiny import ROOT, TINY

PAGE = (ROOT / "docs/tutorial.md").read_text()
BLOCK = re.compile(r"^(?:<!-- (.+?) -->\n)?```(.*)\n((?:.*\n)*?)```$", re.M)
KEPT = ("fp32", "threshold")  # fewer variants than params.yaml holds, in its own words
RAN = "Running"  # how DVC begins the line of a stage it runs


@dataclass(frozen=True)
class Block:
    note: str
    kind: str
    body: str


BLOCKS = [Block(*found) for found in BLOCK.findall(PAGE)]
COMMANDS = [line for block in BLOCKS if block.kind == "bash" for line in block.body.splitlines()]


def quick_params() -> str:
    """params.yaml with the tiny profile as `quick` and few of its variants, for the tutorial's diffs to apply to."""
    start, variants, _ = re.split(r"^(?:variants|profiles):\n", (ROOT / "params.yaml").read_text(), flags=re.M)
    chunks = re.split(r"^(?=  \w+:)", variants, flags=re.M)
    kept = "".join(chunk for chunk in chunks if chunk.split(":")[0].strip() in KEPT)
    sample = {key: value for key, value in TINY["sample"].items() if key != "headline"}
    sample["images"] = 300  # enough for float16 to move a pixel whatever the last digits are, so that there is a PSNR
    profile = yaml.safe_dump({"profiles": {"quick": TINY | {"sample": sample}}}, sort_keys=False)
    return f"{start}variants:\n{kept}\n{profile}"


def on_a_cluster() -> set[str]:
    """The commands that `make slurm-test` runs."""
    recipe = re.search(r"-m (pip install) --quiet (.*\[slurm\]')", (ROOT / "Makefile").read_text())
    command = re.search(r"^COMMAND = \((.*)\)$", (ROOT / "tests/slurm/heads.py").read_text(), re.M)
    resumed = re.search(r'\.make\("(slurm-resume)"\)', (ROOT / "tests/slurm/test_slurm.py").read_text())
    return {" ".join(recipe.groups()), " ".join(re.findall(r'"(.*?)"', command[1])), f"make {resumed[1]}"}


def comparable(text: str) -> list[str]:
    """Lines without what differs between runs: numbers and the widths of columns."""
    lines = (re.sub(r"[-+]?\d[\d.]*(e[-+]\d+)?", "#", line) for line in text.splitlines())
    return [" ".join(line.split()) for line in lines if line.strip()]


@dataclass
class Reader:
    """Does what the page says, one block after the other."""

    clone: Clone
    output: str = ""

    def follow(self, block: Block) -> None:
        assert block.kind in ("bash", "diff", "python", "text"), f"nothing runs a block of kind {block.kind!r}"
        assert block.note in ("", "on a cluster"), block.note
        getattr(self, block.kind)(block)

    def bash(self, block: Block) -> None:
        if block.note:
            assert set(block.body.splitlines()) <= on_a_cluster(), f"`make slurm-test` runs only {on_a_cluster()}"
            return
        ran = self.clone.call("bash", "-e", "-o", "pipefail", "-c", block.body)
        self.output = ran.stdout + ran.stderr

    def diff(self, block: Block) -> None:
        patch = self.clone.folder / ".git/tutorial.diff"
        patch.write_text(block.body)
        self.clone.git("apply", str(patch))

    def python(self, block: Block) -> None:
        name = re.match(r"# (\w+\.py)\n", block.body)
        assert name, "a block of Python begins with the name of its file"
        assert f"python {name[1]}" in COMMANDS
        (self.clone.folder / name[1]).write_text(block.body)

    def text(self, block: Block) -> None:
        """Shown lines were printed, with anything where there is `…`; of the stages that ran, none is left out."""
        printed = comparable(self.output)
        shown = [re.escape(line).replace("…", ".+") for line in comparable(block.body)]
        for line in shown:
            assert any(re.fullmatch(line, other) for other in printed), f"{line}\nis not among\n{self.output}"
        if ran := [line for line in shown if line.startswith(RAN)]:
            for line in printed:
                assert not line.startswith(RAN) or any(re.fullmatch(one, line) for one in ran), f"not shown: {line}"


@pytest.fixture
def reader(tmp_path, warm) -> Reader:
    """In a clone as a user has it, with an environment of `make` that leads to the one these tests run in."""
    clone = Clone(tmp_path, warm)
    (tmp_path / "params.yaml").write_text(quick_params())
    clone.git("config", "user.name", "reader")
    clone.git("config", "user.email", "reader@localhost")
    clone.commit("a tiny profile quick")
    activate = tmp_path / ".venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"export PATH='{clone.environment['PATH']}'\n")
    (tmp_path / ".venv/.installed").touch()
    return Reader(clone)


def test_every_block_of_the_tutorial_does_what_the_page_says(reader):
    for block in BLOCKS:
        reader.follow(block)
    assert {block.kind for block in BLOCKS} == {"bash", "diff", "python", "text"}


@pytest.mark.parametrize("block", [Block("", "yaml", ""), Block("", "", ""), Block("later", "bash", "")])
def test_a_block_that_nothing_runs_is_refused(block):
    with pytest.raises(AssertionError):
        Reader(None).follow(block)


def test_every_fence_of_the_page_is_a_block():
    assert len(re.findall(r"^\s*(?:```|~~~)", PAGE, re.M)) == 2 * len(BLOCKS)


def test_every_command_in_a_sentence_is_in_a_block_too():
    prose = BLOCK.sub("", PAGE)
    spans = [span for span in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(make|dvc|snakemake|git|pip) ", span)]
    assert set(spans) <= set(COMMANDS)


def test_the_policy_of_the_tutorial_is_short_and_in_one_file():
    (patch,) = [block.body for block in BLOCKS if block.kind == "diff" and "+@policy" in block.body]
    assert re.findall(r"^\+\+\+ b/(.*)$", patch, re.M) == ["src/laqfi/quant/policies/bits.py"]
    added = re.findall(r"^\+(?!\+\+).*$", patch, re.M)
    assert len([line for line in added if line != "+"]) <= 14


def test_every_file_the_tutorial_links_to_exists():
    links = re.findall(r"\]\((?!http)(.+?)\)", PAGE)
    assert links
    assert all((ROOT / "docs" / link.partition("#")[0]).exists() for link in links)
