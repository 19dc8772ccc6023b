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
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laqfi import records
from laqfi.base import files, npz
from laqfi.base.errors import LaqfiError
from laqfi.diffusion.params import Diffusion
from laqfi.models.unet import UNet, Unet
from laqfi.params.whole import load as load_params
from laqfi.quality import features
from laqfi.quality.classifier import FeatureNet
from laqfi.quant.gather import read_compensations, read_fisher
from laqfi.sensitivity.compensation import Compensation
from laqfi.storage.described import header, output_axes
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import read_model
from laqfi.storage.stored_file import read_stored, write_stored
from stored import quantize
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
        "kid_within": np.array([1.5]),
        "kid_features": np.linspace(0, 1, 15, dtype=np.float32).reshape(3, 5),
    },
}
MEANS = {"mean": [0.5, 0.25], "standard_error": [0.125, 0.0]}
KIND = {"tensors": {"layers.1.weight": MEANS, "layers.2.weight": MEANS}, "layers": {"1": MEANS, "2": MEANS}}
INTERVAL = {"mean": 1.5, "low": 1.0, "high": 2.0}
FID = INTERVAL | {"per_seed": [1.0, 2.0], "left_out": [[1.5, 0.5], [2.5, 1.5]]}
QUALITY = {"images": 3, "pixels": 64, "fid": FID, "fid_again": FID, "kid": FID, "squared_error": [[0, 5, 9], [1, 2, 3]]}
FLOOR = {"images": 100, "fid": INTERVAL, "fid_again": INTERVAL, "kid": INTERVAL}
ALLOCATED = {
    "format": "int4",
    "bits": 4.5,
    "layout": {"shape": [4, 4, 3, 3]},
    "rounding": "gptq",
    "score": 0.5,
    "threshold": 0.25,
    "squared_error": 0.125,
}
RECORDS = {
    "fisher": {
        "images": 4,
        "timesteps": [1, 50],
        "layers": {"layers.1.weight": "1", "layers.2.weight": "2"},
        "magnitude": {"layers.1.weight": 0.5, "layers.2.weight": 0.5},
        "empirical": KIND,
        "gauss_newton": KIND,
    },
    "choices": {
        "policy": "bits",
        "options": {},
        "coding": "ans",
        "recipe": {
            "activations": {"bits": 8, "ranges": "static", "learn": 0},
            "reconstruct": {"iterations": 4, "batch_size": 2, "lr": 0.5},
            "recover": {
                "iterations": 4,
                "batch_size": 2,
                "lr": 0.5,
                "code_lr": 0.5,
                "learn": "codes",
                "data": "images",
                "seed": 0,
            },
            "correct": "ptqd",
        },
        "tensors": {"layers.1.weight": ALLOCATED},
        "predicted_noise_mse": {"1": 0.5, "100": 0.25},
        "bits_per_weight": {"bits": 4.5, "bound": 3.5},
    },
    "evaluate": QUALITY
    | {
        "bytes": 1000,
        "file_bytes": 1200,
        "parameters": {"int4": 2000},
        "seeds": [0, 1],
        "noise_mse": {"1": 0.5, "100": 0.25},
        "headlines": {"large": QUALITY},
    },
    "controls": {
        "seeds": [0, 1],
        "precision": "float32",
        "bases": {"float32": QUALITY},
        "rows": [
            {
                "ratio": 8.0,
                "of": "file",
                "coding": "ans",
                "importance": "fisher",
                "precision": "float32",
                "found": QUALITY | {"bytes": 1000, "file_bytes": 900},
            }
        ],
    },
    "floor": FLOOR | {"headlines": {"large": FLOOR}},
    "info": {
        "dataset": "digits",
        "network": "classifier",
        "images": {"train": 100, "test": 10},
        "accuracy": [0.5, 0.25],
        "sha256": "00ff",
    },
}
MODELS = {
    "fisher": records.FisherTable,
    "choices": records.Allocation,
    "evaluate": records.Evaluation,
    "controls": records.ControlTable,
    "floor": records.Floors,
    "info": records.FeatureNetwork,
}
MAY_BE_LEFT_OUT = {"headlines"}
MAY_BE_NONE = {
    "fid_again",
    "threshold",
    "found",
    "coding",
    "bits_per_weight",
    "activations",
    "reconstruct",
    "correct",
    "recover",
}
# Blocks whose keys are names, which may be any, or timesteps.
NAMED = [(key,) for key in ("tensors", "layers", "magnitude", "parameters", "noise_mse", "headlines", "options")]
NAMED.append(("predicted_noise_mse",))


def fisher_tensors() -> dict[str, torch.Tensor]:
    """As the stage `fisher` writes them, for two bins."""
    of_bins = {f"bin/{name}": torch.tensor([2.0, 1.0]) for name in WEIGHTS}
    return {f"weight/{name}": w.abs().bfloat16() for name, w in WEIGHTS.items()} | of_bins


def compensation_tensors() -> dict[str, torch.Tensor]:
    """As the stage `curvature` writes them."""
    found = {}
    for name, w in WEIGHTS.items():
        if w.dim() > 1:
            columns = w.numel() // len(w)
            parts = vars(Compensation.of(torch.eye(columns) + 0.5)).values()
            found |= dict(zip(Compensation.shapes(name, columns), parts, strict=True))
    return found


READERS: dict[str, Callable[[Path], object]] = {
    **{f"{name}.npz": lambda p, names=tuple(arrays): files.read_arrays(p, *names) for name, arrays in ARRAYS.items()},
    **{f"{name}.json": lambda p, model=model: records.read(p, model) for name, model in MODELS.items()},
    "features.safetensors": lambda p: features.load(p, CPU),
    "model.safetensors": lambda p: read_model(p, CPU),
    "packed.safetensors": lambda p: read_model(p, CPU),
    "fisher.safetensors": lambda p: read_fisher(p, WEIGHTS),
    "curvature.safetensors": lambda p: [
        read() for read in read_compensations(p, WEIGHTS, dict.fromkeys(WEIGHTS, 0)).values()
    ],
    "params.yaml": load_params,
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
    for name, content in ARRAYS.items():
        files.write_arrays(folder / f"{name}.npz", **content)
    for name, record in RECORDS.items():
        files.write_json(folder / f"{name}.json", record)
    settings = Unet(family="unet", base_channels=4, attention=[2], heads=2, dropout=0.1)
    unet = UNet(settings, image_channels=1)
    metadata = header(settings, Diffusion(timesteps=100, beta_start=0.001, beta_end=0.1), [1, 8, 8])
    write_stored(folder / "model.safetensors", unet.state_dict(), metadata)
    stored, formats = packed_parts(unet)
    write_stored(folder / "packed.safetensors", stored, metadata | {"formats": formats})
    network = {"network": "classifier", "image": [1, 4], "classes": 2}
    state = {f"0.{name}": tensor for name, tensor in FeatureNet(1, 4, 2).state_dict().items()}
    files.write_tensors(folder / "features.safetensors", state, network)
    files.write_tensors(folder / "fisher.safetensors", fisher_tensors(), {"bins": [1, 100], "timesteps": [1, 50]})
    files.write_tensors(folder / "curvature.safetensors", compensation_tensors())
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    for name, read in READERS.items():
        read(folder / name)
    return folder


def refused(path: Path, payload: bytes, read: Callable) -> bool:
    """Whether the reader refuses `payload`, in one line that names the file. Any other exception is a crash."""
    path.write_bytes(payload)
    message = None
    try:
        read(path)
    except LaqfiError as error:
        message = str(error)
    assert message is None or (message.startswith(f"{path}: ") and len(message.splitlines()) == 1)
    return message is not None


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
    return all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in wanted.items()
    )


@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_are_refused(whole, tmp_path, name):
    good, read, path = (whole / name).read_bytes(), READERS[name], tmp_path / name
    text, bad = path.suffix in (".json", ".yaml"), set()

    # Some copies are equal; and text may stay whole, and a zip has bytes nobody reads, so of those more are tried.
    tries = 1.25 if path.suffix == ".safetensors" else 2

    @settings(quiet, max_examples=int(tries * QUOTA[name]) // BATCH)
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


def parts_of(payload: bytes) -> tuple[dict, dict, bytes]:
    """Metadata, the other header entries and the data of a safetensors file of ours."""
    end = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:end])
    return json.loads(header.pop("__metadata__")["laqfi"][64:]), header, payload[end:]


def sealed(metadata: object, header: dict | str, data: bytes, length: int = 0) -> bytes:
    """A safetensors file with a right checksum, whatever else is wrong with it."""
    entries = header if isinstance(header, str) else json.dumps(header)[1:-1]
    entry = json.dumps("0" * 64 + (metadata if isinstance(metadata, str) else json.dumps(metadata)))
    text = f'{{"__metadata__":{{"laqfi":{entry}}},{entries}}}'.encode()
    payload = (len(text) + length).to_bytes(8, "little") + text + data
    before, after = payload[: files.DIGEST.start], payload[files.DIGEST.stop :]
    return before + hashlib.sha256(before + after).hexdigest().encode() + after


def changed(tree: object, path: tuple, value: object, remove: bool = False) -> object:
    """A copy of a JSON tree with one place changed."""
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return tree


def places(tree: object, path: tuple = ()):
    """Paths to everything in a JSON tree."""
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key), inner
        yield from places(inner, (*path, key))


def wrong_for(value: object) -> list:
    """Values of JSON that cannot stand where `value` stands."""
    kinds = {bool: [0, "x"], int: ["1", 1.5, True, -1, 10**30], float: ["x", True], str: [3, True], list: [3, "x"]}
    return [*kinds.get(type(value), [3, "x", [1]]), *([] if isinstance(value, dict) else [{"x": 1}]), [[]], [None]]


OFFSETS = [(0, 0), (1, 0), (-1, 1), (0, 1), (0, -1), (4, 4), (0, 10**12), (10**18, 10**18), (0, 2**63), (-8, 0)]


def restructured(payload: bytes):
    """What can be wrong in the header of a safetensors file whose checksum is right."""
    metadata, header, data = parts_of(payload)
    for other in ([], "x", 3, None, '{"unet": NaN}', "{", '{"a": 1, "a": 2}', "[" * 100_000):
        yield sealed(other, header, data)
    for length in (-1, 1, 7, -50, 10**9, 2**62):
        yield sealed(metadata, header, data, length)
    yield sealed(metadata, header, data + b"\0")
    yield sealed(metadata, header, data[:-1])
    yield sealed(metadata, header, b"")
    yield sealed(metadata, {}, data)
    yield sealed(metadata, {}, b"")
    for name in sorted(header)[:: -(-len(header) // 4)]:
        entry = header[name]
        start, end = entry["data_offsets"]
        yield sealed(metadata, changed(header, (name,), None, remove=True), data)
        yield sealed(metadata, {key if key != name else name + "x": e for key, e in header.items()}, data)
        for key in entry:
            yield sealed(metadata, changed(header, (name, key), None, remove=True), data)
        for dtype in {"I64", "I8", "F64", "F32", "F16", "BOOL", "F33", ""} - {entry["dtype"]}:
            yield sealed(metadata, changed(header, (name, "dtype"), dtype), data)
        for shape in (
            [*entry["shape"], 2],
            [7, *entry["shape"]],
            [10**12],
            [2**63, 2],
            [-1],
            [0],
            ["x"],
            [1, 1, 1, 1, 1],
        ):
            yield sealed(metadata, changed(header, (name, "shape"), shape), data)
        for low, high in OFFSETS[1:]:
            yield sealed(metadata, changed(header, (name, "data_offsets"), [start + low, end + high]), data)
    for one, two in pairwise(sorted(header)[:10]):
        first, second = header[one], header[two]
        if first["shape"] != second["shape"]:
            yield sealed(metadata, header | {one: second, two: first}, data)
    if any(entry["dtype"] == "F32" for entry in header.values()):
        entry = next(e for e in header.values() if e["dtype"] == "F32" and e["shape"])
        for word in (np.nan, np.inf, -np.inf):
            start = entry["data_offsets"][0]
            yield sealed(metadata, header, data[:start] + np.float32(word).tobytes() + data[start + 4 :])


@pytest.mark.parametrize("name", SEALED)
def test_a_wrong_structure_is_refused_though_its_checksum_is_right(whole, tmp_path, name):
    good = (whole / name).read_bytes()
    metadata, header, data = parts_of(good)
    assert not refused(tmp_path / name, sealed(metadata, header, data), READERS[name])
    for case in restructured(good):
        assert refused(tmp_path / name, case, READERS[name]), case[:2000]


@pytest.mark.parametrize("name", SEALED[:3])
def test_wrong_metadata_is_refused(whole, tmp_path, name):
    metadata, header, data = parts_of((whole / name).read_bytes())

    def is_refused(case: dict) -> bool:
        return refused(tmp_path / name, sealed(case, header, data), READERS[name])

    for path, value in list(places(metadata)):
        if path[0] == "places" and path[1:2] not in ((), (0,)):
            continue  # all its entries are alike
        if type(path[-1]) is str:
            assert is_refused(changed(metadata, path, None, remove=True)), path
        for wrong in wrong_for(value):
            if wrong != [None] or path[-1] != "taps":
                assert is_refused(changed(metadata, path, wrong)), (path, wrong)


@pytest.mark.parametrize(
    "change",
    [{"taps": taps} for taps in (3, [], [0, 0], [1, 0], [-1], [9], [True], [0.0], [10**30], "0")]
    + [{"group_size": size} for size in (-2, 1.0, True, 10**30, 7)]
    + [{"name": "int9"}, {"name": "float32"}, {"name": ["int3"]}, {"symmetric": 0}, {"symmetric": True}]
    + [{"shape": [4, 1, 3, 3]}, {"axis": 0}],
    ids=str,
)
def test_a_kind_that_does_not_fit_is_refused(whole, tmp_path, change):
    tensors, metadata = files.read_tensors(whole / "packed.safetensors")
    assert metadata["kinds"] == [{"name": "float16"}, {"name": "int3", "symmetric": False}]
    metadata["kinds"][1] |= change
    files.write_tensors(tmp_path / "x", tensors, metadata)
    assert refused(tmp_path / "x", (tmp_path / "x").read_bytes(), READERS["packed.safetensors"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told["places"].append(0), r"holds \d+ parameters, allowed are the network's"),
        (lambda told: told["places"].pop(), r"holds \d+ parameters, allowed are the network's"),
        (
            lambda told: told.update(places=[0] * len(told["places"])),
            r"float16 is .*, allowed is|is of another network",
        ),
        (lambda told: told["places"].__setitem__(3, 2), "places holds 2, allowed is up to 1"),
        (lambda told: told.update(network="0" * 16), "is of another network"),
        (lambda told: told["model"].update(attention=[3]), "holds|is of another network"),
        (lambda told: told.update(version=1), "is of format version 1, allowed is 2"),
    ],
)
def test_a_header_of_another_network_is_refused(whole, tmp_path, change, said):
    tensors, metadata = files.read_tensors(whole / "packed.safetensors")
    change(metadata)
    files.write_tensors(tmp_path / "x", tensors, metadata)
    with pytest.raises(LaqfiError, match=rf"^{tmp_path}/x: .*({said})"):
        read_model(tmp_path / "x", CPU)


@pytest.mark.parametrize(("part", "value"), [("scale", float("nan")), ("scale", float("inf")), ("zero_point", 8)])
def test_a_grid_that_is_none_is_refused(whole, tmp_path, part, value):
    tensors, metadata = read_stored(whole / "packed.safetensors")
    tensors[f"conv_in.weight.{part}"][1] = value
    write_stored(tmp_path / "x", tensors, metadata)
    with pytest.raises(LaqfiError, match=rf"conv_in\.weight\.{part} (holds values that are not finite|is beyond)"):
        read_model(tmp_path / "x", CPU)


@pytest.mark.parametrize("prefix", ["weight", "bin"])
def test_negative_fisher_information_is_refused(tmp_path, prefix):
    tensors = {name: -t if name.startswith(prefix) else t for name, t in fisher_tensors().items()}
    files.write_tensors(tmp_path / "f", tensors, {"bins": [1, 100]})
    with pytest.raises(LaqfiError, match=rf"{prefix}/.* holds values below 0"):
        read_fisher(tmp_path / "f", WEIGHTS)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("pivots", 0.0, "has pivots that are not positive"),
        ("pivots", -1.0, "has pivots that are not positive"),
        ("pivots", float("nan"), "holds values that are not finite"),
        ("feedback", float("inf"), "holds values that are not finite"),
        ("order", 0, "has an order that does not name every column once"),
        ("order", -1, "has an order that does not name every column once"),
        ("order", 99999, "has an order that does not name every column once"),
    ],
)
def test_a_compensation_that_is_none_is_refused(tmp_path, part, value, said):
    tensors = compensation_tensors()
    name = next(name for name, tensor in tensors.items() if name.startswith(f"{part}/") and len(tensor) > 3)
    tensors[name][1:3] = value
    files.write_tensors(tmp_path / "c", tensors)
    with pytest.raises(LaqfiError, match=rf"^{tmp_path}/c: .* {said}$"):
        READERS["curvature.safetensors"](tmp_path / "c")


@pytest.mark.parametrize("bins", [None, 3, [], ["1"], [1.0], [True], [0], [7], [100, 1], [1, 1], {"1": 1}], ids=str)
def test_bins_that_are_no_timesteps_are_refused(tmp_path, bins):
    files.write_tensors(tmp_path / "f", fisher_tensors(), {"bins": bins})
    with pytest.raises(LaqfiError, match=r"/f: bin(s is|/.* allowed is)"):
        read_fisher(tmp_path / "f", WEIGHTS)


def npy(array: np.ndarray, **header) -> bytes:
    """A .npy member whose header says something else than its array."""
    told = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | header
    buffer = memory.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, told)
    return buffer.getvalue() + array.tobytes()


def archive(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = memory.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, payload in members:
            file.writestr(name, payload)
    return buffer.getvalue()


def wrong_members(array: np.ndarray):
    shape, size = array.shape, array.size
    count = [(size,), (1, *shape), (*shape, 1), (*shape[1:], shape[0]), (2 * size,), (10**12,), (10**30,), (-1,), ()]
    yield from (npy(array, shape=one) for one in count if one != shape)
    for descr in ("|O", "<c8", ">f8", "<U1", "|V8", "<M8[s]", "|b1", "<f2", "<u8", "|i1", [("x", "<f8")], "nonsense"):
        yield npy(array, descr=descr)
    yield npy(array, fortran_order=True)
    yield npy(array, extra=1)
    yield npy(array)[:-1]
    yield npy(array) + b"\0"
    yield npy(array[:0], shape=(0, *shape[1:]))
    yield b"\x93NUMPY\x02" + npy(array)[7:]
    yield b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118 + array.tobytes()
    yield from (b"", array.tobytes(), npy(array)[:9], b"cos\nsystem\n(S'true'\ntR.")
    if array.dtype.kind == "f":
        yield npy(np.full_like(array, np.nan))
        yield npy(np.full_like(array, np.inf))


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_npz_of_another_structure_is_refused(tmp_path, kind):
    arrays, path = ARRAYS[kind], tmp_path / f"{kind}.npz"
    read = READERS[path.name]
    good = [(f"{name}.npy", npy(array)) for name, array in arrays.items()]
    assert not refused(path, archive(good), read)
    assert not refused(path, archive(good, zipfile.ZIP_STORED), read)
    assert refused(path, archive(good, zipfile.ZIP_LZMA), read)
    assert refused(path, archive(good, zipfile.ZIP_BZIP2), read)
    for place, (name, array) in enumerate(arrays.items()):
        others = good[:place] + good[place + 1 :]
        assert refused(path, archive(others), read)
        with pytest.warns(UserWarning, match="Duplicate name"):
            twice = archive([*good, good[place]])
        assert refused(path, twice, read)
        assert refused(path, archive([*others, (f"{name}x.npy", good[place][1])]), read)
        for member in wrong_members(array):
            assert refused(path, archive([*others, (f"{name}.npy", member)]), read), member[:128]


def test_a_small_npz_cannot_ask_for_much_memory(tmp_path):
    """Neither by its .npy header, nor by the size in the archive's directory, nor by what it unpacks to."""
    images = ARRAYS["samples"]["images"]
    path, read = tmp_path / "samples.npz", READERS["samples.npz"]
    declared = archive([("images.npy", npy(images, shape=(10**6, 100, 1, 32, 32)))])
    size = len(npy(images)).to_bytes(4, "little")
    claimed = declared.replace(size, (2**32 - 2).to_bytes(4, "little"))
    assert claimed != declared
    for bomb in (declared, claimed):
        assert len(bomb) < 2000
        assert refused(path, bomb, read)
    with pytest.raises(ValueError, match="more bytes than can be in it"):
        npz.parse(claimed, ["images"])


def test_files_beyond_the_limits_are_refused_unread(tmp_path, monkeypatch):
    for name, limit in (("a.json", files.JSON_LIMIT), ("a.npz", npz.LIMIT)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(limit + 1)  # a sparse file, which takes no room
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("read before its size was checked"))
    for read, name in ((files.read_json, "a.json"), (files.read_text, "a.json"), (files.read_array, "a.npz")):
        with pytest.raises(LaqfiError, match="bytes, allowed are"):
            read(tmp_path / name, *(["images"] if read is files.read_array else []))


def test_members_of_an_npz_are_never_written_anywhere(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    payload = npy(ARRAYS["samples"]["images"])
    names = ("../evil.npy", f"{tmp_path}/evil.npy", "images.npy")
    (inner / "samples.npz").write_bytes(archive([(name, payload) for name in names]))
    for name in ("../evil", f"{tmp_path}/evil", "images"):
        files.read_array(Path("samples.npz"), name)
    assert [p.name for p in tmp_path.rglob("*")] == ["inner", "samples.npz"]


@pytest.mark.parametrize("name", RECORDS)
def test_json_of_another_shape_is_refused(tmp_path, name):
    record, path = RECORDS[name], tmp_path / f"{name}.json"
    read = READERS[path.name]
    for other in (None, 3, "x", [], [record], {}):
        assert refused(path, json.dumps(other).encode(), read)
    for word in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 100_000, '"\ud800'):
        assert refused(path, f'{{"x": {word}}}'.encode(errors="surrogatepass"), read)
    assert refused(path, b'{"x": 1, "x": 1, ' + json.dumps(record).encode()[1:], read)
    for place, value in places(record):
        for wrong in wrong_for(value):
            if type(value) is float or wrong != -1:
                assert refused(path, json.dumps(changed(record, place, wrong)).encode(), read), (place, wrong)
        assert refused(path, json.dumps(changed(record, place, None)).encode(), read) != (place[-1] in MAY_BE_NONE)


@pytest.mark.parametrize("name", RECORDS)
def test_json_with_a_key_too_many_or_too_few_is_refused(tmp_path, name):
    """Wherever the keys are those of a record, and not names of tensors or the like."""
    record, path = RECORDS[name], tmp_path / f"{name}.json"

    def is_refused(case: dict) -> bool:
        return refused(path, json.dumps(case).encode(), READERS[path.name])

    assert is_refused(record | {"more": 1})
    for place, value in places(record):
        if type(place[-1]) is str and place[-1] not in MAY_BE_LEFT_OUT and place[-2:-1] not in NAMED:
            assert is_refused(changed(record, place, None, remove=True)), place
        if isinstance(value, dict) and place[-1:] not in NAMED and place[-1] != "layout":
            assert is_refused(changed(record, (*place, "more"), 1)), place


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_written_and_read_again_is_equal(tmp_path, name):
    record = MODELS[name].model_validate(RECORDS[name])
    records.write(tmp_path / "x", record)
    assert records.read(tmp_path / "x", MODELS[name]) == record
    assert files.read_json(tmp_path / "x") == RECORDS[name]


@pytest.mark.parametrize("key", ["0", "01", "+1", " 1", "1 ", "1.0", "1e2", "-1", "1000000000", "one", "", "１"])
def test_a_key_that_is_no_timestep_is_refused(tmp_path, key):
    case = RECORDS["evaluate"] | {"noise_mse": {key: 0.5}}
    assert refused(tmp_path / "x", json.dumps(case).encode(), READERS["evaluate.json"])


def test_an_interval_without_its_value_is_refused(tmp_path):
    for wrong in ({"mean": 0.5}, {"mean": 2.5}, {"low": 2.0, "high": 1.0}):
        case = RECORDS["floor"] | {"fid": INTERVAL | wrong}
        assert refused(tmp_path / "x", json.dumps(case).encode(), READERS["floor.json"])


def test_params_of_another_shape_are_refused(tmp_path):
    params, path = tiny_params(), tmp_path / "params.yaml"
    for place, value in [*places(params)][::3]:
        for wrong in wrong_for(value)[:2]:
            case = changed(params, place, wrong)
            assert refused(path, json.dumps(case).encode(), load_params), (place, wrong)


@pytest.mark.parametrize(
    "text",
    [
        "active: [tiny]\nactive: [tiny]\n",
        "profiles: {tiny: {threads: 1, threads: 2}}",
        "a: 2024-13-45",
        "a: !!int x",
        "a: !!timestamp x",
        "a: !!python/object/apply:os.system [touch sprung]",
        "a: &a [*a]",
        "? [a]\n: 1",
        "a: *b",
        "[" * 5000,
        "a: \x00",
        "a: \ud800",
        "a: &a [1,2,3,4,5,6,7,8,9]\n"
        + "".join(
            f"b{i}: &b{i} [{', '.join([f'*{p}'] * 9)}]\n" for i, p in enumerate(["a", *(f"b{j}" for j in range(12))])
        ),
        '"a\\nb": 1',
    ],
    ids=range(14),
)
def test_hostile_yaml_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    assert refused(tmp_path / "params.yaml", text.encode(errors="surrogatepass"), load_params)
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]
