"""What it takes to measure a model, by its size: `make bench`, or `python bench/evidence.py --out DIR`.

Time, memory and bytes on disk of the Fisher information and of what GPTQ compensates by, as the stages measure and
write them, for the profiles' U-Net in several widths. Weights are random: none of the three depends on them.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import memory
from bench import random_network
from laqfi.base import device as devices
from laqfi.base import files
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.models.unet import Unet
from laqfi.report.plots.canvas import label, png
from laqfi.report.tables import as_markdown
from laqfi.sensitivity.curvature import compensations
from laqfi.sensitivity.fisher import fisher_maps
from laqfi.sensitivity.keep import write_compensations, write_maps

WIDTHS = {"cpu": (8, 32, 64), "cuda": (8, 32, 64, 212)}  # base_channels: 0.6, 9, 37 and 405 M parameters
SIDE, CHUNK, TIMESTEPS = 32, 4, [1, 500]
MIB = 2**20
LIMIT = 4  # times the model: bytes on disk, and peak memory beside that of a plain pass


def measured(work: Callable[[], None], device: torch.device) -> tuple[float, int]:
    """Seconds of `work`, and the most memory in use meanwhile beyond what was before."""
    gc.collect()
    before = memory.used(device)
    memory.reset_peak(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, memory.peak(device) - before


def measure(width: int, device_name: str) -> dict:
    """One row. Memory beside the model itself, which is in use all the time."""
    devices.settle()
    device = torch.device(device_name)
    settings = Unet(family="unet", base_channels=width, attention=[2, 6], heads=1, dropout=0.0)
    model = random_network(settings).requires_grad_(False).to(device)
    images, alphas_cumprod = torch.rand(CHUNK, 1, SIDE, SIDE) * 2 - 1, linear_alphas_cumprod(1000, 1e-4, 0.02)
    how = {"timesteps": TIMESTEPS, "chunk": CHUNK, "seed": 0}

    def plain_pass() -> None:
        x: Tensor = images.to(device).requires_grad_(True)
        model(x, torch.full((CHUNK,), 500, device=device)).sum().backward()

    with tempfile.TemporaryDirectory() as folder:
        maps, factors = Path(folder) / "fisher.safetensors", Path(folder) / "curvature.safetensors"
        plain_seconds, plain = measured(plain_pass, device)
        fisher_seconds, fisher = measured(
            lambda: write_maps(maps, fisher_maps(model, images, alphas_cumprod, bins=[1, 1000], **how), {}), device
        )
        curvature_seconds, curvature = measured(
            lambda: write_compensations(factors, model, compensations(model, images, alphas_cumprod, **how)),
            device,
        )
        return {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "model_bytes": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
            "disk_bytes": {"fisher": maps.stat().st_size, "curvature": factors.stat().st_size},
            "peak_bytes": {"plain pass": plain, "fisher": fisher, "curvature": curvature},
            "seconds": {"plain pass": plain_seconds, "fisher": fisher_seconds, "curvature": curvature_seconds},
        }


def on_disk(found: dict) -> float:
    """Times the model."""
    return sum(found["disk_bytes"].values()) / found["model_bytes"]


def beside(found: dict, kind: str) -> float:
    """Peak beyond that of a plain pass, times the model."""
    return (found["peak_bytes"][kind] - found["peak_bytes"]["plain pass"]) / found["model_bytes"]


def verdict(text: str, rows: list[dict], times: Callable[[dict], float]) -> str:
    values = ", ".join(f"{row['parameters'] / 1e6:.1f} M {times(row):.1f}" for row in rows)
    missed = [f"{row['parameters'] / 1e6:.1f} M" for row in rows if times(row) > LIMIT]
    return (
        f"- {text} at most {LIMIT} × the model: {'not met by ' + ', '.join(missed) if missed else 'met'} ({values}).\n"
    )


def row_of(found: dict) -> dict[str, str]:
    model, disk, peak, seconds = (found[key] for key in ("model_bytes", "disk_bytes", "peak_bytes", "seconds"))
    return {
        "parameters": f"{found['parameters'] / 1e6:.1f} M",
        "model": f"{model / MIB:.0f} MiB",
        "Fisher on disk, × model": f"{disk['fisher'] / model:.2f}",
        "compensation on disk, × model": f"{disk['curvature'] / model:.2f}",
        "both": f"{on_disk(found):.2f}",
        "peak of a plain pass": f"{peak['plain pass'] / MIB:.0f} MiB",
        "of Fisher": f"{peak['fisher'] / MIB:.0f} MiB",
        "of curvature": f"{peak['curvature'] / MIB:.0f} MiB",
        "beside the plain pass, × model": f"{beside(found, 'fisher'):.1f} and {beside(found, 'curvature'):.1f}",
        "Fisher": f"{seconds['fisher']:.1f} s",
        "curvature": f"{seconds['curvature']:.1f} s",
    }


def page(results: dict) -> str:
    rows = results["rows"]
    return "\n".join(
        [
            f"# Measuring a model, by its size, on {results['name']}\n",
            f"PyTorch {results['torch']}, {results['threads']} threads. {CHUNK} images of {SIDE} × {SIDE}, at a time,",
            f"at {len(TIMESTEPS)} timesteps; time grows with images × timesteps but for the factors, once per layer.\n",
            verdict("On disk", rows, on_disk)
            + verdict(
                "Peak memory beside a plain pass",
                rows,
                lambda row: max(beside(row, "fisher"), beside(row, "curvature")),
            ),
            as_markdown([row_of(row) for row in rows]),
            "Peaks are beside the model itself. A plain pass is forward and backward without weights' gradients;",
            "the input patches of a layer, nine times its activations, are in the peaks of the two others. Matrices of",
            "a small model are summed in one pass over the images, in at most 128 MiB, which is many times the model.",
        ]
    )


def figure(results: dict) -> bytes:
    """Bytes, memory and time against parameters, all on logarithmic axes: a slope of one is linear."""
    picture = Figure(figsize=(15, 4.6), layout="constrained")
    sizes = [row["parameters"] / 1e6 for row in results["rows"]]
    panels = (
        ("On disk", "MiB", "disk_bytes", MIB),
        ("Peak memory", "MiB", "peak_bytes", MIB),
        ("Time", "s", "seconds", 1),
    )
    for axis, (title, unit, key, scale) in zip(picture.subplots(1, 3), panels, strict=True):
        label(axis, title, "million parameters", unit)
        for kind in results["rows"][0][key]:
            axis.plot(sizes, [row[key][kind] / scale for row in results["rows"]], marker="o", label=kind)
        if key != "seconds":
            axis.plot(sizes, [row["model_bytes"] / MIB for row in results["rows"]], "k--", label="model")
        axis.set(xscale="log", yscale="log")
        axis.legend()
    return png(picture)


def run(device: str, widths: tuple[int, ...], out: Path) -> None:
    """Each size in a process of its own, because a CPU's peak is that of a process."""
    rows = []
    for width in tqdm(widths, f"evidence, {device}"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows.append(pool.submit(measure, width, device).result())
    about = {"name": memory.device_name(device), "torch": torch.__version__, "threads": torch.get_num_threads()}
    results = about | {"rows": rows}
    files.write_json(out / f"evidence_{device}.json", results)
    files.write_text(out / f"evidence_{device}.md", page(results) + "\n")
    files.write_bytes(out / f"evidence_{device}.png", figure(results))
    print(page(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the figure")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    run(arguments.device, WIDTHS[arguments.device], arguments.out)


if __name__ == "__main__":
    main()
