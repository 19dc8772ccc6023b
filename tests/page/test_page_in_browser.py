"""The report in a real browser: no error, no request, every figure drawn, and its script does what it says."""

from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, MISSING, look, picture
from PIL import Image

from laqfi.report.sections import CAPTIONS
from small_page import ALIKE, RUN, page
from tiny import ROOT

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

WIDE, PHONE = 1400, 390
OPEN = "document.querySelectorAll('details').forEach((one) => (one.open = true));"
SIZES = (
    OPEN
    + """
const all = (selector) => [...document.querySelectorAll(selector)];
const box = (one) => { const r = one.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; };
return {
  inner: innerWidth,
  page: document.scrollingElement.scrollWidth,
  height: document.scrollingElement.scrollHeight,
  cut: all("table")
    .filter((one) => one.parentElement.scrollWidth > one.parentElement.clientWidth)
    .map((one) => one.closest("details").querySelector("summary").textContent),
  figures: Object.fromEntries(all("figure").map((one) => [one.id, box(one.querySelector("svg"))])),
  smallest: Math.min(...all("p, dd, td, th, small").map((one) => parseFloat(getComputedStyle(one).fontSize))),
};
"""
)
DEEDS = (
    OPEN
    + """
const still = document.createElement("style");
still.textContent = "svg * { transition: none !important }";
document.head.append(still);

const table = document.querySelector("#cost table");
const named = (cell) => (cell.querySelector("abbr") ?? cell.querySelector("button") ?? cell).textContent;
const rows = () => [...table.rows].slice(1).filter((row) => row.checkVisibility()).map((row) => named(row.cells[0]));
const head = (name) => [...table.tHead.rows[0].cells].find((one) => one.textContent === name).querySelector("button");
const fold = table.querySelector(".summary button");
const found = { folded: rows() };
fold.click();
Object.assign(found, { opened: rows(), expanded: fold.getAttribute("aria-expanded") });
head("in memory").click();
Object.assign(found, { up: rows(), sorted: head("in memory").parentElement.getAttribute("aria-sort") });
head("in memory").click();
found.down = rows();
fold.click();
found.closed = rows();

const words = document.querySelector("#cost .filter");
const filter = (text) => { words.value = text; words.dispatchEvent(new Event("input")); return rows(); };
Object.assign(found, { filtered: filter("RATIO_25"), within: filter("mean_std"), none: filter("no such row") });
found.all = filter("");

const figure = document.querySelector("#size_fid");
const of = (kind) => [...figure.querySelectorAll(`[data-${kind}]`)];
const shown = () => Object.fromEntries(of("mark").map((one) => [one.dataset.mark, getComputedStyle(one).opacity]));
const entry = (name) => of("legend").find((one) => one.dataset.legend === name);
const click = (name) => entry(name).dispatchEvent(new MouseEvent("click", { bubbles: true }));
found.before = shown();
click("uniform");
Object.assign(found, { dimmed: shown(), pressed: entry("uniform").getAttribute("aria-pressed") });
click("fp32");
found.two = shown();
click("fp32");
click("uniform");
found.after = shown();
entry("ratio_25").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
found.byKey = shown();
const mark = figure.querySelector('[data-mark="uniform"] use');
mark.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
found.said = figure.querySelector("output").textContent;
return found;
"""
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return look(page(), SIZES, tmp_path_factory.mktemp("wide"), WIDE)


@pytest.fixture(scope="module")
def deeds(tmp_path_factory):
    return look(page(), DEEDS, tmp_path_factory.mktemp("deeds"), WIDE)


def test_it_opens_without_an_error_or_a_request(wide, deeds):
    assert wide.found
    assert deeds.found
    assert wide.console == deeds.console == []
    assert wide.found["requests"] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("</main>", '<img src="http://example.org/x.png"></main>'),
        ("</main>", '<link rel="stylesheet" href="https://example.org/x.css"></main>'),
        ("</main>", "<script>alert(1)</script></main>"),
        ('"use strict";', "noSuchThing();"),
    ],
    ids=["image", "style", "script", "error"],
)
def test_a_request_or_an_error_would_be_seen(tmp_path, old, new):
    assert look(page().replace(old, new, 1), "return {};", tmp_path, WIDE).console


def test_a_request_would_be_seen_even_if_the_page_allowed_it(tmp_path):
    start, policy, end = page().partition("default-src 'none'; ")
    allowing = (start + end).replace("</main>", '<img src="http://example.org/x.png"></main>', 1)
    assert policy
    seen = look(allowing.replace("img-src data:;", ""), "return {};", tmp_path, WIDE)
    assert seen.found["requests"] == ["http://example.org/x.png"]


def test_no_table_is_cut_at_1400_pixels(wide):
    assert wide.found["inner"] == WIDE
    assert wide.found["page"] <= WIDE
    assert wide.found["cut"] == []


def test_a_table_that_is_too_wide_would_be_seen(tmp_path):
    broad = page().replace("<abbr ", '<i style="display: block; width: 90rem"></i><abbr ', 1)
    assert look(broad, SIZES, tmp_path, WIDE).found["cut"] == ["Table: Every variant"]


def test_on_a_phone_only_what_scrolls_by_itself_is_wider_than_the_screen(tmp_path):
    seen = look(page(), SIZES, tmp_path, PHONE)
    assert seen.console == seen.found["requests"] == []
    assert seen.found["inner"] == PHONE
    assert seen.found["page"] <= PHONE
    assert seen.found["smallest"] > 11


def test_every_figure_is_drawn(wide, tmp_path):
    assert sorted(wide.found["figures"]) == sorted(CAPTIONS)
    shot = picture(page().replace("<details>", "<details open>"), tmp_path, WIDE, wide.found["height"])
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    for name, sides in wide.found["figures"].items():
        left, top, width, height = sides
        assert width > 400, name
        assert left + width <= WIDE, name
        x, y = (
            slice(int(start / 2) + 5, int((start + side) / 2) - 5) for start, side in ((left, width), (top, height))
        )
        inside = pixels[y, x]
        assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 20, f"{name} is blank"
        assert 0.005 < (inside < 200).any(axis=-1).mean() < 0.9, name


def test_rows_that_say_the_same_are_one_that_opens(deeds):
    summary = f"{len(ALIKE)} variants in float formats"
    assert deeds.found["folded"] == ["fp32", "uniform", "ratio_25", summary]
    assert deeds.found["opened"] == [*deeds.found["folded"], *ALIKE]
    assert deeds.found["expanded"] == "true"


def test_a_click_on_a_heading_sorts_and_another_one_turns_the_order(deeds):
    sizes = {name: one.measured.bytes for name, one in RUN.variants.items()}
    own = sorted(set(sizes) - set(ALIKE), key=sizes.get)
    alike = sorted(ALIKE, key=sizes.get)
    summary = f"{len(ALIKE)} variants in float formats"
    assert deeds.found["sorted"] == "ascending"
    assert deeds.found["up"] == [own[0], summary, *alike, *own[1:]]
    assert deeds.found["down"] == [*own[:0:-1], summary, *alike[::-1], own[0]]
    assert deeds.found["closed"] == [*own[:0:-1], summary, own[0]]


def test_the_filter_shows_rows_with_its_words_and_opens_what_holds_one(deeds):
    summary = f"{len(ALIKE)} variants in float formats"
    assert deeds.found["filtered"] == ["ratio_25"]
    assert deeds.found["within"] == [summary, "mean_std"]
    assert deeds.found["none"] == []
    assert deeds.found["all"] == deeds.found["closed"]


def test_a_click_in_the_legend_dims_the_others_and_another_one_ends_it(deeds):
    names = set(RUN.variants)
    assert deeds.found["before"] == deeds.found["after"] == dict.fromkeys(names, "1")
    assert deeds.found["dimmed"] == dict.fromkeys(names, "0.12") | {"uniform": "1"}
    assert deeds.found["pressed"] == "true"
    assert deeds.found["two"] == dict.fromkeys(names, "0.12") | {"uniform": "1", "fp32": "1"}
    assert deeds.found["byKey"] == dict.fromkeys(names, "0.12") | {"ratio_25": "1"}


def test_pointing_at_a_mark_names_the_variant_and_its_numbers(deeds):
    assert deeds.found["said"].startswith("uniform: 2.0 × smaller, FID 20.77 [17.42, 24.11], FID − FP32 +0.765")


REAL = sorted(ROOT.glob("reports/*/report.html"))


@pytest.mark.parametrize("file", REAL, ids=[file.parent.name for file in REAL])
@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_the_report_of_a_run_that_is_here_opens_as_well(file: Path, width, tmp_path):
    seen = look(file.read_text(encoding="utf-8"), SIZES, tmp_path, width)
    assert seen.console == seen.found["requests"] == []
    assert seen.found["page"] <= width
    assert width == PHONE or seen.found["cut"] == [], "is it of other code than this? `make repro` makes it anew"
