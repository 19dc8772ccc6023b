"""The page holds what it is given, escaped, and refers to nothing outside."""

import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest

from laqfi.records import FeatureNetwork, ImageCounts
from laqfi.report import page, tables
from laqfi.report.differences import against_fp32
from laqfi.report.facts import facts
from laqfi.sampling.params import Described, Headline
from small_run import CONTROLS, EVALUATIONS, FLOORS

FIGURES = {name: f"picture of {name}".encode() for name in page.CAPTIONS}
SHOWN = {
    "Results": tables.variant_rows(against_fp32(EVALUATIONS)),
    "Nothing": [],
    "Controls": tables.control_rows(CONTROLS),
}


class Reader(HTMLParser):
    """Text of every cell and definition, and every attribute of the page."""

    def __init__(self, text: str):
        super().__init__()
        self.cells: dict[str, list[str]] = {tag: [] for tag in ("h2", "dt", "dd", "th", "td", "figcaption")}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tags: set[str] = set()
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open = tag
        self.tags.add(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag in self.cells:
            self.cells[tag].append("")

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        if self.open in self.cells:
            self.cells[self.open][-1] += data


def facts_of(sampler: str = "ddim", eta: float = 0.0, accuracy: float | None = 0.98765, **more) -> dict[str, str]:
    sample = Described(sampler=sampler, steps=20, eta=eta, seeds=[0, 1, 2], images=1200, **more)
    network = FeatureNetwork(
        dataset="digits",
        network="classifier",
        images=ImageCounts(train=1437, test=360),
        accuracy=accuracy,
        sha256="0123456789abcdef" * 4,
    )
    return facts(sample, network, FLOORS, EVALUATIONS["fp32"])


def test_facts_tell_what_a_reader_must_know():
    assert facts_of() == {
        "Data": "digits: 1,437 training and 360 held-out images",
        "Model": "network of 1,500 parameters, 4.00 MiB in FP32",
        "Sampling": "DDIM, 20 steps, eta 0; 3 seeds of 1,200 images, the same noise for every variant",
        "Features": "classifier, 98.77 % right on held-out images; SHA-256 0123456789abcdef…",
        "Real-vs-real floor": "FID 1.50 [1.25, 1.75], KID 0.001 (1,797 held-out images)",
        "FP32": "FID 20.00 [16.96, 23.04], mean over the seeds",
    }


def test_facts_leave_out_what_does_not_apply():
    assert facts_of(sampler="ddpm")["Sampling"].startswith("DDPM, 20 steps; 3 seeds")
    assert facts_of(accuracy=None)["Features"] == "classifier; SHA-256 0123456789abcdef…"
    assert ", eta 0.5;" in facts_of(eta=0.5)["Sampling"]


def test_facts_name_what_is_drawn_again():
    again = Headline(sampler="ddpm", steps=9, images=5000, precision="tf32", variants=["fp32"])
    assert (
        facts_of(headline={"large": again})["Drawn again as large"]
        == "DDPM, 9 steps, products in TF32; 5,000 images per seed"
    )


def test_page_shows_facts_and_rows_as_they_are():
    rows, _, controls = SHOWN.values()
    seen = Reader(page.render(facts_of(), SHOWN, FIGURES)).cells
    assert dict(zip(seen["dt"], seen["dd"], strict=True)) == facts_of()
    assert seen["h2"] == ["Results", "Controls", "Figures"]
    assert seen["th"] == [*rows[0], *controls[0]]
    assert seen["td"] == [cell for row in [*rows, *controls] for cell in row.values()]
    assert seen["figcaption"] == list(page.CAPTIONS.values())


def test_page_holds_every_picture_and_refers_to_nothing_outside():
    text = page.render(facts_of(), SHOWN, FIGURES)
    reader = Reader(text)
    sources = [value for _, name, value in reader.attributes if name in ("src", "href", "srcset", "data", "action")]
    prefix = "data:image/png;base64,"
    assert all(source.startswith(prefix) for source in sources)
    assert [b64decode(source.removeprefix(prefix)) for source in sources] == list(FIGURES.values())
    assert not re.search(r"https?:|url\(|@import", text)
    assert not reader.tags & {"script", "link", "iframe", "object", "embed"}


def test_page_escapes_what_it_is_given():
    evil = '<script>alert("1")</script> & <img src=x>'
    text = page.render({evil: evil}, {evil: [{evil: evil}]}, FIGURES)
    reader = Reader(text)
    assert "<script" not in text
    assert [reader.cells[tag] for tag in ("dt", "dd", "th", "td")] == [[evil]] * 4
    assert reader.cells["h2"] == [evil, "Figures"]
    assert sum(tag == "img" and name == "src" for tag, name, _ in reader.attributes) == len(FIGURES)


def test_page_without_one_of_its_pictures_is_refused():
    with pytest.raises(KeyError, match="loss"):
        page.render(facts_of(), SHOWN, {k: v for k, v in FIGURES.items() if k != "loss"})


def test_page_is_the_same_for_the_same_input():
    once, again = (page.render(facts_of(), SHOWN, dict(FIGURES)) for _ in range(2))
    assert once == again
