"""The stages one after the other on the smallest real run, in one process."""

import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import training_minutes
from laqfi import records
from laqfi.base import files, sources
from laqfi.base.errors import LaqfiError
from laqfi.base.random import NoiseStreams
from laqfi.params import whole
from laqfi.quality import features, statistics
from laqfi.quality.fidelity import fidelity
from laqfi.quality.judge import Judge
from laqfi.quant import adaround
from laqfi.quant.calibration import CalibrationSet
from laqfi.quant.params import Variant
from laqfi.quant.ptqd import measured_correction
from laqfi.quant.recipe import Recover
from laqfi.quant.recovery import Recovery
from laqfi.records import Interval, LearnedTensors
from laqfi.report.differences import against_fp32
from laqfi.report.numbers import rounded
from laqfi.report.verdicts import fid_band, verdict
from laqfi.sampling.drawing import draw_images
from laqfi.sensitivity.image import ImageImportance
from laqfi.stages import command
from laqfi.stages.calibrate import calibrate
from laqfi.stages.controls import controls, first_images
from laqfi.stages.curvature import curvature
from laqfi.stages.dataset import dataset
from laqfi.stages.evaluate import evaluate
from laqfi.stages.features import feature_network
from laqfi.stages.fisher import fisher
from laqfi.stages.quantize import quantize
from laqfi.stages.recover import recover
from laqfi.stages.reference import reference
from laqfi.stages.report import Inputs, Outputs, report
from laqfi.stages.sample import sample
from laqfi.stages.train import fingerprint, train
from laqfi.storage.model_file import model_of, read_model, stored_bytes
from laqfi.storage.modules import restored
from laqfi.storage.stored_file import read_stored, write_stored
from tiny import ROOT, tiny_params

VERSIONS = {"numpy": np.__version__}


def run(folder):
    """Run all stages in `folder`; the paths by name."""
    params = whole.Params.model_validate(tiny_params())
    profile = params.profiles["tiny"]
    at = SimpleNamespace(params=params, profile=profile, root=folder)
    for name in ("dataset.npz", "network.safetensors", "info.json", "reference.npz", "floor.json"):
        setattr(at, name.split(".")[0], folder / name)
    for name in (
        "model.safetensors",
        "loss.csv",
        "fisher.safetensors",
        "table.json",
        "curvature.safetensors",
        "calibration.npz",
    ):
        setattr(at, name.split(".")[0], folder / name)
    dataset(profile.dataset, folders=folder / "folders.yaml", out=at.dataset)
    feature_network(profile.dataset, profile.features, images=at.dataset, network=at.network, info=at.info)
    reference(
        profile.sample, profile.evaluate, dataset=at.dataset, network=at.network, out=at.reference, floor=at.floor
    )
    blocks = (profile.diffusion, profile.model, profile.train)
    train(
        *blocks,
        profile.threads,
        VERSIONS,
        dataset=at.dataset,
        folders=folder / "folders.yaml",
        out=at.model,
        loss=at.loss,
    )
    fisher(profile.fisher, dataset=at.dataset, model=at.model, out=at.fisher, table=at.table)
    measure(at, profile.calibration)
    for name, variant in params.variants.items():
        quantize_variant(at, variant, stored(at, name), folder / f"choices/{name}.json")
        draw(profile.sample, name, stored(at, name), folder / f"sample/{name}.npz", folder / f"sheets/{name}.png")
        evaluate_variant(at, name)
    draw_controls(at, profile.controls, folder / "controls.json")
    write_report(at, params.variants)
    return at


def measure(at, settings):
    """What FP32's own sampling shows, and the curvature, which may go by it."""
    curved = at.profile.curvature
    calibrate(settings, at.profile.sample, model=at.model, out=at.calibration)
    curvature(curved, settings, dataset=at.dataset, model=at.model, image=at.calibration, out=at.curvature)


def draw(settings, name, model, out, sheet):
    sample(settings, name, model=model, out=out, sheet=sheet)


def quantize_variant(at, variant, out, choices, table=None):
    quantize(
        at.profile.quantize,
        at.profile.sample,
        variant,
        at.profile.threads,
        VERSIONS,
        model=at.model,
        table=table or at.table,
        fisher=at.fisher,
        curvature=at.curvature,
        calibration=at.calibration,
        out=out,
        choices=choices,
    )


def draw_controls(at, settings, out):
    controls(
        settings,
        at.profile.quantize,
        at.profile.sample,
        at.profile.evaluate,
        model=at.model,
        table=at.table,
        fisher=at.fisher,
        curvature=at.curvature,
        base_samples=at.root / "sample/fp32.npz",
        network=at.network,
        reference=at.reference,
        out=out,
    )


def stored(at, name):
    return at.root / f"quantize/{name}.safetensors"


def evaluate_variant(at, name, out=None):
    evaluate(
        at.profile.sample,
        at.profile.evaluate,
        name,
        model=stored(at, name),
        samples=at.root / f"sample/{name}.npz",
        base_model=stored(at, "fp32"),
        base_samples=at.root / "sample/fp32.npz",
        dataset=at.dataset,
        network=at.network,
        reference=at.reference,
        out=out or at.root / f"evaluate/{name}.json",
    )


def write_report(at, variants, folder=None, recoveries=None):
    folder = folder or at.root
    found = Inputs(
        dataset=at.dataset,
        info=at.info,
        floor=at.floor,
        table=at.table,
        loss=at.loss,
        choices=at.root / "choices",
        evaluate=at.root / "evaluate",
        controls=at.root / "controls.json",
        samples=at.root / "sample",
    )
    written = Outputs(
        metrics=folder / "metrics.json",
        summary=folder / "summary.csv",
        markdown=folder / "summary.md",
        figures=folder / "figures",
        page=folder / "report.html",
    )
    report(
        at.profile.sample, at.profile.quantize, list(variants), recoveries or {}, "tiny", found=found, written=written
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"))


def test_a_second_run_writes_the_same_bytes(done, tmp_path):
    again = run(tmp_path)
    files = sorted(p.relative_to(done.root) for p in done.root.rglob("*") if p.is_file())
    assert len(files) > 30
    assert files == sorted(p.relative_to(again.root) for p in again.root.rglob("*") if p.is_file())
    for file in files:
        assert (done.root / file).read_bytes() == (again.root / file).read_bytes(), file


def test_the_stored_tensors_really_have_the_dtype_the_choices_say(done):
    for name in ("threshold", "ratio"):
        tensors, _ = read_stored(stored(done, name))
        choices = files.read_json(done.root / f"choices/{name}.json")["tensors"]
        assert {choice["format"] for choice in choices.values()} == {"float16", "float32"}
        for tensor_name, choice in choices.items():
            assert tensors[tensor_name].dtype == getattr(torch, choice["format"])
            assert choice["format"] == ("float16" if choice["score"] < choice["threshold"] else "float32")
        assert all(t.dtype == torch.float32 for n, t in tensors.items() if n not in choices)


RECIPES = {
    "static": {"activations": {"bits": 8}},
    "per_step": {"activations": {"bits": 6, "ranges": "per_step", "learn": 2}},
    "tdq": {"activations": {"bits": 8, "ranges": "tdq"}, "correct": "ptqd"},
    "q_diffusion": {"reconstruct": {"iterations": 3, "batch_size": 4}, "activations": {"bits": 4, "learn": 2}},
}


def with_recipe(name, policy="budget"):
    return Variant.model_validate(tiny_params()["variants"][policy] | RECIPES[name])


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_adds_is_in_the_file_and_samples(done, tmp_path, name):
    variant = with_recipe(name)
    paths = [tmp_path / f"{place}/quantize/{name}.safetensors" for place in ("one", "two")]
    for path in paths:
        quantize_variant(done, variant, path, path.parent / "choices.json")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not list(paths[0].parents[1].glob("resume/*"))
    told = records.read(paths[0].parent / "choices.json", records.Allocation).recipe
    assert told.done.keys() == RECIPES[name].keys()
    network, alphas, metadata = read_model(paths[0], torch.device("cpu"))
    plain, _, _ = read_model(stored(done, "budget"), torch.device("cpu"))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([50, 100])
    with torch.no_grad():
        assert not torch.equal(network(x, t), plain(x, t))
    drawn = draw_images(network, alphas, tuple(metadata["image"]), done.profile.sample, 4, progress=False)
    assert drawn.shape == (2, 4, 1, 8, 8)
    tables = {key for key in read_stored(paths[0])[0] if key.startswith(("activation/", "correction/"))}
    assert {key.split("/")[0] for key in tables} == {"activation"} | ({"correction"} if name == "tdq" else set())


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 6])
def test_an_image_is_the_same_in_whatever_batch_it_is(done, sampler, batch_size):
    """Also in one that holds images of two seeds; but for a pixel that lay between two values, within one."""
    network, alphas, metadata = read_model(stored(done, "budget"), torch.device("cpu"))
    how = done.profile.sample.model_copy(update={"sampler": sampler, "steps": 5})

    def drawn(**changes) -> np.ndarray:
        settings = how.model_copy(update=changes)
        return draw_images(network, alphas, tuple(metadata["image"]), settings, 4, progress=False).astype(int)

    apart = [drawn(seeds=[seed], batch_size=4)[0] for seed in (0, 1)]
    together = drawn(seeds=[0, 1], batch_size=batch_size)
    assert together.shape == (2, 4, 1, 8, 8)
    assert abs(together - np.stack(apart)).max() <= 1
    assert not np.array_equal(*apart)


def test_a_killed_walk_over_blocks_is_taken_up(done, tmp_path, monkeypatch):
    whole_path, path = tmp_path / "one/quantize/q.safetensors", tmp_path / "two/quantize/q.safetensors"
    quantize_variant(done, with_recipe("q_diffusion"), whole_path, whole_path.parent / "choices.json")
    fit, fitted = adaround.fit_block, []

    def killed(*arguments):
        fitted.append(arguments[1])
        if len(fitted) == 5:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(adaround, "fit_block", killed)
    with pytest.raises(KeyboardInterrupt):
        quantize_variant(done, with_recipe("q_diffusion"), path, path.parent / "choices.json")
    assert not path.exists()
    assert list(path.parents[1].glob("resume/*"))
    first, fitted = fitted[:4], []
    monkeypatch.setattr(adaround, "fit_block", lambda *arguments: fitted.append(arguments[1]) or fit(*arguments))
    quantize_variant(done, with_recipe("q_diffusion"), path, path.parent / "choices.json")
    assert path.read_bytes() == whole_path.read_bytes()
    assert not set(first) & set(fitted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, header: tensors.pop("activation/scale"), "activation/scale"),
        (lambda tensors, header: header["activations"]["layers"].pop(), "activation/"),
        (lambda tensors, header: header["activations"]["layers"][0].update(name="nowhere"), "'nowhere'"),
        (lambda tensors, header: header["activations"].update(ranges="guess"), "ranges"),
    ],
)
def test_tables_of_another_network_are_refused(done, tmp_path, change, message):
    path = tmp_path / "one/quantize/s.safetensors"
    quantize_variant(done, with_recipe("static"), path, path.parent / "choices.json")
    tensors, header = read_stored(path)
    change(tensors, header)
    with pytest.raises(LaqfiError, match=message) as caught:
        model_of(tensors, header, path, torch.device("cpu"))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def recovered(at, model, out, **settings):
    recover(
        Recover(**{"iterations": 12, "batch_size": 4} | settings),
        at.profile.threads,
        VERSIONS,
        model=model,
        base_model=at.model,
        dataset=at.dataset,
        calibration=at.calibration,
        out=out,
    )


def change_of(path, base):
    """Of the predicted noise, in the mean square."""
    x, t = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) + 1
    with torch.no_grad():
        noises = [read_model(one, torch.device("cpu"))[0](x, t) for one in (path, base)]
    return (noises[0] - noises[1]).square().mean().item()


def test_what_is_stored_learns_from_fp32_in_the_same_bytes(done, tmp_path, capsys):
    begun, path = tmp_path / "quantize/int2.safetensors", tmp_path / "recover/int2.safetensors"
    quantize_variant(done, Variant(policy="bits", format="int2"), begun, tmp_path / "choices.json")
    recovered(done, begun, path, iterations=60, lr=1e-4, code_lr=0.1)
    assert "before" in capsys.readouterr().out
    assert path.stat().st_size == begun.stat().st_size
    assert not list(tmp_path.glob("resume/*"))
    (before, header), (after, told) = read_stored(begun), read_stored(path)
    assert told == header
    assert {k: (t.dtype, t.shape) for k, t in before.items()} == {k: (t.dtype, t.shape) for k, t in after.items()}
    assert {k.rpartition(".")[2] for k in before if not torch.equal(before[k], after[k])} >= {"bias", "scale", "packed"}
    assert change_of(path, done.model) < 0.5 * change_of(begun, done.model)


def test_a_coded_file_that_learns_stays_within_its_limit(done, tmp_path):
    begun, path = tmp_path / "quantize/coded.safetensors", tmp_path / "recover/coded.safetensors"
    variant = Variant(policy="bits", format="int2", coding="ans")
    quantize_variant(done, variant, begun, tmp_path / "choices.json")
    tensors, header = read_stored(begun)
    write_stored(begun, tensors, header | {"limit": int(1.02 * begun.stat().st_size)})
    recovered(done, begun, path, iterations=60, lr=1e-4, code_lr=0.1)
    (before, header), (after, told) = read_stored(begun), read_stored(path)
    assert told == header
    assert max(begun.stat().st_size, path.stat().st_size) <= header["limit"]
    assert {k.rpartition(".")[2] for k in before if not torch.equal(before[k], after[k])} >= {"bias", "scale", "packed"}
    assert change_of(path, done.model) < change_of(begun, done.model)


def test_a_coded_file_without_room_stays_as_it_was(done, tmp_path):
    """The tiny network is hardly trained: norms that are all alike take no bytes until they learn."""
    begun, path = tmp_path / "quantize/coded.safetensors", tmp_path / "recover/coded.safetensors"
    quantize_variant(done, Variant(policy="bits", format="int2", coding="ans"), begun, tmp_path / "choices.json")
    tensors, header = read_stored(begun)
    write_stored(begun, tensors, header | {"limit": begun.stat().st_size})
    recovered(done, begun, path, iterations=20, lr=1e-3)
    assert path.read_bytes() == begun.read_bytes()


def test_one_step_for_all_is_a_variant_of_its_own_file_size(done, tmp_path):
    """Its file is as asked, and what stands beside it counts what is in the file."""
    out, choices = tmp_path / "quantize/rate.safetensors", tmp_path / "choices.json"
    target = {"ratio": 9.0, "of": "file"}
    quantize_variant(done, Variant(policy="rate", target=target, coding="ans"), out, choices)
    tensors, metadata = read_stored(out)
    parameters = sum(t.numel() for t in read_stored(done.model)[0].values())
    assert 0.98 * 4 / 9 * parameters < out.stat().st_size <= 4 / 9 * parameters
    assert metadata["limit"] == int(4 / 9 * parameters)
    found = records.read(choices, records.Allocation)
    assert found.coding == "ans"
    kinds = {name: one["name"] for name, one in metadata["formats"].items()}
    assert {name: one.format for name, one in found.tensors.items() if name in kinds} == kinds
    assert found.bits_per_weight.bits > found.bits_per_weight.bound
    assert stored_bytes(tensors, metadata)[0] > out.stat().st_size
    network, _, _ = read_model(out, torch.device("cpu"))
    assert network(torch.randn(1, 1, 8, 8), torch.tensor([5])).isfinite().all()


def test_a_recovery_that_makes_it_worse_leaves_it_as_it_was(done, tmp_path):
    path = tmp_path / "recover/budget.safetensors"
    recovered(done, stored(done, "budget"), path, iterations=2, lr=0.9, code_lr=0.9)
    assert path.read_bytes() == stored(done, "budget").read_bytes()


def test_a_recovery_that_was_stopped_goes_on_to_the_same_bytes(done, tmp_path, monkeypatch):
    whole_path, path = tmp_path / "one/recover/b.safetensors", tmp_path / "two/recover/b.safetensors"
    recovered(done, stored(done, "budget"), whole_path)
    advance = Recovery.advance

    def asked(one):
        if one.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(one)

    monkeypatch.setattr(Recovery, "advance", asked)
    with pytest.raises(LaqfiError, match="stopped by SIGTERM at step 8"):
        recovered(done, stored(done, "budget"), path)
    monkeypatch.setattr(Recovery, "advance", advance)
    recovered(done, stored(done, "budget"), path)
    assert path.read_bytes() == whole_path.read_bytes()
    assert not list(path.parents[1].glob("resume/*"))


def test_weights_learn_behind_rounded_inputs_and_the_correction_is_measured_anew(done, tmp_path):
    begun, path = tmp_path / "quantize/tdq.safetensors", tmp_path / "recover/tdq.safetensors"
    quantize_variant(done, with_recipe("tdq"), begun, tmp_path / "choices.json")
    recovered(done, begun, path, iterations=60, lr=1e-5)
    (before, header), (after, told) = read_stored(begun), read_stored(path)
    assert told == header
    for name in before:
        if name.startswith("activation/"):
            assert torch.equal(before[name], after[name])
    found = CalibrationSet.read(done.calibration, (1, 8, 8))
    network, base = (read_model(one, torch.device("cpu"))[0] for one in (path, done.model))
    about, tables = measured_correction(network.network, base, found)
    assert about.model_dump() == header["correction"]
    for name, table in tables.items():
        assert torch.equal(after[name], table)
    assert any(not torch.equal(before[name], after[name]) for name in tables)


@pytest.mark.parametrize(
    ("variant", "learn", "message"),
    [
        ("fp32", "norms", "all tensors are in float32, recover is for a variant that stores some in less"),
        ("ratio", "codes", "has no integer codes, recover.learn is 'codes', allowed is 'norms'"),
    ],
)
def test_a_recovery_with_nothing_to_learn_is_refused(done, tmp_path, variant, learn, message):
    with pytest.raises(LaqfiError) as caught:
        recovered(done, stored(done, variant), tmp_path / "recover/x.safetensors", learn=learn)
    assert str(caught.value) == f"{stored(done, variant)}: {message}"


def test_the_report_tells_what_was_recovered_and_predicts_nothing_of_it(done, tmp_path):
    told = LearnedTensors(**Recover(iterations=12).model_dump())
    at = SimpleNamespace(**vars(done) | {"root": tmp_path})
    for folder in ("choices", "evaluate", "sample"):
        shutil.copytree(done.root / folder, tmp_path / folder)
    shutil.copy(done.root / "controls.json", tmp_path)
    write_report(at, at.params.variants, recoveries={"budget": told})
    text, plain = ((one.root / "summary.md").read_text() for one in (at, done))
    assert "12 iterations on noised images, all that is stored" in text
    assert "bits_over_bound" in str(files.read_json(done.root / "metrics.json"))
    assert "bits_over_bound" not in str(files.read_json(tmp_path / "metrics.json"))
    assert "Recovery" not in plain


def test_the_report_tells_recipes_apart(done, tmp_path):
    at = SimpleNamespace(**vars(done) | {"root": tmp_path})
    for folder in ("choices", "evaluate", "sample", "quantize"):
        shutil.copytree(done.root / folder, tmp_path / folder)
    shutil.copy(done.root / "controls.json", tmp_path)
    quantize_variant(at, with_recipe("tdq"), stored(at, "threshold"), tmp_path / "choices/threshold.json")
    draw(at.profile.sample, "threshold", stored(at, "threshold"), tmp_path / "sample/threshold.npz", tmp_path / "s.png")
    evaluate_variant(at, "threshold")
    write_report(at, at.params.variants)
    told = (tmp_path / "summary.md").read_text()
    assert "| threshold |" in told.partition("Rounded inputs, learned rounding, recovery, corrected noise")[2]
    assert "8 bits, TDQ's ranges" in told
    assert "Rounded inputs" not in (done.root / "summary.md").read_text()
    assert "What do the field" in (tmp_path / "report.html").read_text()
    assert "What do the field" not in (done.root / "report.html").read_text()


def test_the_calibration_set_is_of_fp32s_own_sampling(done):
    found = files.read_arrays(done.calibration, "x", "timesteps")
    assert found["x"].shape == (2, 4, 1, 8, 8)
    assert found["timesteps"].tolist() == [100, 1]
    other = NoiseStreams(0, range(4), (1, 8, 8)).draw()
    assert not np.array_equal(found["x"][0], other)  # no image that variants are judged by


@pytest.fixture(scope="module")
def by_image(done, tmp_path_factory):
    """The same model with the final image for a measure."""
    folder = tmp_path_factory.mktemp("image")
    paths = {"calibration": folder / "calibration.npz", "curvature": folder / "curvature.safetensors"}
    at = SimpleNamespace(**vars(done) | paths)
    measure(at, at.profile.calibration.model_copy(update={"weighting": "image"}))
    return at


def test_what_matters_for_the_image_is_measured_beside_the_calibration_set(done, by_image):
    plain, found = (files.read_arrays(at.calibration, "x", "timesteps") for at in (done, by_image))
    assert all(np.array_equal(plain[key], found[key]) for key in plain)
    network, _, _ = read_model(done.model, torch.device("cpu"))
    image = ImageImportance.read(by_image.calibration, [name for name, _ in network.named_parameters()])
    assert image.timesteps == [100, 50, 1]
    assert image.shares.sum() == pytest.approx(1)
    assert by_image.curvature.read_bytes() != done.curvature.read_bytes()


@pytest.mark.parametrize("policy", ["budget", "rate"])
def test_a_policy_may_weigh_by_the_image(by_image, tmp_path, policy):
    options = {"budget": {"formats": ["int2", "int4", "int8"], "rounding": "gptq"}, "rate": {"coding": "ans"}}[policy]
    given = {"policy": policy, "target": {"ratio": 9.0}, **options}
    made = []
    for kind in ("image", "uniform", "image"):
        out = tmp_path / f"{len(made)}/quantize/stored.safetensors"
        quantize_variant(by_image, Variant(**given, weighting=kind), out, tmp_path / "choices.json")
        made.append(out.read_bytes())
    assert made[0] == made[2] != made[1]


def test_a_policy_that_weighs_by_what_was_not_measured_is_refused(done, tmp_path):
    one = Variant(policy="rate", target={"ratio": 9.0}, coding="ans", weighting="image")
    with pytest.raises(LaqfiError, match=r"calibration\.npz: holds no array 'image_steps'"):
        quantize_variant(done, one, tmp_path / "quantize/out", tmp_path / "choices")


def test_float32_may_be_among_the_formats_of_a_budget(done, tmp_path):
    """Every tensor then has an option without cost; where all take it, nothing changes and no bound is defined."""
    small, large = (
        Variant.model_validate({"policy": "budget", "formats": ["int4", "int8", "float32"], "target": target})
        for target in ({"ratio": 5.0}, {"bytes": 10**9})
    )
    for variant, kinds in ((small, {"int4", "int8", "float32", "float16"}), (large, {"float32", "float16"})):
        quantize_variant(done, variant, tmp_path / "stored", tmp_path / "choices")
        found = files.read_json(tmp_path / "choices")
        assert {one["format"] for one in found["tensors"].values()} <= kinds
        assert (found["bits_per_weight"] is None) == (variant is large)
        read_model(tmp_path / "stored", torch.device("cpu"))


def test_scores_are_the_table_normalised_by_its_largest(done):
    table = files.read_json(done.table)
    column = [rows["mean"][0] for rows in table["empirical"]["tensors"].values()]
    scores = [c["score"] for c in files.read_json(done.root / "choices/threshold.json")["tensors"].values()]
    np.testing.assert_allclose(sorted(scores), sorted(np.array(column) / max(column)))
    assert max(scores) == 1


def test_the_stored_quantized_file_is_what_samples(done, tmp_path):
    """Break one stored tensor and the images change."""
    tensors, metadata = read_stored(stored(done, "threshold"))
    name = "layers.4.block1.conv1.weight"
    assert tensors[name].dtype == torch.float16
    tensors[name] = tensors[name].flip(0)
    broken = tmp_path / "broken.safetensors"
    write_stored(broken, tensors, metadata)
    draw(done.profile.sample, "threshold", broken, tmp_path / "broken.npz", tmp_path / "broken.png")
    before = files.read_array(done.root / "sample/threshold.npz", "images")
    assert not np.array_equal(before, files.read_array(tmp_path / "broken.npz", "images"))


def test_images_do_not_depend_on_the_batch_size(done, tmp_path):
    settings = done.profile.sample.model_copy(update={"batch_size": 33})
    draw(settings, "fp32", stored(done, "fp32"), tmp_path / "x.npz", tmp_path / "x.png")
    a, b = (files.read_array(p, "images").astype(int) for p in (done.root / "sample/fp32.npz", tmp_path / "x.npz"))
    assert abs(a - b).max() <= 1  # float32 sums in another order may round a pixel to its neighbour
    assert (a != b).mean() < 0.001


def test_ancestral_sampling_draws_other_images_from_the_same_start(done, tmp_path):
    settings = done.profile.sample.model_copy(update={"sampler": "ddpm"})
    draw(settings, "fp32", stored(done, "fp32"), tmp_path / "x.npz", tmp_path / "x.png")
    a, b = (files.read_array(p, "images") for p in (done.root / "sample/fp32.npz", tmp_path / "x.npz"))
    assert a.shape == b.shape == (2, 100, 1, 8, 8)
    assert not np.array_equal(a, b)


def test_fp32_is_the_trained_model_and_identical_to_itself(done):
    trained, _ = read_stored(done.model)
    kept, _ = read_stored(stored(done, "fp32"))
    assert trained.keys() == kept.keys()
    assert all(torch.equal(trained[name], kept[name]) for name in trained)
    found = records.read(done.root / "evaluate/fp32.json", records.Evaluation)
    assert found.squared_error == [[0] * 100] * 2
    assert set(found.noise_mse.values()) == {0.0}
    variant = against_fp32({"fp32": found})["fp32"]
    assert (variant.reduction, variant.images.verdict) == (0, "identical to FP32")


def test_a_quantized_variant_is_smaller_and_close(done):
    found = records.read(done.root / "evaluate/ratio.json", records.Evaluation)
    base = records.read(done.root / "evaluate/fp32.json", records.Evaluation)
    tensors, _ = read_stored(stored(done, "ratio"))
    assert found.bytes == sum(t.numel() * t.element_size() for t in tensors.values())
    assert found.file_bytes == stored(done, "ratio").stat().st_size
    assert sum(found.parameters.values()) == sum(t.numel() for t in tensors.values())
    assert 0.5 * base.bytes < found.bytes < base.bytes
    assert fidelity(found.squared_error, found.pixels).pooled > 40
    assert 0 < found.noise_mse[1] < 1e-4
    assert len(found.fid.per_seed) == 2
    assert found.fid.mean == pytest.approx(np.mean(found.fid.per_seed))


def test_the_fid_by_minutes_of_training_is_measured_on_a_profile_that_was_run(done, tmp_path):
    """Its own model is the last row, with the FID that the report has of it."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for path in (done.dataset, done.model, done.reference):
        shutil.copy(path, folder)
    shutil.copy(done.network, folder / "features.safetensors")
    settings = done.profile.model_dump(mode="json") | {"versions": VERSIONS}
    files.write_json(folder / "params.json", settings)
    profile = training_minutes.Profile(folder, "images")
    found = [profile.trained(2), profile.its_own()]
    training_minutes.write(found, profile, tmp_path)
    fp32 = records.read(done.root / "evaluate/fp32.json", records.Evaluation)
    assert found[1].fid == fp32.fid
    assert found[0].fid != fp32.fid
    assert found[1].seconds is None
    assert found[0].seconds > 0
    assert "| 2 |" in (tmp_path / "training.md").read_text()


def fid_runs(judge: Judge, images: np.ndarray) -> list[statistics.Jackknifed]:
    """By the first network, of images [seeds, N, C, H, W]."""
    features = [judge.extract(seed)[0] for seed in images]
    return [statistics.jackknife_fid(one, judge.targets[0], judge.groups) for one in features]


def pooled_psnr(images: np.ndarray, others: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((images.astype(np.float64) - others) ** 2)))


@pytest.mark.parametrize("key", ["images", "ancestral"])
def test_the_report_says_of_a_variant_what_its_images_beside_those_of_fp32_say(done, key):
    """Features of both sets of images from one network, differences formed seed by seed, as words and as numbers."""
    judge = Judge(done.network, done.reference, done.profile.evaluate.groups)
    drawn = {name: files.read_array(done.root / f"sample/{name}.npz", key) for name in ("budget", "fp32")}
    images, base_images = drawn.values()
    found, base = (fid_runs(judge, one) for one in drawn.values())
    mean, base_mean = (np.mean([run.value for run in one]) for one in (found, base))
    difference = statistics.interval(statistics.paired_difference(found, base))
    assert difference.low < difference.mean < difference.high
    metrics = files.read_json(done.root / "metrics.json")
    numbers = (metrics["variants"] if key == "images" else metrics["headline"][key])["budget"]
    wanted = {"fid": mean, "fid_difference": difference.mean, "psnr": pooled_psnr(images, base_images)}
    wanted |= {"fid_difference_low": difference.low, "fid_difference_high": difference.high}
    assert {name: numbers[name] for name in wanted} == {name: rounded(value) for name, value in wanted.items()}

    begins = "| budget |" if key == "images" else f"| {key} | budget |"
    line = next(line for line in (done.root / "summary.md").read_text().splitlines() if line.startswith(begins))
    low, high = (numbers[f"fid_difference_all_{end}"] for end in ("low", "high"))
    assert low <= numbers["fid_difference_low"] < numbers["fid_difference_high"] <= high
    word = verdict(Interval(mean=numbers["fid_difference"], low=low, high=high))
    assert f"| {word} | {fid_band(mean, base_mean)} |" in line


def test_the_report_says_of_a_control_what_fp32_drew_of_the_same_noise_says(done):
    judge = Judge(done.network, done.reference, done.profile.evaluate.groups)
    images = files.read_array(done.root / "sample/fp32.npz", "images")[:, : done.profile.controls.images]
    base = fid_runs(judge, images)
    table = records.read(done.root / "controls.json", records.ControlTable)
    assert table.base == judge.quality(images, images)
    metrics, compared = files.read_json(done.root / "metrics.json"), 0
    runs = {row.importance: statistics.runs_of(row.found.fid) for row in table.rows if row.found}
    for importance, found in runs.items():
        to_fp32 = statistics.interval(statistics.paired_difference(found, base))
        assert metrics["controls"][importance]["ratio_5"]["fid_difference"] == rounded(to_fp32.mean)
        if importance != "fisher":
            to_fisher = statistics.interval(statistics.paired_difference(found, runs["fisher"]))
            ends = {"": "mean", "_low": "low", "_high": "high"}
            wanted = {f"fid_difference{end}": rounded(getattr(to_fisher, key)) for end, key in ends.items()}
            numbers = metrics["against_fisher"]["ratio_5"][importance]
            assert {key: numbers[key] for key in wanted} == wanted
            compared += 1
    assert compared > 2


def test_evaluating_takes_the_features_of_its_own_images_alone(done, tmp_path, monkeypatch):
    """Those of FP32's are taken when FP32 itself is evaluated; and the model file is read once."""
    seen, read = [], []
    load, opened = features.load, files.opened

    def counting(path, device):
        first, second = load(path, device)
        return [lambda images: seen.append(len(images)) or first(images), second]

    monkeypatch.setattr(features, "load", counting)
    monkeypatch.setattr(files, "opened", lambda path: read.append(path) or opened(path))
    evaluate_variant(done, "ratio", tmp_path / "ratio.json")
    assert seen == [100, 100]
    assert sorted(read) == sorted([stored(done, "ratio"), stored(done, "fp32"), done.network])
    assert (tmp_path / "ratio.json").read_bytes() == (done.root / "evaluate/ratio.json").read_bytes()


def test_the_report_walks_the_variants_in_params_and_not_the_folder(done, tmp_path):
    rows = (done.root / "summary.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["variant", "fp32", "threshold", "ratio", "budget"]
    fewer = {name: variant for name, variant in done.params.variants.items() if name != "ratio"}
    write_report(done, fewer, tmp_path)
    assert (done.root / "evaluate/ratio.json").exists()
    assert list(files.read_json(tmp_path / "metrics.json")["variants"]) == ["budget", "fp32", "threshold"]
    assert "ratio" not in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("file", ["evaluate/ratio.json", "controls.json"])
def test_results_of_other_seeds_are_not_paired(done, tmp_path, file):
    """As many seeds, so that all shapes fit."""
    path = done.root / file
    before = path.read_text()
    files.write_json(path, files.read_json(path) | {"seeds": [0, 7]})
    try:
        with pytest.raises(LaqfiError, match=r"json: was drawn from the seeds \[0, 7\], allowed is"):
            write_report(done, done.params.variants, tmp_path)
    finally:
        path.write_text(before)


def test_fisher_maps_that_end_before_the_last_timestep_are_refused(done, tmp_path):
    maps, header = files.read_tensors(done.fisher)
    maps = {name: tensor[:1] if name.startswith("bin/") else tensor for name, tensor in maps.items()}
    files.write_tensors(tmp_path / "fisher.safetensors", maps, header | {"bins": [1]})
    other = SimpleNamespace(**vars(done) | {"fisher": tmp_path / "fisher.safetensors"})
    with pytest.raises(LaqfiError, match="has 100 timesteps, the bins of its Fisher maps end at 1"):
        quantize_variant(other, done.params.variants["ratio"], tmp_path / "out", tmp_path / "choices")


def test_fisher_of_another_model_is_refused(done, tmp_path):
    table = files.read_json(done.table)
    table["empirical"]["tensors"]["layers.9.weight"] = {"mean": [1.0] * 3, "standard_error": [0.0] * 3}
    files.write_json(tmp_path / "table.json", table)
    with pytest.raises(LaqfiError, match=r"only one of them holds layers\.9\.weight"):
        quantize_variant(
            done, done.params.variants["ratio"], tmp_path / "out", tmp_path / "choices", tmp_path / "table.json"
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:1], r"images is uint8 \(1, 100, 1, 8, 8\), allowed is uint8 \(2, 100, 1, 8, 8\)"),
        (lambda a: a[:, :50], r"images is uint8 \(2, 50, 1, 8, 8\), allowed is"),
        (lambda a: np.repeat(np.repeat(a, 2, 3), 2, 4), r"images is uint8 \(2, 100, 1, 16, 16\), allowed is"),
        (lambda a: a[0], "images is uint8"),
        (lambda a: a.astype(float), "images is float64"),
    ],
)
def test_samples_of_another_run_are_refused(done, tmp_path, change, message):
    images = files.read_array(done.root / "sample/fp32.npz", "images")
    other = SimpleNamespace(**vars(done) | {"root": tmp_path})
    for name in ("ratio", "fp32"):
        files.write_bytes(stored(other, name), stored(done, name).read_bytes())
    files.write_arrays(tmp_path / "sample/fp32.npz", images=images)
    files.write_arrays(tmp_path / "sample/ratio.npz", images=change(images))
    with pytest.raises(LaqfiError, match=rf"sample/ratio\.npz: .*{message}"):
        evaluate_variant(other, "ratio")
    assert not (tmp_path / "evaluate").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": np.zeros(5), "covariance": np.eye(5), "kid_features": np.ones((3, 5), np.float32)}, "has 5 features"),
        ({"again_mean": np.zeros(5), "again_covariance": np.eye(5)}, "has 5 features, allowed are the 84 of"),
        ({"again_mean": None}, "again_mean"),
    ],
)
def test_the_reference_of_another_network_is_refused(done, tmp_path, change, message):
    names = ("mean", "covariance", "again_mean", "again_covariance", "kid_features", "kid_within")
    arrays = files.read_arrays(done.reference, *names) | change
    other = SimpleNamespace(**vars(done) | {"reference": tmp_path / "reference.npz"})
    files.write_arrays(other.reference, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(LaqfiError, match=rf"reference\.npz: .*{message}"):
        evaluate_variant(other, "ratio")


@pytest.mark.parametrize("label", [-1, 1000, 10**12])
def test_labels_of_no_class_are_refused(done, tmp_path, label):
    names = ("train_images", "train_labels", "test_images", "test_labels")
    arrays = files.read_arrays(done.dataset, *names)
    arrays["train_labels"][3] = label
    files.write_arrays(tmp_path / "dataset.npz", **arrays)
    with pytest.raises(LaqfiError, match=r"dataset\.npz: train_labels holds .*, allowed is 0 to 999"):
        feature_network(
            done.profile.dataset,
            done.profile.features,
            images=tmp_path / "dataset.npz",
            network=tmp_path / "n",
            info=tmp_path / "i",
        )


def test_a_missing_curvature_is_refused_rather_than_rounded_to_nearest(done, tmp_path):
    curved, _ = files.read_tensors(done.curvature)
    del curved["order/conv_in.weight"]
    files.write_tensors(tmp_path / "curvature", curved)
    other = SimpleNamespace(**vars(done) | {"curvature": tmp_path / "curvature"})
    with pytest.raises(LaqfiError, match=r"curvature: order/conv_in\.weight is None, allowed is"):
        quantize_variant(other, done.params.variants["budget"], tmp_path / "out", tmp_path / "choices")
    assert not (tmp_path / "out").exists()


def test_a_table_without_the_timestep_is_refused(done, tmp_path):
    table = files.read_json(done.table)
    files.write_json(tmp_path / "table.json", table | {"timesteps": [2, 50, 100]})
    with pytest.raises(LaqfiError, match=r"table\.json: holds the timesteps \[2, 50, 100\], not 1"):
        quantize_variant(
            done, done.params.variants["ratio"], tmp_path / "out", tmp_path / "choices", tmp_path / "table.json"
        )


def test_all_variants_of_a_model_of_zeros_without_fisher_information_are_zeros(done, tmp_path):
    other = SimpleNamespace(**vars(done))
    for name, read, write in (
        ("model", read_stored, write_stored),
        ("fisher", files.read_tensors, files.write_tensors),
    ):
        tensors, metadata = read(getattr(done, name))
        setattr(other, name, tmp_path / name)
        write(tmp_path / name, {key: torch.zeros_like(t) for key, t in tensors.items()}, metadata)
    table = files.read_json(done.table)
    for kind in ("empirical", "gauss_newton"):
        for rows in table[kind]["tensors"].values():
            rows["mean"] = [0.0] * 3
    files.write_json(tmp_path / "table.json", table)
    for name, variant in done.params.variants.items():
        quantize_variant(other, variant, tmp_path / "out", tmp_path / "choices", tmp_path / "table.json")
        unet, _, _ = read_model(tmp_path / "out", torch.device("cpu"))
        assert not unet(torch.randn(1, 1, 8, 8), torch.tensor([1])).any(), name


def settings_file(folder, **changes):
    """What the stage `params` makes of the tiny profile, with other keys or values."""
    params = whole.Params.model_validate(tiny_params())
    files.write_json(folder / "params.json", whole.resolve(params, "tiny", VERSIONS) | changes)
    return folder / "params.json"


def called(stage, params, *arguments):
    call = [sys.executable, "-m", f"laqfi.stages.{stage}", "--params", params, *arguments]
    return subprocess.run([str(part) for part in call], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign"])
def test_a_damaged_input_ends_in_one_line_and_leaves_no_output(done, tmp_path, damage):
    params, model, out = settings_file(tmp_path), tmp_path / "model.safetensors", tmp_path / "x.npz"
    payload = done.model.read_bytes()
    if damage != "missing":
        model.write_bytes(payload[:-1000] if damage == "truncated" else b"PK\x03\x04" + payload)
    result = called(
        "sample", params, "--variant", "fp32", "--model", model, "--out", out, "--sheet", tmp_path / "x.png"
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {model}: ")
    assert result.stderr.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} <= {"params.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"versions": {"numpy": "0.0.1"}}, "numpy {numpy} is installed, {path} says 0.0.1; `make versions`, then"),
        ({"versions": {"no-such": "1.0"}}, "no-such none is installed, {path} says 1.0; `make versions`, then"),
        ({"versions": {"numpy": 2}}, "{path}: versions.numpy: found 2. Input should be a valid string"),
        ({"versions": None}, "{path}: versions: found None"),
        ({"program": {}}, "{path}: program: found no 'dataset', allowed is one of []"),
        (
            {"program": {"dataset": "other"}},
            "{path}: program.dataset: the code has changed since; run the stage `params`, then this",
        ),
        ({"dataset": {"name": "cifar"}}, "dataset.name: found 'cifar', allowed is one of"),
        ({"dataset": {}}, "{path}: dataset.name: Field required"),
        ({"dataset": "digits"}, "{path}: dataset: found 'digits'"),
        ({"threads": 1.5}, "{path}: threads: found 1.5"),
    ],
)
def test_settings_that_do_not_fit_end_in_one_line(tmp_path, monkeypatch, changes, message):
    path, out = settings_file(tmp_path, **changes), tmp_path / "dataset.npz"
    monkeypatch.setattr(sys, "argv", ["dataset", "--params", str(path), "--folders", "folders.yaml", "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        command.run(dataset)
    assert str(end.value).startswith("error: " + message.format(path=path, numpy=np.__version__))
    assert "\n" not in str(end.value)
    assert not out.exists()


@pytest.mark.parametrize("edit", ["settings", "code", "nothing", "other code"])
def test_a_stage_whose_settings_or_code_change_while_it_runs_fails(tmp_path, monkeypatch, edit):
    """It ran by what was there before; an engine that looks at its inputs afterwards would take it for current."""
    path = settings_file(tmp_path, program={"test_stages": "this"})
    monkeypatch.setattr(command, "program", lambda file, versions: "this")
    own, other = tmp_path / "laqfi.py", tmp_path / "of_no_module.py"
    own.touch()
    other.touch()
    monkeypatch.setitem(sys.modules, "laqfi.made_up", SimpleNamespace(__file__=str(own)))
    monkeypatch.setattr(sources, "AT_START", sources.AT_START | {file: sources.stamp(file) for file in (own, other)})
    monkeypatch.setattr(sys, "argv", ["stage", "--params", str(path)])
    changed = {"settings": path, "code": own, "other code": other}.get(edit)

    def stage(threads: int) -> None:
        """One that takes its time."""
        if changed:
            changed.write_text(changed.read_text() + "\n")

    if edit in ("settings", "code"):
        with pytest.raises(SystemExit) as end:
            command.run(stage)
        said = f"error: {changed} was changed while the stage ran by what it held before; run again"
        assert end.value.code == said
    else:
        command.run(stage)


def test_a_variant_is_what_its_name_says_and_not_the_file_of_its_model(done, tmp_path):
    """`budget` is among the headline's variants, `ratio` is not; the settings hold no block of either."""
    params, model = settings_file(tmp_path, variants={}), tmp_path / "ratio.safetensors"
    model.write_bytes(stored(done, "budget").read_bytes())
    result = called(
        "sample",
        params,
        "--variant",
        "budget",
        "--model",
        model,
        "--out",
        tmp_path / "x.npz",
        "--sheet",
        tmp_path / "x.png",
    )
    assert result.returncode == 0, result.stderr
    for key in ("images", "ancestral"):
        wanted = files.read_array(done.root / "sample/budget.npz", key)
        assert np.array_equal(files.read_array(tmp_path / "x.npz", key), wanted)


def test_an_unknown_variant_is_named(tmp_path):
    flags = ("--model", "--table", "--fisher", "--curvature", "--calibration", "--out", "--choices")
    paths = [word for flag in flags for word in (flag, tmp_path / "x")]
    result = called("quantize", settings_file(tmp_path), "--variant", "raito", *paths)
    assert "variants: found no 'raito', allowed is one of ['budget', 'fp32', 'ratio', 'threshold']" in result.stderr


EDITS = """
import json, sys
from pathlib import Path
from laqfi.stages import train

names = {}
for file in sys.argv[2:]:
    before = train.fingerprint([], 1, {}, Path(sys.argv[1]))
    path = Path(train.__file__).parents[1] / file
    path.write_text(path.read_text() + "# edited")
    names[file] = train.fingerprint([], 1, {}, Path(sys.argv[1])) == before
print(json.dumps(names))
"""


def test_a_training_that_was_stopped_goes_on_only_with_the_same_code(done, tmp_path):
    """In whatever wing the code is; what training does not import does not count."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    edited = ["models/unet.py", "diffusion/process.py", "diffusion/training.py", "base/random.py", "report/page.py"]
    command = [sys.executable, "-c", EDITS, done.dataset, *edited]
    path = os.pathsep.join([str(tmp_path / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == dict.fromkeys(edited, False) | {"report/page.py": True}


def test_a_training_that_was_stopped_goes_on_only_with_the_same_versions_and_settings(done):
    blocks = [done.profile.diffusion, done.profile.model, done.profile.train]
    longer = [*blocks[:2], done.profile.train.model_copy(update={"steps": 7})]
    names = {
        fingerprint(blocks, 1, VERSIONS, done.dataset),
        fingerprint(blocks, 2, VERSIONS, done.dataset),
        fingerprint(blocks, 1, VERSIONS | {"torch": "2.12.2"}, done.dataset),
        fingerprint(blocks, 1, VERSIONS, done.table),
        fingerprint(longer, 1, VERSIONS, done.dataset),
    }
    assert len(names) == 5
    assert fingerprint(blocks, 1, dict(VERSIONS), done.dataset) in names


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_on_a_cpu_the_controls_are_drawn_once_whatever_their_precision(done, tmp_path):
    settings = done.profile.controls.model_copy(update={"precision": "float16"})
    draw_controls(done, settings, tmp_path / "controls.json")
    assert (tmp_path / "controls.json").read_bytes() == (done.root / "controls.json").read_bytes()


def drawn_coarsely(model, precision, evaluations):
    """What stands for a precision: weights of 300 steps up to their largest."""
    if precision == "float32":
        return model
    network = restored(model, torch.float32)
    for weight in network.parameters():
        step = weight.abs().max().clamp(min=1e-9) / 300
        weight.data = (weight / step).round() * step  # in memory of its own: the model keeps what it has
    return network


def test_controls_are_drawn_again_where_a_coarse_precision_does_not_carry(done, tmp_path, monkeypatch):
    monkeypatch.setattr("laqfi.stages.controls.arithmetic", lambda precision: precision)
    monkeypatch.setattr("laqfi.sampling.drawing.prepared", drawn_coarsely)
    settings = done.profile.controls.model_copy(update={"precision": "float16"})
    draw_controls(done, settings, tmp_path / "controls.json")
    fine, found = (records.read(at / "controls.json", records.ControlTable) for at in (done.root, tmp_path))
    assert (found.precision, found.base, set(found.bases)) == ("float32", fine.base, {"float32", "float16"})
    own = np.median(found.bases["float16"].squared_error)
    for row, wanted in zip(found.rows, fine.rows, strict=True):
        if row.precision == "float32":
            assert row == wanted
        elif row.found:
            assert 20 * own <= np.median(row.found.squared_error)
            assert row.found.bytes == wanted.found.bytes
    assert {row.precision for row in found.rows if row.found} == {"float32", "float16"}


@pytest.mark.parametrize(
    "change", [lambda x: x[:1], lambda x: x[:, :9], lambda x: x[..., :4], lambda x: x.astype(np.float64)]
)
def test_images_of_fp32_that_are_not_those_the_controls_pair_with_are_refused(tmp_path, change):
    path = tmp_path / "fp32.npz"
    files.write_arrays(path, images=change(np.zeros((2, 12, 1, 8, 8), np.uint8)))
    with pytest.raises(LaqfiError):
        first_images(path, 2, 10, (1, 8, 8))


def test_the_controls_take_the_first_images_of_fp32(tmp_path):
    images = np.arange(2 * 12 * 64).astype(np.uint8).reshape(2, 12, 1, 8, 8)
    files.write_arrays(tmp_path / "fp32.npz", images=images)
    assert np.array_equal(first_images(tmp_path / "fp32.npz", 2, 10, (1, 8, 8)), images[:, :10])
