"""Whatever params.yaml runs, both engines resolve it to the same jobs, and each takes over what the other made."""

import shutil

import pytest
import yaml

from clone import Clone
from laqfi.params import sweeps, whole
from tiny import ROOT, tiny_params

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture(scope="module")
def real(tmp_path_factory, warm) -> Clone:
    """A clone with the repository's own params.yaml, in which nothing has run."""
    return Clone(tmp_path_factory.mktemp("real"), warm)


@pytest.mark.parametrize("active", [*([name] for name in PARAMS["profiles"]), list(PARAMS["profiles"])], ids="-".join)
def test_both_engines_resolve_to_the_same_jobs(real, active):
    real.write_params(PARAMS | {"active": active})
    by_dvc, by_snakemake = real.ask("dvc_jobs"), real.ask("snakemake_jobs")
    for name in active:
        job = by_dvc.pop(f"params@{name}")  # Snakemake has written what it writes
        assert (real.folder / job["outs"][0]).is_file()
    assert set(by_dvc) == set(by_snakemake)
    for name, job in by_dvc.items():
        assert by_snakemake[name] == job, name
    runs = whole.Params.model_validate(sweeps.expanded(PARAMS | {"active": active})).runs()
    recovered = [one for one in runs.values() if one["stored"] == "recover"]
    assert len(by_dvc) == len(active) * 9 + 3 * len(runs) + len(recovered)  # once per profile, and per variant


def test_both_engines_run_just_the_variants_that_a_profile_names(real):
    profiles = PARAMS["profiles"] | {"quick": PARAMS["profiles"]["quick"] | {"variants": ["int8", "fp32"]}}
    real.write_params(PARAMS | {"active": ["quick", "mnist"], "profiles": profiles})
    by_dvc, by_snakemake = real.ask("dvc_jobs"), real.ask("snakemake_jobs")
    assert {name for name in by_dvc if name.startswith("sample@quick")} == {"sample@quick-int8", "sample@quick-fp32"}
    for_all = [name for name, one in PARAMS["variants"].items() if "profiles" not in one]
    assert len(by_dvc) == 2 * 9 + 3 * (2 + len(for_all)) + 2
    assert by_dvc["report@quick"]["params"]["order"] == ["fp32", "int8"]
    assert {name: job for name, job in by_dvc.items() if not name.startswith("params@")} == by_snakemake


def test_a_plain_dvc_repro_by_other_runs_than_those_of_params_yaml_is_refused(clone):
    """Which DVC would else run, or leave out, without a word."""
    params = tiny_params()
    params["profiles"]["tiny"]["variants"] = ["fp32", "ratio", "budget"]
    (clone.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    refusal = clone.call("dvc", "repro", check=False)
    assert refusal.returncode != 0
    line = "error: workflow/runs.yaml: lists other runs than params.yaml; `make runs` writes it, then run again"
    assert line in refusal.stderr.splitlines()
    assert not clone.outputs()
    clone.make("runs")
    assert "sample@tiny-threshold" not in clone.ask("dvc_jobs")


def test_a_value_left_to_its_default_is_filled_in_in_both_engines(real):
    params = tiny_params()
    del params["profiles"]["tiny"]["sample"]["headline"]
    real.write_params(params)
    by_dvc, by_snakemake = real.ask("dvc_jobs"), real.ask("snakemake_jobs")
    assert by_dvc.pop("params@tiny")["params"] == {}
    assert by_dvc["sample@tiny-fp32"]["params"]["sample"]["headline"] == {}
    assert by_dvc["quantize@tiny-fp32"]["params"]["sample.eta"] == 0.0
    assert by_snakemake == by_dvc


def test_results_of_dvc_are_adopted_by_snakemake(restored):
    restored.make("adopt-dvc")
    assert restored.planned() == set()
    params = tiny_params()
    params["variants"]["ratio"]["p"] = 0.5
    restored.write_params(params)
    changed = {"quantize@tiny-ratio", "sample@tiny-ratio", "evaluate@tiny-ratio", "report@tiny"}
    assert restored.planned() == changed
    assert restored.make("adopt-dvc", check=False).returncode != 0, "what DVC would make again is not adopted"
    assert restored.planned() == changed


def test_results_of_snakemake_are_adopted_by_dvc(by_snakemake, tmp_path):
    clone = by_snakemake.copy(tmp_path)
    (clone.folder / "dvc.lock").unlink()
    shutil.rmtree(clone.folder / ".dvc/cache")
    assert "up to date" not in clone.call("dvc", "status").stdout
    clone.make("adopt-snakemake")
    assert "up to date" in clone.call("dvc", "status").stdout
    assert clone.repro() == set()
    assert (clone.folder / "dvc.lock").read_text() == (by_snakemake.folder / "dvc.lock").read_text()
