"""Both engines on the tiny profile: what runs, what does not run again, and that they agree to the byte."""

import csv
import json
import re

import pytest
import yaml

from tiny import tiny_params

VARIANT_STAGES = ("quantize", "sample", "evaluate")


def variant(name):
    return {f"{stage}@tiny-{name}" for stage in VARIANT_STAGES}


def changed(**variants):
    params = tiny_params()
    for name, options in variants.items():
        params["variants"][name] |= options
    return params


def test_a_second_dvc_repro_runs_nothing(by_dvc):
    result = by_dvc.call("dvc", "repro")
    assert "up to date" in result.stdout
    assert "Running" not in result.stdout


def test_a_second_snakemake_run_runs_nothing(by_snakemake):
    assert by_snakemake.planned() == set()


def test_both_engines_make_the_same_bytes(by_dvc, by_snakemake):
    assert by_snakemake.outputs() == by_dvc.outputs()
    assert len(by_dvc.outputs()) == 12 + 4 * 5 + 1 + 13 + 4  # once per profile, per variant, loss, figures, report


def test_a_snakemake_run_leaves_dvc_status_clean_and_the_same_lock(by_dvc, by_snakemake):
    assert "up to date" in by_snakemake.call("dvc", "status").stdout
    assert (by_snakemake.folder / "dvc.lock").read_text() == (by_dvc.folder / "dvc.lock").read_text()
    assert by_snakemake.repro() == set()


def test_a_variants_parameter_reruns_its_three_stages_and_the_report(restored):
    before = (restored.folder / "reports/tiny/metrics.json").read_bytes()
    # Other bytes, and three bits less precision: an effect on every number, whatever the last digits are.
    restored.write_params(changed(ratio={"p": 0.1, "dtype": "bfloat16"}))
    assert restored.repro() == variant("ratio") | {"params@tiny", "report@tiny"}
    restored.commit("keep less")

    table = restored.call("dvc", "metrics", "diff", "HEAD~1", "--md").stdout
    for key in ("bytes", "reduction_percent", "noise_mse", "psnr"):
        assert f"variants.ratio.{key}" in table
    moved = [line for line in table.splitlines() if "variants.threshold" in line]
    assert all("_all_" in line for line in moved), "only what is said of the whole table at once"
    assert "p" in restored.call("dvc", "params", "diff", "HEAD~1").stdout

    restored.write_params(tiny_params())
    assert restored.repro() <= {"params@tiny", "report@tiny"}, "the old results are taken from the cache"
    assert (restored.folder / "reports/tiny/metrics.json").read_bytes() == before


def test_another_value_of_a_sweep_reruns_its_three_stages_and_the_report_in_both_engines(restored):
    def sweep(*values):
        text = yaml.safe_dump(changed(ratio={"p": list(values)}), sort_keys=False)
        (restored.folder / "params.yaml").write_text(text)
        restored.make("runs")

    sweep(0.1, 0.5)
    assert restored.repro() == variant("ratio_0_1") | variant("ratio_0_5") | {"params@tiny", "report@tiny"}
    restored.make("adopt-dvc")
    sweep(0.1, 0.9)
    assert restored.planned() == variant("ratio_0_9") | {"report@tiny"}
    assert restored.repro() == variant("ratio_0_9") | {"params@tiny", "report@tiny"}
    rows = csv.DictReader((restored.folder / "reports/tiny/summary.csv").open())
    assert [row["variant"] for row in rows] == ["fp32", "threshold", "ratio_0_1", "ratio_0_9", "budget"]


def test_snakemake_reruns_the_same_for_a_variants_parameter(by_snakemake):
    by_snakemake.write_params(changed(ratio={"p": 0.9}))
    planned = by_snakemake.planned()
    by_snakemake.write_params(tiny_params())
    assert planned == variant("ratio") | {"report@tiny"}
    assert by_snakemake.planned() == set()


def test_the_reports_code_reruns_the_report_only(restored, by_snakemake):
    for clone in (restored, by_snakemake):
        with (clone.folder / "src/laqfi/report/page.py").open("a") as file:
            file.write("\n# edited\n")
    assert by_snakemake.planned() == {"report@tiny"}
    assert restored.repro() == {"params@tiny", "report@tiny"}
    by_snakemake.git("checkout", "-q", "src")


def test_a_removed_variant_loses_its_row(restored):
    params = tiny_params()
    del params["variants"]["threshold"]
    restored.write_params(params)
    assert restored.repro() == {"params@tiny", "report@tiny"}
    with (restored.folder / "reports/tiny/summary.csv").open() as file:
        assert [row["variant"] for row in csv.DictReader(file)] == ["fp32", "ratio", "budget"]
    metrics = json.loads((restored.folder / "reports/tiny/metrics.json").read_text())
    assert set(metrics["variants"]) == {"fp32", "ratio", "budget"}


def test_the_trained_model_depends_on_the_training_parameters_only(restored):
    params = tiny_params()
    params["profiles"]["tiny"]["fisher"]["seed"] = 1
    restored.write_params(params)
    restored.resolve()
    planned = restored.call("dvc", "status").stdout
    assert "fisher@tiny:" in planned
    assert "train@tiny:" not in planned


def test_bad_params_are_refused_before_any_stage_has_run(clone):
    clone.write_params(changed(threshold={"policy": "magic"}))
    for command in (["dvc", "repro"], ["snakemake", "--cores", "1"]):
        result = clone.call(*command, check=False)
        assert result.returncode != 0
        assert "variants.threshold.policy: found 'magic', allowed is one of" in result.stdout + result.stderr
        assert not clone.outputs()


def errors(result) -> list[str]:
    """The lines of a failed command that say why."""
    assert result.returncode != 0
    return [line for line in (result.stdout + result.stderr).splitlines() if "error" in line.lower()]


@pytest.mark.parametrize("active", ["tiny", "[]", "{tiny: 1}", "[tiny, tiny]"])
def test_an_active_that_is_no_list_of_profiles_is_refused_before_any_work(clone, active):
    """In one line, but where DVC itself cannot make stages of it."""
    params = yaml.safe_dump(tiny_params(), sort_keys=False)
    (clone.folder / "params.yaml").write_text(params.replace("active:\n- tiny\n", f"active: {active}\n"))
    for command in (["snakemake"], ["python", "workflow/alone.py", "dvc", "repro"]):
        (line,) = errors(clone.call(*command, check=False))
        assert line.startswith("error: params.yaml: ")
        assert "active" in line
    assert errors(clone.call("dvc", "repro", check=False))
    assert not clone.outputs()


def test_snakemake_takes_parameters_from_params_yaml_alone(clone):
    (clone.folder / "over.yaml").write_text("profiles: {tiny: {train: {steps: 9}}}\n")
    for arguments in (["--config", "threads=2"], ["--configfile", "over.yaml"]):
        (line,) = errors(clone.call("snakemake", "--dry-run", *arguments, check=False))
        assert "parameters are set in params.yaml alone" in line
    assert not clone.outputs()


def test_other_versions_are_said_and_recorded_or_refused(restored, by_snakemake):
    """A record that says something else than what is installed, as after an upgrade."""
    for clone, command in ((restored, ("python", "workflow/versions.py")), (by_snakemake, ("snakemake", "--dry-run"))):
        record = clone.folder / "workflow/versions.yaml"
        before = record.read_text()
        record.write_text(re.sub(r"numpy: .*", 'numpy: "0.0.1"', before))
        if clone is restored:
            refusal = clone.call("dvc", "repro", check=False)
            assert refusal.returncode != 0
            assert "is installed, workflow/versions.yaml says 0.0.1; `make versions`, then run again" in refusal.stderr
        assert re.findall(r"^numpy 0\.0\.1 → .*", clone.call(*command).stderr, flags=re.M)
        assert record.read_text() == before
        assert "→" not in clone.call(*command).stderr


def test_a_learning_rate_that_dvc_writes_back_as_5e_05_is_a_number(restored):
    result = restored.call("dvc", "exp", "run", "-S", "profiles.tiny.features.lr=0.00005", "features@tiny")
    assert "Running stage 'features@tiny'" in result.stdout
    assert "lr: 5e-05" in (restored.folder / "params.yaml").read_text()
    settings = json.loads((restored.folder / "data/tiny/params.json").read_text())
    assert settings["features"]["lr"] == 0.00005
