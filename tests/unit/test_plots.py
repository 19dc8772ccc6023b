"""Figures show every number where it belongs; what they show is read back from matplotlib and from their SVG."""

import io
import math
from copy import deepcopy
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from laqfi.base.errors import LaqfiError
from laqfi.quality.fidelity import Median
from laqfi.records import Interval, StoredLayout
from laqfi.report import noise
from laqfi.report.differences import against_fp32, controls_against_fp32
from laqfi.report.plots import canvas, fisher, formats, labels, looks, model, quality, samples
from laqfi.report.plots.canvas import png
from laqfi.report.plots.svg import svg
from small_run import ALLOCATIONS, BY_FILE, CONTROLS, EVALUATIONS, FISHER, FLOORS, allocation

VARIANTS, JUDGED_CONTROLS = against_fp32(EVALUATIONS), controls_against_fp32(CONTROLS)
LOOKS = looks.of_variants(ALLOCATIONS)
NOISES = noise.changes(EVALUATIONS, ALLOCATIONS)
IMAGES = noise.image_changes(NOISES, {name: one.images.fidelity for name, one in VARIANTS.items()})
SVG = "{http://www.w3.org/2000/svg}"


def random_sets(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8) for name in ("real", *EVALUATIONS)}


PLOTS = {
    "loss": (model.loss_curve, "step,loss\n1,1.0\n50,0.1\n"),
    "timesteps": (fisher.fisher_by_timestep, FISHER, "empirical"),
    "tensors": (fisher.fisher_by_tensor, FISHER, "gauss_newton", 1),
    "magnitude": (fisher.magnitude, FISHER),
    "size": (quality.size_against_fid, VARIANTS, LOOKS, FLOORS),
    "fidelity": (quality.size_against_fidelity, VARIANTS, LOOKS, JUDGED_CONTROLS),
    "bits": (formats.bits_map, ALLOCATIONS),
    "controls": (quality.control_lines, JUDGED_CONTROLS),
    "controls of files": (quality.control_lines, controls_against_fp32(BY_FILE)),
    "no controls": (quality.control_lines, [row for row in JUDGED_CONTROLS if not row.judged]),
    "no controls beside": (quality.size_against_fidelity, VARIANTS, LOOKS, []),
    "over bound": (formats.over_bound, ALLOCATIONS, LOOKS),
    "no bits": (formats.bits_map, {"fp32": ALLOCATIONS["fp32"]}),
    "no bound": (formats.over_bound, {"fp32": ALLOCATIONS["fp32"]}, LOOKS),
    "predicted": (formats.predicted_against_measured, NOISES, IMAGES, LOOKS),
    "nothing predicted": (formats.predicted_against_measured, {}, {}, LOOKS),
    "noise": (formats.noise_error, EVALUATIONS, LOOKS),
    "samples": (samples.sample_rows, random_sets(0), ["uniform", "ratio_25"]),
}


def marks_of(axis) -> dict[str, list[list[float]]]:
    """Where single points are, by what their artist stands for."""
    found: dict[str, list[list[float]]] = {}
    for line in axis.lines:
        kind, key, _ = (line.get_gid() or "::::").split("::", 2)
        if kind == "mark" and line.get_marker() in {*looks.MARKS, "."}:
            found.setdefault(key, []).append(*line.get_xydata().tolist())
    return found


def bars_of(axis) -> dict[str, list[list[float]]]:
    """The ends of the error bars."""
    return {
        lines.get_gid().split("::")[1]: lines.get_segments()[0].tolist()
        for lines in axis.collections
        if (lines.get_gid() or "").startswith("mark") and hasattr(lines, "get_segments")
    }


def tree(figure: Figure, name: str = "size") -> ElementTree.Element:
    return ElementTree.fromstring(svg(figure, name, "what it shows"))


@pytest.mark.parametrize("name", PLOTS)
def test_plot_is_a_png_without_a_version_stamp_and_the_same_bytes_again(name):
    function, *arguments = PLOTS[name]
    payload = png(function(*arguments))
    with Image.open(io.BytesIO(payload)) as image:
        image.load()
        assert image.format == "PNG"
        assert "Software" not in image.info
    assert png(function(*deepcopy(arguments))) == payload


@pytest.mark.parametrize("name", PLOTS)
def test_plot_is_an_svg_with_its_description_and_the_same_bytes_again(name):
    function, *arguments = PLOTS[name]
    text = svg(function(*arguments), name, "what it shows")
    root = ElementTree.fromstring(text)
    assert (root.tag, root.get("role"), root.get("aria-label")) == (f"{SVG}svg", "img", "what it shows")
    assert not [element for element in root.iter() if element.tag in (f"{SVG}style", f"{SVG}metadata", f"{SVG}script")]
    assert svg(function(*deepcopy(arguments)), name, "what it shows") == text


def test_png_shows_what_was_drawn():
    one, other = (png(model.loss_curve(f"step,loss\n1,1.0\n50,{last}\n")) for last in (0.1, 0.2))
    assert one != other


def test_marks_of_an_svg_have_titles_and_its_legend_names_the_same_keys():
    root = tree(quality.size_against_fid(VARIANTS, LOOKS, FLOORS))
    titles: dict[str, set[str]] = {}
    for element in root.iter():
        if key := element.get("data-mark"):
            titles.setdefault(key, set()).add(element.find(f"{SVG}title").text)
    told = {name: {quality.told(name, one)} for name, one in VARIANTS.items()}
    assert {name: found - {name} for name, found in titles.items()} == told, "labels have the name alone"
    assert {element.get("data-legend") for element in root.iter()} - {None} == set(EVALUATIONS)


def test_what_a_mark_is_called_holds_its_numbers():
    assert quality.told("uniform", VARIANTS["uniform"]) == (
        "uniform: 2.0 × smaller, FID 20.77 [17.42, 24.11], FID − FP32 +0.765 [+0.461, +1.070],"
        " median PSNR 48.1 dB [48.1, 48.1]"
    )


def test_ids_of_two_figures_in_one_page_differ_and_each_reference_has_its_own():
    figure = quality.size_against_fid(VARIANTS, LOOKS, FLOORS)
    one, other = (tree(figure, name) for name in ("one", "other"))
    ids = [{element.get("id") for element in root.iter()} - {None} for root in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for root, known in zip((one, other), ids, strict=True):
        text = ElementTree.tostring(root, encoding="unicode")
        used = {part.partition(")")[0] for part in text.split("url(#")[1:]}
        used |= {part.partition('"')[0] for part in text.split('href="#')[1:]}
        assert used == known


def test_a_title_is_escaped_and_may_hold_the_separator():
    figure, axis = canvas.axes(4, 3, "t", "x", "y")
    canvas.point(axis, (1, 1), "key", '<b>&::"quoted"', looks.Look("f", "#000000", "o"))
    titles = [element.text for element in tree(figure).iter(f"{SVG}title")]
    assert set(titles) == {'<b>&::"quoted"'}


def test_one_variant_has_one_colour_and_one_mark_in_every_figure():
    figures = [
        quality.size_against_fid(VARIANTS, LOOKS, FLOORS),
        quality.size_against_fidelity(VARIANTS, LOOKS, JUDGED_CONTROLS),
        formats.over_bound(ALLOCATIONS, LOOKS),
        formats.predicted_against_measured(NOISES, IMAGES, LOOKS),
        formats.noise_error(EVALUATIONS, LOOKS),
    ]
    for name, look in LOOKS.items():
        seen = {
            (to_hex(line.get_color()), line.get_marker(), line.get_fillstyle())
            for figure in figures
            for axis in figure.axes
            for line in axis.lines
            if (line.get_gid() or "").startswith(f"mark::{name}::") and line.get_marker() in looks.MARKS
        }
        assert seen == {(look.colour.lower(), look.mark, look.fill)}


def test_families_have_a_colour_each_and_their_members_a_mark_each():
    policies = ["fp32", "uniform", "threshold", "bits", "budget", "budget", "mine", "yours", "mine"]
    found = looks.of_variants({f"v{i}": allocation(policy, 4, 0) for i, policy in enumerate(policies)})
    families = [one.family for one in found.values()]
    assert families[:6] == ["FP32", "float formats", "float formats", "one format for all", "budget", "budget"]
    assert families[6:] == ["mine", "yours", "mine"]
    assert len({one.colour for one in found.values()}) == 6
    assert len({(one.colour, one.mark, one.fill) for one in found.values()}) == len(policies)


def test_fifty_variants_of_one_family_can_be_told_apart():
    found = looks.of_variants({f"v{i}": allocation("budget", 4, 0) for i in range(50)})
    assert len({(one.mark, one.fill) for one in found.values()}) == 50


def test_importances_have_looks_of_their_own_and_fisher_that_of_the_budgets():
    found = {name: looks.of_importance(name) for name in looks.IMPORTANCES}
    assert len({(one.colour, one.mark) for one in found.values()}) == len(found)
    assert found["fisher"].colour == looks.COLOURS["budget"]
    assert [name for name, one in found.items() if one.fill == "full"] == ["fisher"]


def test_sizes_grow_to_the_right_and_sampling_runs_to_the_right_in_every_figure():
    sizes = [
        *quality.size_against_fid(VARIANTS, LOOKS, FLOORS).axes,
        *quality.size_against_fidelity(VARIANTS, LOOKS, JUDGED_CONTROLS).axes,
        *quality.control_lines(JUDGED_CONTROLS).axes,
    ]
    timesteps = [
        *fisher.fisher_by_timestep(FISHER, "empirical").axes,
        *formats.noise_error(EVALUATIONS, LOOKS).axes,
    ]
    assert {axis.xaxis_inverted() for axis in sizes} == {False}
    assert [axis.get_xlabel().split(",")[0] for axis in sizes] == ["file"] * 3 + ["memory"] * 2
    assert {axis.xaxis_inverted() for axis in timesteps} == {True}
    assert len({axis.get_xlabel() for axis in timesteps}) == 1


@pytest.mark.parametrize(("kind", "title"), [("empirical", "Empirical"), ("gauss_newton", "Gauss–Newton")])
def test_fisher_plots_draw_and_name_the_asked_kind(kind, title):
    scale = {"empirical": 1, "gauss_newton": 5}[kind]
    by_timestep = fisher.fisher_by_timestep(FISHER, kind)
    (by_tensor,) = fisher.fisher_by_tensor(FISHER, kind, 1000).axes
    assert by_timestep.get_suptitle().startswith(title)
    assert by_timestep.axes[0].lines[0].get_ydata().tolist() == [100 * scale, 10 * scale, scale]
    assert by_tensor.get_title().startswith(title)
    assert [bar.get_height() for bar in by_tensor.patches] == [scale, 2 * scale, 3 * scale]


def test_loss_curve_draws_every_step():
    (line,) = model.loss_curve("step,loss\n1,1.0\n50,0.25\n").axes[0].lines
    assert line.get_xydata().tolist() == [[1, 1], [50, 0.25]]


def test_fisher_by_timestep_draws_every_layer_on_both_scales():
    figure = fisher.fisher_by_timestep(FISHER, "empirical")
    assert [axis.get_yscale() for axis in figure.axes] == ["linear", "log"]
    for axis in figure.axes:
        assert marks_of(axis) == {
            "layer_1": [[1, 100], [50, 10], [1000, 1]],
            "layer_6": [[1, 200], [50, 20], [1000, 2]],
        }


def test_fisher_bands_stay_positive_where_the_error_exceeds_the_mean():
    figure = fisher.fisher_by_timestep(FISHER, "empirical")
    corners = next(one for one in figure.axes[1].collections if not hasattr(one, "get_segments"))
    corners = corners.get_paths()[0].vertices
    assert corners[:, 1].min() > 0
    assert corners[:, 1].max() == 110


@pytest.mark.parametrize(("timestep", "column"), [(1, 0), (50, 1), (1000, 2)])
def test_fisher_by_tensor_draws_the_asked_timestep_in_the_colours_of_the_layers(timestep, column):
    (axis,) = fisher.fisher_by_tensor(FISHER, "empirical", timestep).axes
    unit, colours = [100, 10, 1][column], looks.of_layers(["1", "6"])
    assert [(bar.get_height(), to_hex(bar.get_facecolor())) for bar in axis.patches] == [
        (unit, colours["1"]),
        (2 * unit, colours["1"]),
        (3 * unit, colours["6"]),
    ]
    names = [text.get_text() for text in axis.get_xticklabels()]
    assert names == ["1.block1.conv1", "1.resample", "6.attention.qkv"]


def test_magnitude_draws_one_bar_per_tensor():
    (axis,) = fisher.magnitude(FISHER).axes
    assert [bar.get_height() for bar in axis.patches] == [1, 2, 3]


def test_size_against_fid_draws_each_variant_with_its_interval():
    paired, absolute = quality.size_against_fid(VARIANTS, LOOKS, FLOORS).axes
    for axis in (paired, absolute):
        marks, bars = marks_of(axis), bars_of(axis)
        assert list(marks) == list(VARIANTS)
        for name, one in VARIANTS.items():
            found = one.measured.fid if axis is absolute else one.images.difference
            assert marks[name] == [[one.times_smaller, found.mean]]
            expected = [[one.times_smaller, found.low], [one.times_smaller, found.high]]
            np.testing.assert_allclose(bars[name], expected, rtol=1e-12, atol=1e-12)
    assert absolute.lines[0].get_ydata()[0] == FLOORS.fid.mean


@pytest.mark.parametrize(("floor", "scale"), [(1.5, "log"), (-0.5, "symlog")])
def test_a_floor_below_zero_is_on_the_axis_too(floor, scale):
    floors = FLOORS.model_copy(update={"fid": Interval(mean=floor, low=floor, high=floor)})
    absolute = quality.size_against_fid(VARIANTS, LOOKS, floors).axes[1]
    assert absolute.get_yscale() == scale
    assert absolute.get_ylim()[0] < floor


@pytest.mark.parametrize(("largest", "scale"), [(0.09, "linear"), (-0.11, "symlog")])
def test_differences_are_on_a_linear_scale_unless_one_is_far_from_zero(largest, scale):
    axis = Figure().subplots()
    quality.difference_axis(axis, [Interval(mean=largest, low=largest, high=largest), Interval(mean=0, low=0, high=0)])
    assert axis.get_yscale() == scale


def test_error_bars_go_down_to_the_low_end_and_up_to_the_high_one():
    assert canvas.spread(Interval(mean=1.0, low=0.5, high=3.0)) == [[0.5], [2.0]]


def test_control_lines_are_fidelity_and_difference_to_fp32_along_the_sizes():
    fidelity, paired = quality.control_lines(JUDGED_CONTROLS).axes
    for importance in ("fisher", "none", "uniform"):
        rows = [row for row in JUDGED_CONTROLS if row.importance == importance and row.judged]
        differences = [[row.ratio, row.judged.difference.mean] for row in rows]
        assert marks_of(paired)[f"control_{importance}"] == differences
        medians = [row.judged.fidelity.median.value for row in rows]
        drawn = marks_of(fidelity)[f"control_{importance}"]
        assert [x for x, _ in drawn] == [row.ratio for row in rows]
        known = [(y, median) for (_, y), median in zip(drawn, medians, strict=True) if math.isfinite(median)]
        assert [y for y, _ in known] == [median for _, median in known]


def test_control_lines_of_equal_files_are_beside_each_other_on_axes_that_say_so():
    axes = quality.control_lines(controls_against_fp32(BY_FILE)).axes
    assert [axis.get_xlabel().split(",")[0] for axis in axes] == ["memory"] * 2 + ["coded file"] * 2
    for axis, alone in zip(axes, quality.control_lines(JUDGED_CONTROLS).axes, strict=False):
        assert marks_of(axis) == marks_of(alone)
    assert marks_of(axes[3]) == {
        "control_fisher": [[8, -0.5]],
        "control_none": [[8, 0.75], [12.5, 0]],
        "control_uniform": [[8, 0]],
    }


def test_controls_stand_at_the_size_of_their_files_beside_the_variants():
    """Their files take half as many bytes again as their tensors in memory, FP32's a quarter more."""
    axis = quality.size_against_fidelity(VARIANTS, LOOKS, controls_against_fp32(BY_FILE)).axes[0]
    titles = {line.get_gid().split("::")[2].split(",")[0]: line.get_xdata()[0] for line in axis.lines if line.get_gid()}
    found = {title: x for title, x in titles.items() if title.startswith("squared error")}
    assert found == pytest.approx(
        {
            "squared error: 8 × smaller in memory": 8 * 1.25 / 1.5,
            "squared error: 12.5 × smaller in memory": 12.5 * 1.25 / 1.5,
            "squared error: 64 × smaller in memory": 64 * 1.25 / 1.5,
            "squared error: 8 × smaller as a coded file": 8 * 1.25,
            "squared error: 12.5 × smaller as a coded file": 12.5 * 1.25,
        },
        rel=1e-4,
    )


def test_images_that_are_fp32s_stand_on_a_line_above_all_others():
    axis = quality.size_against_fidelity(VARIANTS, LOOKS, JUDGED_CONTROLS).axes[0]
    marks = marks_of(axis)
    ((_, top),) = marks["fp32"]
    assert top > max(y for name, places in marks.items() if name in ("uniform", "ratio_25") for _, y in places)
    assert [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "--"] == [top]
    assert "identical to FP32's images" in [text.get_text() for text in axis.texts]
    assert marks["uniform"] == [[2.0, VARIANTS["uniform"].images.fidelity.median.value]]


def test_a_median_without_an_end_has_no_bar_and_one_up_to_equal_images_ends_at_the_line():
    figure = Figure()
    axis = figure.subplots()
    found = {"none": Median(30.0, -math.inf, math.inf), "up": Median(30.0, 20.0, math.inf)}
    drawn = quality.FidelityAxis(axis, list(found.values()))
    for x, (name, one) in enumerate(found.items()):
        drawn.point(x, one, name, name, looks.Look("f", "#000000", "o"))
    assert bars_of(axis) == {"up": [[1, 20.0], [1, drawn.top]]}


def test_bits_and_their_bound_are_joined_on_one_line():
    (axis,) = formats.over_bound(ALLOCATIONS, LOOKS).axes
    joined = [line.get_xdata().tolist() for line in axis.lines if len(line.get_xdata()) == 2]
    assert joined == [[2.5, 4], [1, 2.5]]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["uniform", "ratio_25"]
    assert [text.get_text() for text in axis.texts] == ["+1.5", "+1.5"]


def test_the_map_of_bits_has_a_row_per_matrix_and_a_column_per_packed_variant():
    def packed(bits: float):
        one = allocation("bits", bits, 1e-6)
        (tensor,) = one.tensors.values()
        bias = tensor.model_copy(update={"layout": StoredLayout(shape=[4]), "bits": 16.0})
        second = tensor.model_copy(update={"bits": bits + 1})
        return one.model_copy(update={"tensors": {"a.weight": tensor, "a.bias": bias, "b.weight": second}})

    axis = formats.bits_map({"fp32": ALLOCATIONS["fp32"], "x": packed(4.5), "y": packed(9.0)}).axes[0]
    assert axis.images[0].get_array().tolist() == [[4.5, 9], [5.5, 10]]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["x", "y"]
    assert axis.texts[1].get_gid() == "mark::y::y, a.weight: 9.00 bits per weight"


def test_predictions_are_beside_the_noise_and_beside_the_median_image():
    noises, images = formats.predicted_against_measured(NOISES, IMAGES, LOOKS).axes
    assert marks_of(noises) == {name: [[*place]] for name, place in NOISES.items()}
    assert marks_of(images) == {name: [[*place]] for name, place in IMAGES.items()}
    assert IMAGES
    diagonal = noises.lines[0]
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())


def test_the_front_holds_what_nothing_exceeds_in_both():
    points = [(2.0, 60.0), (2.0, 70.0), (4.0, 40.0), (5.0, 45.0), (8.0, 45.0), (9.0, 10.0)]
    assert quality.pareto_front(points) == [(2.0, 70.0), (8.0, 45.0), (9.0, 10.0)]


def test_size_against_fidelity_draws_the_front_and_the_controls_but_fishers_own():
    axis = quality.size_against_fidelity(VARIANTS, LOOKS, JUDGED_CONTROLS).axes[0]
    (front,) = [line for line in axis.lines if line.get_label() == "Pareto front"]
    marks = marks_of(axis)
    assert front.get_xydata().tolist() == [marks["fp32"][0], marks["uniform"][0]], "ratio_25 is larger and further"
    assert {key for key in marks if key.startswith("control")} == {"control_none", "control_uniform"}


def test_noise_error_draws_sorted_timesteps_of_all_but_identical_variants():
    (axis,) = formats.noise_error(EVALUATIONS, LOOKS).axes
    assert marks_of(axis) == {
        "uniform": [[1, 1e-6], [50, 1e-6], [1000, 4e-6]],
        "ratio_25": [[1, 2e-4], [50, 2e-4], [1000, 8e-4]],
    }


def test_every_plot_of_several_things_names_them_in_a_legend():
    figures = [
        quality.size_against_fid(VARIANTS, LOOKS, FLOORS),
        formats.noise_error(EVALUATIONS, LOOKS),
        fisher.magnitude(FISHER),
        fisher.fisher_by_timestep(FISHER, "empirical"),
        quality.control_lines(JUDGED_CONTROLS),
    ]
    named = [{text.get_text() for text in figure.legends[0].get_texts()} for figure in figures]
    layers = {"layer 1", "layer 6"}
    importances = {"Fisher", "squared error", "same bits for all"}
    assert named == [{"real against real", *EVALUATIONS}, {"uniform", "ratio_25"}, layers, layers, importances]


def test_noise_error_of_nothing_but_fp32_is_an_empty_plot():
    payload = png(formats.noise_error({"fp32": EVALUATIONS["fp32"]}, LOOKS))
    assert Image.open(io.BytesIO(payload)).format == "PNG"


def labelled(places: list[tuple[float, float]], families: list[str]) -> tuple[Figure, list]:
    figure, axis = canvas.axes(6, 4, "t", "x", "y")
    points = [
        labels.Named(f"v{i}", family, "#000000", place)
        for i, (place, family) in enumerate(zip(places, families, strict=True))
    ]
    for point in points:
        canvas.point(axis, point.place, point.name, point.name, looks.Look(point.family, "#000000", "o"))
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    labels.label_points(axis, points)
    return figure, [text for text in axis.texts if text.get_text()]


def test_names_beside_points_overlap_neither_each_other_nor_leave_the_axes():
    random = np.random.default_rng(0)
    figure, texts = labelled([*map(tuple, random.uniform(0.02, 0.98, (15, 2)))], [f"family {i}" for i in range(15)])
    boxes = [text.get_window_extent() for text in texts]
    assert {text.get_text() for text in texts} == {f"v{i}" for i in range(15)}
    assert not [(a, b) for place, a in enumerate(boxes) for b in boxes[:place] if a.overlaps(b)]
    frame = figure.axes[0].get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_a_heap_of_points_of_one_family_has_one_label_that_counts_them():
    places = [(0.3, 0.5), (0.31, 0.5), (0.32, 0.51), (0.8, 0.2), (0.315, 0.5)]
    _, texts = labelled(places, ["float formats"] * 4 + ["budget"])
    assert sorted(text.get_text() for text in texts) == ["3 × float formats", "v3", "v4"]


def judged(times: float, pooled: float):
    one = VARIANTS["uniform"]
    found = replace(one.images, fidelity=replace(one.images.fidelity, pooled=pooled))
    return replace(one, reduction=1 - 1 / times, images=found)


def test_images_are_shown_of_some_variants_along_the_front_and_of_the_one_furthest_off():
    points = {
        "a": (1.5, 70),
        "b": (2, 69),
        "c": (4, 50),
        "d": (8, 40),
        "e": (16, 30),
        "bad": (3, 10),
        "same": (1, math.inf),
    }
    variants = {name: judged(*point) for name, point in points.items()}
    assert samples.chosen(variants) == ["a", "bad", "c", "e"]
    assert samples.chosen({"same": variants["same"]}) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_sample_rows_show_images_and_below_them_their_difference_to_fp32s(channels):
    base = np.full((40, channels, 8, 8), 100, dtype=np.uint8)
    other = base.copy()
    other[:, :, 0, 0] += 30
    other[:, :, 7, 7] -= 15
    figure = samples.sample_rows({"real": base, "fp32": base, "x": other, "left out": base}, ["x"])
    real, fp32, x, difference = figure.axes
    assert [axis.get_ylabel() for axis in figure.axes] == ["real", "FP32", "x", "− FP32, × 5"]
    shown = np.asarray(difference.images[0].get_array())
    assert shown.shape == (34, 34 * samples.COLUMNS)
    assert (shown[1, 1], shown[32, 32], shown[16, 16]) == (150, -75, 0), "30 and 15 grey levels, times the factor"
    assert np.asarray(x.images[0].get_array()).reshape(34, -1, channels)[1, 1, 0] == 130
    assert {axis.images[0].get_clim() for axis in (real, fp32, x)} == {(0, 255)}
    assert difference.images[0].get_clim() == (-255, 255)


def test_a_variant_whose_images_are_fp32s_says_so():
    base = np.full((3, 1, 8, 8), 100, dtype=np.uint8)
    figure = samples.sample_rows({"real": base, "fp32": base, "x": base}, ["x"])
    assert figure.axes[-1].get_ylabel() == "− FP32: none"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "step,loss\n1\n", "step,loss\nx,0.5\n", "step,loss\n1,y\n", "\0"])
def test_what_is_no_loss_curve_is_refused(text):
    with pytest.raises(LaqfiError, match="no CSV of step and loss") as error:
        model.loss_curve(text)
    assert "\n" not in str(error.value)
