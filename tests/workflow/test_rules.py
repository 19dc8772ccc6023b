"""Every stage has a rule, and the rule says what a cluster has to know before it runs it."""

import re

import pytest
import yaml

from tiny import ROOT

TEXT = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
RULES = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", TEXT, flags=re.M | re.S))


def test_every_stage_has_a_rule():
    """But for `params`: the Snakefile writes what it makes, before it plans."""
    assert {"params", *RULES} == set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


@pytest.mark.parametrize("name", RULES)
def test_a_rule_states_threads_memory_and_run_time(name):
    for needed in (r"^    threads: threads\(config\)$", r"^        mem_mb=\d+,$", r"^        runtime=\d+,$"):
        assert re.search(needed, RULES[name], flags=re.M), needed


@pytest.mark.parametrize("name", RULES)
def test_a_rule_asks_for_one_gpu_if_its_stage_takes_the_default_device(name):
    stage = (ROOT / f"src/laqfi/stages/{name}.py").read_text()
    assert re.findall(r"gpu=(\d+)", RULES[name]) == (["1"] if "default_device" in stage else [])


def test_preparing_data_and_the_report_stay_on_the_head_node():
    assert {name for name, rule in RULES.items() if "localrule: True" in rule} == {"dataset", "report"}


def test_partitions_and_accounts_are_in_the_profile_only():
    assert not re.search(r"slurm|partition|account", TEXT)
