"""The same last digits on every x86-64 processor with AVX2, set before the numerical libraries are loaded.

The order of a floating-point sum, and with it the last digit, follows from the instruction set that a library picks
when it is loaded: AVX-512 here, AVX2 there, other paths on Intel than on AMD. The settings below make PyTorch (ATen,
oneDNN, MKL), NumPy and SciPy (OpenBLAS) pick the same on all of them. Computing on a GPU does not depend on them.
"""

import os
import platform
import sys
from collections.abc import Collection, MutableMapping
from pathlib import Path

from laqfi.base.errors import LaqfiError

SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # with its AVX2 path, results on Intel and AMD differ
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
# What would work against the settings: other names of theirs, and switches for less exact arithmetic.
UNSET = (
    "DNNL_MAX_CPU_ISA",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_CPU_ISA_HINTS",
    "DNNL_CPU_ISA_HINTS",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_ENABLE_CPU_FEATURES",
    "OPENBLAS_L2_SIZE",
)
LIBRARIES = ("numpy", "scipy", "sklearn", "torch")
NEEDED = {"avx2", "fma"}  # what the settings' code paths are made of


def processor_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Instruction sets of this machine's processor, as the kernel names them; none if it does not say."""
    if platform.machine() not in ("x86_64", "AMD64") or not path.exists():
        return set()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return set(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def settle(environ: MutableMapping[str, str], loaded: Collection[str], flags: Collection[str]) -> str | None:
    """Put the settings into `environ`; return a line for a person if it held others, or they do not fit the processor.

    loaded: names of imported modules; flags: instruction sets of the processor. Raises LaqfiError if a numerical
    library was loaded without the settings: it has made its choice.
    """
    if not set(flags) >= NEEDED:
        return "no x86-64 processor with AVX2: the last digits of results are this machine's own"
    others = {name: environ[name] for name in UNSET if name in environ}
    others |= {name: environ.get(name) for name, value in SETTINGS.items() if environ.get(name) != value}
    if found := [name for name in LIBRARIES if others and name in loaded]:
        raise LaqfiError(f"{found[0]} was loaded before laqfi.stages, which makes results the same on every processor")
    environ.update(SETTINGS)
    for name in UNSET:
        environ.pop(name, None)
    replaced = ", ".join(f"{name}={value}" for name, value in others.items() if value is not None)
    return f"{replaced} overridden: results are to be the same on every processor" if replaced else None


def settle_this_process() -> None:
    """`settle` for this process, its line to stderr. A stage that cannot start by it ends with one line, too."""
    try:
        if line := settle(os.environ, sys.modules, processor_flags()):
            print(f"note: {line}", file=sys.stderr)
    except LaqfiError as error:
        if sys.argv[:1] == ["-m"]:  # `python -m laqfi.stages.train`, whose package is being imported
            sys.exit(f"error: {error}")
        raise
