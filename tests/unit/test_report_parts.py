import csv
import io
import math
import re
from base64 import b64decode
from copy import deepcopy
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from laqfi.base.errors import LaqfiError
from laqfi.report import page, plots, tables
from laqfi.sampling.params import Described


def evaluation(mib: float, fid: float, noise: float, psnr: float | None, verdict: str) -> dict:
    return {
        "images": 40,
        "bytes": int(mib * 2**20),
        "parameters": {"float32": 1000, "float16": 500},
        "reduction": 1 - mib / 4,
        "size_band": "large",
        "psnr": psnr,
        "noise_mse": {"1000": 4 * noise, "1": noise, "50": noise},
        "fid": {"mean": fid, "low": fid - 1, "high": fid + 2, "per_seed": [fid - 0.5, fid + 0.5]},
        "fid_difference": {"mean": fid - 20, "low": fid - 20.25, "high": fid - 19.5},
        "fid_band": "good",
        "kid": 0.0123456789,
        "verdict": verdict,
    }


EVALUATIONS = {
    "fp32": evaluation(4, 20, 0, None, "identical to FP32"),
    "uniform": evaluation(2, 20.7654321, 1e-6, 43.21, "worse than FP32"),
    "ratio_25": evaluation(2.5, 19.5, 2e-4, 31.96, "better than FP32"),
}


def choice(bits: float, predicted: float) -> dict:
    layout = {"shape": [4, 4, 3, 3]}
    return {
        "bits_per_weight": {"bits": bits, "bound": bits - 1.5} if bits else None,
        "predicted_noise_mse": {"1": predicted, "100": 3 * predicted, "1000": 5 * predicted},
        "tensors": {"layers.1.block1.conv1.weight": {"bits": bits, "layout": layout}},
    }


CHOICES = {"fp32": choice(0, 0), "uniform": choice(4, 1e-6), "ratio_25": choice(2.5, 3e-4)}
CONTROLS = {
    "images": 50,
    "rows": [
        {"ratio": 8.0, "importance": "fisher", "found": EVALUATIONS["uniform"]},
        {"ratio": 8.0, "importance": "none", "found": EVALUATIONS["ratio_25"]},
        {"ratio": 8.0, "importance": "uniform", "found": None},
        {"ratio": 12.5, "importance": "fisher", "found": EVALUATIONS["ratio_25"]},
        {"ratio": 12.5, "importance": "none", "found": EVALUATIONS["fp32"]},
        {"ratio": 12.5, "importance": "uniform", "found": EVALUATIONS["uniform"]},
    ],
}
FLOOR = {"fid": 1.5, "low": 1.25, "high": 1.75, "kid": 0.001, "images": 1797}
LAYERS = {"layers.1.block1.conv1.weight": 1, "layers.1.resample.weight": 1, "layers.6.attention.qkv.weight": 6}


def statistics(scale: float) -> dict:
    return {"mean": [scale * 100, scale * 10, scale], "standard_error": [scale * 10, scale, scale * 2]}


def fisher_table(scale: float = 1.0) -> dict:
    block = {
        "layers": {"1": statistics(scale), "6": statistics(2 * scale)},
        "tensors": {name: statistics(scale * (place + 1)) for place, name in enumerate(LAYERS)},
    }
    return {
        "timesteps": [1, 50, 1000],
        "layers": LAYERS,
        "magnitude": {name: scale * (place + 1) for place, name in enumerate(LAYERS)},
        "empirical": block,
        "gauss_newton": block,
    }


def random_sets(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8) for name in ("real", *EVALUATIONS, "more")}


PLOTS = {
    "loss": (plots.loss_curve, "step,loss\n1,1.0\n50,0.1\n"),
    "timesteps": (plots.fisher_by_timestep, fisher_table(), "empirical"),
    "tensors": (plots.fisher_by_tensor, fisher_table(), "gauss_newton", 1),
    "magnitude": (plots.magnitude, fisher_table()),
    "size": (plots.size_against_fid, EVALUATIONS, FLOOR),
    "psnr": (plots.size_against_psnr, EVALUATIONS, CONTROLS),
    "bits": (plots.bits_map, CHOICES),
    "controls": (plots.controls, CONTROLS),
    "over bound": (plots.over_bound, CHOICES),
    "no bits": (plots.bits_map, {"fp32": CHOICES["fp32"]}),
    "predicted": (plots.predicted_against_measured, tables.noise_changes(EVALUATIONS, CHOICES)),
    "nothing predicted": (plots.predicted_against_measured, {}),
    "noise": (plots.noise_error, EVALUATIONS),
    "samples": (plots.sample_sheets, random_sets(0)),
}
FIGURES = {name: f"picture of {name}".encode() for name in page.CAPTIONS}


@pytest.fixture
def drawn(monkeypatch):
    """Plot functions hand over the figure in place of its PNG."""
    monkeypatch.setattr(plots, "render", lambda figure: figure)


def bar_groups(axis) -> dict[str, list[tuple[float, float, str]]]:
    """Place, height and colour of the bars of each label of the legend."""
    return {
        group.get_label(): [(bar.get_center()[0], bar.get_height(), to_hex(bar.get_facecolor())) for bar in group]
        for group in axis.containers
        if hasattr(group, "patches")
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


def test_metrics_hold_every_number_of_a_variant():
    assert tables.metrics(EVALUATIONS, CHOICES, FLOOR, CONTROLS)["variants"]["uniform"] == {
        "bytes": 2 * 2**20,
        "reduction_percent": 50.0,
        "fid": 20.7654,
        "fid_low": 19.7654,
        "fid_high": 22.7654,
        "fid_difference": 0.765432,
        "fid_difference_low": 0.515432,
        "fid_difference_high": 1.26543,
        "kid": 0.0123457,
        "noise_mse": 2e-6,
        "psnr": 43.21,
        "bits_per_weight": 4.0,
        "bits_over_bound": 1.5,
    }


def test_controls_are_one_row_per_budget_and_one_column_per_importance():
    assert tables.controls(CONTROLS) == [
        {
            "smaller by": "8 ×",
            "fisher": "43.2 dB, +0.77",
            "squared error": "32.0 dB, -0.50",
            "same bits for all": "does not fit",
        },
        {
            "smaller by": "12.5 ×",
            "fisher": "32.0 dB, -0.50",
            "squared error": "identical, +0.00",
            "same bits for all": "43.2 dB, +0.77",
        },
    ]


def test_metrics_hold_the_controls_that_differ_from_fp32():
    found = tables.metrics(EVALUATIONS, CHOICES, FLOOR, CONTROLS)["controls"]
    assert found["fisher"]["ratio_8"] == {"psnr": 43.21, "fid_difference": 0.765432}
    assert list(found["none"]) == ["ratio_8"]
    assert list(found["uniform"]) == ["ratio_12.5"]


def test_noise_changes_pair_the_bins_that_were_measured():
    assert tables.noise_changes(EVALUATIONS, CHOICES) == {
        "uniform": pytest.approx((3e-6, (1e-6 + 1e-6 + 4e-6) / 3)),
        "ratio_25": pytest.approx((9e-4, (2e-4 + 2e-4 + 8e-4) / 3)),
    }


def test_spearman_is_the_rank_correlation_and_nan_for_two_points():
    assert tables.spearman({"a": (1, 2), "b": (10, 4), "c": (100, 300)}) == pytest.approx(1)
    assert tables.spearman({"a": (1, 2), "b": (10, 4), "c": (100, 3)}) == pytest.approx(0.5)
    assert math.isnan(tables.spearman({"a": (1, 2), "b": (10, 4)}))


def test_metrics_hold_the_floor_and_every_variant_in_order():
    metrics = tables.metrics(EVALUATIONS, CHOICES, FLOOR, CONTROLS)
    assert metrics["floor"] == {"fid": 1.5, "low": 1.25, "high": 1.75, "kid": 0.001}
    assert list(metrics["variants"]) == ["fp32", "uniform", "ratio_25"]


def test_metrics_of_identical_images_have_no_psnr():
    assert "psnr" not in tables.metrics(EVALUATIONS, CHOICES, FLOOR, CONTROLS)["variants"]["fp32"]


@pytest.mark.parametrize(
    ("value", "expected"), [(123456789.0, 123457000.0), (-0.00012345678, -0.000123457), (0.0, 0.0), (1.5, 1.5)]
)
def test_rounded_keeps_six_significant_digits(value, expected):
    assert tables.rounded(value) == expected


def test_summary_is_one_readable_row_per_variant():
    rows = tables.summary(EVALUATIONS)
    assert [row["variant"] for row in rows] == ["fp32", "uniform", "ratio_25"]
    assert rows[1] == {
        "variant": "uniform",
        "size": "2.000 MiB",
        "smaller by": "50.0 % (2.0 ×)",
        "size band": "large",
        "FID [95 % CI]": "20.77 [19.77, 22.77]",
        "FID − FP32 [95 % CI]": "+0.765 [+0.515, +1.265]",
        "FID band": "good",
        "KID": "0.012",
        "PSNR": "43.2 dB",
        "noise MSE": "2.0e-06",
        "verdict": "worse than FP32",
    }


def test_summary_shows_the_sign_of_a_difference_and_says_identical():
    rows = tables.summary(EVALUATIONS)
    assert rows[2]["FID − FP32 [95 % CI]"] == "-0.500 [-0.750, +0.000]"
    assert rows[0]["PSNR"] == "identical"


def test_csv_reads_back_as_the_same_rows():
    rows = [*tables.summary(EVALUATIONS), dict.fromkeys(tables.summary(EVALUATIONS)[0], 'a, "b"\nc')]
    text = tables.as_csv(rows)
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == rows
    assert "\r" not in text


def test_markdown_is_a_header_a_rule_and_one_line_per_row():
    text = tables.as_markdown([{"variant": "fp32", "size": "4 MiB"}, {"variant": "uniform", "size": "2 MiB"}])
    assert text == "| variant | size |\n| --- | --- |\n| fp32 | 4 MiB |\n| uniform | 2 MiB |\n"


def test_markdown_leaves_the_least_read_columns_to_the_csv():
    rows = tables.summary(EVALUATIONS)
    header, _, *body = [line.strip("| ").split(" | ") for line in tables.as_markdown(rows).splitlines()]
    assert set(rows[0]) - set(header) == {"KID", "noise MSE"}
    assert [dict(zip(header, cells, strict=True)) for cells in body] == [
        {column: row[column] for column in header} for row in rows
    ]


def facts_of(sampler: str = "ddim", eta: float = 0.0, accuracy: float | None = 0.98765) -> dict[str, str]:
    sample = Described(sampler=sampler, steps=20, eta=eta, seeds=[0, 1, 2], images=1200)
    info = {
        "dataset": "digits",
        "images": {"train": 1437, "test": 360},
        "network": "classifier",
        "accuracy": accuracy,
        "sha256": "0123456789abcdef" * 4,
    }
    return tables.facts(sample, info, FLOOR, EVALUATIONS["fp32"])


def test_facts_tell_what_a_reader_must_know():
    assert facts_of() == {
        "Data": "digits: 1,437 training and 360 held-out images",
        "Model": "U-Net of 1,500 parameters, 4.00 MiB in FP32",
        "Sampling": "DDIM, 20 steps, eta 0; 3 seeds of 1,200 images, the same noise for every variant",
        "Features": "classifier, 98.77 % right on held-out images; SHA-256 0123456789abcdef…",
        "Real-vs-real floor": "FID 1.50 [1.25, 1.75], KID 0.001 (1,797 held-out images)",
        "FP32": "FID 20.00 [19.00, 22.00], mean over the seeds",
    }


def test_facts_leave_out_what_does_not_apply():
    assert facts_of(sampler="ddpm")["Sampling"].startswith("DDPM, 20 steps; 3 seeds")
    assert facts_of(accuracy=None)["Features"] == "classifier; SHA-256 0123456789abcdef…"
    assert ", eta 0.5;" in facts_of(eta=0.5)["Sampling"]


@pytest.mark.parametrize("name", PLOTS)
def test_plot_is_a_png_without_a_version_stamp_and_the_same_bytes_again(name):
    function, *arguments = PLOTS[name]
    payload = function(*arguments)
    with Image.open(io.BytesIO(payload)) as image:
        image.load()
        assert image.format == "PNG"
        assert "Software" not in image.info
    assert function(*deepcopy(arguments)) == payload


def test_png_shows_what_was_drawn():
    assert plots.loss_curve("step,loss\n1,1.0\n50,0.1\n") != plots.loss_curve("step,loss\n1,1.0\n50,0.2\n")


@pytest.mark.parametrize(("kind", "title"), [("empirical", "Empirical"), ("gauss_newton", "Gauss–Newton")])
def test_fisher_plots_draw_and_name_the_asked_kind(drawn, kind, title):
    table = fisher_table() | {"gauss_newton": fisher_table(5.0)["gauss_newton"]}
    scale = {"empirical": 1, "gauss_newton": 5}[kind]
    by_timestep = plots.fisher_by_timestep(table, kind)
    (by_tensor,) = plots.fisher_by_tensor(table, kind, 1000).axes
    assert by_timestep.get_suptitle().startswith(title)
    assert by_timestep.axes[0].lines[0].get_ydata().tolist() == [100 * scale, 10 * scale, scale]
    assert by_tensor.get_title().startswith(title)
    assert [height for group in bar_groups(by_tensor).values() for _, height, _ in group] == [
        scale,
        2 * scale,
        3 * scale,
    ]


def test_loss_curve_draws_every_step(drawn):
    (line,) = plots.loss_curve("step,loss\n1,1.0\n50,0.25\n").axes[0].lines
    assert line.get_xydata().tolist() == [[1, 1], [50, 0.25]]


def test_fisher_by_timestep_draws_every_layer_on_both_scales(drawn):
    figure = plots.fisher_by_timestep(fisher_table(), "empirical")
    assert [axis.get_yscale() for axis in figure.axes] == ["linear", "log"]
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == ["layer 1", "layer 6"]
        assert axis.lines[1].get_xydata().tolist() == [[1, 200], [50, 20], [1000, 2]]
        assert axis.xaxis_inverted()


def test_fisher_bands_stay_positive_where_the_error_exceeds_the_mean(drawn):
    figure = plots.fisher_by_timestep(fisher_table(), "empirical")
    corners = figure.axes[1].collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() > 0
    assert corners[:, 1].max() == 110


@pytest.mark.parametrize(("timestep", "column"), [(1, 0), (50, 1), (1000, 2)])
def test_fisher_by_tensor_draws_the_asked_timestep_in_the_colours_of_the_layers(drawn, timestep, column):
    (axis,) = plots.fisher_by_tensor(fisher_table(), "empirical", timestep).axes
    unit = [100, 10, 1][column]
    assert bar_groups(axis) == {
        "layer 1": [(0, unit, plots.COLOURS[0].lower()), (1, 2 * unit, plots.COLOURS[0].lower())],
        "layer 6": [(2, 3 * unit, plots.COLOURS[1].lower())],
    }
    names = [text.get_text() for text in axis.get_xticklabels()]
    assert names == ["1.block1.conv1", "1.resample", "6.attention.qkv"]


def test_magnitude_draws_one_bar_per_tensor(drawn):
    (axis,) = plots.magnitude(fisher_table()).axes
    assert [height for group in bar_groups(axis).values() for _, height, _ in group] == [1, 2, 3]


def test_size_against_fid_draws_each_variant_with_its_interval(drawn):
    figure = plots.size_against_fid(EVALUATIONS, FLOOR)
    for axis, key in zip(figure.axes, ("fid", "fid_difference"), strict=True):
        assert [container.get_label() for container in axis.containers] == list(EVALUATIONS)
        for container, e in zip(axis.containers, EVALUATIONS.values(), strict=True):
            point, _, (bar,) = container
            size = e["bytes"] / 2**20
            assert point.get_xydata().tolist() == [[size, e[key]["mean"]]]
            expected = [[size, e[key]["low"]], [size, e[key]["high"]]]
            np.testing.assert_allclose(bar.get_segments()[0], expected, rtol=1e-12, atol=1e-12)


def test_size_against_fid_tells_every_variant_apart(drawn):
    many = {f"v{number}": EVALUATIONS["uniform"] for number in range(11)} | {"fp32": EVALUATIONS["fp32"]}
    figure = plots.size_against_fid(many, FLOOR)
    points = [container[0] for container in figure.axes[0].containers]
    assert len({(point.get_color(), point.get_marker()) for point in points}) == 12


def test_the_front_holds_what_nothing_exceeds_in_both():
    points = [(2.0, 60.0), (2.0, 70.0), (4.0, 40.0), (5.0, 45.0), (8.0, 45.0), (9.0, 10.0)]
    assert plots.pareto_front(points) == [(2.0, 70.0), (8.0, 45.0), (9.0, 10.0)]


def test_size_against_psnr_draws_variants_controls_and_the_front(drawn):
    axis = plots.size_against_psnr(EVALUATIONS, CONTROLS).axes[0]
    lines = {line.get_label(): [*zip(*line.get_data(), strict=True)] for line in axis.lines}
    assert lines["uniform"] == [(pytest.approx(2.0), 43.21)]
    assert lines["Pareto front"] == [(pytest.approx(2.0), 43.21)], "ratio_25 is larger and further from FP32"
    assert lines["control: squared error"][0] == (8.0, 31.96)
    assert "fp32" not in lines


def test_noise_error_draws_sorted_timesteps_of_all_but_identical_variants(drawn):
    (axis,) = plots.noise_error(EVALUATIONS).axes
    assert {line.get_label(): line.get_xydata().tolist() for line in axis.lines} == {
        "uniform": [[1, 1e-6], [50, 1e-6], [1000, 4e-6]],
        "ratio_25": [[1, 2e-4], [50, 2e-4], [1000, 8e-4]],
    }


def test_every_plot_of_several_things_names_them_in_a_legend(drawn):
    table = fisher_table()
    size, *axes = [
        plots.size_against_fid(EVALUATIONS, FLOOR),
        plots.noise_error(EVALUATIONS).axes[0],
        plots.magnitude(table).axes[0],
        *plots.fisher_by_timestep(table, "empirical").axes,
    ]
    named = [
        {text.get_text() for text in owner.get_texts()}
        for owner in [*size.legends, *(axis.get_legend() for axis in axes)]
    ]
    layers = {"layer 1", "layer 6"}
    assert named == [{"real against real", *EVALUATIONS}, {"uniform", "ratio_25"}, layers, layers, layers]


def test_noise_error_of_nothing_but_fp32_is_an_empty_plot():
    payload = plots.noise_error({"fp32": EVALUATIONS["fp32"]})
    assert Image.open(io.BytesIO(payload)).format == "PNG"


@pytest.mark.parametrize(("channels", "count", "size"), [(1, 40, (136, 272)), (3, 16, (68, 272)), (1, 3, (34, 102))])
def test_sample_sheets_show_the_first_images_of_each_set_under_its_name(drawn, channels, count, size):
    stack = np.random.default_rng(0).integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)
    figure = plots.sample_sheets({"real": stack, "fp32": 255 - stack})
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["real", "fp32"]
    real, negative = (np.asarray(axis.images[0].get_array()).reshape(*size, channels) for axis in shown)
    for place in range(min(count, 8)):
        pixels = slice(34 * place + 1, 34 * place + 33, 4)
        assert np.array_equal(real[1:33:4, pixels], stack[place].transpose(1, 2, 0))
        assert np.array_equal(negative[1:33:4, pixels], 255 - stack[place].transpose(1, 2, 0))


def test_sample_sheets_do_not_stretch_the_grey_levels(drawn):
    figure = plots.sample_sheets({"real": np.full((8, 1, 8, 8), 100, dtype=np.uint8)})
    assert figure.axes[0].images[0].get_clim() == (0, 255)


SHOWN = {"Results": tables.summary(EVALUATIONS), "Nothing": [], "Controls": tables.controls(CONTROLS)}


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


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "step,loss\n1\n", "step,loss\nx,0.5\n", "step,loss\n1,y\n", "\0"])
def test_what_is_no_loss_curve_is_refused(text):
    with pytest.raises(LaqfiError, match="no CSV of step and loss") as error:
        plots.loss_curve(text)
    assert "\n" not in str(error.value)


def test_a_timestep_beyond_all_predictions_is_named():
    choices = {"x": {"predicted_noise_mse": {"1": 0.5, "50": 0.5}}}
    with pytest.raises(LaqfiError, match="x: its choices predict up to timestep 50, not 100"):
        tables.noise_changes({"x": {"noise_mse": {"100": 0.5}}}, choices)
