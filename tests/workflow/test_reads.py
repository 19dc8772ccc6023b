"""A stage reads of its settings what it tracks in dvc.yaml, nothing else; and nothing in params.yaml is read by none.

All stages run in this process, with every look at a block of parameters recorded from when it is handed over.
"""

import ast
import inspect
import runpy
import shlex
import sys
import textwrap

import pytest
import torch
from threadpoolctl import threadpool_limits

from laqfi.quant.policies import every  # noqa: F401  # all policies
from laqfi.quant.policies.budget import Target
from laqfi.quant.policies.layers import Group, group
from laqfi.quant.policies.registry import POLICIES
from laqfi.stages import command
from reads import Reads
from tiny import leaves, tiny_params


@pytest.fixture(scope="module")
def jobs(by_dvc) -> dict[str, dict]:
    return by_dvc.ask("dvc_jobs")


@pytest.fixture(scope="module")
def recorded(by_dvc, jobs, tmp_path_factory) -> dict[str, Reads]:
    """What every job read, run in a copy of the clone."""
    clone, block, threads = by_dvc.copy(tmp_path_factory.mktemp("reads")), command.block, torch.get_num_threads()
    by_job = {}

    def recording(reads: Reads, stage: str, variant: str):
        def watched(settings, name, kind, path):
            value = block(settings, name, kind, path)
            places = {
                "variant": f"variants.{variant}",
                "recovery": f"recoveries.{variant}",
                "versions": f"program.{stage}",
                "program": f"program.{stage}",
            }
            return value if name == "variants" else reads.watch(value, places.get(name, name))

        return watched

    for name, job in jobs.items():
        _, _, module, *arguments = shlex.split(job["cmd"])
        if module == "laqfi.stages.params":
            continue
        with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
            reads = by_job[name] = Reads(patch)
            patch.setattr(command, "block", recording(reads, name.partition("@")[0], name.rpartition("-")[2]))
            patch.setattr(sys, "argv", [module, *arguments])
            patch.chdir(clone.folder)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    torch.set_num_threads(threads)
    assert clone.outputs() == by_dvc.outputs()
    return by_job


def within(place: str, key: str) -> bool:
    return f"{place}.".startswith(f"{key}.")


def test_a_stage_reads_no_parameter_it_does_not_track(recorded, jobs):
    for name, reads in recorded.items():
        untracked = {
            place for place in reads.found | reads.hashed if not any(within(place, key) for key in jobs[name]["params"])
        }
        assert untracked == set(), f"{name}: a change of these would leave it as it is"


def test_a_stage_tracks_no_block_it_does_not_read(recorded, jobs):
    for name, reads in recorded.items():
        unread = {key for key in jobs[name]["params"] if not any(within(place, key) for place in reads.found)}
        assert unread == set(), f"{name}: a change of these would run it for nothing"


def test_no_parameter_is_without_effect(recorded):
    """But for `active`, which chooses what runs; `sha256` of an Inception network is in tests/unit/test_features.py."""
    readable = set.union(*(reads.leaves() for reads in recorded.values())) | {"threads"}
    written = [place for place, _ in leaves(tiny_params()["profiles"]["tiny"])]
    unread = {place for place in written if not any(within(place, known) for known in readable)}
    assert unread == set()
    assert readable - set.union(*(reads.found for reads in recorded.values())) == set()


@pytest.mark.parametrize("name", POLICIES)
def test_no_option_of_a_policy_is_without_effect(name):
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(POLICIES[name]))).body
    used = {node.id for line in function.body for node in ast.walk(line) if isinstance(node, ast.Name)}
    assert {argument.arg for argument in function.args.kwonlyargs} <= used


@pytest.mark.parametrize(("block", "reader"), [(Group, group), (Target, Target.limit)])
def test_no_option_within_an_option_is_without_effect(block, reader):
    tree = ast.parse(textwrap.dedent(inspect.getsource(reader)))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert block.model_fields.keys() - used <= {
        "of"
    }  # which decides what is counted, tested in tests/unit/test_rate.py
