"""Lines, duplicate keys and odd YAML: what the operator is told about a file that does not read well."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_edit import replace_file
from aligner_proxy.policy.yaml_file import BUILT_IN, dotted_path, quote_name, read_yaml, suggest_name


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
        (
            "a:\n\t- b\n",
            "some.yaml:2: not valid YAML: found character '\\t' that cannot start any token; "
            "indent with spaces, not with tabs",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "some.yaml:2: not valid YAML: but found another document; keep one document, without the line `---`",
        ),
        (
            "a:\n  b: On: be short\n",
            "some.yaml:2: not valid YAML: mapping values are not allowed here; "
            "put a text that contains a colon in quotes",
        ),
        ("a: &x [*x]\n", "some.yaml:1: an alias (*name) contains itself"),
        ("? [a]\n: 1\n", "some.yaml:1: a key must be plain text"),
        ("a: !odd 1\n", "some.yaml:1: the tag '!odd' has no meaning here; remove it"),
        ("a: 1\nb: !odd {c: 1}\n", "some.yaml:2: the tag '!odd' has no meaning here; remove it"),
        ("a: !!omap [b: 1]\n", "some.yaml:1: the tag '!!omap' has no meaning here; remove it"),
        ("a: !!binary aGVsbG8=\n", "some.yaml:1: the tag '!!binary' has no meaning here; remove it"),
        ("a: 2024-99-99\n", "some.yaml:1: looks like a date, but is none; put it in quotes if it is text"),
        (f"\na: {'9' * 5000}\n", "some.yaml:2: looks like a number, but is none; put it in quotes if it is text"),
        ("a: !!timestamp soon\n", "some.yaml:1: looks like a date, but is none; put it in quotes if it is text"),
        ("a: !!bool perhaps\n", "some.yaml:1: looks like a bool, but is none; put it in quotes if it is text"),
        ("a: 1\nb: x\x01\n", "some.yaml:2: not valid YAML: the character U+0001 in column 5 is not allowed; remove it"),
        ("\0", "some.yaml:1: not valid YAML: the character U+0000 in column 1 is not allowed; remove it"),
        ("[" * 5000, "some.yaml: not valid YAML: too many levels; remove brackets or indentation"),
        (b"a: 1\nb: \xff\n", "some.yaml:2: not UTF-8 text (byte 8); save it as UTF-8"),
        (
            "a: &x 1\nb: {<<: *x}\n",
            "some.yaml:2: << must be followed by the alias of a block (*name), or a list of them",
        ),
        ("a: &x {<<: *x}\n", "some.yaml:1: an alias (*name) contains itself"),
    ],
)
def test_a_file_that_does_not_read_says_where_and_why(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(_write(tmp_path, text))
    assert str(caught.value) == message


def test_merged_blocks_are_read_as_litellm_reads_them(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b\n  y: 2\n  z: 2\nc:\n  y: 3\n  <<: [*b, *a]\nd: {<<: *a}\n"
    data, source = read_yaml(_write(tmp_path, text))
    assert data == yaml.safe_load(text)
    assert [source.place_of("c", key) for key in "xyz"] == ["some.yaml:1", "some.yaml:6", "some.yaml:4"]


def test_merged_blocks_that_grow_without_end_are_refused(tmp_path: Path) -> None:
    levels = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
    with pytest.raises(ConfigError, match="too many values or levels"):
        read_yaml(_write(tmp_path, "a0: &a0 {b: 1}\n" + levels))


def test_numbers_that_nobody_means_stay_text(tmp_path: Path) -> None:
    data, _ = read_yaml(_write(tmp_path, "a: 010\nb: 1:30\nc: -1:30.5\nd: [0, 10, 1_0, 0.5, -0.5, 0x10, =, <<]\n"))
    assert data == {"a": "010", "b": "1:30", "c": "-1:30.5", "d": [0, 10, 10, 0.5, -0.5, 16, "=", "<<"]}


def test_a_file_without_end_is_not_read() -> None:
    with pytest.raises(ConfigError, match="cannot read /dev/zero: it is larger than 16 MiB"):
        read_yaml(Path("/dev/zero"))


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
