"""Pairs on disk: what is written comes back, and a bad line says where and why."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.text.structure import split
from models.data.pairs import Pair, PairError, read_pairs, write_pairs

GOOD = Pair(
    "How long do eggs boil?", ("Length: be brief",), "Eight minutes. Hurry up, twit.", "Eight minutes.", (0, 1), "t"
)
ROW = {
    "query": "q",
    "objectives": ["o"],
    "answer": "One. Two.",
    "target": "One.",
    "labels": [0, 1],
    "source": "s",
    "direction": "better",
}


def _file(folder: Path, *rows: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_what_is_known_of_each_objective_comes_back(tmp_path: Path) -> None:
    pair = replace(GOOD, relations=((0,), (1,)), whole=(False,))
    write_pairs(tmp_path / "pairs.jsonl", [pair])
    assert list(read_pairs(tmp_path / "pairs.jsonl")) == [pair]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"relations": [[0]]}, "1 relations where 2 are needed"),
        ({"relations": [[0, 1], [0, 0]]}, "relations need 1 labels for each segment"),
        ({"relations": [[0], [2]]}, "something else is among them"),
        ({"relations": [0, 1]}, "field relations must be a list of lists"),
        ({"whole": [True, False]}, "2 whole where 1 are needed"),
    ],
)
def test_what_is_known_of_each_objective_has_to_fit(tmp_path: Path, fields: dict[str, object], problem: str) -> None:
    with pytest.raises(PairError, match=problem):
        list(read_pairs(_file(tmp_path, ROW | fields)))


def test_pairs_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "pairs.jsonl"
    assert write_pairs(path, [GOOD, GOOD]) == 2
    assert list(read_pairs(path)) == [GOOD, GOOD]
    assert [p.name for p in path.parent.iterdir()] == ["pairs.jsonl"]


@given(st.text(min_size=1), st.text(), st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3))
def test_any_text_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, answer: str, target: str, names: list[str]
) -> None:
    pair = Pair("q", tuple(names), answer, target, (-1,) * len(split(answer)), "s", "equal")
    path = tmp_path_factory.mktemp("p") / "one.jsonl"
    write_pairs(path, [pair])
    assert list(read_pairs(path)) == [pair]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, [GOOD])

    def broken() -> object:
        yield GOOD
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(path, broken())  # type: ignore[arg-type]
    assert list(read_pairs(path)) == [GOOD]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{nonsense", "not JSON"),
        ("[1]", "expected a JSON object, found list"),
        ({k: v for k, v in ROW.items() if k != "target"}, "missing field target"),
        ({**ROW, "colour": 1}, "unknown field colour; known: "),
        ({**ROW, "labels": "01"}, "field labels must be a list"),
        ({**ROW, "query": 7}, "field query must be a text"),
        ({**ROW, "labels": [0]}, "1 labels for an answer of 2 segments"),
        ({**ROW, "labels": [0, 2]}, "labels are 1"),
        ({**ROW, "labels": [0, [1]]}, "labels are 1"),
        ({**ROW, "labels": [0, True]}, "labels are 1"),
        ({**ROW, "kinds": ["", 3]}, "kinds and themes are words"),
        ({**ROW, "themes": [None]}, "themes are words"),
        ({**ROW, "objectives": []}, "at least one objective"),
        ({**ROW, "objectives": [" "]}, "at least one objective"),
        ({**ROW, "direction": "worse"}, "unknown direction 'worse'; known: better, equal"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, row: object, reason: str) -> None:
    path = _file(tmp_path, ROW, "", row)
    with pytest.raises(PairError) as error:
        list(read_pairs(path))
    assert reason in str(error.value)
    assert f"{path}:3" in str(error.value)


def test_the_direction_may_be_left_out(tmp_path: Path) -> None:
    path = _file(tmp_path, {k: v for k, v in ROW.items() if k != "direction"})
    assert next(read_pairs(path)).direction == "better"


def test_a_file_that_is_no_text_or_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"query": "\xff"}\n')
    with pytest.raises(PairError, match=r"bad\.jsonl is not UTF-8 text"):
        list(read_pairs(tmp_path / "bad.jsonl"))
    with pytest.raises(PairError, match=r"none\.jsonl cannot be read"):
        list(read_pairs(tmp_path / "none.jsonl"))


def test_what_is_lacking_is_told_for_every_objective(tmp_path: Path) -> None:
    pair = replace(GOOD, objectives=("a", "b"), lacks=(0, 1))
    assert pair.all_labels == (*pair.labels, 1)
    write_pairs(tmp_path / "pairs.jsonl", [pair])
    assert list(read_pairs(tmp_path / "pairs.jsonl")) == [pair]
    with pytest.raises(PairError, match="1 lacks where 2 are needed"):
        replace(pair, lacks=(1,))
    with pytest.raises(PairError, match="something else is among them"):
        replace(pair, lacks=(1, 2))


def test_packed_pairs_are_read_as_they_are(tmp_path: Path) -> None:
    pairs = [Pair("When?", ("Calm: be calm",), "At noon. Hurry!", "At noon.", (0, 1), "test")]
    plain = tmp_path / "pairs.jsonl"
    write_pairs(plain, pairs)
    packed = tmp_path / "pairs.jsonl.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    assert list(read_pairs(packed)) == pairs
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(PairError, match=r"pairs.jsonl.xz"):
        list(read_pairs(packed))
