"""Lines, duplicate keys and odd YAML: what the operator is told about a file that does not read well."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_file import BUILT_IN, dotted_path, quote_name, read_yaml, replace_file, suggest_name


def _write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "some.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_key_and_item_has_its_line(tmp_path: Path) -> None:
    data, source = read_yaml(_write(tmp_path, "a: 1\nb:\n  - x\n  - y: 2\n"))
    assert data == {"a": 1, "b": ["x", {"y": 2}]}
    assert [source.place_of("a"), source.place_of("b"), source.place_of("b", 0), source.place_of("b", 1, "y")] == [
        "some.yaml:1",
        "some.yaml:2",
        "some.yaml:3",
        "some.yaml:4",
    ]
    assert source.place_of("b", 1, "missing") == "some.yaml:4"
    assert source.origin("b", 1, "missing") == BUILT_IN


def test_keys_stay_text(tmp_path: Path) -> None:
    data, _ = read_yaml(_write(tmp_path, "on: 1\n1.0: 2\nnull: 3\n"))
    assert data == {"on": 1, "1.0": 2, "null": 3}


def test_an_empty_file_is_an_empty_block(tmp_path: Path) -> None:
    assert read_yaml(_write(tmp_path, ""))[0] == {}
    assert read_yaml(_write(tmp_path, "# nothing yet\n"))[0] == {}


@pytest.mark.parametrize(("text", "empty"), [("", True), ("\n# later\n", True), ("{}\n", False), ("a: 1\n", False)])
def test_an_empty_block_is_not_an_empty_file(tmp_path: Path, text: str, empty: bool) -> None:
    assert read_yaml(_write(tmp_path, text))[1].is_empty is empty


def test_an_alias_may_be_used_twice(tmp_path: Path) -> None:
    data, _ = read_yaml(_write(tmp_path, "a: &x [1]\nb: *x\n"))
    assert data == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "some.yaml:2: key 'a' is given twice (first on line 1); keep one"),
        ("a: [1, 2\nb: 3\n", "some.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a:\n\t- b\n", "some.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", "some.yaml:2: not valid YAML: but found another document"),
        ("a: &x [*x]\n", "some.yaml:1: an alias (*name) contains itself"),
        ("? [a]\n: 1\n", "some.yaml:1: a key must be plain text"),
        ("a: !odd 1\n", "some.yaml:1: not valid YAML: could not determine a constructor for the tag '!odd'"),
        ("a: 2024-99-99\n", "some.yaml: not valid YAML: ValueError"),
        ("a: \x01\n", "some.yaml: not valid YAML: ReaderError"),
        (b"a: \xff\n", "some.yaml: not UTF-8 text (byte 3); save it as UTF-8"),
    ],
)
def test_a_file_that_does_not_read_says_where_and_why(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(_write(tmp_path, text))
    assert str(caught.value) == message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml: No such file"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_words_for_messages() -> None:
    assert dotted_path(("routes", 0, "match", "model")) == "routes[0].match.model"
    assert dotted_path(()) == "the file"
    assert suggest_name("objectvies", ["objectives", "routes"]) == "did you mean 'objectives'?"
    assert suggest_name("zzz", ["b", "a"]) == "known: a, b"
    assert len(quote_name("x" * 1_000_000)) == 82
    assert quote_name("a\nb") == r"'a\nb'"


def test_the_latest_backups_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("0")
    (tmp_path / "policies.yaml.mine.bak").write_text("somebody's own")
    for number in range(15):
        monkeypatch.setattr(time, "strftime", lambda *_, number=number: f"20261127T1200{number:02}")
        replace_file(path, str(number), str(number + 1), backup=True)
    backups = sorted(file.read_text() for file in tmp_path.glob("policies.yaml.2026*.bak"))
    assert backups == sorted(map(str, range(5, 15)))
    assert (tmp_path / "policies.yaml.mine.bak").exists()
