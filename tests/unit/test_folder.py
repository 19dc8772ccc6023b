"""A folder of images: what counts, what it shows, what is held out, and what is refused."""

import hashlib
import json
import os
import shutil
from contextlib import suppress

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from laqfi.base import files, folders
from laqfi.base.errors import LaqfiError
from laqfi.data import datasets, folder
from laqfi.data.params import Dataset
from laqfi.params import whole
from laqfi.params.folders import read
from laqfi.stages.dataset import dataset
from laqfi.stages.folders import held
from tiny import tiny_params

DIGITS = np.round(load_digits().images * 255 / 16).astype(np.uint8)
RED, GREEN, CLEAR = (255, 0, 0), (0, 255, 0), (9, 9, 9, 0)


def tinted(index: int) -> Image.Image:
    tint = np.random.default_rng(index).uniform(0.3, 1, 3)
    return Image.fromarray((DIGITS[index][..., None] * tint).round().astype(np.uint8))


def put(image: Image.Image, path, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)


@pytest.fixture
def labelled(tmp_path):
    """Forty tinted digits in a folder for each remainder by three."""
    for index in range(40):
        put(tinted(index), tmp_path / f"images/{index % 3}/{index}.png")
    return tmp_path / "images"


def shown(path, side: int, channels: int) -> np.ndarray:
    with folder.opened(path, files.sha256(path)) as image:
        return folder.pixels(image, side, channels)


def test_images_come_back_as_they_are_with_the_label_of_their_folder(labelled):
    found = datasets.load("folder", {"path": str(labelled), "side": 8})
    pairs = [
        (image.tobytes(), label)
        for part in ("train", "test")
        for image, label in zip(found[f"{part}_images"], found[f"{part}_labels"], strict=True)
    ]
    expected = [(np.asarray(tinted(i)).transpose(2, 0, 1).tobytes(), i % 3) for i in range(40)]
    assert sorted(pairs) == sorted(expected)
    assert {array.dtype.str for array in found.values()} == {"|u1", "<i8"}
    listed = folder.listed(labelled)
    assert (listed.train, listed.test) == (len(found["train_images"]), len(found["test_images"]))
    assert (listed.files, listed.labels, listed.colour, listed.grey, listed.shortest) == (40, 3, 40, 0, 8)


def test_an_image_is_held_out_by_its_own_hash_alone(labelled, tmp_path):
    """Under whatever name, beside whatever others, and its copy with it."""
    held_out = {
        path.read_bytes()
        for path in labelled.rglob("*.png")
        if int(hashlib.sha256(path.read_bytes()).hexdigest()[:8], 16) % 5 == 0
    }
    assert 1 < len(held_out) < 20
    found = folder.read(labelled, 8)
    for number, path in enumerate(sorted(labelled.rglob("*.png"), key=lambda path: path.stat().st_size)):
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.copyfile(path, tmp_path / f"flat/{number:02}.PNG")
    again = folder.read(tmp_path / "flat", 8)
    assert set(again) == {"train_images", "test_images"}
    assert all((again[name] == found[name]).all() for name in again)
    assert len(again["test_images"]) == len(held_out)
    (tmp_path / "flat/00.PNG").unlink()
    shutil.copyfile(tmp_path / "flat/01.PNG", tmp_path / "flat/copy.png")
    fewer = folder.read(tmp_path / "flat", 8)
    for part in ("train_images", "test_images"):
        assert {image.tobytes() for image in fewer[part]} <= {image.tobytes() for image in found[part]}


def test_the_order_of_listing_and_the_place_decide_nothing(labelled, tmp_path, monkeypatch):
    before, walk = folder.read(labelled, 8), os.walk
    labelled.rename(tmp_path / "elsewhere")

    def backwards(top, **how):
        for place, inside, here in walk(top, **how):
            inside.sort(reverse=True)
            yield place, inside, here[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    after = folder.read(tmp_path / "elsewhere", 8)
    assert all((before[name] == after[name]).all() for name in before)


def test_hidden_files_and_files_of_other_kinds_are_left_out_and_links_to_files_are_files(labelled, tmp_path):
    before = folders.hashes(labelled, folder.SUFFIXES)
    for name in (".hidden.png", "._0.png", ".git/0.png", "0/.thumbs/1.png", "0/notes.txt", "labels.csv", "0/png"):
        (labelled / name).parent.mkdir(exist_ok=True)
        (labelled / name).write_bytes(b"no image")
    assert folders.hashes(labelled, folder.SUFFIXES) == before
    put(tinted(50), tmp_path / "other.png")
    (labelled / "0/link.JPEG").symlink_to(tmp_path / "other.png")
    (tmp_path / "linked").symlink_to(labelled)
    assert folders.hashes(tmp_path / "linked", folder.SUFFIXES) == dict(
        sorted((before | {"0/link.JPEG": files.sha256(tmp_path / "other.png")}).items())
    )
    assert folder.listed(tmp_path / "linked").files == 41


def test_the_hash_of_a_folder_is_that_of_its_sorted_names_and_hashes(labelled):
    listing = {
        path.relative_to(labelled).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in labelled.rglob("*.png")
    }
    expected = hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()
    assert folders.digest(folders.hashes(labelled, folder.SUFFIXES)) == expected
    (labelled / "0/0.png").rename(labelled / "1/0.png")
    assert folders.digest(folders.hashes(labelled, folder.SUFFIXES)) != expected


@pytest.mark.parametrize(("size", "box"), [((12, 4), (4, 0, 8, 4)), ((4, 12), (0, 4, 4, 8)), ((13, 4), (4, 0, 8, 4))])
def test_the_centre_square_is_cut_out(tmp_path, size, box):
    """Of an odd rest the larger half is right of it, or below."""
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, box)
    put(image, tmp_path / "a.png")
    assert (shown(tmp_path / "a.png", 4, 3) == np.array(GREEN)[:, None, None]).all()


def keys_cubic(x: np.ndarray) -> np.ndarray:
    """Keys 1981, with a = -1/2."""
    x = np.abs(x)
    return np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


def test_shrinking_averages_with_the_bicubic_kernel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    put(Image.fromarray(pixels), tmp_path / "a.png")
    places = (np.arange(24) + 0.5)[None] - (np.arange(8) + 0.5)[:, None] * 3
    weights = keys_cubic(places / 3)
    weights /= weights.sum(1, keepdims=True)
    expected = np.einsum("ih,jw,hwc->cij", weights, weights, pixels.astype(float)).clip(0, 255)
    assert np.abs(shown(tmp_path / "a.png", 8, 3) - expected).max() <= 1.5


def test_photographs_are_turned_as_their_exif_data_say(tmp_path):
    upright = tinted(3)
    lying, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "b.webp"):
        put(lying, tmp_path / name, exif=exif, **({"lossless": True} if name == "b.webp" else {}))
        assert (shown(tmp_path / name, 8, 3) == np.asarray(upright).transpose(2, 0, 1)).all()


def test_transparent_pixels_are_white_whatever_they_hide(tmp_path):
    half = Image.new("RGBA", (8, 8), CLEAR)
    half.paste(RED, (0, 0, 8, 4))
    palette = half.convert("RGB").quantize(4)
    put(half, tmp_path / "a.png")
    put(half, tmp_path / "b.webp", lossless=True, exact=True)
    put(palette, tmp_path / "c.png", transparency=palette.getpixel((0, 7)))
    put(Image.merge("LA", [half.getchannel("R"), half.getchannel("A")]), tmp_path / "d.png")
    for name in ("a.png", "b.webp", "c.png"):
        found = shown(tmp_path / name, 8, 3)
        assert (found[:, :4] == np.array(RED)[:, None, None]).all(), name
        assert (found[:, 4:] == 255).all(), name
    assert (shown(tmp_path / "d.png", 8, 1) == 255).all()


def test_grey_and_colour_become_one_another_only_where_it_is_asked(tmp_path):
    put(Image.fromarray(DIGITS[0]), tmp_path / "grey.png")
    put(Image.fromarray(DIGITS[0] > 128), tmp_path / "bits.png")
    put(Image.fromarray(DIGITS[1]).convert("RGB").quantize(), tmp_path / "palette.png")
    assert (shown(tmp_path / "grey.png", 8, 3) == DIGITS[0]).all()
    assert (shown(tmp_path / "bits.png", 8, 1) == np.where(DIGITS[0] > 128, 255, 0)).all()
    assert (shown(tmp_path / "palette.png", 8, 3) == DIGITS[1]).all()
    put(tinted(5), tmp_path / "colour.png")
    luma = np.asarray(tinted(5)) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(shown(tmp_path / "colour.png", 8, 1)[0] - luma).max() <= 0.6
    for index in range(30):
        put(tinted(index), tmp_path / f"{index}.png")
    with pytest.raises(LaqfiError, match=r"some images are grey and some are not; allowed is .*`channels`: 1 or 3"):
        folder.read(tmp_path, 8)
    assert folder.read(tmp_path, 8, 3)["train_images"].shape[1] == 3
    assert folder.read(tmp_path, 8, 1)["train_images"].shape[1] == 1


def test_of_several_photographs_in_one_jpeg_the_first_is_taken(tmp_path):
    put(Image.new("RGB", (8, 8), RED), tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[tinted(0)])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    assert np.abs(shown(tmp_path / "a.jpg", 8, 3).astype(int) - np.array(RED)[:, None, None]).max() < 5


def wide_png() -> bytes:
    """RGB of 16 bits a channel, which Pillow reads as 8."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(48) for _ in range(8)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def add(images, name: str, image=None, **how) -> None:
    put(image or tinted(0), images / name, **how)


MOVING = {"save_all": True, "append_images": [tinted(1)]}
REFUSED = {
    "gone": (lambda images: shutil.rmtree(images), r"images: no such folder"),
    "empty": (lambda images: [path.unlink() for path in images.rglob("*.png")], r"images: holds no file of \.jpeg, "),
    "damaged": (lambda images: (images / "0/0.png").write_bytes(b"GIF89a"), r"0/0\.png: not a readable PNG, JPEG or"),
    "mixed": (lambda images: add(images, "a.png"), r"holds images as 2/\S+ and a\.png, allowed is all in the folder"),
    "deep": (
        lambda images: images.rename(images.parent / "x/images/all"),
        r"holds images as images/all/\S+, allowed is all",
    ),
    "16 bits": (lambda images: add(images, "0/a.png", Image.new("I;16", (8, 8))), r"0/a\.png: is 16 bits a channel"),
    "16 bits in colour": (lambda images: (images / "0/a.png").write_bytes(wide_png()), r"a\.png: is 16 bits a channel"),
    "CMYK": (lambda images: add(images, "0/a.jpg", Image.new("CMYK", (8, 8))), r"0/a\.jpg: is CMYK, allowed is grey"),
    "moving WebP": (lambda images: add(images, "0/a.webp", **MOVING), r"0/a\.webp: holds 2 pictures"),
    "moving PNG": (lambda images: add(images, "0/a.png", **MOVING), r"0/a\.png: holds 2 pictures"),
    "GIF": (lambda images: add(images, "0/a.png", format="GIF"), r"0/a\.png: not a readable PNG, JPEG or WebP"),
    "linked folder": (lambda images: (images / "9").symlink_to(images / "0"), r"9: is a link to a folder"),
    "lost link": (lambda images: (images / "0/a.png").symlink_to("gone"), r"0/a\.png: is no file"),
    "pipe": (lambda images: os.mkfifo(images / "0/a.png"), r"0/a\.png: is no file"),
    "two lines": (lambda images: add(images, "0/a\nb.png"), r"is no name in UTF-8 on one line"),
    "no UTF-8": (lambda images: add(images, os.fsdecode(b"0/\xff.png")), r"is no name in UTF-8 on one line"),
    "one": (lambda images: [path.unlink() for path in images.rglob("?*.png") if path.stem != "0"], r"of 1 images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line_when_it_is_recorded(labelled, case):
    (labelled.parent / "x/images").mkdir(parents=True)
    change, complaint = REFUSED[case]
    change(labelled)
    with pytest.raises(LaqfiError, match=complaint) as error:
        folder.listed(labelled if case != "deep" else labelled.parent / "x")
    assert "\n" not in str(error.value)


def test_more_pixels_than_pillow_allows_are_refused(labelled, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(LaqfiError, match=r"\.png: holds more pixels than the 50 that are allowed"):
        folder.listed(labelled)


def test_an_image_that_is_cut_or_too_small_is_refused_when_it_is_read(labelled):
    with pytest.raises(LaqfiError, match=r"/\d+\.png: is 8 x 8, allowed is 16 and more"):
        folder.read(labelled, 16)
    path = labelled / "0/0.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LaqfiError, match=r"0/0\.png: not a readable PNG, JPEG or WebP file") as error:
        folder.read(labelled, 8, 3)
    assert "\n" not in str(error.value)


@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP"]), place=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_damaged_file_is_an_image_or_refused(tmp_path_factory, kind, place, byte):
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    put(tinted(2), path, format=kind)
    payload = bytearray(path.read_bytes())
    payload[place % len(payload)] = byte
    path.write_bytes(payload)
    with suppress(LaqfiError):
        assert shown(path, 8, 3).shape == (3, 8, 8)


# Recorded, checked, and read by the stage.


def tiny_of(images, **options) -> dict:
    params = tiny_params()
    tiny = params["profiles"]["tiny"]
    tiny["dataset"] = {"name": "folder", "path": str(images), "side": 8, **options}
    tiny["evaluate"] |= {"groups": 2, "noise_images": 2}
    return params


def recorded(place, params: dict) -> dict:
    """What workflow/folders.yaml holds of the folders that `params` names."""
    (place / "params.yaml").write_text(yaml.safe_dump(params))
    found = held(place / "params.yaml", place / "folders.yaml")
    (place / "folders.yaml").write_text(yaml.safe_dump({"folders": json.loads(json.dumps(found))}))
    return read(place / "folders.yaml")


def settings(place, params: dict) -> dict:
    (place / "params.yaml").write_text(yaml.safe_dump(params))
    return whole.resolve(whole.load(place / "params.yaml", read(place / "folders.yaml")), "tiny", {"numpy": "1"})


def test_a_folder_is_recorded_once_and_settings_hold_its_hash_in_place_of_its_path(labelled, tmp_path):
    params = tiny_of(labelled)
    params["profiles"]["again"] = params["profiles"]["tiny"]
    before = recorded(tmp_path, params)
    assert before == {str(labelled): folder.listed(labelled).model_dump()}
    found = settings(tmp_path, params)
    sha256 = before[str(labelled)]["sha256"]
    assert found["dataset"] == {"name": "folder", "side": 8, "channels": 3, "sha256": sha256}
    labelled.rename(tmp_path / "moved")
    assert recorded(tmp_path, params) == before  # of a folder that is not there now, on another machine
    moved = tiny_of(tmp_path / "moved")
    assert list(recorded(tmp_path, moved)) == [str(tmp_path / "moved")]
    assert settings(tmp_path, moved) == found
    put(tinted(60), tmp_path / "moved/0/60.png")
    recorded(tmp_path, moved)
    assert settings(tmp_path, moved)["dataset"]["sha256"] != sha256


def without_labels(images) -> None:
    for path in images.rglob("*.png"):
        path.rename(images / path.name)


def with_a_grey_one(images) -> None:
    put(Image.fromarray(DIGITS[0]), images / "0/grey.png")


MISFITS = {
    "too small": ({"side": 16}, None, r"dataset\.side is 16, allowed is up to 8, the shortest side of an image in"),
    "no multiple": ({"side": 4}, None, r"dataset\.side: image is \[3, 4, 4\], allowed is \[C, H, W\] with H and W mul"),
    "another": ({"sha256": "0" * 64}, None, r"dataset\.sha256 is 0{64}, allowed is that of .*images: [0-9a-f]{64}"),
    "unknown": ({"width": 8}, None, r"dataset\.width: unknown key"),
    "no side": ({"side": None}, None, r"dataset\.side: found None"),
    "two channels": ({"channels": 2}, None, r"dataset\.channels: found 2"),
    "no labels": (
        {},
        without_labels,
        r"features\.network is classifier, of images with 0 labels .* or inception or eff",
    ),
    "grey and colour": (
        {},
        with_a_grey_one,
        r"dataset\.channels: found none, allowed is 1 or 3: 1 images in .* are gr",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_settings_that_the_images_do_not_fit_are_refused_in_one_line(labelled, tmp_path, case):
    options, change, complaint = MISFITS[case]
    if change:
        change(labelled)
    recorded(tmp_path, tiny_of(labelled))
    with pytest.raises(LaqfiError, match=complaint) as error:
        settings(tmp_path, tiny_of(labelled, **options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("block", "key", "complaint"),
    [
        ("fisher", "images", r"fisher\.images is 41, allowed are the \d+ training images of folder"),
        ("evaluate", "noise_images", r"evaluate\.noise_images is 41, allowed are the \d+ test images of folder"),
        ("evaluate", "groups", r"evaluate\.groups is 41, allowed is up to half of the \d+ test images of folder"),
    ],
)
def test_numbers_of_images_are_checked_against_those_of_the_folder(labelled, tmp_path, block, key, complaint):
    params = tiny_of(labelled)
    recorded(tmp_path, params)
    params["profiles"]["tiny"][block][key] = 41
    with pytest.raises(LaqfiError, match=complaint):
        settings(tmp_path, params)


def test_a_folder_that_is_not_recorded_is_refused_with_what_to_do(labelled, tmp_path):
    (tmp_path / "folders.yaml").write_text("folders: {}")
    with pytest.raises(
        LaqfiError, match=r"images' is not in workflow/folders\.yaml; `make folders` writes it, then run"
    ):
        settings(tmp_path, tiny_of(labelled))


@pytest.mark.parametrize("text", ["", "folders: []", "runs: {}", "folders: {a: {files: 3}}", "folders: {a: b}"])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "folders.yaml").write_text(text)
    with pytest.raises(
        LaqfiError, match=r"folders\.yaml: holds no folders with their hashes; `make folders` writes it"
    ):
        read(tmp_path / "folders.yaml")


def test_the_stage_reads_the_folder_that_has_the_hash_and_refuses_one_that_was_changed(labelled, tmp_path):
    recorded(tmp_path, tiny_of(labelled))
    block = Dataset.model_validate(settings(tmp_path, tiny_of(labelled))["dataset"])
    dataset(block, folders=tmp_path / "folders.yaml", out=tmp_path / "a.npz")
    labelled.rename(tmp_path / "moved")
    recorded(tmp_path, tiny_of(tmp_path / "moved"))
    dataset(block, folders=tmp_path / "folders.yaml", out=tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    put(tinted(60), tmp_path / "moved/0/60.png")
    with pytest.raises(LaqfiError, match=r"moved: holds other files than those recorded .*`make folders` records them"):
        dataset(block, folders=tmp_path / "folders.yaml", out=tmp_path / "c.npz")
    recorded(tmp_path, tiny_of(tmp_path / "moved"))
    with pytest.raises(LaqfiError, match=r"folders\.yaml: has no folder of sha256 .*`make folders` writes it"):
        dataset(block, folders=tmp_path / "folders.yaml", out=tmp_path / "c.npz")


def test_a_file_that_changes_while_the_folder_is_read_is_refused(labelled):
    with (
        pytest.raises(LaqfiError, match=r"0\.png: was changed while the folder was read"),
        folder.opened(labelled / "0/0.png", "0" * 64),
    ):
        pass
