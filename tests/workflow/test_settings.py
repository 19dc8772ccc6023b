"""What Snakemake plans by is what the stage `params` makes of params.yaml as it is."""

import subprocess
from types import SimpleNamespace

import pytest

import stages


@pytest.fixture
def stage(tmp_path, monkeypatch) -> stages.Stage:
    """A stage that prints params.yaml, which is JSON here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text('{"value": 1}')
    code = "print(open('params.yaml').read())"
    return stages.Stage(
        "params", f"python -c {code} --profile x", ["params.yaml", "not_there.py"], ["data/{profile}/params.json"], []
    )


def test_the_stage_is_asked_once_for_every_content(stage, tmp_path, monkeypatch):
    assert stages.resolved(stage) == {"value": 1}
    monkeypatch.setattr(stages, "subprocess", None)
    assert stages.resolved(stage) == {"value": 1}
    (tmp_path / "not_there.py").write_text("")
    with pytest.raises(AttributeError):
        stages.resolved(stage)


def test_an_edit_while_the_stage_is_asked_is_not_kept_for_what_was_there_before(stage, tmp_path, monkeypatch):
    """Else the old params.yaml would for ever stand for the values of the new one."""

    def run(*arguments, **how):
        (tmp_path / "params.yaml").write_text('{"value": 2}')
        return subprocess.run(*arguments, **how)

    monkeypatch.setattr(stages, "subprocess", SimpleNamespace(run=run))
    assert stages.resolved(stage) == {"value": 2}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text('{"value": 1}')
    assert stages.resolved(stage) == {"value": 1}


def test_a_refusal_ends_the_program_with_its_line(stage, tmp_path):
    (tmp_path / "params.yaml").unlink()
    with pytest.raises(SystemExit, match="No such file"):
        stages.resolved(stage)


def test_settings_are_written_unless_a_run_works_by_them(stage, tmp_path):
    settings = tmp_path / "data/a/params.json"
    stages.write_settings(stage, {"profiles": {"a": {"y": 1.0, "x": [1]}}})
    before = settings.stat()
    assert settings.read_text() == '{\n "x": [\n  1\n ],\n "y": 1.0\n}\n'
    stages.write_settings(stage, {"profiles": {"a": {"x": [1], "y": 1.0}}})
    assert settings.stat() == before, "what is there already is left alone"
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    stages.write_settings(stage, {"profiles": {"a": {"x": [2], "y": 1.0}}})
    assert settings.stat() == before
