"""How much memory is in use: of a GPU what its tensors take, of the CPU the resident set of this process."""

import platform
import resource
from contextlib import suppress
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def status_bytes(field: str) -> int | None:
    """A field of Linux's account of this process; None elsewhere."""
    if not STATUS.exists():
        return None
    kib = {line.split(":")[0]: line.split()[1] for line in STATUS.read_text().splitlines() if line.endswith("kB")}
    return 1024 * int(kib[field])


def used(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    return status_bytes("VmRSS") or peak(device)


def peak(device: torch.device) -> int:
    """The most since `reset_peak`; on a CPU other than Linux's, since the process started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if platform.system() == "Darwin" else 1024
    return status_bytes("VmHWM") or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # where the kernel has no such file, the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
