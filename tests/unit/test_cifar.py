"""CIFAR-10 from a small archive of the published layout."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from laqfi.base.errors import LaqfiError
from laqfi.data import cifar, datasets

NAMES = [*(f"data_batch_{part}.bin" for part in range(1, 6)), "test_batch.bin"]
RECORDS = np.random.default_rng(0).integers(0, 256, (6, 3, 3073)).astype(np.uint8)  # three in each file
RECORDS[:, :, 0] %= 10


def archive_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def publish(monkeypatch, tmp_path, payload: bytes) -> None:
    """`payload` is the published archive, and lies in the mirror."""
    (tmp_path / cifar.ARCHIVE).write_bytes(payload)
    monkeypatch.setenv(cifar.MIRROR, str(tmp_path))
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(payload).hexdigest())


@pytest.fixture
def members():
    found = {f"cifar-10-batches-bin/{name}": RECORDS[place].tobytes() for place, name in enumerate(NAMES)}
    return {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", "../../evil": b"", **found}


def test_labels_and_planes_are_read_and_nothing_is_unpacked(monkeypatch, tmp_path, members):
    publish(monkeypatch, tmp_path, archive_of(members))
    monkeypatch.setitem(datasets.IMAGES, "cifar10", (15, 3))
    before = sorted(tmp_path.parent.rglob("*"))
    found = datasets.load("cifar10", {})
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert found["train_images"].shape == (15, 3, 32, 32)
    assert (found["train_labels"] == RECORDS[:5, :, 0].reshape(-1)).all()
    assert (found["test_labels"] == RECORDS[5, :, 0]).all()
    green = RECORDS[1, 2, 1 + 1024 : 1 + 2048].reshape(32, 32)
    assert (found["train_images"][5, 1] == green).all()
    assert (found["test_images"][0, 2, 31] == RECORDS[5, 0, -32:]).all()


def test_the_published_checksums_are_of_the_published_archive():
    assert (cifar.BYTES, datasets.IMAGES["cifar10"]) == (170_052_171, (50_000, 10_000))
    assert cifar.SHA256.startswith("c4a38c50a1bc5f3a")


def test_another_archive_is_refused_unread(monkeypatch, tmp_path, members):
    (tmp_path / cifar.ARCHIVE).write_bytes(archive_of(members))
    monkeypatch.setenv(cifar.MIRROR, str(tmp_path))
    monkeypatch.setattr(tarfile, "open", None)
    with pytest.raises(LaqfiError, match=r"cifar-10-binary\.tar\.gz: SHA-256 is .*, allowed is c4a38c50"):
        datasets.load("cifar10", {})


@pytest.mark.parametrize("change", ["missing", "cut", "folder", "no archive"])
def test_an_archive_of_another_layout_is_refused_in_one_line(monkeypatch, tmp_path, members, change):
    last = f"cifar-10-batches-bin/{NAMES[-1]}"
    content = members.pop(last)
    if change == "cut":
        members[last] = content[:-1]
    payload = archive_of(members) if change != "folder" else archive_of({f"{last}/": b"", **members})
    publish(monkeypatch, tmp_path, payload[:200] if change == "no archive" else payload)
    with pytest.raises(LaqfiError, match=r"cifar-10-binary\.tar\.gz: not CIFAR-10's binary records") as error:
        datasets.load("cifar10", {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mirror", [None, "{folder}", "http://127.0.0.1:9/"])
def test_without_network_and_mirror_the_error_names_the_variable(monkeypatch, tmp_path, mirror):
    monkeypatch.setattr(cifar, "SERVER", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(cifar.MIRROR, (mirror or "").format(folder=tmp_path))
    with pytest.raises(LaqfiError, match=r"cifar10 could not be fetched .*LAQFI_DATA_MIRROR.*cifar-10-bin") as error:
        datasets.load("cifar10", {})
    assert "\n" not in str(error.value)
