"""Runs on the cluster, as a user starts them, and what a test wants to know of them."""

import re
import subprocess

from clone import Clone
from cluster import Cluster, wait_until

COMMAND = ("snakemake", "--workflow-profile", "workflow/profiles/slurm")
TRAINED = ("data/tiny/model.safetensors", "reports/tiny/loss.csv")
JOB = {"id": "%A", "stage": "%k", "partition": "%P", "cpus": "%C", "gpus": "%b", "state": "%T", "node": "%N"}


class Head:
    """The head process of one run, and its jobs. A context manager: afterwards both are gone."""

    def __init__(self, cluster: Cluster, clone: Clone, *targets: str):
        self.cluster = cluster
        self.clone = clone
        self.log = clone.folder / "head.log"
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [*COMMAND, *targets], cwd=clone.folder, env=clone.environment, stdout=out, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> "Head":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        if jobs := self.jobs():
            self.cluster.call("scancel", "--signal=KILL", "--full", *(job["id"] for job in jobs))
        wait_until(lambda: not self.jobs(), "the jobs are gone")

    def jobs(self, *options: str) -> list[dict[str, str]]:
        """The jobs in the queue; `--states=all` adds those that have ended."""
        form = "|".join([*JOB.values(), "%Z"])
        lines = self.cluster.call("squeue", "--noheader", f"--format={form}", *options).splitlines()
        rows = [line.split("|") for line in lines]
        return [dict(zip(JOB, row, strict=False)) for row in rows if row[-1] == str(self.clone.folder)]

    def training(self) -> dict[str, str]:
        """The training job, once it has done some steps."""
        log = self.clone.folder / "data/tiny/logs/train.log"
        begun = re.compile(r"\| \d\d+/")
        wait_until(lambda: log.is_file() and begun.search(log.read_text()), f"training runs, see {self.log}", 180)
        (job,) = [job for job in self.jobs("--states=RUNNING") if job["stage"].startswith("rule_train_")]
        return job

    def states(self, job: dict[str, str]) -> set[str]:
        return {other["state"] for other in self.jobs("--states=all") if other["id"] == job["id"]}

    def wait(self) -> None:
        assert self.process.wait(timeout=600) == 0, self.log.read_text()
