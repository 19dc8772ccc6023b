"""On PYTHONPATH of a run: a stage named in LAQFI_PAUSE stops in the middle of a write, for a test to disturb it there.

Its n-th file is complete under a temporary name, its first n - 1 files have their names. The first stage to get there
leaves its name in the marker; when that is removed, the stage goes on. Nothing else about the run is changed.
"""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "laqfi.stages."
plan = json.loads(os.environ.get("LAQFI_PAUSE", "{}"))
stage = next((word.removeprefix(PREFIX) for word in sys.orig_argv if word.startswith(PREFIX)), None)

if stage in plan.get("writes", {}):
    left = plan["writes"][stage]
    fsync = os.fsync

    def pausing(descriptor):
        global left
        fsync(descriptor)
        left -= 1
        if left == 0:
            marker = Path(plan["marker"])
            with suppress(FileExistsError), marker.open("x") as file:
                file.write(stage)
            while marker.exists():
                time.sleep(0.05)

    os.fsync = pausing
