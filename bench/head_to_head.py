"""The same networks quantized by others and by laqfi at equal bytes, judged alike: `make bench`, or
`python bench/head_to_head.py --data data/quick --out DIR`.

Needs what the profile `quick` made; the second network, of diffusers, is trained here in two minutes.
"""

import laqfi.stages  # isort: skip  # sets what it sets before NumPy is loaded

import argparse
import copy
import os
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import head_page
import laqfi
import memory
from bench import resident_bytes, tensor_bytes
from laqfi.api import Measured
from laqfi.base import files
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.quant.apply import as_file, stored_size
from laqfi.quant.rounding import Stored
from laqfi.records import Quality
from laqfi.report.differences import judged
from laqfi.sensitivity.curvature import compensations
from laqfi.sensitivity.fisher import fisher_maps
from laqfi.stages.command import limit_threads
from laqfi.storage.exported import export_folder, frame_of_folder
from rivals import RIVALS
from subjects import HOW, MEASURED, Subject, subjects
from train_digits_unet2d import CONFIG, SCHEDULE, TIMESTEPS, network, network_in

BINS = [1, 50, 250, 500, 1000]
TRAINING_STEPS = 1200


def by_others(subject: Subject) -> dict[str, dict]:
    """Every rival's row, or why it has none."""
    rows = {}
    for name, quantize in tqdm(RIVALS.items(), f"{subject.title}: others"):
        model, start = copy.deepcopy(subject.model), time.perf_counter()
        try:
            denoiser = quantize(model)
            seconds = time.perf_counter() - start
            stored = sum(tensor_bytes(t) for t in model.state_dict().values() if isinstance(t, Tensor))
            sizes = {"bytes": stored, "resident_bytes": resident_bytes(model), "seconds": seconds}
            rows[name] = sizes | subject.rated(denoiser)
        except Exception as error:  # of code that is not ours: its row says so
            rows[name] = {"error": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
    return rows


def by_laqfi(subject: Subject, sizes: dict[str, int], folder: Path) -> dict[str, dict]:
    """A row for the bytes of every rival; what is measured of the network is measured once, and counted in each."""
    start, how = time.perf_counter(), {"timesteps": MEASURED, "seed": 0}
    fisher = fisher_maps(
        subject.model, subject.train_images[:64], subject.alphas_cumprod, bins=BINS, chunk=16, **how
    ).per_weight
    known = dict(compensations(subject.model, subject.train_images[:128], subject.alphas_cumprod, chunk=64, **how))
    measuring, rows = time.perf_counter() - start, {}
    for name, size in tqdm(sizes.items(), f"{subject.title}: laqfi"):
        start = time.perf_counter()
        stored = laqfi.quantize(subject.model, Measured(fisher, known), {"bytes": size}, one_size=True)
        seconds = measuring + time.perf_counter() - start
        laqfi.save(stored, folder / "model.safetensors")
        model = copy.deepcopy(subject.model)
        laqfi.load(model, folder / "model.safetensors")
        row = {"bytes": stored_size(stored), "resident_bytes": resident_bytes(model), "seconds": seconds}
        row |= subject.rated(model)
        if subject.source:
            row |= {"exported": exported(subject, stored, model, folder / "export")}
        rows[f"laqfi, bytes of {name}"] = row
    return rows


def exported(subject: Subject, stored: dict[str, Stored], ours: nn.Module, folder: Path) -> dict:
    """Of the folder for diffusers: bytes, memory once loaded, and how far its images are from those of `ours`."""
    export_folder(frame_of_folder(subject.source), *as_file(stored, {}), folder, folder)
    theirs = network_in(folder / "unet")
    drawn = [subject.draw(one).astype(int) for one in (theirs, ours)]
    x, t = subject.test_images[:64], torch.linspace(1, TIMESTEPS, 64).long()
    with torch.inference_mode():
        change = (theirs(x, t) - ours(x, t)).abs().max().item()
    return {
        "file_bytes": (folder / "unet/diffusion_pytorch_model.safetensors").stat().st_size,
        "resident_bytes": resident_bytes(theirs),
        "largest_change": change,
        "largest_step": int(np.abs(drawn[0] - drawn[1]).max()),
    }


def compared(subject: Subject, folder: Path) -> dict:
    """All rows of one network; their verdicts go by intervals of the whole table."""
    others = by_others(subject)
    sizes = {name: row["bytes"] for name, row in others.items() if "error" not in row}
    rows = others | by_laqfi(subject, sizes, folder)
    base = subject.rated(subject.model)
    qualities: dict[str, Quality] = {name: row["quality"] for name, row in rows.items() if "error" not in row}
    found = judged(qualities, base["quality"])
    return {
        "title": subject.title,
        "parameters": sum(parameter.numel() for parameter in subject.model.parameters()),
        "bytes": resident_bytes(subject.model),
        "fid": base["quality"].fid,
        "rows": [{"case": name} | row | {"judged": found.get(name)} for name, row in rows.items()],
    }


def dead_positions(images: Tensor, folder: Path) -> dict:
    """Bytes of a network some of whose kernel positions only meet padding, stored and exported."""
    torch.manual_seed(0)
    types = {f"{way}_block_types": (f"{way.title()}Block2D",) * 4 for way in ("down", "up")}
    model = network(**types, block_out_channels=(16, 32, 32, 32)).eval()
    model.save_config(folder / "deep")
    how = {"timesteps": [1, 500], "bins": [1000], "chunk": 16, "seed": 0}
    fisher = fisher_maps(model, images[:16], linear_alphas_cumprod(TIMESTEPS, **SCHEDULE), **how).per_weight
    left, whole = (
        laqfi.quantize(model, Measured(fisher), policy="bits", format="int4", one_size=one_size)
        for one_size in (True, False)
    )
    config = files.read_json(folder / "deep/config.json") | {"_class_name": "UNet2DModel"}
    files.write_json(folder / "deep/config.json", config)
    export_folder(frame_of_folder(folder / "deep"), *as_file(left, {}), folder / "deep_export", folder)
    return {
        "side": CONFIG["sample_size"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": stored_size(left),
        "whole_bytes": stored_size(whole),
        "exported_bytes": resident_bytes(network_in(folder / "deep_export")),
    }


def versions() -> dict[str, str]:
    """Of what is compared; ends the program, before the long work, where one is missing."""
    try:
        return {one: version(one) for one in ("torch", "diffusers", "sdnq", "optimum-quanto")}
    except PackageNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; `make bench` installs it")


def run(data: Path, out: Path, images: int, steps: int) -> None:
    """Write head_to_head.md, and its numbers as head_to_head.json."""
    started, compared_versions = time.perf_counter(), versions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = subjects(data, folder, images, steps)
        found = [compared(subject, folder) for subject in given]
        dead = dead_positions(given[0].train_images, folder)
    results = {
        "name": memory.device_name("cpu"),
        "versions": compared_versions,
        "threads": torch.get_num_threads(),
        "images": images * len(HOW.seeds),
        "networks": [head_page.numbers(one) for one in found],
        "dead_positions": dead,
        "run_seconds": time.perf_counter() - started,
    }
    files.write_json(out / "head_to_head.json", results)
    files.write_text(out / "head_to_head.md", head_page.page(results))
    print(head_page.page(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="what the profile `quick` made: data/quick")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table")
    parser.add_argument("--images", type=int, default=360, help="for each of three seeds")
    parser.add_argument("--steps", type=int, default=TRAINING_STEPS, help="of training the network of diffusers")
    arguments = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the others are run as they come, on a CPU
    limit_threads(1)
    run(arguments.data, arguments.out, arguments.images, arguments.steps)


if __name__ == "__main__":
    main()
