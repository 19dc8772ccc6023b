"""The page holds what it is given, escaped, one question a section, and refers to nothing outside."""

import hashlib
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from laqfi.records import Interval
from laqfi.report import alike, facts, naming, page, sections, tables
from laqfi.report.alike import Alike
from laqfi.report.findings import Finding
from laqfi.report.tables import Table
from laqfi.sampling.params import Described, Headline
from small_page import ALIKE, NETWORK, RUN
from small_run import ALLOCATIONS, EVALUATIONS, FLOORS, allocation

NONE_ALIKE = Alike((), "", "")
NAMES = naming.names(RUN.allocations)
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><title>a mark</title></svg>'
SHOWN = page.Shown(tables.variant_table(RUN.variants), NONE_ALIKE)


class Reader(HTMLParser):
    """Text by tag, and every attribute of the page."""

    def __init__(self, text: str):
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.texts.setdefault(tag, []).append("")
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data


def section(**more) -> page.Section:
    return page.Section("cost", "What did it cost?", **more)


def read(*parts: page.Section, found=None) -> Reader:
    return Reader(page.render("laqfi: tiny", found or {}, parts, NAMES))


def test_facts_tell_what_was_run_and_where_its_provenance_stands():
    assert facts.facts(NETWORK, EVALUATIONS["fp32"], "tiny") == {
        "Profile": "`tiny` of params.yaml",
        "Data": "digits: 1,437 training and 360 held-out images",
        "Model": "network of 1,500 parameters, 4.00 MiB in FP32",
        "Provenance": "`provenance.json` beside this page (`make provenance PROFILE=tiny`)",
    }


def measured_by(accuracy=(0.98765, 0.97), floors=FLOORS, **more) -> dict[str, str]:
    sample = Described(**{"sampler": "ddim", "steps": 20, "eta": 0.0, "seeds": [0, 1, 2], "images": 1200} | more)
    network = NETWORK.model_copy(update={"accuracy": list(accuracy)})
    return facts.measuring(sample, network, floors, EVALUATIONS["fp32"])


def test_facts_tell_how_images_were_drawn_and_judged():
    found = measured_by()
    assert found["Sampling"] == "DDIM, 20 steps, eta 0; 3 seeds of 1,200 images, the same noise for every variant"
    right = "98.77 % and 97.00 % right on held-out images"
    assert found["Features"] == f"classifier, {right}; SHA-256 0123456789abcdef…"
    assert found["FP32"] == (
        "FID 20.00 [16.96, 23.04], mean over the seeds, for 40 images;"
        " extrapolated to infinitely many images 20.00 [16.96, 23.04]"
    )


def test_facts_leave_out_what_does_not_apply():
    assert measured_by(sampler="ddpm")["Sampling"].startswith("DDPM, 20 steps; 3 seeds")
    assert measured_by(accuracy=())["Features"] == "classifier; SHA-256 0123456789abcdef…"
    assert ", eta 0.5;" in measured_by(eta=0.5)["Sampling"]


def test_facts_name_what_is_drawn_again():
    again = Headline(sampler="ddpm", steps=9, images=5000, precision="tf32", variants=["fp32"])
    found = measured_by(headline={"large": again})["Drawn again as large"]
    assert found == "DDPM, 9 steps, products in TF32; 5,000 images per seed"


def test_a_floor_below_zero_gets_a_word_of_explanation_and_another_does_not():
    above = FLOORS.model_copy(update={"kid": Interval(mean=0.002, low=0.001, high=0.003)})
    below = FLOORS.model_copy(update={"fid": Interval(mean=0.5, low=-0.1, high=1.1)})
    assert "read it as zero" not in measured_by(floors=above)["Real-vs-real floor"]
    assert facts.BELOW_ZERO["KID"] in measured_by()["Real-vs-real floor"], "its KID reaches down to -0.001"
    assert facts.BELOW_ZERO["FID"] in measured_by(floors=below)["Real-vs-real floor"]


def test_a_negative_kid_gets_a_word_of_explanation_and_others_do_not():
    one = RUN.variants["fp32"]
    low = one.measured.kid.model_copy(update={"low": -0.001})
    negative = replace(one, measured=one.measured.model_copy(update={"kid": low}))
    assert facts.BELOW_ZERO["KID"] in facts.notes({"fp32": negative})["measures"]
    assert facts.BELOW_ZERO["KID"] not in facts.notes(RUN.variants)["measures"]


def test_page_shows_facts_questions_and_findings_in_their_order():
    finding = Finding("`budget_8` costs nothing.", "The interval holds zero.")
    other = page.Section("limit", "How far from the limit?")
    reader = read(section(findings=[finding], facts={"FP32": "FID 1"}), other, found={"Data": "digits"})
    assert reader.texts["h2"] == ["What did it cost?", "How far from the limit?"]
    assert list(zip(reader.texts["dt"], reader.texts["dd"], strict=True)) == [("Data", "digits"), ("FP32", "FID 1")]
    assert reader.texts["p"] == ["budget_8 costs nothing.", "The interval holds zero."]
    assert reader.texts["code"] == ["budget_8"]
    links = [value for tag, name, value in reader.attributes if (tag, name) == ("a", "href")]
    assert links == ["#top", "#cost", "#limit"]


def test_page_shows_the_rows_as_they_are():
    rows = SHOWN.table.rows
    reader = read(section(tables=[SHOWN]))
    cells = reader.texts["td"]
    assert cells == [cell for row in rows for column, cell in row.items() if column != "variant"]
    assert reader.texts["abbr"] == [row["variant"] for row in rows]
    assert reader.texts["th"][: len(rows[0])] == list(rows[0])


def test_variants_are_explained_where_they_stand():
    reader = read(section(tables=[SHOWN]))
    titles = [value for tag, name, value in reader.attributes if (tag, name) == ("abbr", "title")]
    assert titles[0] == NAMES.whole["fp32"] == "Control: nothing is quantized"


def test_figures_stand_inside_with_their_caption_the_first_one_open():
    pictures = [page.Picture(name, f"title of {name}", f"caption of {name}", SVG) for name in ("one", "two")]
    reader = read(section(figures=pictures))
    assert reader.texts["figcaption"] == ["caption of one", "caption of two"]
    assert reader.texts["summary"] == ["Figure: title of two"]
    assert len(reader.texts["svg"]) == 2


def test_page_runs_its_own_script_alone_and_loads_nothing():
    text = page.render("laqfi: tiny", {}, [section(tables=[SHOWN])], NAMES)
    reader = Reader(text)
    (policy,) = [
        value for tag, name, value in reader.attributes if (tag, name) == ("meta", "content") and "src" in value
    ]
    (script,) = reader.texts["script"]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?:|url\(|@import", text.replace("http://www.w3.org/2000/svg", ""))
    assert not [value for _, name, value in reader.attributes if name in ("src", "srcset", "data", "action")]


def test_page_escapes_what_it_is_given():
    evil = '"><script>alert("1")</script> & <img src=x>`'
    table = page.Shown(Table(evil, [{"variant": evil, evil: evil}], evil), NONE_ALIKE, evil)
    names = naming.Names({evil: evil}, {evil: evil}, {evil: evil})
    picture = page.Picture("one", evil, evil, SVG)
    text = page.render(
        evil, {evil: evil}, [page.Section(evil, evil, [Finding(evil, evil)], [picture], [table], {evil: evil})], names
    )
    assert text.count("<script") == 1, "its own"
    assert "<img" not in text
    reader = Reader(text)
    assert reader.texts["title"][0] == evil
    assert reader.texts["td"] == [evil]
    assert reader.texts["abbr"] == [evil]


def test_page_is_the_same_for_the_same_input():
    once, again = (page.render("laqfi", {}, [section(tables=[SHOWN])], NAMES) for _ in range(2))
    assert once == again


def test_every_figure_and_table_answers_a_question():
    figures = [name for question in sections.QUESTIONS.values() for name in question.figures]
    assert sorted(figures) == sorted(sections.CAPTIONS)
    found = sections.sections({}, dict.fromkeys(sections.CAPTIONS, SVG), every_table(), NONE_ALIKE, {}, {"FP32": "FID"})
    assert [one.key for one in found] == ["cost", "fisher", "recipes", "layers", "limit", "prediction", "making"]
    assert {shown.table.title for one in found for shown in one.tables} == {one.title for one in every_table().values()}
    assert [one.facts for one in found if one.facts] == [{"FP32": "FID"}]


def every_table() -> dict[str, Table]:
    names = [name for question in sections.QUESTIONS.values() for name in question.tables]
    return {name: Table(f"title of {name}", [{"variant": "fp32", "KID [95 % CI]": "1"}]) for name in names}


def test_a_question_that_nothing_answers_is_not_asked():
    tables = every_table() | {"recipes": Table("recipes", [])}
    found = sections.sections({}, dict.fromkeys(sections.CAPTIONS, SVG), tables, NONE_ALIKE, {}, {})
    assert "recipes" not in [one.key for one in found]


def test_a_table_without_rows_is_left_out_and_a_missing_figure_is_refused():
    empty = every_table() | {"headlines": Table("Drawn again", [])}
    figures = dict.fromkeys(sections.CAPTIONS, SVG)
    found = sections.sections({}, figures, empty, NONE_ALIKE, {}, {})
    assert "Drawn again" not in {shown.table.title for shown in found[0].tables}
    with pytest.raises(KeyError, match="loss"):
        sections.sections({}, {k: v for k, v in figures.items() if k != "loss"}, empty, NONE_ALIKE, {}, {})


def test_wide_tables_are_two_that_hold_all_columns_together():
    whole = {
        "variants": tables.variant_table(RUN.variants),
        "headlines": tables.headline_table(RUN.variants, FLOORS),
        "layers": Table("layers", [{"layer": "1"}]),
    }
    found = sections.split(whole)
    for name, further, shared in (
        ("variants", "measures", {"variant"}),
        ("headlines", "headline_measures", {"drawn", "variant"}),
    ):
        first, second = found[name].rows, found[further].rows
        assert [{**one, **other} for one, other in zip(first, second, strict=True)] == whole[name].rows
        assert first[0].keys() & second[0].keys() == shared
    assert found["layers"] == whole["layers"]


def test_variants_in_float_formats_that_differ_by_less_than_a_hundredth_are_alike():
    found = alike.alike(RUN.variants, RUN.allocations)
    assert found.variants == tuple(ALIKE)
    assert "± 0.03, 1%" in found.rule, "FP32's interval is 20.00 [16.96, 23.04]"
    assert found.kind == "variants in float formats"


@pytest.mark.parametrize("change", [{"bits_per_weight": {"bits": 4, "bound": 3}}, {"tensors": {}}])
def test_integer_formats_and_fp32_are_never_alike(change):
    one = allocation("uniform", None, 1e-8).model_dump() | change
    others = RUN.allocations | {"threshold": type(ALLOCATIONS["fp32"]).model_validate(one)}
    assert alike.alike(RUN.variants, others) == NONE_ALIKE, "two are left, which is too few to fold"


def test_rows_that_are_alike_stand_together_under_one_row_for_all():
    shown = page.Shown(tables.variant_table(RUN.variants), alike.alike(RUN.variants, RUN.allocations))
    blocks = shown.blocks
    assert [[row["variant"] for row in block.rows] for block in blocks] == [
        ["fp32"],
        ["uniform"],
        ["ratio_25"],
        [*ALIKE],
    ]
    assert [block.summary is None for block in blocks] == [True, True, True, False]
    assert blocks[-1].summary["variant"] == "3 variants in float formats"
    assert blocks[-1].summary["in memory"] == "2.125 MiB … 2.500 MiB"
    assert shown.alike.rule in shown.words
    alone = page.Shown(shown.table, NONE_ALIKE)
    assert all(block.summary is None for block in alone.blocks)
    assert len(alone.words) == 1


def test_rows_by_another_thing_than_the_variant_are_not_folded():
    rows = [{"drawn": "large", "variant": name} for name in ALIKE]
    shown = page.Shown(Table("Drawn again", rows), alike.alike(RUN.variants, RUN.allocations))
    assert [block.summary for block in shown.blocks] == [None] * 3


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["same", "same"], "same"),
        (["worse", "none", "none"], "none (2), worse (1)"),
        (["1.5 MiB", "1.135 MiB"], "1.135 MiB … 1.5 MiB"),
        (["-0.003 [-0.005, +0.001]", "+0.002 [-0.001, +0.004]"], "-0.003 … +0.002 [-0.005, +0.004]"),
        (["[-0.1, +0.2]", "[-0.3, +0.1]"], "[-0.3, +0.2]"),
        (["11.68 [10.1, 12.2]", "11.68 [10.0, 12.3]"], "11.68 [10.0, 12.3]"),
        (["49.1 % (2.0 ×)", "22.9 % (1.3 ×)"], "22.9 % … 49.1 %"),
        (["69.0 dB [68, 70]", "identical"], "69.0 dB (1), identical (1)"),
        (["1.0e-08", "3.0e-09"], "3.0e-09 … 1.0e-08"),
    ],
)
def test_cells_of_several_rows_as_one(cells, expected):
    assert alike.span(cells) == expected


def test_names_say_what_tells_a_variant_from_others_of_its_policy():
    def budget(ratio: float, rounding: str):
        options = {"target": {"bytes": None, "ratio": ratio, "mean_bits": None}, "formats": ["int2", "int8"]}
        return allocation("budget", 4, 0).model_copy(update={"options": options | {"rounding": rounding, "seed": 0}})

    found = naming.names({"a": budget(6.2, "gptq"), "b": budget(8.0, "nearest"), "c": allocation("gone", 4, 0)})
    assert found.brief == {"a": "budget; target ratio 6.2, rounding gptq", "b": "budget; target ratio 8.0", "c": "gone"}
    assert found.policies["budget"].endswith("; formats int2 int8")
    assert found.policies["gone"] == "gone"
    assert found.whole["b"].endswith("; target ratio 8.0, formats int2 int8")
    assert found.whole["b"].startswith("Formats under a size limit that minimise the predicted change")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (True, "yes"),
        (0.25, "0.25"),
        ([1, 2], "1 2"),
        ({"ratio": 8, "bytes": None}, "ratio 8"),
        ([{"layers": [1, 2], "threshold": "mean"}, {"layers": [3]}], "layers 1 2 threshold mean | layers 3"),
    ],
)
def test_options_in_words(value, expected):
    assert naming.words(value) == expected


def test_few_images_have_no_fid_at_infinity():
    """Left-out groups that are far above the whole: nearly all of the FID is what few images add."""
    base = EVALUATIONS["fp32"]
    fid = base.fid.model_copy(update={"left_out": [[seed + 30.0, seed + 30.2] for seed in base.fid.per_seed]})
    assert facts.at_infinity(base.model_copy(update={"fid": fid}), NETWORK) == (
        "; too few for an FID at infinitely many images"
    )
