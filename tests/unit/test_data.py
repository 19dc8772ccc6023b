import gzip
import hashlib
import shutil
import struct
import tarfile

import numpy as np
import pytest
import torchvision
from sklearn.datasets import load_digits

from laqfi.base.errors import LaqfiError
from laqfi.data import datasets, fetched
from laqfi.data.mirror import MIRROR

NAMES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]


@pytest.fixture
def offline(monkeypatch):
    """No server of the data sets is asked: only a closed port of this machine is."""
    for source in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST, torchvision.datasets.KMNIST):
        monkeypatch.setattr(source, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.delenv(MIRROR, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def test_digits_are_all_there_at_their_own_resolution():
    arrays = datasets.load("digits", {})
    assert arrays["train_images"].shape == (1437, 1, 8, 8)
    assert arrays["test_images"].shape == (360, 1, 8, 8)
    assert arrays["train_images"].dtype == np.uint8
    joined = np.concatenate([arrays["train_images"], arrays["test_images"]])[:, 0]
    expected = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(image.tobytes() for image in joined) == sorted(image.tobytes() for image in expected)


def test_every_digit_is_held_out_in_proportion():
    counts = np.bincount(datasets.load("digits", {})["test_labels"], minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_padding_centres_the_image_on_background():
    image = np.arange(1, 28 * 28 + 1, dtype=np.uint16).reshape(1, 28, 28)
    padded = fetched.pad(image, 32)
    assert padded.shape == (1, 1, 32, 32)
    assert (padded[0, 0, 2:30, 2:30] == image[0]).all()
    assert padded.sum() == image.sum()


def check_mnist(arrays):
    assert arrays["train_images"].shape == (60_000, 1, 32, 32)
    assert arrays["test_images"].shape == (10_000, 1, 32, 32)
    assert arrays["train_labels"][:5].tolist() == [5, 0, 4, 1, 9]
    assert arrays["test_labels"][:5].tolist() == [7, 2, 1, 0, 4]
    assert arrays["train_images"].max() == 255
    assert arrays["train_images"][:, :, :2].max() == 0


def test_mnist_comes_from_a_mirror_folder(offline, monkeypatch, mnist_mirror):
    monkeypatch.setenv(MIRROR, str(mnist_mirror))
    check_mnist(datasets.load("mnist", {}))


def test_mnist_comes_from_a_mirror_url(offline, monkeypatch, mnist_mirror, serve):
    monkeypatch.setenv(MIRROR, serve(mnist_mirror))
    check_mnist(datasets.load("mnist", {}))


@pytest.fixture
def serve():
    """Serve a folder over HTTP on a free port of this machine."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    servers = []

    def start(folder):
        handler = partial(SimpleHTTPRequestHandler, directory=folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def small_mnist(offline, monkeypatch, tmp_path):
    """A folder whose name has a space, with four files of MNIST's kind that hold five images; tests run beside it."""
    folder = tmp_path / "home/my files"
    folder.mkdir(parents=True)
    images = np.arange(5 * 28 * 28, dtype=np.uint32).reshape(5, 28, 28).astype(np.uint8)
    resources = []
    for name in NAMES:
        array = images if "images" in name else np.arange(5, dtype=np.uint8)
        head = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
        content = gzip.compress(head + array.tobytes(), mtime=0)
        (folder / name).write_bytes(content)
        resources.append((name, hashlib.md5(content, usedforsecurity=False).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    monkeypatch.setitem(datasets.IMAGES, "mnist", (5, 5))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return folder


def check_small_mnist():
    arrays = datasets.load("mnist", {})
    assert arrays["train_images"].shape == (5, 1, 32, 32)
    assert arrays["test_labels"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "mirror",
    [
        "{root}/home/my files",
        "{root}/home/my files/",
        "home/my files",
        "./home/my files/",
        "~/my files",
        "file://{root}/home/my files",
        "file://{root}/home/my%20files/",
        "FILE://localhost{root}/home/my%20files",
        "file://~/my files",
        "{server}/my files",
        "{server}/my%20files/",
    ],
)
def test_a_mirror_may_be_named_in_any_of_these_ways(small_mnist, monkeypatch, serve, tmp_path, mirror):
    monkeypatch.setenv(MIRROR, mirror.format(root=tmp_path, server=serve(tmp_path / "home")))
    check_small_mnist()


@pytest.mark.parametrize(
    ("mirror", "complaint"),
    [
        ("{root}/gone", "no such folder"),
        ("gone", "no such folder"),
        ("~/gone", "no such folder"),
        ("~nobody-of-this-name/gone", "home directory"),
        ("file://{root}/gone", "no such folder"),
        ("file://elsewhere/gone", "no such folder"),
        ("file:///", "could not be fetched"),
        ("{root}/home/my files/train-images-idx3-ubyte.gz", "no such folder"),
        ("s3://bucket/mnist", "found 's3'"),
        ("http:/127.0.0.1/", "no such folder"),
        ("http://[::1/", "could not be fetched"),
        ("http://127.0.0.1:port/", "could not be fetched"),
        ("{server}/gone", "could not be fetched"),
    ],
)
def test_a_mirror_that_cannot_be_had_is_refused_in_one_line(
    small_mnist, monkeypatch, serve, tmp_path, mirror, complaint
):
    named = mirror.format(root=tmp_path, server=serve(tmp_path / "home"))
    monkeypatch.setenv(MIRROR, named)
    with pytest.raises(LaqfiError) as error:
        datasets.load("mnist", {})
    assert complaint in str(error.value)
    assert f"LAQFI_DATA_MIRROR={named!r}" in str(error.value)
    assert "allowed is a folder or" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mirror", ["{root}/home/my files", "file://{root}/home/my%20files", "{server}/my%20files"])
@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, None], ids=["empty", "other", "cut"])
def test_a_damaged_file_of_a_mirror_is_refused_in_one_line(small_mnist, monkeypatch, serve, tmp_path, mirror, damage):
    file = small_mnist / NAMES[2]
    file.write_bytes(file.read_bytes()[:-10] if damage is None else damage)
    monkeypatch.setenv(MIRROR, mirror.format(root=tmp_path, server=serve(tmp_path / "home")))
    with pytest.raises(LaqfiError, match=rf"{NAMES[2]}: MD5 is|could not be fetched") as error:
        datasets.load("mnist", {})
    assert "\n" not in str(error.value)


@pytest.fixture
def only_folder(monkeypatch, tmp_path):
    """The temporary folders of the download are the only ones below it."""
    folder = tmp_path / "only"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_server_cannot_choose_where_its_files_are_written(offline, monkeypatch, only_folder, serve):
    """It sends other names, by redirection and by header, and archives instead of the files."""
    from http.server import SimpleHTTPRequestHandler

    asked = []

    def answer(self):
        asked.append(self.path)
        if "evil" not in self.path:
            self.send_response(302)
            self.send_header("Location", "/..%2f..%2fevil.tar.gz?x=../../evil.zip")
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Disposition", 'attachment; filename="../../evil.tar"')
        self.end_headers()
        return self.wfile.write(b"PK\x03\x04 not the images") if self.command == "GET" else None

    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", answer)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_HEAD", answer)
    monkeypatch.setenv(MIRROR, serve(only_folder))
    before = sorted(only_folder.parent.rglob("*"))
    with pytest.raises(LaqfiError, match="could not be fetched"):
        datasets.load("mnist", {})
    assert any("evil" in path for path in asked)
    assert sorted(only_folder.parent.rglob("*")) == before


def test_other_files_of_a_mirror_folder_are_left_alone(offline, monkeypatch, tmp_path, only_folder):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with tarfile.open(mirror / "evil.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../evil"))
    monkeypatch.setenv(MIRROR, str(mirror))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LaqfiError, match="could not be fetched"):
        datasets.load("mnist", {})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_without_network_and_mirror_the_error_names_the_variable(offline, name):
    with pytest.raises(LaqfiError, match=r"could not be fetched .*set LAQFI_DATA_MIRROR") as error:
        datasets.load(name, {})
    assert "\n" not in str(error.value)
    assert NAMES[0] in str(error.value)


def test_a_mirror_folder_without_the_files_is_named(offline, monkeypatch, tmp_path):
    monkeypatch.setenv(MIRROR, str(tmp_path))
    with pytest.raises(LaqfiError, match=f"could not be fetched .*LAQFI_DATA_MIRROR='{tmp_path}': allowed is"):
        datasets.load("mnist", {})


def test_a_mirror_that_is_no_folder_is_refused(offline, monkeypatch, tmp_path):
    monkeypatch.setenv(MIRROR, str(tmp_path / "gone"))
    with pytest.raises(LaqfiError, match="gone': no such folder; allowed is a folder or a URL"):
        datasets.load("mnist", {})


def test_a_file_of_another_data_set_fails_its_checksum(offline, monkeypatch, tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(gzip.compress(b"not the images"))
    monkeypatch.setenv(MIRROR, str(tmp_path))
    with pytest.raises(LaqfiError, match=r"train-images-idx3-ubyte\.gz: MD5 is .*, allowed is f68b3c2d"):
        datasets.load("mnist", {})


def test_a_truncated_download_fails_its_checksum(offline, monkeypatch, tmp_path, mnist_mirror, serve):
    for name in NAMES:
        shutil.copyfile(mnist_mirror / name, tmp_path / name)
    (tmp_path / NAMES[2]).write_bytes((mnist_mirror / NAMES[2]).read_bytes()[:-100])
    monkeypatch.setenv(MIRROR, serve(tmp_path))
    with pytest.raises(LaqfiError, match="could not be fetched"):
        datasets.load("mnist", {})


def test_a_data_set_that_gives_other_counts_than_it_says_is_refused(monkeypatch):
    monkeypatch.setitem(datasets.IMAGES, "digits", (1437, 361))
    with pytest.raises(LaqfiError, match=r"dataset: digits gives \(1437, 360\) .* it says \(1437, 361\)"):
        datasets.load("digits", {})


def test_a_data_set_that_gives_other_images_than_it_says_is_refused(monkeypatch):
    monkeypatch.setitem(datasets.SHAPES, "digits", (1, 16, 16))
    with pytest.raises(LaqfiError, match=r"dataset: digits gives images \(1, 8, 8\), it says \(1, 16, 16\)"):
        datasets.load("digits", {})
