"""Engines and stages without the seconds their imports take: a process that has imported what they need forks for each.

`serve` is that process; of this repository's own code it imports nothing. `shims` makes a folder for PATH whose `dvc`,
`snakemake` and `python` hand their command line, environment, folder and files over to it, and end as it ended there;
so what the engines start themselves is fast too.
"""

import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHIM = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode() + b"\\n"], [0, 1, 2])
status = int(server.makefile().readline() or -9)
os._exit(status if status >= 0 else 128 - status)
"""


def shims(folder: Path, address: str) -> None:
    folder.mkdir()
    for name in ("dvc", "snakemake", "python"):
        (folder / name).write_text(SHIM.format(python=sys.executable, address=address))
        (folder / name).chmod(0o755)


@contextmanager
def served(folder: Path, scratch: Path, *stages: str) -> Iterator[Path]:
    """The folder for PATH, while the process runs that answers; `stages` are modules that its commands will run."""
    address = str(folder / "socket")
    shims(folder / "bin", address)
    command = [sys.executable, __file__, address, folder / "bin/python", scratch, *stages]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        while server.stdout.readline() not in (b"ready\n", b""):
            pass
        yield folder / "bin"
        server.stdin.close()


def serve(address: str, python: str, scratch: str, *stages: str) -> None:
    """Answer until the process that started this one ends.

    `python` is what the engines start for Python then; `scratch` is a pipeline on which one command of each engine, and
    the `--help` of each of the stages, tell what there is to import.
    """
    for command in (
        ["dvc", "status"],
        ["snakemake", "--dry-run"],
        *(["python", "-m", stage, "--help"] for stage in stages),
    ):
        for name in imported_by(command, scratch):
            if name.partition(".")[0] != "laqfi":
                with suppress(Exception):
                    importlib.import_module(name)
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    threading.Thread(target=end_with_parent, daemon=True).start()
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:  # waits for the command's process, so that commands may start commands
            listener.close()
            answer(client, python)
        client.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def imported_by(command: list[str], folder: str) -> list[str]:
    """The names of the modules that are there after `command`."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.chdir(folder)
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        call(command)
        with open(writer, "w") as file:  # noqa: PTH123
            file.write("\n".join(sys.modules))
        os._exit(0)
    os.close(writer)
    with open(reader) as file:  # noqa: PTH123
        names = file.read().splitlines()
    os.waitpid(child, 0)
    return names


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def answer(client: socket.socket, python: str) -> None:
    message, files, _, _ = socket.recv_fds(client, 1 << 20, 3)
    while not message.endswith(b"\n"):
        message += client.recv(1 << 20)
    argv, environment, folder = json.loads(message)
    if (child := os.fork()) == 0:
        client.close()
        os.setsid()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment, ENGINE_PID=str(os.getpid()))
        sys.executable = python
        run(argv)
    _, status = os.waitpid(child, 0)
    client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def run(argv: list[str]) -> None:
    """Run the command as its own process would, and end with its status."""
    sys.stdin, sys.stdout, sys.stderr = (open(n, "rww"[n], 1 if n == 2 else -1) for n in range(3))  # noqa: PTH123, SIM115
    try:
        code = call(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def call(argv: list[str]) -> int:
    name, *arguments = Path(argv[0]).name, *argv[1:]
    sys.path[:0] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = [name, *arguments]
    try:
        if name == "python":
            return python(*arguments)
        if name == "dvc":
            from dvc.cli import main

            return main(arguments)
        from snakemake.cli import main

        return main(arguments) or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def python(first: str, *arguments: str) -> int:
    """`python -m module …`, `python -c code …` or `python file …`."""
    if first in ("-m", "-c"):
        sys.path.insert(0, "")
        sys.argv = list(arguments)
        if first == "-m":
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            exec(arguments[0], {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(first).parent))
        sys.argv = [first, *arguments]
        runpy.run_path(first, run_name="__main__")
    return 0


if __name__ == "__main__":
    serve(*sys.argv[1:])
