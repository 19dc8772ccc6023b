"""Provenance names the commit, the parameters and the versions that results were made with."""

import json
from importlib.metadata import version

import pytest

import provenance
from tiny import tiny_params


@pytest.fixture
def written(clone, monkeypatch):
    """Write the file for a profile of the clone and read it back."""
    monkeypatch.chdir(clone.folder)

    def write(profile: str = "tiny") -> dict:
        monkeypatch.setattr("sys.argv", ["provenance.py", profile])
        provenance.main()
        return json.loads((clone.folder / f"reports/{profile}/provenance.json").read_text())

    return write


def test_it_follows_the_commit_the_parameters_and_what_was_changed(clone, written):
    first = written()
    assert first["commit"] == clone.git("rev-parse", "HEAD").stdout.strip()
    assert first["changed"] == []
    assert first["versions"]["torch"] == version("torch")
    assert written() == first, "its own file is no change"

    params = tiny_params()
    params["profiles"]["other"] = params["profiles"]["tiny"]
    clone.write_params(params)
    again = written()
    assert again["parameters_sha256"] == first["parameters_sha256"], "another profile is none of its parameters"
    assert again["changed"] == ["params.yaml"]

    params["profiles"]["tiny"]["train"]["seed"] = 1
    clone.write_params(params)
    assert written()["parameters_sha256"] != first["parameters_sha256"]


def test_an_unknown_profile_is_refused(written, capsys):
    with pytest.raises(SystemExit):
        written("none_such")
    assert "found no profile 'none_such'" in capsys.readouterr().err
