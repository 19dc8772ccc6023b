"""Commands of both engines without the seconds their imports take: a process that has imported them forks for each.

`serve` is that process. `shims` makes a folder for PATH whose `dvc`, `snakemake` and `python` hand their command line,
environment, folder and files over to it, and end as it ended there; so what the engines start themselves is fast too.
"""

import gc
import importlib
import json
import os
import runpy
import socket
import sys
import threading
from contextlib import suppress
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


def serve(address: str, python: str, scratch: str) -> None:
    """Answer until the process that started this one ends.

    `python` is what the engines start for Python then; `scratch` is a pipeline on which one command of each engine
    tells what there is to import.
    """
    for command in (["dvc", "status"], ["snakemake", "--dry-run"]):
        for name in imported_by(command, scratch):
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
    if name == "python":
        name, *arguments = [word for word in arguments if word != "-m"]
    sys.argv = [name, *arguments]
    try:
        if name == "dvc":
            from dvc.cli import main

            return main(arguments)
        if name == "snakemake":
            from snakemake.cli import main

            return main(arguments) or 0
        sys.path.insert(0, str(Path(name).parent))
        runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    serve(*sys.argv[1:])
