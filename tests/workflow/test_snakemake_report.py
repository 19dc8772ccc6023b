"""`snakemake --report`: one file with all that dvc.yaml describes, each under its description."""

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import pytest

import stages
from tiny import ROOT, VARIANTS, tiny_params


@pytest.fixture(scope="module")
def page(by_snakemake, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    by_snakemake.call("snakemake", "--report", str(path))
    return path.read_text()


@pytest.fixture(scope="module")
def results(page) -> dict[str, dict]:
    """What the page shows, by path."""
    return json.loads(re.search(r"^\s*var results = (\{.*\});$", page, re.M)[1])


def described() -> dict[str, str]:
    """The description in dvc.yaml of every output that has one, by path."""
    choices = {"profile": ["tiny"], "variant": list(VARIANTS)}
    found = stages.load(ROOT / "dvc.yaml").values()
    return {path: text for one in found for out, text in one.descriptions.items() for path in stages.fill(out, choices)}


def test_everything_described_is_in_it_under_its_description(results):
    captions = {path: re.sub(r"<.*?>", "", one["caption"]).strip() for path, one in results.items()}
    assert {path: html.unescape(text) for path, text in captions.items()} == described()


def test_all_figures_the_summary_and_the_metrics_are_described():
    outs = [out.replace("{profile}", "tiny") for out in stages.load(ROOT / "dvc.yaml")["report"].outs]
    assert set(outs) - set(described()) == {"reports/tiny/report.html"}


def test_it_holds_the_bytes_that_the_run_made(by_snakemake, results):
    made = by_snakemake.outputs()
    for path, one in results.items():
        payload = base64.b64decode(re.fullmatch(r"data:.*?;base64,(.*)", one["data_uri"])[1])
        assert hashlib.sha256(payload).hexdigest() == made[path], path


def test_labels_tell_the_rows_of_its_tables_apart(page, results):
    categories = json.loads(re.search(r"^\s*var categories = (\{.*\});$", page, re.M)[1])
    assert {name: set(kinds) for name, kinds in categories.items()} == {"tiny": {"Figures", "Numbers", "Variants"}}
    for paths in categories["tiny"].values():
        labels = [results[path]["labels"] for path in paths]
        assert {one["profile"] for one in labels} == {"tiny"}
        assert len({json.dumps(one) for one in labels}) == len(labels)
        assert len({tuple(one) for one in labels}) == 1, "the columns"


class Outside(HTMLParser):
    """The attributes through which a tag loads something that is not in the page."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        loads = {"src", "srcset", "href", "data", "poster"} if tag != "a" else set()
        self.found += [value for name, value in attrs if name in loads and not (value or "").startswith(("data:", "#"))]


def test_the_page_opens_without_anything_from_outside(page):
    assert Outside('<link href="https://a.b/c.css"><script src="d.js"></script>').found == ["https://a.b/c.css", "d.js"]
    assert Outside(page).found == []
    assert not re.search(r"@import\s|url\(\s*['\"]?https?:", page)


def test_there_is_none_of_results_that_are_not_current(by_snakemake, tmp_path):
    params = tiny_params()
    params["variants"]["ratio"]["p"] = 0.9
    by_snakemake.write_params(params)
    refusal = by_snakemake.call("snakemake", "--report", str(tmp_path / "report.html"), check=False)
    by_snakemake.write_params(tiny_params())
    assert refusal.returncode != 0
    line = "there is no report of what is not current: `snakemake` runs evaluate, quantize, report, sample first"
    assert line in refusal.stderr
    assert not list(tmp_path.iterdir())
