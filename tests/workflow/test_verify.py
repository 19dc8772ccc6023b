"""`make verify` runs a profile anew and names the first stage whose outputs are not those published."""

import hashlib

import pytest

from stages import Stage
from tiny import tiny_params
from verify import verify

FISHER = "src/laqfi/stages/fisher.py"


STAGES = {
    "first": Stage("first", "echo {profile} > {profile}.a", [], ["{profile}.a"], []),
    "second": Stage(
        "second",
        "cat {profile}.a {profile}.a > {profile}.{variant}",
        ["{profile}.a"],
        ["{profile}.{variant}"],
        [],
        each="runs",
    ),
}
SETTINGS = {"order": ["x", "y"], "recoveries": {}}
RECORD = {
    name: hashlib.md5(text).hexdigest() for name, text in (("p.a", b"p\n"), ("p.x", b"p\np\n"), ("p.y", b"p\np\n"))
}


def test_a_run_that_gives_the_published_results_says_so(tmp_path, capsys):
    verify(STAGES, "p", SETTINGS, tmp_path, RECORD, workers=2)
    assert capsys.readouterr().out == "first: 1 of 1 files equal\nsecond: 2 of 2 files equal\n"


@pytest.mark.parametrize("record", [RECORD | {"p.y": "0" * 32}, {name: RECORD[name] for name in ("p.a", "p.x")}])
def test_a_file_with_other_bytes_and_one_that_is_not_published_differ(tmp_path, record):
    with pytest.raises(SystemExit, match=r"^second: differs from the published results: p\.y$"):
        verify(STAGES, "p", SETTINGS, tmp_path, record, workers=2)


def test_a_command_that_fails_is_shown_with_its_last_line(tmp_path):
    failing = {"first": Stage("first", "echo no >&2; exit 1", [], ["{profile}.a"], [])}
    with pytest.raises(SystemExit, match=r"^error: echo no >&2; exit 1\nno$"):
        verify(failing, "p", SETTINGS, tmp_path, RECORD, workers=1)


def test_the_first_stage_that_differs_is_named(by_dvc, tmp_path):
    """Results that another code of `fisher` made would be published so."""
    clone = by_dvc.cloned(tmp_path / "other")
    code = (clone.folder / FISHER).read_text()
    assert 'generator("fisher"' in code
    (clone.folder / FISHER).write_text(code.replace('generator("fisher"', 'generator("other"'))
    clone.commit("other images for the Fisher information")
    told = clone.make("verify", "PROFILE=tiny", check=False)
    assert told.returncode != 0
    assert "train: 2 of 2 files equal" in told.stdout
    assert "fisher: differs from the published results: data/tiny/fisher.safetensors" in told.stderr
    assert "curvature" not in told.stdout + told.stderr


@pytest.mark.parametrize(
    ("profile", "says"), [("none_such", "found no profile"), ("other", "no results are published")]
)
def test_what_is_not_published_is_refused(by_dvc, tmp_path, profile, says):
    clone = by_dvc.cloned(tmp_path / "refused")
    params = tiny_params()
    clone.write_params(params | {"profiles": params["profiles"] | {"other": params["profiles"]["tiny"]}})
    told = clone.make("verify", f"PROFILE={profile}", check=False)
    assert told.returncode != 0
    assert says in told.stderr
    assert "Traceback" not in told.stderr
