"""`laqfi quantize` and `laqfi export`: the whole of it on a small folder, and what is refused before any work."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors import safe_open

from diffusers_folder import SCHEDULE, small_unet, write_folder
from laqfi import api
from laqfi.base.pictures import from_uint8, png
from laqfi.base.random import generator
from laqfi.data.datasets import load
from laqfi.data.folder import read
from laqfi.diffusion.process import add_noise
from laqfi.models import scheduler
from laqfi.shell.program import main
from laqfi.shell.whole import HELD_OUT

QUICK = ("--draw", "6", "--steps", "5", "--images", "8")


def tiny_unet(**settings) -> UNet2DModel:
    """With as few layers as there can be."""
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    return small_unet(**blocks | settings)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """A pipeline, its U-Net alone, and a folder of images."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "images").mkdir()
    for number, image in enumerate(load("digits", {})["train_images"][:40]):
        (folder / f"images/{number}.png").write_bytes(png(image.transpose(1, 2, 0)))
    model = write_folder(folder / "model", tiny_unet())
    return {"images": folder / "images", "model": model, "unet": model / "unet"}


def quantize(places: dict[str, Path], out: Path, *more: str, model: str = "model", target: str = "4x") -> str:
    """What it prints."""
    words = (places[model], "--data", places["images"], "--target", target, "--out", out, *QUICK, *more)
    with redirect_stdout(io.StringIO()) as said:
        main(["quantize", *map(str, words)])
    return said.getvalue()


@pytest.fixture(scope="module")
def made(places, tmp_path_factory) -> tuple[Path, str]:
    """The folder, and what was said."""
    out = tmp_path_factory.mktemp("made") / "smaller"
    return out, quantize(places, out)


def tensor_bytes(file: Path) -> int:
    with safe_open(file, "pt") as opened:
        return sum(opened.get_tensor(name).nbytes for name in opened.keys())  # noqa: SIM118


def test_what_is_written_is_no_larger_than_asked_for_and_said_as_it_is(made):
    out, said = made
    before = 4 * sum(p.numel() for p in tiny_unet().parameters())
    file = out / "unet/diffusion_pytorch_model.safetensors"
    size = tensor_bytes(file)
    assert 0.9 * before / 4 < size <= before / 4
    assert f"{before:,} bytes in float32, {size:,} now: {before / size:.2f} times smaller" in said
    assert f"{file.stat().st_size:,} now" in said
    assert re.search(r"images   median PSNR [\d.]+ dB \[[\d.]+, [\d.]+\] of 6 images in 5 steps", said)


@torch.no_grad()
def test_diffusers_loads_it_and_its_noise_moves_as_much_as_was_said(places, made):
    """The reference is diffusers, with SDNQ in between, on the images that are held out."""
    out, said = made
    theirs, base = DDPMPipeline.from_pretrained(out).unet, tiny_unet()
    images = from_uint8(read(places["images"], 8, 1, most=(1, HELD_OUT))["test_images"])
    table, changes = scheduler.alphas_cumprod({"_class_name": "DDIMScheduler", **SCHEDULE}), []
    for timestep in api.spread(100):
        noise = torch.from_numpy(generator("noise error", 0, timestep).standard_normal(images.shape, dtype="float32"))
        x = add_noise(images, noise, torch.full((len(images),), timestep), table)
        changes.append((theirs(x, timestep - 1).sample - base(x, timestep - 1).sample).square().mean())
    found = float(re.search(r"squared error (\S+) of", said)[1])
    assert 0 < found == pytest.approx(float(torch.stack(changes).mean()), rel=0.01)


def test_the_same_call_writes_the_same_bytes(places, made, tmp_path):
    quantize(places, tmp_path / "again", "--chunk", "16")
    names = {path.relative_to(made[0]) for path in made[0].rglob("*") if path.is_file()}
    assert {str(name) for name in names} == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert all((made[0] / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_a_unet_alone_with_classes_and_a_learned_variance_takes_bytes(places, tmp_path):
    learned = DDPMScheduler(**SCHEDULE, variance_type="learned_range")
    folder = write_folder(tmp_path / "model", tiny_unet(num_class_embeds=3, out_channels=2), learned)
    config = str(folder / "scheduler/scheduler_config.json")
    more = ("--scheduler", config, "--class-label", "2")
    said = quantize(places | {"unet": folder / "unet"}, tmp_path / "out", *more, model="unet", target="20kB")
    assert tensor_bytes(tmp_path / "out/diffusion_pytorch_model.safetensors") <= 20_000
    assert "median PSNR" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }


def pickled(folder: Path) -> None:
    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_suffix(".bin"))


def louder(folder: Path) -> None:
    unet = tiny_unet()
    unet.conv_in.weight.data.mul_(1e9)
    unet.save_pretrained(folder / "unet")


def edited(name: str, **change):
    def edit(folder: Path) -> None:
        config = json.loads((folder / name).read_text()) | change
        (folder / name).write_text(json.dumps(config))

    return edit


FOLDERS = {
    "a pickle": (pickled, r"diffusion_pytorch_model\.bin: is a pickle, which is never read"),
    "another scheduler": (
        edited("scheduler/scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler"),
        r"scheduler\._class_name: found 'FlowMatchEulerDiscreteScheduler', allowed is one of DDIMScheduler",
    ),
    "latents": (edited("unet/config.json", in_channels=4, out_channels=4), r"allowed are squares of 1 or 3 channels"),
    "no square": (edited("unet/config.json", sample_size=[8, 16]), r"allowed are squares of 1 or 3 channels"),
    "an unknown block": (
        edited("unet/config.json", down_block_types=["No"]),
        r"model: the metadata describes no model",
    ),
    "groups that do not divide": (edited("unet/config.json", norm_num_groups=3), r"must be divisible by num_groups"),
    "a number as text": (edited("unet/config.json", norm_num_groups="4"), r"model: the metadata describes no model"),
    "weights beyond float16": (louder, r"model: conv_in\.weight holds 3\..*e\+08, allowed is up to 65504"),
    "damaged weights": (
        lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"no"),
        r"not a readable safetensors file",
    ),
    "other weights": (
        lambda folder: (
            small_unet().save_pretrained(folder / "other")
            or (folder / "other/diffusion_pytorch_model.safetensors").replace(
                folder / "unet/diffusion_pytorch_model.safetensors"
            )
        ),
        r"is \(8,\), allowed is None",
    ),
}


@pytest.fixture
def idle(monkeypatch):
    """Measuring would be work."""
    monkeypatch.setattr("laqfi.api.measure", None)


def refused(capsys, message: str, call) -> None:
    with pytest.raises(SystemExit) as ended:
        call()
    assert re.fullmatch(rf"error: .*{message}.*", str(ended.value)), ended.value
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("change", "message"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_cannot_be_taken_is_refused_before_any_work(places, tmp_path, capsys, idle, change, message):
    write_folder(tmp_path / "model", tiny_unet())
    change(tmp_path / "model")
    refused(capsys, message, lambda: quantize(places | {"model": tmp_path / "model"}, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


OPTIONS = {
    "out of reach": (("--target", "40x"), r"target: found 40x, [\d,]+ bytes of this model, allowed is \d+B and more"),
    "no target": (("--target", "small"), r"target: found 'small', allowed is how many times smaller"),
    "not smaller": (("--target", "1x"), r"target\.ratio: found 1\.0"),
    "too few drawn": (("--draw", "5"), r"--draw: found 5, allowed is 6 and more"),
    "too many steps": (("--steps", "101"), r"--steps: found 101, refused by DDIMScheduler"),
    "a second scheduler": (("--scheduler", "a.json"), r"--scheduler: allowed is none, as the folder has its own"),
    "a class": (("--class-label", "1"), r"class_label is 1, allowed is none: the network has no classes"),
    "no images": (("--data", "/none"), r"/none: no such folder"),
}


@pytest.mark.parametrize(("words", "message"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_cannot_be_is_refused_before_any_work(places, tmp_path, capsys, idle, words, message):
    refused(capsys, message, lambda: quantize(places, tmp_path / "out", *words))


def test_folders_of_images_and_results_that_do_not_do_are_refused_before_any_work(places, tmp_path, capsys, idle):
    (tmp_path / "empty").mkdir()
    empty = places | {"images": tmp_path / "empty"}
    refused(capsys, r"empty: holds no file of \.jpeg, \.jpg, \.png, \.webp", lambda: quantize(empty, tmp_path / "out"))
    (tmp_path / "small").mkdir()
    (tmp_path / "small/a.png").write_bytes(png(torch.zeros(4, 4, 1, dtype=torch.uint8).numpy()))
    small = places | {"images": tmp_path / "small"}
    refused(capsys, r"a\.png: is 4 x 4, allowed is 8 and more", lambda: quantize(small, tmp_path / "out"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/notes.txt").write_text("mine")
    refused(
        capsys,
        r"taken: is there already, allowed is a new or an empty folder",
        lambda: quantize(places, tmp_path / "taken"),
    )
    refused(
        capsys, r"--scheduler: allowed is the config of one", lambda: quantize(places, tmp_path / "out", model="unet")
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/out", r"file/out: cannot be written \(Not a directory\)"),
        ("x" * 300, r"cannot be written \(File name too long\)"),
        ("lost", "lost: is there already, allowed is a new or an empty folder"),
        ("/proc/out", r"/proc/out: cannot be written"),  # where all may write, as it says
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(places, tmp_path, capsys, idle, place, message):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    refused(capsys, message, lambda: quantize(places, tmp_path / place))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "lost"}


def test_a_run_that_fails_leaves_no_folder(places, tmp_path, monkeypatch):
    monkeypatch.setattr("laqfi.api.quantize", None)
    with pytest.raises(TypeError):
        quantize(places, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_the_export_of_a_model_that_is_not_of_diffusers_is_refused(places, tmp_path, capsys):
    model = str(tmp_path / "own.safetensors")
    unet = small_unet()
    ones = api.Measured({name: torch.ones_like(p) for name, p in unet.named_parameters()})
    api.save(api.quantize(unet, ones, policy="bits", format="int4"), model)
    refused(
        capsys,
        r"own\.safetensors: the metadata describes no model \(model: Field required\)",
        lambda: main(["export", model, "--source", str(places["model"]), "--out", str(tmp_path / "out")]),
    )
