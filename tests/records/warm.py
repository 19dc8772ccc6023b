"""Commands of both engines without the seconds that their imports take: a process that has imported them forks for each.

`serve` is that process. `shims` makes a folder for PATH whose `dvc`, `snakemake` and `python` hand their command line,
environment, folder and files over to it, and end as it ended there; so what the engines start themselves is fast too.
"""

import json
import os
import runpy
import signal
import socket
import sys
import threading
from pathlib import Path

SHIM = """#!{python} -SE
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
import json
socket.send_fds(server, [json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode() + b"\\n"], [0, 1, 2])
status = int(server.makefile().readline() or -9)
os._exit(status if status >= 0 else 128 - status)
"""


def shims(folder: Path, address: str) -> None:
    folder.mkdir()
    for name in ("dvc", "snakemake", "python"):
        (folder / name).write_text(SHIM.format(python=sys.executable, address=address))
        (folder / name).chmod(0o755)


def serve(address: str, python: str) -> None:
    """Answer until the process that started this one ends. `python` is what the engines start for Python then."""
    import dvc.cli
    import dvc.commands.checkout
    import dvc.commands.data_sync
    import dvc.commands.repro
    import dvc.commands.status
    import dvc.repo
    import snakemake.api
    import snakemake.cli  # noqa: F401

    warm_up()
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
        reap()


def warm_up() -> None:
    """What the first command would load."""
    from snakemake.cli import main

    try:
        main(["--help"])
    except SystemExit:
        pass


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


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
        os.closerange(3, 256)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment, ENGINE_PID=str(os.getpid()))
        sys.executable = python
        run(argv)
    _, status = os.waitpid(child, 0)
    client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def run(argv: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout, sys.stderr = (open(n, mode, buffering=1 if n else -1) for n, mode in enumerate("rww"))  # noqa: SIM115, PTH123
    name, *arguments = Path(argv[0]).name, *argv[1:]
    if name == "python":
        name, *arguments = arguments
        if name == "-m":
            name, *arguments = arguments
    sys.argv = [name, *arguments]
    code = 1
    try:
        if name == "dvc":
            from dvc.cli import main

            code = main(arguments)
        elif name == "snakemake":
            from snakemake.cli import main

            main(arguments)
            code = 0
        else:
            sys.path.insert(0, str(Path(name).parent))
            runpy.run_path(name, run_name="__main__")
            code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(*sys.argv[1:])
