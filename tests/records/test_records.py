"""After any sequence of commands, edits and accidents, what an engine calls current is what it would make now.

Random walks over stub stages under the repository's own Snakefile; every step is followed by both engines' word on
what they would run, which an oracle checks. A walk is its seed: `pytest tests/records --walks 1000` (make record-test).
"""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

from pipeline import BLOCKS, COMMON, PARAMS, RAW, SETTINGS, SOURCES, STAGES, Pipeline

STEPS = 5
MOMENTS = ("before it reads", "before it writes", "between two files", "at its end")


def edit_a_parameter(pipeline: Pipeline, draw: random.Random) -> str:
    params = pipeline.params
    blocks = [*params["variants"].values(), *(params["profiles"]["p"][name] for name in BLOCKS)]
    draw.choice(blocks)["x"] = draw.randint(0, 1)
    pipeline.write_params(params)
    return json.dumps(params["variants"] | params["profiles"]["p"])


def add_or_remove_a_variant(pipeline: Pipeline, draw: random.Random) -> str:
    params = pipeline.params
    if params["variants"].pop("b", None) is None:
        params["variants"]["b"] = {"x": draw.randint(0, 1)}
    pipeline.write_params(params)
    return " ".join(params["variants"])


def choose_the_variants_of_the_profile(pipeline: Pipeline, draw: random.Random) -> str:
    params = pipeline.params
    if params["profiles"]["p"].pop("variants", None) is None:
        params["profiles"]["p"]["variants"] = ["a"]
    pipeline.write_params(params)
    return json.dumps(params["profiles"]["p"])


def edit_a_source(pipeline: Pipeline, draw: random.Random) -> str:
    """Forth and back, with a time of now or of long ago: Snakemake refuses an input of the future, as a wrong clock."""
    return edit(pipeline, draw, draw.choice([COMMON, *SOURCES]))


def edit_add_or_remove_a_raw_file(pipeline: Pipeline, draw: random.Random) -> str:
    path = draw.choice(RAW)
    if path != RAW[0] and draw.random() < 0.5:
        (pipeline.folder / path).unlink(missing_ok=True)
        return f"{path} is gone"
    return edit(pipeline, draw, path)


def edit(pipeline: Pipeline, draw: random.Random, path: str) -> str:
    file, text = pipeline.folder / path, str(draw.randint(0, 1))
    file.write_text(text)
    if when := draw.choice([None, None, draw.randint(10**18, 17 * 10**17)]):
        os.utime(file, ns=(when, when))
    return f"{path} = {text} at {when}"


def an_output(pipeline: Pipeline, draw: random.Random) -> Path:
    return pipeline.folder / draw.choice([out for job in pipeline.jobs().values() for out in job["outs"]])


def remove_an_output(pipeline: Pipeline, draw: random.Random) -> str:
    file = an_output(pipeline, draw)
    file.unlink(missing_ok=True)
    return file.name


def damage_an_output(pipeline: Pipeline, draw: random.Random) -> str:
    file = an_output(pipeline, draw)
    if file.exists():
        file.write_text(draw.choice([file.read_text()[:-9], file.read_text() + "x", file.read_text()]))
    return str(file)


def touch_an_output(pipeline: Pipeline, draw: random.Random) -> str:
    file = an_output(pipeline, draw)
    if file.exists():
        file.touch()
    return str(file)


def disturb(pipeline: Pipeline, draw: random.Random) -> str:
    """Sometimes the next run of a stage fails, or the engine is killed in it."""
    if draw.random() < 0.6:
        (pipeline.folder / "disturb.json").unlink(missing_ok=True)
        return ""
    name = draw.choice(list(pipeline.jobs()))
    what = {"name": name, "moment": draw.choice(MOMENTS), "how": draw.choice(["fail", "kill"])}
    pipeline.write("disturb.json", json.dumps(what))
    return f" while {what}"


def run_dvc(pipeline: Pipeline, draw: random.Random) -> str:
    job = draw.choice(list(pipeline.jobs()))
    return command(
        pipeline,
        draw,
        draw.choice([["dvc", "repro", job], ["dvc", "repro", "--single-item", job], ["dvc", "repro", "--force", job]]),
    )


def run_snakemake(pipeline: Pipeline, draw: random.Random) -> str:
    stage, out = draw.choice(list(STAGES)), str(an_output(pipeline, draw).relative_to(pipeline.folder))
    return command(
        pipeline,
        draw,
        [
            "snakemake",
            *draw.choice(
                [
                    ["--until", stage],
                    ["--omit-from", stage],
                    ["--forcerun", stage],
                    ["--force", out],
                    [out],
                    ["--rerun-triggers", "mtime"],
                    ["--ignore-incomplete"],
                    ["--keep-going"],
                    ["--nolock"],
                ]
            ),
        ],
    )


def command(pipeline: Pipeline, draw: random.Random, words: list[str]) -> str:
    note = disturb(pipeline, draw)
    if draw.random() < 0.5:  # as `make repro` starts it
        words = ["python", "workflow/alone.py", *words]
    result = pipeline.call(*words)
    return f"{' '.join(words)}{note}: {result.returncode}\n{result.stdout}{result.stderr}"


def finish(pipeline: Pipeline, *words: str) -> str:
    """A whole run that nothing disturbs ends well, and nothing is left to do then."""
    (pipeline.folder / "disturb.json").unlink(missing_ok=True)
    result = pipeline.call("python", "workflow/alone.py", *words)
    text = f"{' '.join(words)}: {result.returncode}\n{result.stdout}{result.stderr}"
    assert result.returncode == 0, text
    assert pipeline.changed_for_dvc() == set(), text
    if words[0] == "snakemake":
        assert pipeline.planned_by_snakemake() == set(), text
    return text


def run_all_of_dvc(pipeline: Pipeline, draw: random.Random) -> str:
    return finish(pipeline, "dvc", "repro")


def run_all_of_snakemake(pipeline: Pipeline, draw: random.Random) -> str:
    return finish(pipeline, "snakemake")


def tell_dvc(pipeline: Pipeline, draw: random.Random) -> str:
    return adopt(pipeline, "snakemake")


def tell_snakemake(pipeline: Pipeline, draw: random.Random) -> str:
    return adopt(pipeline, "dvc")


def adopt(pipeline: Pipeline, of: str) -> str:
    result = pipeline.call("python", "workflow/adopt.py", of)
    assert "Traceback" not in result.stderr
    return f"adopt {of}: {result.returncode}\n{result.stdout}{result.stderr}"


def check_out(pipeline: Pipeline, draw: random.Random) -> str:
    """DVC puts back what its record names, as after `dvc pull` or a change of branches."""
    return str(pipeline.call("dvc", "checkout", "--force").stderr)


Step = Callable[[Pipeline, random.Random], str]
EDITS: list[Step] = [edit_a_parameter, edit_a_parameter, edit_a_source, edit_a_source, add_or_remove_a_variant]
EDITS += [edit_add_or_remove_a_raw_file, choose_the_variants_of_the_profile]
HARM: list[Step] = [remove_an_output, damage_an_output, touch_an_output]
RUNS: list[Step] = [run_dvc, run_dvc, run_snakemake, run_snakemake, run_snakemake]
RUNS += [run_all_of_dvc, run_all_of_snakemake, tell_dvc, tell_snakemake, check_out]


def check(pipeline: Pipeline) -> None:
    """No artefact that an engine calls current differs from what it would be."""
    changed = pipeline.changed_for_dvc()
    if "params@p" not in changed:
        assert pipeline.read(SETTINGS.replace("P", "p")) == pipeline.settings(), "DVC calls the settings current"
    jobs = pipeline.jobs()
    found = {name: {out: pipeline.read(out) for out in job["outs"]} for name, job in jobs.items()}
    for name in pipeline.known_to_dvc() - changed:
        assert found[name] == pipeline.would_write(jobs[name]), f"DVC calls {name} current"
    expected = pipeline.expected()
    for name in jobs.keys() - pipeline.planned_by_snakemake():
        assert found[name] == {out: expected[out] for out in jobs[name]["outs"]}, f"Snakemake calls {name} current"


def test_no_walk_leads_to_a_stale_file_that_is_called_current(walk, pipeline):
    draw = random.Random(walk)
    done = [draw.choice([run_all_of_dvc, run_all_of_snakemake, run_snakemake])(pipeline, draw)]
    for _ in range(STEPS):
        step = draw.choice(draw.choices([EDITS, HARM, RUNS], [4, 1, 5])[0])
        try:
            done.append(f"{step.__name__}: {step(pipeline, draw)}")
            check(pipeline)
        except AssertionError as error:
            raise AssertionError("\n\n".join([*done, f"{step.__name__}: {error}"])) from None


def test_the_walks_change_what_they_say(pipeline):
    """The oracle itself: both engines' whole runs make what it expects, and another input changes that."""
    for words, source in ((["dvc", "repro"], "1"), (["snakemake"], "2")):
        before = pipeline.expected()
        pipeline.write("src/common.txt", source)
        assert set(before.items()).isdisjoint(pipeline.expected().items())
        finish(pipeline, *words)
        assert pipeline.expected() == {out: pipeline.read(out) for out in before}
    assert pipeline.params == PARAMS


def test_an_input_that_was_edited_while_its_job_ran_makes_the_job_run_again(pipeline):
    edit = {"name": "dataset@p", "moment": "before it writes", "how": "edit", "path": RAW[0], "text": "1"}
    pipeline.write("disturb.json", json.dumps(edit))
    assert pipeline.call("snakemake").returncode == 0
    assert pipeline.planned_by_snakemake() == set(pipeline.jobs())
    assert "dataset@p" in pipeline.changed_for_dvc()
    finish(pipeline, "snakemake")
    check(pipeline)


def test_a_job_whose_code_was_edited_after_the_run_was_planned_fails_and_runs_again(pipeline):
    edit = {"name": "dataset@p", "moment": "at its end", "how": "edit", "path": "src/train.txt", "text": "1"}
    for words in (["snakemake"], ["dvc", "repro"]):
        pipeline.write("disturb.json", json.dumps(edit))
        result = pipeline.call(*words)
        assert result.returncode != 0
        assert "error: the code of train@p has changed since" in result.stdout + result.stderr
        assert pipeline.read("data/p/dataset.txt")
        assert not pipeline.read("data/p/model.txt")
        finish(pipeline, *words)
        check(pipeline)
        pipeline.write("src/dataset.txt", "1")  # it runs again, and the edit is back and forth
        edit["text"] = "0"


def test_dvc_is_told_of_settings_that_are_as_before_again_though_nothing_is_to_be_done(pipeline):
    finish(pipeline, "snakemake")
    plain = pipeline.params
    edited = pipeline.params
    edited["variants"]["a"]["x"] = 1
    pipeline.write_params(edited)
    assert pipeline.call("snakemake", "--force", "data/p/model.txt").returncode == 0
    pipeline.write_params(plain)
    assert "Nothing to be done" in finish(pipeline, "snakemake")


def test_dvc_that_is_busy_or_full_does_not_fail_a_run_and_is_told_by_the_next(pipeline):
    pipeline.write(".dvc/config.local", "[cache]\n    dir = /proc/nowhere\n")
    result = pipeline.call("snakemake")
    assert result.returncode == 0
    assert "error: nothing was adopted: " in result.stderr
    assert "Traceback" not in result.stderr
    (pipeline.folder / ".dvc/config.local").unlink()
    result = finish(pipeline, "snakemake")
    assert "Nothing to be done" in result


def test_a_message_says_how_snakemake_learns_of_what_dvc_made(pipeline):
    finish(pipeline, "dvc", "repro")
    said = (
        "data/p/dataset.txt is not as Snakemake's last job left it, so it is made again, and all others of this kind; "
    )
    assert pipeline.call("snakemake", "--dry-run").stdout.count(said) == 1
    result = pipeline.call("python", "workflow/adopt.py", "dvc")
    assert result.stdout == "Snakemake takes all 8 stages as DVC made them\n"
    assert pipeline.planned_by_snakemake() == set()
    pipeline.write("src/train.txt", "1")
    refused = pipeline.call("python", "workflow/adopt.py", "dvc")
    assert refused.returncode != 0
    assert refused.stderr == "error: Snakemake was told nothing: DVC would run again params@p; first: dvc repro\n"
