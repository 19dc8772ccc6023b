import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from torch import nn

import aside
import bench
import evidence
import memory
import report
from laqfi.models.unet import Unet
from laqfi.sampling.drawing import draw_images
from laqfi.sampling.params import Drawing, Precision
from laqfi.storage.model_file import read_model

ROOT = Path(__file__).parents[2]
SCALE = bench.Scale(Unet(family="unet", base_channels=4, attention=[2, 6], heads=2, dropout=0.1), side=8)
WORK = bench.Work(batch=4, alone=3, steps=2, repeats=3, compared=4)
CPU = torch.device("cpu")
ours = pytest.mark.parametrize("name", [name for name, case in bench.CASES.items() if not case.quanto])
packed = pytest.mark.parametrize("name", ["fp16", "int8", "int4"])
needs_quanto = pytest.mark.skipif(importlib.util.find_spec("optimum") is None, reason="needs the extra `bench`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    bench.write_files(folder, SCALE)
    return folder


def job(folder: Path, case: bench.Case) -> bench.Job:
    return bench.Job(case, SCALE, WORK, folder, "cpu")


def found(folder: Path, name: str) -> dict:
    return bench.measure(job(folder, bench.CASES[name]))


@ours
def test_every_case_is_measured(folder, name):
    row = found(folder, name)
    assert len(row["seconds"]) == len(row["fp32_seconds"]) == WORK.repeats
    assert row["batch"] == (1 if bench.CASES[name].alone else WORK.batch)
    assert row["seconds_per_image_step"] == sorted(row["seconds"])[1] > 0
    assert row["times_fp32"] == sorted(a / b for a, b in zip(row["seconds"], row["fp32_seconds"], strict=True))[1]
    assert row["peak_bytes"] >= row["start_bytes"] > 2**20
    assert 0 <= row["max_deviation"] < 1
    assert row["remark"] == ""


@packed
def test_resident_weights_are_those_of_the_file(folder, name):
    row = found(folder, name)
    assert row["payload_bytes"] <= row["resident_bytes"] <= report.RESIDENT_LIMIT * row["payload_bytes"]


def test_fewer_bits_take_less_memory_and_change_the_prediction_more(folder):
    rows = [found(folder, name) for name in ("fp32", "fp16", "int8", "int4")]
    assert sorted((row["resident_bytes"] for row in rows), reverse=True) == [row["resident_bytes"] for row in rows]
    assert rows[0]["rms_deviation"] == 0
    assert sorted(row["rms_deviation"] for row in rows) == [row["rms_deviation"] for row in rows]
    assert rows[1]["rms_deviation"] > 0


def test_no_matrix_of_the_random_network_is_zero(folder):
    unet, _, _ = read_model(folder / "float32.safetensors", CPU)
    assert all(weight.any() for weight in unet.parameters() if weight.dim() > 1)


@needs_quanto
@pytest.mark.parametrize("name", ["quanto qint8", "quanto qint4"])
def test_quanto_is_measured_by_the_tensors_it_packed(folder, name):
    row, base = found(folder, name), found(folder, "fp32")
    assert row["resident_bytes"] < base["resident_bytes"]
    assert row["resident_bytes"] == pytest.approx(row["payload_bytes"], rel=0.01)
    assert 0 < row["rms_deviation"] < 1
    assert "3 ConvTranspose2d" in row["remark"]


@pytest.mark.parametrize(("name", "images", "steps"), [("int8", 4, 2), ("fp32, one image at a time", 3, 2)])
def test_time_is_that_of_one_image_and_step(folder, monkeypatch, name, images, steps):
    monkeypatch.setattr(bench, "seconds", lambda draw, device: draw() or 12.0)
    row = found(folder, name)
    assert row["seconds"] == [12.0 / images / steps] * WORK.repeats
    assert row["fp32_seconds"] == [12.0 / WORK.batch / steps] * WORK.repeats


def test_images_are_drawn_outside_of_inference_mode_too(unet, alphas_cumprod):
    """As the head to head draws with what optimum-quanto packed."""
    how = Drawing(sampler="ddim", steps=2, eta=0.0, clip=True, seeds=[0], batch_size=2)
    drawn = [
        draw_images(one, alphas_cumprod, (1, 8, 8), how, 2, progress=False)
        for one in (unet.eval(), bench.WithoutInferenceMode(unet.eval()))
    ]
    assert (drawn[0] == drawn[1]).all()


def test_without_quanto_the_row_says_so(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "optimum.quanto", None)
    monkeypatch.setitem(sys.modules, "optimum", None)
    assert bench.attempt(job(folder, bench.CASES["quanto qint8"]))["error"].startswith(
        "optimum-quanto is not installed"
    )


def test_a_case_that_fails_says_why_in_one_line(folder, monkeypatch):
    monkeypatch.setattr(bench, "read_model", lambda *_: (_ for _ in ()).throw(RuntimeError("no kernel\nfor this")))
    assert bench.attempt(job(folder, bench.CASES["int8"])) == {"error": "RuntimeError: no kernel"}


def test_a_new_process_measures_what_this_one_does(folder):
    [row] = bench.in_fresh_processes([job(folder, bench.CASES["int4"])])
    assert row["resident_bytes"] == found(folder, "int4")["resident_bytes"]


class Wrapped:
    """What optimum-quanto's tensors are from outside: float32 of the whole shape, with smaller ones inside."""

    def __init__(self, **inside):
        vars(self).update(inside)

    def __tensor_flatten__(self):
        return [*vars(self)], None


def test_tensors_inside_tensors_are_counted():
    scale = torch.zeros(5, dtype=torch.float16)
    assert bench.tensor_bytes(Wrapped(data=Wrapped(codes=torch.zeros(7, dtype=torch.uint8)), scale=scale)) == 17


def test_buffers_are_resident_too():
    model = nn.BatchNorm2d(3)  # two parameters and two buffers of 3 float32, one int64 counter
    assert bench.resident_bytes(model) == 4 * 3 * 4 + 8


def test_the_peak_sees_memory_that_was_freed_again():
    memory.reset_peak(CPU)
    start = memory.used(CPU)
    torch.ones(64 * 2**20, dtype=torch.uint8)
    assert memory.peak(CPU) - start > 48 * 2**20
    assert memory.used(CPU) - start < 16 * 2**20


def test_quick_is_the_network_of_params_yaml():
    profile = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]["quick"]
    assert bench.SCALES["quick"].unet == Unet(**profile["model"])
    assert {key: profile["diffusion"][key] for key in bench.DIFFUSION} == bench.DIFFUSION


def test_the_speed_target_is_measured_at_a_batch_of_64():
    assert all(bench.WORK["paper", device].batch == 64 for device in ("cpu", "cuda"))


def test_what_the_stage_draws_is_measured_in_every_precision_at_batch_1_64_and_1000():
    cases = bench.DRAWN.values()
    assert {case.precision for case in cases} == set(get_args(Precision))
    assert {case.work.batch for case in cases} == {1, 64, 1000}
    assert all(case.work.compared == case.work.batch for case in cases), "another batch would be compiled for anew"


def test_a_case_that_draws_as_the_stage_does_is_measured_by_its_own_work(folder):
    case = bench.Case("mixed", precision="float16", work=bench.Work(batch=2, alone=1, steps=3, repeats=1, compared=2))
    found = bench.measure(job(folder, case))
    assert (found["batch"], found["steps"], len(found["seconds"])) == (2, 3, 1)


@pytest.mark.parametrize("way", aside.WAYS)
def test_what_the_stage_does_not_do_predicts_the_same(folder, way):
    """But for the bits of bfloat16; on a GPU each is compiled or captured as its name says."""
    found = bench.measure(job(folder, bench.Case("float32", aside=way)))
    assert found["resident_bytes"] == found["payload_bytes"]
    assert (found["rms_deviation"] == 0) == way.startswith("float32")
    assert found["rms_deviation"] < 0.02


def test_a_pipeline_of_diffusers_is_measured_by_its_whole_call(folder, monkeypatch):
    monkeypatch.setattr(bench, "seconds", lambda draw, device: draw() or 12.0)
    found = bench.measure(job(folder, bench.Case("float32", diffusers="float32")))
    assert found["seconds"] == [12.0 / WORK.batch / WORK.steps] * WORK.repeats
    assert found["rms_deviation"] is None
    assert "0.7 M parameters" in found["remark"]
    cells = report.cells(found)
    assert cells["change of ε, RMS"] == cells["largest"] == ""


def row(case: str, seconds: float, resident: int = 100, scale: str = "paper") -> dict:
    return {
        "scale": scale,
        "case": case,
        "resident_bytes": resident,
        "payload_bytes": 100,
        "peak_bytes": 30 * 2**20,
        "start_bytes": 10 * 2**20,
        "batch": 64,
        "steps": 1,
        "warm_up_seconds": 1.0,
        "seconds": [seconds],
        "fp32_seconds": [0.01],
        "seconds_per_image_step": seconds,
        "times_fp32": seconds / 0.01,
        "rms_deviation": 0.01,
        "max_deviation": 0.02,
        "remark": "",
    }


def results(*rows: dict) -> dict:
    return {"device": "cpu", "name": "a CPU", "torch": "2", "threads": 2, "run_seconds": 9.0, "rows": [*rows]}


def test_the_table_derives_images_per_second_and_the_ratio_to_fp32():
    cells = report.cells(row("int8", 0.0125))
    assert cells["time ÷ FP32's"] == "1.25"
    assert cells["ms per image and step"] == "12.5"
    assert cells["images/s, 20 steps"] == "4"
    assert cells["images/s, 50 steps"] == "1.6"
    assert cells["peak memory"] == "20 MiB"
    assert cells["resident ÷ file"] == "1.000"


@pytest.mark.parametrize(
    ("int4", "resident", "verdict"),
    [(0.0129, 104, ["met", "met"]), (0.0131, 104, ["met", "not met"]), (0.0129, 106, ["not met", "met"])],
)
def test_the_page_says_whether_the_targets_are_met(int4, resident, verdict):
    page = report.page(results(row("fp32", 0.01), row("int8", 0.011), row("int4", int4, resident)))
    lines = [line for line in page.splitlines() if line.startswith("- ")]
    assert [line.split(" ×: ")[1].split(" (")[0] for line in lines] == verdict


def test_a_page_without_paper_scale_says_that_speed_was_not_measured():
    assert "batch 64, at most 1.3 ×: not measured" in report.page(results(row("fp32", 0.01, scale="quick")))


@pytest.mark.parametrize("failed", ["fp32", "int8"])
def test_a_failed_case_is_a_row_with_its_reason(failed):
    rows = [row(name, 0.01) for name in ("fp32", "int8") if name != failed]
    given = results({"scale": "paper", "case": failed, "error": "no such kernel"}, *rows)
    lines = report.page(given).splitlines()
    assert any(line.startswith(f"| {failed} ") and line.endswith("| no such kernel |") for line in lines)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert report.figure(given).startswith(b"\x89PNG")


@pytest.mark.parametrize("scales", [("paper",), ("paper", "quick")])
def test_the_figure_has_a_line_of_panels_per_scale(scales):
    rows = [
        row(name, 0.01, scale=scale)
        for scale in scales
        for name in (*bench.CASES, *bench.DRAWN, *bench.ASIDE, *bench.COMPILED)
    ]
    assert report.figure(results(*rows)).startswith(b"\x89PNG")


def test_kinds_of_cases_have_colours_of_their_own():
    names = ("fp32", "quanto qint8", "int8, compiled", "fp32, one image at a time", next(iter(bench.DRAWN)))
    names = (*names, *(next(name for name in bench.ASIDE if word in name) for word in ("aside", "diffusers")))
    assert sorted(report.kind_of(name) for name in names) == sorted(report.KINDS.values())


def test_it_needs_none_of_what_only_the_pipeline_needs():
    absent = ["dvc", "snakemake", "sklearn", "torchvision", "pytorch_fid", "jinja2", "threadpoolctl", "optimum"]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); sys.path.insert(0, 'bench'); import bench"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_evidence_of_a_network_is_measured_and_shown():
    rows = [evidence.measure(width, "cpu") for width in (4, 8)]
    for row in rows:
        assert sum(row["disk_bytes"].values()) < 5 * row["model_bytes"]
        assert row["disk_bytes"]["curvature"] > row["disk_bytes"]["fisher"] > row["model_bytes"] / 2
        assert min(row["seconds"].values()) > 0
    results = {"name": "a processor", "torch": "2", "threads": 1, "rows": rows}
    page = evidence.page(results)
    assert page.count("\n| 0.") == 2
    assert f"{sum(rows[0]['disk_bytes'].values()) / rows[0]['model_bytes']:.2f}" in page
    assert evidence.figure(results).startswith(b"\x89PNG")
