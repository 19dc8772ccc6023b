"""Memory and speed of stored weights, measured: `make bench`, or `python bench/bench.py --out DIR`.

Weights are random, as neither depends on them. Every case starts from a model file and draws images as the pipeline
does, beside optimum-quanto on the same network and beside a loop that draws one image at a time.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

import aside
import memory
import report
from cases import ASIDE, CASES, COMPILED, DRAWN, FILES, MIXED, SCALES, WORK, Case, Scale, Work
from laqfi.base import device as devices
from laqfi.base import files
from laqfi.base.random import generator
from laqfi.diffusion.params import Diffusion
from laqfi.diffusion.process import Denoiser
from laqfi.models.unet import UNet, Unet
from laqfi.quant.rounding import store
from laqfi.sampling.network import WORTH_COMPILING, prepared
from laqfi.sampling.samplers import sample
from laqfi.storage.described import header, output_axes
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout
from laqfi.storage.model_file import read_model, stored_bytes
from laqfi.storage.stored_file import read_stored, write_stored

DIFFUSION = {"timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02}


@dataclass(frozen=True)
class Job:
    """One case to measure on the model files in `folder`; the timed part waits for its `turn`."""

    case: Case
    scale: Scale
    work: Work
    folder: Path
    device: str
    turn: AbstractContextManager = field(default_factory=nullcontext)


def random_network(settings: Unet) -> UNet:
    torch.manual_seed(0)
    unet = UNet(settings, image_channels=1)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.any():  # would hide what comes before it
            module.reset_parameters()
    return unet.eval()


def write_files(folder: Path, scale: Scale) -> None:
    """Files of the same random network: its matrices in each format, the other tensors in float16 beside them."""
    unet = random_network(scale.unet)
    axes = output_axes(unet)
    for name in FILES:
        rest, tensors, formats = ("float32" if name == "float32" else "float16"), {}, {}
        for place, (parameter, weight) in enumerate(unet.named_parameters()):
            matrix = MIXED[place % len(MIXED)] if name == "mixed" else name
            layout = Layout(Format(matrix if weight.dim() > 1 else rest), tuple(weight.shape), axes[parameter])
            parts = store(weight.detach(), layout, "max").parts
            tensors |= {f"{parameter}{part}": tensor for part, tensor in parts.items()}
            formats |= {} if layout.format.is_float else {parameter: layout.to_json()}
        metadata = header(scale.unet, Diffusion(**DIFFUSION), [1, scale.side, scale.side]) | {"formats": formats}
        write_stored(folder / f"{name}.safetensors", tensors, metadata)


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor; of one that optimum-quanto packed, those of the tensors inside."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(tensor_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()


def resident_bytes(model: nn.Module) -> int:
    return sum(tensor_bytes(tensor) for tensor in [*model.parameters(), *model.buffers()])


def pack_with_quanto(model: nn.Module, weights: str) -> str:
    """Store the weights of `model` as optimum-quanto does, in place; says what it leaves alone.

    At its first 4-bit weight it would compile an extension for minutes, whose unpacking is the line below.
    """
    from optimum import quanto
    from optimum.quanto.library.extensions import extension

    class Unpack:
        unpack = staticmethod(lambda packed, bits: torch.cat([packed & 0x0F, packed >> 4]))

    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # or what stays float32 would hold the whole file in memory
    for built in extension._extensions.values():
        built._lib = Unpack
    quanto.quantize(model, weights=getattr(quanto, weights))
    quanto.freeze(model)
    plain = Counter(
        type(module).__name__
        for module in model.modules()
        if [*module.parameters(recurse=False)] and not isinstance(module, quanto.nn.QModuleMixin)
    )
    return "stays float32: " + ", ".join(f"{count} {kind}" for kind, count in sorted(plain.items()))


class WithoutInferenceMode(nn.Module):
    """A network in 4-bit tensors of optimum-quanto, which cannot be used in inference mode."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return self.model(x, timestep)


def standard_normal(images: int, scale: Scale, device: torch.device) -> Tensor:
    shape = (images, 1, scale.side, scale.side)
    return torch.from_numpy(generator("bench").standard_normal(shape, dtype="float32")).to(device)


def seconds(draw: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    draw()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def deviation(denoiser: Denoiser, base: Denoiser, x: Tensor) -> dict[str, float]:
    """Difference of the predicted noise to FP32's, relative to FP32's: root mean square and largest."""
    x = x.clone()  # an inference tensor, as in sampling: another kind would be compiled for anew
    timestep = torch.linspace(1, DIFFUSION["timesteps"], len(x), device=x.device).long()
    wanted = base(x, timestep)
    change = denoiser(x, timestep) - wanted
    rms = (change.square().mean() / wanted.square().mean()).sqrt()
    return {"rms_deviation": rms.item(), "max_deviation": (change.abs().max() / wanted.abs().max()).item()}


def measure(job: Job) -> dict:
    """Memory, time and deviation of one case. FP32 is timed in turn with it, so that another load slows both."""
    case, device = job.case, torch.device(job.device)
    work = case.work or job.work
    devices.settle()
    if case.quanto:
        import_module("optimum.quanto")  # before memory is read: libraries are not the model's
    noise = standard_normal(max(work.alone, work.batch, work.compared), job.scale, device)
    start = memory.used(device)
    path = job.folder / f"{case.file}.safetensors"
    model, alphas_cumprod, metadata = read_model(path, device)
    payload = stored_bytes(read_stored(path)[0], metadata)[0]
    denoiser, remark = model, ""
    if case.quanto:
        remark = pack_with_quanto(model, case.quanto)
        payload = sum(tensor_bytes(t) for t in model.state_dict().values() if isinstance(t, Tensor))
        denoiser = WithoutInferenceMode(model)
    if case.compiled:
        denoiser = devices.compiled(model)
    if case.precision:
        denoiser = prepared(model, case.precision, WORTH_COMPILING)
    if case.aside:
        denoiser = aside.WAYS[case.aside](model, device)
    if case.diffusers:
        denoiser = aside.pipeline(job.scale.side, DIFFUSION, getattr(torch, case.diffusers), device)
        model = denoiser.unet
        payload = resident_bytes(model)
        remark = f"another network, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"

    def draw(network: Denoiser, batches: tuple[Tensor, ...], steps: int) -> None:
        with devices.tf32(case.precision == "tf32" and network is denoiser):
            for batch in batches:
                if case.diffusers and network is denoiser:
                    network(batch_size=len(batch), num_inference_steps=steps, output_type="np")
                    continue
                sample(network, batch.clone, alphas_cumprod, sampler="ddim", steps=steps, eta=0.0, clip=True)

    def per_image_step(network: Denoiser, batches: tuple[Tensor, ...]) -> float:
        images = sum(map(len, batches))
        return seconds(lambda: draw(network, batches, work.steps), device) / images / work.steps

    batches = noise[: work.alone].split(1) if case.alone else (noise[: work.batch],)
    gc.collect()
    memory.reset_peak(device)
    warm_up = seconds(lambda: draw(denoiser, batches[:1], 1), device)
    peak = memory.peak(device)
    base, _, _ = read_model(job.folder / "float32.safetensors", device)
    change = dict.fromkeys(("rms_deviation", "max_deviation"))
    if not case.diffusers:
        change = deviation(denoiser, base, noise[: work.compared])
    times, base_times = [], []
    with job.turn:
        for _ in range(work.repeats):
            times.append(per_image_step(denoiser, batches))
            base_times.append(per_image_step(base, (noise[: work.batch],)))
    return {
        "resident_bytes": resident_bytes(model),
        "payload_bytes": payload,
        "peak_bytes": peak,
        "start_bytes": start,
        "batch": len(batches[0]),
        "steps": work.steps,
        "warm_up_seconds": warm_up,
        "seconds": times,
        "fp32_seconds": base_times,
        "seconds_per_image_step": statistics.median(times),
        "times_fp32": statistics.median(mine / its for mine, its in zip(times, base_times, strict=True)),
        "remark": remark,
    } | change


def attempt(job: Job) -> dict:
    """What `measure` finds, or in words why it found nothing: one case must not take the others with it."""
    try:
        return measure(job)
    except ModuleNotFoundError as error:
        wanted = "optimum-quanto is not installed" if job.case.quanto else "a module is missing"
        return {"error": f"{wanted} ({error})"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}


def in_fresh_processes(jobs: list[Job]) -> list[dict]:
    """`attempt` every job, each in a new process, all at the same time."""
    with ProcessPoolExecutor(len(jobs), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(attempt, job) for job in jobs]
    return [
        {"error": "its process was killed; was there too little memory?"}
        if isinstance(future.exception(), BrokenProcessPool)
        else future.result()
        for future in futures
    ]


def in_this_process(job: Job) -> dict:
    """`attempt` on a GPU, whose own count of memory starts anew with every case."""
    gc.collect()
    torch.cuda.empty_cache()
    return attempt(job)


def measure_scale(name: str, device: str, folder: Path) -> list[dict]:
    """All cases of one scale. Those to compile do so side by side, and are timed in turn."""
    scale, work = SCALES[name], WORK[name, device]
    write_files(folder, scale)
    rows = []
    for title, case in tqdm(CASES.items(), f"{device}, {name}"):
        job = Job(case, scale, work, folder, device)
        found = in_this_process(job) if device == "cuda" else in_fresh_processes([job])[0]
        rows.append({"scale": name, "case": title} | found)
    if (name, device) == ("paper", "cuda"):
        for title, case in tqdm((DRAWN | ASIDE).items(), "drawn as in the pipeline, and beside"):
            rows.append({"scale": name, "case": title} | in_this_process(Job(case, scale, work, folder, device)))
        torch.cuda.empty_cache()
        with get_context("spawn").Manager() as manager:
            turn = manager.Lock()
            jobs = [Job(case, scale, work, folder, device, turn) for case in COMPILED.values()]
            found = in_fresh_processes(jobs)
        rows += [{"scale": name, "case": title} | row for title, row in zip(COMPILED, found, strict=True)]
    return rows


def run(device: str, scales: list[str], out: Path) -> None:
    """Measure on one device and write <device>.json, .md and .png."""
    started, rows = time.perf_counter(), []
    for name in scales:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure_scale(name, device, Path(folder))
    results = {
        "device": device,
        "name": memory.device_name(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "run_seconds": time.perf_counter() - started,
        "rows": rows,
    }
    files.write_json(out / f"{device}.json", results)
    files.write_text(out / f"{device}.md", report.page(results))
    files.write_bytes(out / f"{device}.png", report.figure(results))
    print(report.page(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the figure")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the CPU, and a GPU where there is one")
    parser.add_argument("--quick", action="store_true", help="only the small network of the profile `quick`")
    arguments = parser.parse_args()
    found = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in [arguments.device] if arguments.device else found:
        run(device, ["quick"] if arguments.quick else list(SCALES), arguments.out)


if __name__ == "__main__":
    main()
