"""Every stage says what a cluster has to know before it runs it."""

import re
from types import SimpleNamespace

import pytest

from calls import Package
from stages import load, resources
from tiny import ROOT

STAGES = load(ROOT / "dvc.yaml")
PACKAGE = Package(ROOT / "src")
RULES = [name for name in STAGES if name != "params"]  # what that one makes the Snakefile writes, before it plans


@pytest.mark.parametrize("name", RULES)
def test_a_stage_states_memory_and_run_time(name):
    assert {"mem_mb", "runtime"} <= STAGES[name].resources.keys() <= {"mem_mb", "runtime", "gpu"}
    assert all(isinstance(amount, int) for amount in STAGES[name].resources.values())


def test_a_job_that_holds_the_model_asks_for_more_for_a_larger_one():
    fisher, dataset = STAGES["fisher"], STAGES["dataset"]
    sizes = {"trained": {"family": "unet"}, "small": {"parameters": 40_000_000}, "large": {"parameters": 400_000_000}}
    config = {"profiles": {name: {"model": model} for name, model in sizes.items()}}

    def asked(stage, profile):
        found = resources(stage, config)
        return {kind: one(SimpleNamespace(profile=profile)) if callable(one) else one for kind, one in found.items()}

    assert asked(fisher, "trained") == asked(fisher, "small") == fisher.resources
    assert asked(fisher, "large") == {
        "mem_mb": fisher.resources["mem_mb"] + 40 * 360,
        "runtime": 10 * fisher.resources["runtime"],
        "gpu": 1,
    }
    assert asked(dataset, "large") == dataset.resources


@pytest.mark.parametrize("name", RULES)
def test_a_job_is_sized_by_the_model_if_it_reads_a_file_of_one(name):
    reads = any(re.search(r"/(model|\{variant\}|fp32)\.safetensors", dep) for dep in STAGES[name].deps)
    assert STAGES[name].sized == (reads or name == "train")


def module_of(name: str) -> str:
    return re.search(r"-m (\S+)", STAGES[name].cmd)[1]


@pytest.mark.parametrize("name", RULES)
def test_a_job_gets_one_gpu_if_its_stage_takes_the_default_device(name):
    """Itself or through what it calls: DVC lets every stage have the GPU of its machine, so a job has to as well."""
    takes_it = ("laqfi.base.device", "default_device") in PACKAGE.may_call(module_of(name))
    assert STAGES[name].resources.get("gpu") == (1 if takes_it else None)


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
    assert {name for name, stage in STAGES.items() if stage.local} == {"dataset", "report"}


def test_partitions_and_accounts_are_in_the_profile_only():
    declared = (ROOT / "dvc.yaml").read_text() + (ROOT / "workflow/Snakefile").read_text()
    assert not re.search(r"slurm|partition|account", declared)


def test_the_page_of_data_names_every_output_with_its_stage():
    rows = re.findall(r"^\| (`.+`) \| (\w+) \|", (ROOT / "data/README.md").read_text(), flags=re.M)
    named = {(stage, file) for files, stage in rows for file in re.findall(r"`(.+?)`", files)}
    made = {(name, out) for name, stage in STAGES.items() for out in stage.outs if out.startswith("data/")}
    of_profile = {(name, re.sub(r"\{(variant)\}", r"<\1>", out.removeprefix("data/{profile}/"))) for name, out in made}
    assert named == of_profile
