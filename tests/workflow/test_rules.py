"""Every stage has a rule, and the rule says what a cluster has to know before it runs it."""

import re

import pytest
import yaml

from calls import Package
from tiny import ROOT

TEXT = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
RULES = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", TEXT, flags=re.M | re.S))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PACKAGE = Package(ROOT / "src")


def test_every_stage_has_a_rule():
    """But for `params`: the Snakefile writes what it makes, before it plans."""
    assert {"params", *RULES} == set(STAGES)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_states_threads_memory_and_run_time(name):
    for needed in (r"^    threads: threads\(config\)$", r"^        mem_mb=\d+,$", r"^        runtime=\d+,$"):
        assert re.search(needed, RULES[name], flags=re.M), needed


def module_of(name: str) -> str:
    return re.search(r"-m (\S+)", STAGES[name]["cmd"])[1]


@pytest.mark.parametrize("name", RULES)
def test_a_rule_asks_for_one_gpu_if_its_stage_takes_the_default_device(name):
    """Itself or through what it calls: DVC lets every stage have the GPU of its machine, so a rule has to as well."""
    takes_it = ("laqfi.base.device", "default_device") in PACKAGE.may_call(module_of(name))
    assert re.findall(r"gpu=(\d+)", RULES[name]) == (["1"] if takes_it else [])


def test_no_module_but_one_decides_where_tensors_live():
    found = {path.name for path in PACKAGE.src.rglob("*.py") if re.search(r"is_available|\.cuda\(", path.read_text())}
    assert found == {"device.py"}


@pytest.mark.parametrize(
    ("stage", "helper", "taken"),
    [
        ("from p.device import default_device\ndef stage(): default_device()", "", True),
        ("from p import device as d\ndef stage(): d.default_device()", "", True),
        ("import p.device\ndef stage(): p.device.default_device()", "", True),
        ("from p.helper import used\ndef stage(): used()", "", True),
        ("from p import helper\ndef stage(): helper.used()", "", True),
        ("from p.helper import Judge\ndef stage(): Judge().score()", "", True),
        ("from p.helper import used\ndef stage(): print(map(used, []))", "", True),
        ("from p.helper import other\ndef stage(): other()", "@registered\ndef policy(): used()", True),
        ("from p.helper import other\ndef stage(): other()", "HERE = used()", True),
        ("from p.helper import other\ndef stage(): other()", "", False),
        ("from p import helper\ndef stage(): helper.other()", "", False),
        ("from p.helper import other\ndef stage(): other()", "@cache\ndef idle(): used()", False),
        ("import torch\ndef stage(): torch.default_device()", "", False),
    ],
)
def test_what_a_stage_may_call_is_told_from_what_it_only_imports(tmp_path, stage, helper, taken):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/__init__.py").touch()
    (tmp_path / "p/device.py").write_text("def default_device(): pass\ndef allow_tf32(): pass")
    (tmp_path / "p/stage.py").write_text(stage)
    (tmp_path / "p/helper.py").write_text(
        "from functools import cache\nfrom p.device import allow_tf32, default_device\n"
        "def used(): return inner()\ndef inner(): return default_device()\ndef other(): allow_tf32()\n"
        f"class Judge:\n    def score(self): used()\ndef registered(function): return function\n{helper}"
    )
    assert (("p.device", "default_device") in Package(tmp_path).may_call("p.stage")) == taken


def test_preparing_data_and_the_report_stay_on_the_head_node():
    assert {name for name, rule in RULES.items() if "localrule: True" in rule} == {"dataset", "report"}


def test_partitions_and_accounts_are_in_the_profile_only():
    assert not re.search(r"slurm|partition|account", TEXT)
