"""A private SLURM cluster on this machine: one controller and three nodes, all they write in one folder."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sinfo", "srun", "setpriv")
GPUS = {"cpu1": 0, "gpu1": 1, "gpu2": 1}  # per node

# No database, no cgroups, no root. Every node may claim more than this machine has (config_overrides). A lost node is
# noticed within seconds (SlurmdTimeout); finished jobs stay in squeue, where Snakemake looks for them (MinJobAge).
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
KillWait=10
MinJobAge=300
{nodes}
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=gpu1,gpu2 MaxTime=INFINITE
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=64000 Gres=gpu:{gpus}"
GRES = "NodeName=gpu1,gpu2 Name=gpu File=/dev/null\n"  # a GPU nobody opens: jobs ask for it, the stages run on the CPU


def program(name: str) -> str | None:
    """The path of a program; Debian puts the daemons where not every user looks."""
    return shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


def missing() -> list[str]:
    return [name for name in PROGRAMS if not program(name)]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def processes(mark: str) -> set[int]:
    """Ids of the processes whose command line, environment or working folder holds `mark`."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if mark.encode() in text or mark in str((process / "cwd").readlink()):
                found.add(int(process.name))
    return found - {os.getpid()}


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Cluster:
    """A context manager: afterwards nothing it started runs, the processes of its jobs included."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}/bin{os.pathsep}{os.environ['PATH']}",
        }

    def __enter__(self) -> "Cluster":
        self.configure()
        try:
            self.start("munged", "munged", "--foreground", "--force", *self.munge_files())
            wait_until((self.folder / "munge.socket").exists, f"munged listens, see {self.folder}")
            self.start("slurmctld", "slurmctld", "-D")
            for name in GPUS:
                self.start_node(name)
            self.wait_for_nodes()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def configure(self) -> None:
        for name in ("bin", "state", *GPUS):
            (self.folder / name).mkdir()
        port, *ports = free_ports(1 + len(GPUS))
        host = socket.gethostname()
        nodes = [NODE.format(name=n, host=host, port=p, gpus=GPUS[n]) for n, p in zip(GPUS, ports, strict=True)]
        config = CONFIG.format(folder=self.folder, host=host, port=port, user=getpass.getuser(), nodes="\n".join(nodes))
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "gres.conf").write_text(GRES)
        self.wrap_srun()
        subprocess.run([program("mungekey"), "--create", f"--keyfile={self.folder}/munge.key"], check=True)

    def wrap_srun(self) -> None:
        """The executor drops SLURM_CONF inside a job: without it srun would look for a cluster in /etc/slurm."""
        wrapper = self.folder / "bin/srun"
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {program("srun")} "$@"\n')
        wrapper.chmod(0o755)

    def munge_files(self) -> list[str]:
        options = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        return [f"--{option}={self.folder}/munge.{ending}" for option, ending in options.items()]

    def start(self, label: str, name: str, *arguments: str, cwd: Path | None = None) -> None:
        """A daemon, which is told to end when this process has ended, in whatever way."""
        command = ["setpriv", "--pdeathsig", "TERM", program(name), *arguments]
        with (self.folder / f"{label}.out").open("ab") as out:
            self.daemons[label] = subprocess.Popen(
                command, cwd=cwd or self.folder, env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )

    def start_node(self, name: str) -> None:
        self.start(name, "slurmd", "-D", "-N", name, cwd=self.folder / name)

    def wait_for_nodes(self) -> None:
        idle = dict.fromkeys(GPUS, "idle")
        wait_until(lambda: self.nodes() == idle, f"all nodes are idle, see {self.folder}")

    def call(self, *command: str, check: bool = True) -> str:
        return subprocess.run(command, env=self.environment, check=check, capture_output=True, text=True).stdout

    def nodes(self) -> dict[str, str]:
        """The state of every node; none while the controller does not answer."""
        lines = self.call("sinfo", "--Node", "--noheader", "--format=%N %t", check=False).splitlines()
        return dict(line.split() for line in lines)

    def kill_node(self, name: str) -> None:
        """What a power cut does: the daemon and its jobs' processes are gone, and nobody was told."""
        self.daemons.pop(name).kill()
        tasks = processes(str(self.folder)) & processes(f"SLURMD_NODENAME={name}")
        kill(tasks | processes(str(self.folder / name)))

    def stop(self) -> None:
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        kill(processes(str(self.folder)))
