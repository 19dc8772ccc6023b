"""On PYTHONPATH of a run: a stage named in LAQFI_PAUSE stops in the middle of a write and waits to be killed.

Its n-th file is complete under a temporary name, its first n - 1 files have their names. The first stage to get there
leaves its name in the marker. Nothing else about the run is changed.
"""

import json
import os
import sys
import time
from contextlib import suppress

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
            with suppress(FileExistsError), open(plan["marker"], "x") as marker:
                marker.write(stage)
            time.sleep(600)

    os.fsync = pausing
