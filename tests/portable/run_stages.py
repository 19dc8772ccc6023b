"""Run stage commands, read from stdin one a line, in this one process: importing PyTorch once is slow enough here.

`python tests/portable/run_stages.py < COMMANDS`, in the folder the commands are for.
"""

import runpy
import shlex
import sys

if __name__ == "__main__":
    for command in sys.stdin.read().splitlines():
        _, _, module, *arguments = shlex.split(command)
        sys.argv = ["-m", *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
