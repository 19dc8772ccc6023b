"""docs/extending.md, followed in one clone: every example is put where the page says, and one run uses all of them."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tiny import ROOT, one_variant_params

PAGE = (ROOT / "docs/extending.md").read_text()
SECTIONS = re.findall(r"^## (?:A|An) (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
BLOCK = re.compile(r"^```(python|yaml|diff)\n(.*?)^```$", re.M | re.S)
# The places that an addition may take: files, a block of params.yaml among them.
ALLOWED = {"policy": 2, "rounding method": 2, "sampler": 2, "data set": 3, "family of networks": 3, "stage": 6}
IMPORT = re.compile(r"^(?:from [\w.]+ import .+|import .+)\n", re.M)


def place_of(kind: str, body: str) -> str:
    pattern = r"^\+\+\+ b/(\S+)" if kind == "diff" else r"^# ([\w./]+\.(?:py|yaml))"
    return re.search(pattern, body, re.M)[1]


def merged(base: dict, more: dict) -> dict:
    return {
        key: merged(base[key], more[key])
        if isinstance(base.get(key), dict) and isinstance(more.get(key), dict)
        else more.get(key, base.get(key))
        for key in base | more
    }


def add_code(file: Path, body: str) -> None:
    """A new file, or code at the end of one that is there and its imports among the others."""
    code = body.split("\n", 1)[1]
    if file.exists():
        text, imports = file.read_text(), "".join(IMPORT.findall(code))
        first = IMPORT.search(text).start()
        code = f"{text[:first]}{imports}{text[first:]}\n\n{IMPORT.sub('', code).strip()}\n"
    file.write_text(code)


def put(clone, params: dict, kind: str, body: str) -> dict:
    """Where the page says; the parameters after it."""
    place = clone.folder / place_of(kind, body)
    if kind == "diff":
        clone.call("git", "apply", "--recount", "-", input=body)
    elif kind == "python":
        add_code(place, body)
    elif place.name == "dvc.yaml":
        with place.open("a") as file:
            file.write(re.sub(r"^(?=.)", "  ", f"\n{body.split(chr(10), 1)[1]}", flags=re.M))
    else:
        (where,) = re.findall(r"^# params\.yaml: (a profile|variants)$", body, re.M)
        block = yaml.safe_load(body)
        within = {"profiles": {"tiny": block}} if where == "a profile" else {"variants": block}
        if "model" in block or "dataset" in block:  # in place of another family or data set, whose keys go
            params["profiles"]["tiny"] |= block
        return merged(params, within)
    return params


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[tuple[str, str]]]:
    return {title: BLOCK.findall(text) for title, text in SECTIONS}


def test_the_page_shows_every_kind_in_as_few_places_as_it_promises(blocks):
    assert blocks.keys() == ALLOWED.keys()
    for title, shown in blocks.items():
        places = {place_of(*block) for block in shown}
        (row,) = re.findall(rf"^\| \[(?:a|an) {title}\]\(#.+?\) \| (\d+) \|", PAGE, re.M)
        assert len(places) == int(row) <= ALLOWED[title], places


def test_one_run_uses_every_example(clone, blocks):
    params = one_variant_params()
    for shown in blocks.values():
        for kind, body in shown:
            params = put(clone, params, kind, body)
    clone.write_params(params)
    clone.call("python", "workflow/active_runs.py")
    clone.call("ruff", "check", "--fix", "src")  # the order of imports alone
    ran = clone.repro()
    assert {"ranges@tiny", "quantize@tiny-largest_half", "evaluate@tiny-int4_toward_zero"} <= ran
    settings = json.loads((clone.folder / "data/tiny/params.json").read_text())
    assert settings["dataset"] == {"name": "squares", "side": 4}
    assert settings["model"] == {"family": "plain", "width": 8}
    ranges = json.loads((clone.folder / "data/tiny/ranges.json").read_text())
    assert ranges.keys() == {"1", "100"}
    assert all(set(found) == {"first", "middle", "last"} for found in ranges.values())
    metrics = json.loads((clone.folder / "reports/tiny/metrics.json").read_text())["variants"]
    assert metrics["fp32"]["bytes"] > metrics["largest_half"]["bytes"] > metrics["int4_toward_zero"]["bytes"]
    table = json.loads((clone.folder / "data/tiny/fisher.json").read_text())
    assert set(table["layers"].values()) == {"first", "time", "middle", "last"}
    assert clone.planned() >= {"ranges@tiny"}, "Snakemake has the stage too"
