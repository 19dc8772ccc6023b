"""One reading of params.yaml: that of YAML 1.2, which is DVC's; what readers take differently is text or refused."""

import resource
import time

import pytest
from ruamel.yaml import YAML

from laqfi.base.errors import LaqfiError
from laqfi.params.yaml12 import read


@pytest.fixture
def file(tmp_path):
    return tmp_path / "params.yaml"


def refused(file, payload: bytes) -> str:
    file.write_bytes(payload)
    with pytest.raises(LaqfiError) as error:
        read(file)
    message = str(error.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    assert len(message) < 1000
    return message


NUMBERS = ["0", "-0", "7", "+7", "-12", "1e3", "1e-2", "1E-2", "5e-05", "0e0", "1e400", "0.1", "1.5", "1.", ".5"]
WORDS = ["yes", "no", "on", "off", "Yes", "y", "n", "null", "~", "true", "True", "FALSE", "tRUE", "abc", "1.2.3", "e5"]
SPELLINGS = ["010", "00", "-07", "010.5", "0o10", "0x1F", "0b11", "1_000", "1_0.5", "1:30", "1:30.5", "1e", "--1"]
SPELLINGS += [".inf", "-.INF", ".nan", "2024-01-01", "2024-01-01T10:00:00Z", "9" * 50]


@pytest.mark.parametrize("text", NUMBERS + WORDS)
def test_numbers_and_words_are_read_as_dvc_reads_them(file, text):
    file.write_text(f"a: {text}\n")
    found, by_dvc = read(file)["a"], YAML(typ="safe", pure=True).load(file)["a"]
    assert found == by_dvc
    assert type(found) is type(by_dvc)


@pytest.mark.parametrize("text", SPELLINGS)
def test_what_readers_take_for_different_numbers_is_no_number(file, text):
    file.write_text(f"a: {text}\n")
    assert read(file) == {"a": text}


def test_merge_keys_add_what_is_not_there(file):
    file.write_text("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {y: 5, <<: *a}\nd: {<<: [*b, *a]}\n")
    assert read(file)["c"] == {"x": 1, "y": 5}
    assert read(file)["d"] == {"x": 1, "y": 3, "z": 4} == YAML(typ="safe", pure=True).load(file)["d"]


TAGS = ["!!int 5", "!!str 5", "!!python/name:os.system x", "!x 1", "! 1", "!!binary aGk=", "!!timestamp 2001-01-01"]
OTHERS = [
    *("%YAML 1.1\n---\na: on", "%TAG ! tag:x,2000:\n---\na: 1", "a: 1\n---\na: 2", "!!map {a: 1}"),
    *("a: 1\na: 2", "{a: 1, 'a': 2}", "x: {<<: {a: 1}, <<: {b: 2}}", "x: {<<: 1}", "x: {<<: [1]}"),
    *("8: a", "null: a", "~: a", "true: a", "1.5: a", "[a]: 1", "{a: 1}: 1", "? [a]\n: 1", ": a"),
    *("a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}", "a: *b", "a: [", "\ta: 1", "a: b: c", "a: 'x"),
    *("a: \x00", "a: \x07"),
]


@pytest.mark.parametrize("text", [*(f"a: {tag}" for tag in TAGS), *OTHERS])
def test_what_could_be_taken_for_something_else_is_refused(file, text):
    refused(file, text.encode())


@pytest.mark.parametrize(
    "payload",
    [b"\xef\xbb\xbfa: 1", "a: 1".encode("utf-16"), "a: é".encode("latin-1"), b"a: \xff", b"a: " + b"x" * 300_000],
    ids=["bom", "utf-16", "latin-1", "ff", "huge"],
)
def test_other_encodings_and_huge_files_are_refused(file, payload):
    refused(file, payload)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_file_holds_nothing(file, text):
    file.write_text(text)
    assert read(file) is None


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(LaqfiError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(LaqfiError, match="gone: cannot be read"):
        read(tmp_path / "gone")


def exploding(first: str, again: str) -> str:
    return f"a0: &a0 {first}\n" + "".join(f"a{i}: &a{i} {again.replace('*', f'*a{i - 1}')}\n" for i in range(1, 40))


@pytest.mark.parametrize(
    "text",
    [
        exploding("[1, 2]", "[*, *, *]"),
        exploding("{x: 1}", "{x: *, y: *, z: *}"),
        exploding("{x: 1}", "{<<: [*, *, *]}"),
        exploding("{x: 1}", "{y: {<<: [*, *]}, <<: *}"),
        exploding("[x]", "[*, [*, {k: *}]]"),
        "[" * 100_000,
        "{a: " * 60_000,
        "- " * 100_000,
        "".join(f"{' ' * i}a:\n" for i in range(600)),
        "? " * 100_000,
    ],
    ids=["lists", "blocks", "merges", "both", "mixed", "[", "{", "-", "deep", "?"],
)
def test_files_that_explode_are_refused_quickly_and_with_little_memory(file, text):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    refused(file, text.encode())
    assert time.process_time() - start < 20, "seconds"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB"
