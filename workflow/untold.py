"""DVC hears of what Snakemake made when a run has ended, well or not; until then a file says that it has not."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

UNTOLD = Path(".dvc/tmp/untold")


def run_begins(workflow) -> None:
    """There is nothing to tell of `--touch`, which makes nothing, or of the single jobs that a cluster runs."""
    if workflow.is_main_process and not workflow.touch:
        remember()


def remember() -> None:
    with suppress(OSError):
        UNTOLD.parent.mkdir(exist_ok=True)
        UNTOLD.touch()


def run_ended(workflow) -> None:
    if workflow.is_main_process and not workflow.touch:
        tell_dvc()


def tell_dvc() -> None:
    """What cannot be told is said, and tried again by the next `make repro`: the run itself has not failed."""
    subprocess.run([sys.executable, Path(__file__).with_name("adopt.py"), "snakemake"], check=False)
