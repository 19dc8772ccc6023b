"""Other processors than this machine's, by user-mode emulation."""

import shutil
import sys

import pytest

EMULATOR = "qemu-x86_64"
PROCESSORS = ("Broadwell-noTSX", "EPYC", "Skylake-Server")  # Intel and AMD; what qemu lacks of one, it leaves out

needs_emulator = pytest.mark.skipif(
    shutil.which(EMULATOR) is None, reason=f"needs {EMULATOR} (Debian: apt-get install qemu-user)"
)


def python_on(processor: str | None) -> list[str]:
    """The command of this Python on that processor, None for this machine's own."""
    return [sys.executable] if processor is None else [EMULATOR, "-cpu", processor, sys.executable]
