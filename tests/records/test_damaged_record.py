"""A dvc.lock that a killed run, a merge or an editor damaged: set aside, said, made again without running a stage."""

import random
import re

import pytest
import yaml

ENGINES = {"dvc": ["dvc", "repro"], "snakemake": ["snakemake"]}
DAMAGE = {
    "empty": lambda text: "",
    "white space": lambda text: "\n\n  \n",
    "only its head": lambda text: text[: text.index("stages:")],
    "nothing below stages": lambda text: text[: text.index("stages:") + len("stages:\n")],
    "cut in a word": lambda text: text[: text.index("size:", len(text) // 2) + 2],
    "binary": lambda text: b"\x00\x01\xfe\xff" * 99,
    "not UTF-8": lambda text: text.encode() + b"# \xe9\n",
    "a mixture": lambda text: text[: len(text) // 2] + text,
    "the same twice": lambda text: text + text[text.index("  ") :],
    "no stages": lambda text: "schema: '2.0'\nstage:\n  a: 1\n",
    "stages is a list": lambda text: "schema: '2.0'\nstages:\n- a\n",
    "a list": lambda text: "- a\n- b\n",
    "a word": lambda text: "damaged\n",
    "a stage is a word": lambda text: "schema: '2.0'\nstages:\n  train@p: damaged\n",
    "a hash is a list": lambda text: text.replace("md5: ", "md5: [", 1).replace("\n", "]\n", 1),
    "a wrong schema": lambda text: text.replace("2.0", "9.9"),
    "merge-conflict markers": lambda text: "<<<<<<< HEAD\n" + text + "=======\n" + text + ">>>>>>> other\n",
    "nested without end": lambda text: "[" * 9999,
}
CUT = {  # which DVC reads, and takes for the record of another run
    "in a hash": lambda text: text[: text.rindex("md5: ") + 9],
    "in a hash of training": lambda text: text[: text.index("  quantize@p-a") - 40],
    "in training, before its second file": lambda text: text[
        : text.index("    - path: reports/p/loss.txt\n      hash")
    ],
    "in a size": lambda text: text[: text.rindex("size: ") + 7],
    "after a line": lambda text: text[: text.rindex("    - path:")],
    "after a stage": lambda text: text[: text.index("  train@p")],
}


def damage(pipeline, how: str) -> None:
    content = (DAMAGE | CUT)[how](pipeline.read("dvc.lock"))
    (pipeline.folder / "dvc.lock").write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture(params=ENGINES)
def run(request, pipeline):
    """`make repro` of an engine that has made everything already."""
    words = ("python", "workflow/alone.py", *ENGINES[request.param])
    first = pipeline.call(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    return lambda: pipeline.call(*words)


def test_a_damaged_record_is_set_aside_and_nothing_runs_again(pipeline, run):
    whole = pipeline.read("dvc.lock")
    for how in DAMAGE:
        damage(pipeline, how)
        damaged = (pipeline.folder / "dvc.lock").read_bytes()
        result = run()
        assert result.returncode == 0, how + result.stdout + result.stderr
        assert "dvc.lock is damaged, as a killed run leaves it: it is now .dvc/tmp/dvc.lock.damaged" in result.stderr
        assert "Traceback" not in result.stderr
        assert "Running stage" not in result.stdout, how
        assert "Finished jobid" not in result.stderr, how
        assert (pipeline.folder / ".dvc/tmp/dvc.lock.damaged").read_bytes() == damaged
        assert pipeline.read("dvc.lock") == whole, how


def test_a_record_that_lost_its_end_is_completed_and_nothing_runs_again(pipeline):
    """DVC finds all in its run-cache."""
    pipeline.call("dvc", "repro")
    whole = pipeline.read("dvc.lock")
    for how in CUT:
        damage(pipeline, how)
        result = pipeline.call("python", "workflow/alone.py", "dvc", "repro")
        assert result.returncode == 0, how + result.stdout + result.stderr
        assert "Running stage" not in result.stdout, how
        assert bool(result.stderr) == (how != "after a stage"), how
        assert yaml.safe_load(pipeline.read("dvc.lock")) == yaml.safe_load(whole), how


def test_the_committed_record_of_other_profiles_is_not_lost(pipeline):
    pipeline.write_params(pipeline.params | {"active": ["p", "q"]})
    pipeline.record_runs()
    pipeline.call("dvc", "repro")
    pipeline.commit()
    pipeline.write_params(pipeline.params | {"active": ["p"]})
    damage(pipeline, "merge-conflict markers")
    result = pipeline.call("python", "workflow/alone.py", "dvc", "repro")
    assert "that of the last commit takes its place" in result.stderr
    assert re.findall(r"Running stage '(.+?)'", result.stdout) == ["params@p"], "params.yaml has changed"
    stages = yaml.safe_load(pipeline.read("dvc.lock"))["stages"]
    assert {f"{stage}@{profile}" for stage in ("dataset", "train", "report") for profile in "pq"} < stages.keys()


def test_a_record_that_lost_its_end_says_nothing_false(pipeline):
    """Wherever it was cut: stages that would not be made as they are now are not called current."""
    pipeline.call("dvc", "repro")
    whole = pipeline.read("dvc.lock")
    files = {out: pipeline.read(out) for job in pipeline.jobs().values() for out in job["outs"]}
    pipeline.write("src/common.txt", "1")
    draw = random.Random(1)
    ends = [draw.randrange(len(whole)) for _ in range(40)]
    for end in ends:
        pipeline.write("dvc.lock", whole[:end])
        status = pipeline.call("dvc", "status")
        assert "up to date" not in status.stdout
        if status.returncode == 0:
            assert pipeline.changed_for_dvc() - {"params@p"} == set(pipeline.jobs()), whole[:end]
    pipeline.call("python", "workflow/alone.py", "dvc", "repro")
    assert {out: pipeline.read(out) for out in files} == pipeline.expected()


def test_what_left_the_pipeline_leaves_the_record(pipeline):
    params = pipeline.params
    pipeline.write_params(params | {"active": ["p", "q"]})
    pipeline.record_runs()
    pipeline.call("dvc", "repro")
    whole = pipeline.read("dvc.lock")
    gone = yaml.safe_load(whole)["stages"].keys() - {"train@p"}
    del params["variants"]["b"]
    del params["profiles"]["q"]
    pipeline.write_params(params)
    pipeline.call("python", "workflow/alone.py", "dvc", "repro", "dataset@p")
    stages = yaml.safe_load(pipeline.read("dvc.lock"))["stages"]
    assert set(stages) == {"params@p", *pipeline.jobs()} < gone | {"train@p"}


def test_the_record_keeps_of_an_inactive_profile_the_variants_that_it_runs(pipeline):
    params = pipeline.params | {"active": ["p", "q"]}
    pipeline.write_params(params)
    pipeline.record_runs()
    pipeline.call("dvc", "repro")
    assert "  quantize@q-b:" in pipeline.read("dvc.lock")
    params["profiles"]["q"]["variants"] = ["a"]
    pipeline.write_params(params | {"active": ["p"]})
    result = pipeline.call("python", "workflow/alone.py", "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    stages = yaml.safe_load(pipeline.read("dvc.lock"))["stages"]
    assert [name for name in stages if name.startswith("quantize@")] == ["quantize@p-a", "quantize@p-b", "quantize@q-a"]


def test_the_record_of_an_inactive_profile_stays_to_the_letter(pipeline):
    pipeline.write_params(pipeline.params | {"active": ["p", "q"]})
    pipeline.record_runs()
    pipeline.call("dvc", "repro")
    whole = pipeline.read("dvc.lock")
    begin, end = whole.index("  quantize@p-a:"), whole.index("  quantize@p-b:")
    old = whole[begin:end].replace("p-a", "p-old")
    pipeline.write("dvc.lock", whole[:begin] + old + whole[begin:] + old.replace("old", "older"))
    pipeline.write_params(pipeline.params | {"active": ["p"]})
    result = pipeline.call("python", "workflow/alone.py", "dvc", "repro")
    assert result.stderr == ""
    start = "  dataset@p:"  # before it is the stage `params`, which reads params.yaml
    assert pipeline.read("dvc.lock").partition(start)[2] == whole.partition(start)[2]


@pytest.mark.parametrize("text", ["", "active: [p", "[]", "variants: 1", "variants: {<<: {a: 1}}\nprofiles: {p: 1}"])
def test_a_params_yaml_that_says_nothing_prunes_nothing(pipeline, text):
    pipeline.call("dvc", "repro")
    whole = pipeline.read("dvc.lock")
    pipeline.write("params.yaml", text)
    result = pipeline.call("python", "workflow/alone.py", "dvc", "repro")
    assert "Traceback" not in result.stderr
    assert pipeline.read("dvc.lock") == whole


def test_a_record_of_which_nothing_is_left_goes(pipeline):
    pipeline.call("dvc", "repro")
    params = pipeline.params
    params["profiles"]["r"] = params["profiles"].pop("p")
    pipeline.write_params(params | {"active": ["r"]})
    result = pipeline.call("python", "workflow/alone.py", "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    assert {name.split("@")[1][0] for name in yaml.safe_load(pipeline.read("dvc.lock"))["stages"]} == {"r"}
