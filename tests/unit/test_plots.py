"""Figures show every number where it belongs; what they show is read back from matplotlib."""

import io
from copy import deepcopy

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from laqfi.base.errors import LaqfiError
from laqfi.records import Interval, StoredLayout
from laqfi.report import noise
from laqfi.report.differences import against_fp32, controls_against_fp32
from laqfi.report.plots import fisher, formats, model, quality
from laqfi.report.plots.canvas import COLOURS, png
from small_run import ALLOCATIONS, CONTROLS, EVALUATIONS, FISHER, FLOORS, allocation

VARIANTS, JUDGED_CONTROLS = against_fp32(EVALUATIONS), controls_against_fp32(CONTROLS)


def random_sets(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8) for name in ("real", *EVALUATIONS, "more")}


PLOTS = {
    "loss": (model.loss_curve, "step,loss\n1,1.0\n50,0.1\n"),
    "timesteps": (fisher.fisher_by_timestep, FISHER, "empirical"),
    "tensors": (fisher.fisher_by_tensor, FISHER, "gauss_newton", 1),
    "magnitude": (fisher.magnitude, FISHER),
    "size": (quality.size_against_fid, VARIANTS, FLOORS),
    "psnr": (quality.size_against_psnr, VARIANTS, JUDGED_CONTROLS),
    "bits": (formats.bits_map, ALLOCATIONS),
    "controls": (quality.control_lines, JUDGED_CONTROLS),
    "over bound": (formats.over_bound, ALLOCATIONS),
    "no bits": (formats.bits_map, {"fp32": ALLOCATIONS["fp32"]}),
    "predicted": (formats.predicted_against_measured, noise.changes(EVALUATIONS, ALLOCATIONS)),
    "nothing predicted": (formats.predicted_against_measured, {}),
    "noise": (formats.noise_error, EVALUATIONS),
    "samples": (model.sample_sheets, random_sets(0)),
}


def bar_groups(axis) -> dict[str, list[tuple[float, float, str]]]:
    """Place, height and colour of the bars of each label of the legend."""
    return {
        group.get_label(): [(bar.get_center()[0], bar.get_height(), to_hex(bar.get_facecolor())) for bar in group]
        for group in axis.containers
        if hasattr(group, "patches")
    }


@pytest.mark.parametrize("name", PLOTS)
def test_plot_is_a_png_without_a_version_stamp_and_the_same_bytes_again(name):
    function, *arguments = PLOTS[name]
    payload = png(function(*arguments))
    with Image.open(io.BytesIO(payload)) as image:
        image.load()
        assert image.format == "PNG"
        assert "Software" not in image.info
    assert png(function(*deepcopy(arguments))) == payload


def test_png_shows_what_was_drawn():
    one, other = (png(model.loss_curve(f"step,loss\n1,1.0\n50,{last}\n")) for last in (0.1, 0.2))
    assert one != other


@pytest.mark.parametrize(("kind", "title"), [("empirical", "Empirical"), ("gauss_newton", "Gauss–Newton")])
def test_fisher_plots_draw_and_name_the_asked_kind(kind, title):
    scale = {"empirical": 1, "gauss_newton": 5}[kind]
    by_timestep = fisher.fisher_by_timestep(FISHER, kind)
    (by_tensor,) = fisher.fisher_by_tensor(FISHER, kind, 1000).axes
    assert by_timestep.get_suptitle().startswith(title)
    assert by_timestep.axes[0].lines[0].get_ydata().tolist() == [100 * scale, 10 * scale, scale]
    assert by_tensor.get_title().startswith(title)
    assert [height for group in bar_groups(by_tensor).values() for _, height, _ in group] == [
        scale,
        2 * scale,
        3 * scale,
    ]


def test_loss_curve_draws_every_step():
    (line,) = model.loss_curve("step,loss\n1,1.0\n50,0.25\n").axes[0].lines
    assert line.get_xydata().tolist() == [[1, 1], [50, 0.25]]


def test_fisher_by_timestep_draws_every_layer_on_both_scales():
    figure = fisher.fisher_by_timestep(FISHER, "empirical")
    assert [axis.get_yscale() for axis in figure.axes] == ["linear", "log"]
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == ["layer 1", "layer 6"]
        assert axis.lines[1].get_xydata().tolist() == [[1, 200], [50, 20], [1000, 2]]
        assert axis.xaxis_inverted()


def test_fisher_bands_stay_positive_where_the_error_exceeds_the_mean():
    figure = fisher.fisher_by_timestep(FISHER, "empirical")
    corners = figure.axes[1].collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() > 0
    assert corners[:, 1].max() == 110


@pytest.mark.parametrize(("timestep", "column"), [(1, 0), (50, 1), (1000, 2)])
def test_fisher_by_tensor_draws_the_asked_timestep_in_the_colours_of_the_layers(timestep, column):
    (axis,) = fisher.fisher_by_tensor(FISHER, "empirical", timestep).axes
    unit = [100, 10, 1][column]
    assert bar_groups(axis) == {
        "layer 1": [(0, unit, COLOURS[0].lower()), (1, 2 * unit, COLOURS[0].lower())],
        "layer 6": [(2, 3 * unit, COLOURS[1].lower())],
    }
    names = [text.get_text() for text in axis.get_xticklabels()]
    assert names == ["1.block1.conv1", "1.resample", "6.attention.qkv"]


def test_magnitude_draws_one_bar_per_tensor():
    (axis,) = fisher.magnitude(FISHER).axes
    assert [height for group in bar_groups(axis).values() for _, height, _ in group] == [1, 2, 3]


def test_size_against_fid_draws_each_variant_with_its_interval():
    absolute, paired = quality.size_against_fid(VARIANTS, FLOORS).axes
    for axis in (absolute, paired):
        assert [container.get_label() for container in axis.containers] == list(VARIANTS)
        for container, one in zip(axis.containers, VARIANTS.values(), strict=True):
            found = one.measured.fid if axis is absolute else one.images.difference
            point, _, (bar,) = container
            size = one.measured.bytes / 2**20
            assert point.get_xydata().tolist() == [[size, found.mean]]
            expected = [[size, found.low], [size, found.high]]
            np.testing.assert_allclose(bar.get_segments()[0], expected, rtol=1e-12, atol=1e-12)
    assert absolute.lines[0].get_ydata()[0] == FLOORS.fid.mean


def test_error_bars_go_down_to_the_low_end_and_up_to_the_high_one():
    assert quality.spread(Interval(mean=1.0, low=0.5, high=3.0)) == [[0.5], [2.0]]


def test_control_lines_are_psnr_and_difference_to_fp32_along_the_sizes():
    fidelity, paired = quality.control_lines(JUDGED_CONTROLS).axes
    assert {line.get_label(): line.get_xydata().tolist() for line in fidelity.lines} == {
        "fisher": [[8, 43.21], [12.5, 31.96]],
        "squared error": [[8, 31.96], [64, 43.21]],
        "same bits for all": [[12.5, 43.21]],
    }
    for container, name in zip(paired.containers, ("fisher", "none", "uniform"), strict=True):
        rows = [row for row in JUDGED_CONTROLS if row.importance == name and row.judged]
        point, _, (bar,) = container
        assert point.get_xydata().tolist() == [[row.ratio, row.judged.difference.mean] for row in rows]
        for segment, row in zip(bar.get_segments(), rows, strict=True):
            expected = [[row.ratio, row.judged.difference.low], [row.ratio, row.judged.difference.high]]
            np.testing.assert_allclose(segment, expected, rtol=1e-12, atol=1e-12)


def test_bits_and_their_bound_stand_beside_each_other():
    (axis,) = formats.over_bound(ALLOCATIONS).axes
    groups = bar_groups(axis)
    spent, bound = groups["spent, scales included"], groups["bound at the same predicted error"]
    assert [(round(place, 9), height) for place, height, _ in spent] == [(-0.2, 4), (0.8, 2.5)]
    assert [(round(place, 9), height) for place, height, _ in bound] == [(0.2, 2.5), (1.2, 1)]
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


def test_predicted_and_measured_changes_are_points_beside_the_diagonal():
    points = noise.changes(EVALUATIONS, ALLOCATIONS)
    *marks, diagonal = formats.predicted_against_measured(points).axes[0].lines
    assert {mark.get_label(): mark.get_xydata().tolist() for mark in marks} == {n: [[*p]] for n, p in points.items()}
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())


def test_size_against_fid_tells_every_variant_apart():
    many = {f"v{number}": VARIANTS["uniform"] for number in range(11)} | {"fp32": VARIANTS["fp32"]}
    figure = quality.size_against_fid(many, FLOORS)
    points = [container[0] for container in figure.axes[0].containers]
    assert len({(point.get_color(), point.get_marker()) for point in points}) == 12


def test_the_front_holds_what_nothing_exceeds_in_both():
    points = [(2.0, 60.0), (2.0, 70.0), (4.0, 40.0), (5.0, 45.0), (8.0, 45.0), (9.0, 10.0)]
    assert quality.pareto_front(points) == [(2.0, 70.0), (8.0, 45.0), (9.0, 10.0)]


def test_size_against_psnr_draws_variants_controls_and_the_front():
    axis = quality.size_against_psnr(VARIANTS, JUDGED_CONTROLS).axes[0]
    lines = {line.get_label(): [*zip(*line.get_data(), strict=True)] for line in axis.lines}
    assert lines["uniform"] == [(pytest.approx(2.0), 43.21)]
    assert lines["Pareto front"] == [(pytest.approx(2.0), 43.21)], "ratio_25 is larger and further from FP32"
    assert lines["control: squared error"][0] == (8.0, 31.96)
    assert "fp32" not in lines


def test_noise_error_draws_sorted_timesteps_of_all_but_identical_variants():
    (axis,) = formats.noise_error(EVALUATIONS).axes
    assert {line.get_label(): line.get_xydata().tolist() for line in axis.lines} == {
        "uniform": [[1, 1e-6], [50, 1e-6], [1000, 4e-6]],
        "ratio_25": [[1, 2e-4], [50, 2e-4], [1000, 8e-4]],
    }


def test_every_plot_of_several_things_names_them_in_a_legend():
    size, *axes = [
        quality.size_against_fid(VARIANTS, FLOORS),
        formats.noise_error(EVALUATIONS).axes[0],
        fisher.magnitude(FISHER).axes[0],
        *fisher.fisher_by_timestep(FISHER, "empirical").axes,
    ]
    named = [
        {text.get_text() for text in owner.get_texts()}
        for owner in [*size.legends, *(axis.get_legend() for axis in axes)]
    ]
    layers = {"layer 1", "layer 6"}
    assert named == [{"real against real", *EVALUATIONS}, {"uniform", "ratio_25"}, layers, layers, layers]


def test_noise_error_of_nothing_but_fp32_is_an_empty_plot():
    payload = png(formats.noise_error({"fp32": EVALUATIONS["fp32"]}))
    assert Image.open(io.BytesIO(payload)).format == "PNG"


@pytest.mark.parametrize(("channels", "count", "size"), [(1, 40, (136, 272)), (3, 16, (68, 272)), (1, 3, (34, 102))])
def test_sample_sheets_show_the_first_images_of_each_set_under_its_name(channels, count, size):
    stack = np.random.default_rng(0).integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)
    figure = model.sample_sheets({"real": stack, "fp32": 255 - stack})
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["real", "fp32"]
    real, negative = (np.asarray(axis.images[0].get_array()).reshape(*size, channels) for axis in shown)
    for place in range(min(count, 8)):
        pixels = slice(34 * place + 1, 34 * place + 33, 4)
        assert np.array_equal(real[1:33:4, pixels], stack[place].transpose(1, 2, 0))
        assert np.array_equal(negative[1:33:4, pixels], 255 - stack[place].transpose(1, 2, 0))


def test_sample_sheets_do_not_stretch_the_grey_levels():
    figure = model.sample_sheets({"real": np.full((8, 1, 8, 8), 100, dtype=np.uint8)})
    assert figure.axes[0].images[0].get_clim() == (0, 255)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "step,loss\n1\n", "step,loss\nx,0.5\n", "step,loss\n1,y\n", "\0"])
def test_what_is_no_loss_curve_is_refused(text):
    with pytest.raises(LaqfiError, match="no CSV of step and loss") as error:
        model.loss_curve(text)
    assert "\n" not in str(error.value)
