"""More than 10,000 bad files: every one is refused with one line that names it, and no damaged one is accepted.

Two ways to damage a file. Its bytes are changed as a disk or a transfer would: what holds a checksum (safetensors) must
be refused whatever changed; an npz must be refused or read as the very same arrays; text may still be a whole file
that says something else, but never crash a reader. Or it is written anew, checksums and all, with another structure.
"""

import copy
import hashlib
import io as memory
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laqfi import config, features, io, npz, records
from laqfi.classifier import FeatureNet
from laqfi.errors import LaqfiError
from laqfi.quant.grid import Format
from laqfi.quant.model import load_unet, output_axes
from laqfi.quant.policy import WeightTensor
from laqfi.quant.sensitivity import fisher_by_bin, read_curvature
from laqfi.quant.tensor import Layout, quantize
from laqfi.unet import UNet, UNetConfig
from tiny import tiny_params

CPU = torch.device("cpu")
WEIGHTS = {"a.weight": torch.ones(3, 4), "b.weight": torch.ones(4, 2, 3, 3), "a.bias": torch.ones(3)}
ARRAYS = {
    "dataset": {
        "train_images": np.arange(6 * 64, dtype=np.uint8).reshape(6, 1, 8, 8),
        "train_labels": np.arange(6),
        "test_images": np.arange(4 * 64, dtype=np.uint8).reshape(4, 1, 8, 8),
        "test_labels": np.arange(4),
    },
    "samples": {"images": np.arange(2 * 3 * 64, dtype=np.uint8).reshape(2, 3, 1, 8, 8)},
    "reference": {
        "mean": np.linspace(0, 1, 5),
        "covariance": np.eye(5) + 0.25,
        "kid_features": np.linspace(0, 1, 15, dtype=np.float32).reshape(3, 5),
    },
}
MEANS = {"mean": [0.5, 0.25], "standard_error": [0.125, 0.0]}
KIND = {"tensors": {"layers.1.weight": MEANS, "layers.2.weight": MEANS}, "layers": {"1": MEANS, "2": MEANS}}
INTERVAL = {"mean": 1.5, "low": 1.0, "high": 2.0}
RECORDS = {
    "fisher": {
        "timesteps": [1, 50],
        "layers": {"layers.1.weight": 1, "layers.2.weight": 2},
        "magnitude": {"layers.1.weight": 0.5, "layers.2.weight": 0.5},
        "empirical": KIND,
        "gauss_newton": KIND,
    },
    "choices": {
        "tensors": {"layers.1.weight": {"bits": 4.5, "layout": {"shape": [4, 4, 3, 3]}}},
        "predicted_noise_mse": {"1": 0.5, "100": 0.25},
        "bits_per_weight": {"bits": 4.5, "bound": 3.5},
    },
    "evaluate": {
        "bytes": 1000,
        "parameters": {"int4": 2000},
        "reduction": 0.5,
        "size_band": "large",
        "fid": INTERVAL,
        "fid_difference": INTERVAL,
        "fid_band": "good",
        "kid": 0.5,
        "verdict": "worse than FP32",
        "psnr": 20.5,
        "noise_mse": {"1": 0.5, "100": 0.25},
    },
    "floor": {"fid": 1.5, "low": 1.0, "high": 2.0, "kid": 0.5, "images": 100},
    "info": {
        "dataset": "digits",
        "network": "classifier",
        "images": {"train": 100, "test": 10},
        "accuracy": 0.5,
        "sha256": "00ff",
    },
}
MODELS = {
    "fisher": records.FisherTable,
    "choices": records.Choices,
    "evaluate": records.Evaluation,
    "floor": records.Floor,
    "info": records.Info,
}


def as_read(path: Path) -> list[WeightTensor]:
    return [WeightTensor(name, None, 0.0, weight) for name, weight in WEIGHTS.items()]


READERS: dict[str, Callable[[Path], object]] = {
    **{f"{name}.npz": lambda p, names=tuple(arrays): io.read_arrays(p, *names) for name, arrays in ARRAYS.items()},
    **{f"{name}.json": lambda p, model=model: records.read(p, model) for name, model in MODELS.items()},
    "features.safetensors": lambda p: features.load(p, CPU),
    "model.safetensors": lambda p: load_unet(p, CPU),
    "packed.safetensors": lambda p: load_unet(p, CPU),
    "fisher.safetensors": lambda p: fisher_by_bin(p, WEIGHTS),
    "curvature.safetensors": lambda p: read_curvature(p, as_read(p)),
    "params.yaml": config.load,
}
# How many different bad files of each kind the byte test must see refused, and how many it tries for that.
QUOTA = dict.fromkeys(READERS, 900) | {"params.yaml": 100}
SEALED = [name for name in READERS if name.endswith(".safetensors")]


def test_the_quotas_are_ten_thousand_files():
    assert sum(QUOTA.values()) >= 10_000


def packed_parts(unet: UNet) -> tuple[dict, dict]:
    stored, formats = {}, {}
    for name, tensor in unet.state_dict().items():
        format = Format("int3", symmetric=False) if tensor.dim() > 1 else Format("float16")
        layout = Layout(format, tuple(tensor.shape), output_axes(unet)[name])
        stored |= {f"{name}{part}": t for part, t in quantize(tensor, layout, "max")[0].items()}
        if not format.is_float:
            formats[name] = layout.to_json()
    return stored, formats


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with one good file of every kind, all of which their readers accept."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    for name, arrays in ARRAYS.items():
        io.write_arrays(folder / f"{name}.npz", **arrays)
    for name, record in RECORDS.items():
        io.write_json(folder / f"{name}.json", record)
    unet = UNet(UNetConfig(image_channels=1, base_channels=4, attention=(2,), heads=2, dropout=0.1))
    metadata = {
        "unet": unet.config.to_json(),
        "diffusion": {"timesteps": 100, "beta_start": 0.001, "beta_end": 0.1},
        "image": [1, 8, 8],
    }
    io.write_tensors(folder / "model.safetensors", unet.state_dict(), metadata)
    stored, formats = packed_parts(unet)
    io.write_tensors(folder / "packed.safetensors", stored, metadata | {"formats": formats})
    network = {"network": "classifier", "image": [1, 4], "classes": 2}
    io.write_tensors(folder / "features.safetensors", FeatureNet(1, 4, 2).state_dict(), network)
    maps = {f"gauss_newton/{edge}/{name}": w / edge for edge in (1, 100) for name, w in WEIGHTS.items()}
    io.write_tensors(folder / "fisher.safetensors", maps, {"bins": [1, 100], "timesteps": [1, 50]})
    curved = {name: torch.eye(w.numel() // len(w)) for name, w in WEIGHTS.items() if w.dim() > 1}
    io.write_tensors(folder / "curvature.safetensors", curved)
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    for name, read in READERS.items():
        read(folder / name)
    return folder


def refused(path: Path, payload: bytes, read: Callable) -> bool:
    """Whether the reader refuses `payload`, in one line that names the file. Any other exception is a crash."""
    path.write_bytes(payload)
    try:
        read(path)
    except LaqfiError as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error).splitlines()) == 1
        return True
    return False


def flip(payload: bytes, place: int, value: int) -> bytes:
    return payload[:place] + bytes([payload[place] ^ (value % 255 + 1)]) + payload[place + 1 :]


def truncate(payload: bytes, place: int, value: int) -> bytes:
    return payload[:place]


def cut(payload: bytes, place: int, value: int) -> bytes:
    return payload[:place] + payload[place + value + 1 :]


def insert(payload: bytes, place: int, value: int) -> bytes:
    return payload[:place] + bytes([value]) * (value % 9 + 1) + payload[place:]


def turn(payload: bytes, place: int, value: int) -> bytes:
    return payload[place:] + payload[:place]


def repeat(payload: bytes, place: int, value: int) -> bytes:
    return payload[: place + value + 1] + payload[place:]


def blank(payload: bytes, place: int, value: int) -> bytes:
    part = payload[place : place + value + 1]
    return payload[:place] + bytes(len(part)) + payload[place + len(part) :]


DAMAGES = (flip, flip, flip, truncate, cut, insert, turn, repeat, blank)
BATCH = 25  # files made from one seed, which hypothesis finds: drawing every number from it would take most of the time


def damaged_copies(good: bytes, seed: int):
    """BATCH pairs of (damage, payload); half of the places lie in the first 2 KiB, where the headers are."""
    numbers = random.Random(seed)
    for _ in range(BATCH):
        damage = numbers.choice(DAMAGES)
        place = numbers.randrange(numbers.choice((min(len(good), 2048), len(good))))
        yield damage, damage(good, place, numbers.randrange(256))


quiet = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def same(found: object, wanted: object) -> bool:
    return all(np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in wanted.items())


@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_are_refused(whole, tmp_path, name):
    good, read, path = (whole / name).read_bytes(), READERS[name], tmp_path / name
    text, bad = path.suffix in (".json", ".yaml"), set()

    # Text may stay whole, a zip has bytes nobody reads, and some copies are equal: twice as many are tried.
    @settings(quiet, max_examples=2 * QUOTA[name] // BATCH)
    @given(st.integers(0, 2**64))
    def damaged(seed):
        for damage, payload in damaged_copies(good, seed):
            if payload == good:
                continue
            if refused(path, payload, read):
                bad.add(hashlib.sha256(payload).digest())
                continue
            assert path.suffix != ".safetensors", "a file with another checksum was accepted"
            assert text or same(read(path), ARRAYS[path.stem]), "other arrays were accepted"
            assert path.suffix != ".json" or damage is not truncate or payload == good.rstrip(), "a part was accepted"

    damaged()
    assert len(bad) >= QUOTA[name]
