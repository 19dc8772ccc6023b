"""Files that were damaged on the disk, after they had been written: noticed, named, and repaired by one rerun."""

import hashlib

import pytest
import yaml
from runs import ENGINES, assert_nothing_is_half_written, cached, finished, one_rerun

MODEL = "data/tiny/model.safetensors"
# A stage reads each of them; in this order none is made from one that comes later.
READ = ("data/tiny/fisher.json", MODEL, "data/tiny/dataset.npz")


def truncate(payload: bytes) -> bytes:
    return payload[: len(payload) // 2]


def flip(payload: bytes) -> bytes:
    place = len(payload) // 2
    return payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]


def damage(file, how=truncate) -> None:
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(how(file.read_bytes()))
    file.chmod(mode)


def in_cache(clone, path: str):
    return clone.folder / cached(hashlib.md5((clone.folder / path).read_bytes(), usedforsecurity=False).hexdigest())


@pytest.mark.parametrize("how", [truncate, flip])
def test_a_damaged_file_of_dvcs_cache_is_not_taken(complete, how, expected):
    damage(in_cache(complete, MODEL), how)
    (complete.folder / MODEL).unlink()
    assert "Running stage 'train@tiny'" in one_rerun(complete, "dvc")
    assert finished(complete) == expected
    assert_nothing_is_half_written(complete, expected)


def test_a_damaged_file_that_dvc_has_checked_out_is_refused_and_then_repaired(complete, expected):
    """DVC alone believes its cache; the stage that reads the file does not."""
    damage(in_cache(complete, MODEL))
    (complete.folder / MODEL).unlink()
    complete.call("dvc", "checkout", "--quiet", MODEL)
    assert finished(complete) != expected
    result = complete.call("dvc", "repro", "--force", "--single-item", "fisher@tiny", check=False)
    assert result.returncode != 0
    assert f"error: {MODEL}: damaged, or changed by another program" in result.stderr
    assert "Traceback" not in result.stderr
    one_rerun(complete, "dvc")
    assert finished(complete) == expected
    assert_nothing_is_half_written(complete, expected)


def test_dvc_makes_damaged_artefacts_again(complete, expected):
    for path in READ:
        damage(complete.folder / path)
    one_rerun(complete, "dvc")
    assert finished(complete) == expected


def test_snakemake_makes_a_damaged_artefact_again(complete, expected):
    for path in READ:
        damage(complete.folder / path)
    one_rerun(complete, "snakemake")
    assert finished(complete) == expected


def cut_in_a_word(payload: bytes) -> bytes:
    return payload[: payload.index(b"size:", len(payload) // 2) + 2]


def cut_after_a_line(payload: bytes) -> bytes:
    return payload[: payload.index(b"\n", len(payload) // 2) + 1]


@pytest.mark.parametrize("how", [lambda payload: b"", cut_in_a_word], ids=["empty", "cut_in_a_word"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_damaged_record_of_dvc_is_set_aside_and_nothing_runs_again(complete, engine, how, expected):
    """More kinds of damage, to the record of stub stages: tests/records."""
    record = complete.folder / "dvc.lock"
    whole = record.read_bytes()
    damage(record, how)
    text = one_rerun(complete, engine)
    assert "dvc.lock is damaged, as a killed run leaves it: it is now .dvc/tmp/dvc.lock.damaged, and " in text
    assert "Running stage" not in text
    assert "Finished jobid" not in text
    assert record.read_bytes() == whole
    assert finished(complete) == expected


def test_a_record_of_dvc_that_lost_its_end_is_completed(complete, expected):
    record = complete.folder / "dvc.lock"
    whole = record.read_bytes()
    damage(record, cut_after_a_line)
    one_rerun(complete, "dvc")
    assert yaml.safe_load(record.read_bytes()) == yaml.safe_load(whole)
    assert finished(complete) == expected


def test_a_damaged_list_of_dvcs_readers_and_writers_is_thrown_away(complete, expected):
    (complete.folder / ".dvc/tmp/rwlock").write_text('{"wri')
    one_rerun(complete, "dvc")
    assert finished(complete) == expected
