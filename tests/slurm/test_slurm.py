"""The pipeline as jobs of a SLURM cluster: what they ask for, and that no fault changes a byte of the results."""

import os
import re
import shutil
import signal

import yaml

from cluster import processes, wait_until
from heads import COMMAND, TRAINED, Head
from tiny import ROOT

ON_THE_HEAD_NODE = {"params", "dataset", "report"}


def saved(clone) -> bool:
    """Whether a training has left a state to go on from."""
    return any((clone.folder / "data/tiny/resume").glob("*.safetensors"))


def test_all_stages_run_as_jobs_with_the_same_bytes(cluster, clone, undisturbed):
    with Head(cluster, clone) as head:
        head.wait()
        jobs = head.jobs("--states=all")
    stages = {re.match(r"rule_(\w+?)_wildcards", job["stage"])[1]: job for job in jobs}
    declared = yaml.safe_load((clone.folder / "dvc.yaml").read_text())["stages"]
    assert set(stages) == set(declared) - ON_THE_HEAD_NODE
    assert {job["state"] for job in jobs} == {"COMPLETED"}
    assert {job["cpus"] for job in jobs} == {"1"}
    on_cpu = {stage for stage, job in stages.items() if job["partition"] != "gpu"}
    assert on_cpu == {"features"}, "all others take the GPU of a machine that has one"
    assert clone.outputs() == undisturbed.outputs()


def test_a_cancelled_job_is_submitted_again_and_goes_on(cluster, untrained, undisturbed):
    with Head(cluster, untrained, *TRAINED) as head:
        job = head.training()
        cluster.call("scancel", job["id"])
        wait_until(lambda: head.states(job) == {"CANCELLED"}, "the job is cancelled")
        assert saved(untrained)
        head.wait()
    assert untrained.outputs() == undisturbed.outputs()


def test_a_job_over_its_time_limit_is_submitted_again_and_goes_on(cluster, untrained, undisturbed):
    with Head(cluster, untrained, *TRAINED) as head:
        job = head.training()
        for pid in processes("laqfi.stages.train") & processes(str(untrained.folder)):
            os.kill(pid, signal.SIGSTOP)  # it hangs
        cluster.call("scontrol", "update", f"JobId={job['id']}", "EndTime=now")
        wait_until(lambda: head.states(job) == {"TIMEOUT"}, "the job is over its time limit", 120)
        assert saved(untrained)
        head.wait()
    assert untrained.outputs() == undisturbed.outputs()


def test_a_job_on_a_node_that_dies_is_started_on_another(cluster, untrained, undisturbed):
    with Head(cluster, untrained, *TRAINED) as head:
        job = head.training()
        cluster.kill_node(job["node"])
        try:
            wait_until(lambda: head.states(job) == {"PENDING"}, "the job waits for another node", 180)
            cluster.call("scontrol", "update", f"JobId={job['id']}", "StartTime=now")  # SLURM would wait two minutes
            head.wait()
            (restarted,) = head.jobs("--states=all")
        finally:
            cluster.start_node(job["node"])
            cluster.wait_for_nodes()
    assert (restarted["id"], restarted["state"]) == (job["id"], "COMPLETED")
    assert restarted["node"] != job["node"]
    assert untrained.outputs() == undisturbed.outputs()


def test_one_command_goes_on_after_the_head_process_was_killed(cluster, untrained, undisturbed):
    shutil.rmtree(untrained.folder / "reports/tiny")  # or nothing would have to run
    with Head(cluster, untrained) as head:
        job = head.training()
        head.process.kill()
        head.process.wait()
        assert head.states(job) == {"RUNNING"}
        untrained.make("slurm-resume")
        assert head.states(job) == {"CANCELLED"}
    assert untrained.outputs() == undisturbed.outputs()


def test_the_edits_of_the_tutorial_reach_the_jobs(clone):
    page = (ROOT / "docs/tutorial.md").read_text()
    (patch,) = [block for block in re.findall(r"```diff\n(.*?)```", page, re.S) if "profiles/slurm" in block]
    file = clone.folder / ".git/tutorial.diff"
    file.write_text(patch)
    clone.git("apply", str(file))
    jobs = clone.call(*COMMAND, "--dry-run").stdout
    assert len(re.findall(r"resources: .*slurm_account=my_project", jobs)) >= jobs.count("\nrule ") > 0
