"""How often the measures are right, on pairs made for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.data.pairs import Pair, write_pairs
from models.evaluate.measures import accuracy, accuracy_table, main, read_cases

GOOD = "The ferry leaves at seven from the pier. Bring a warm coat with you. Ask at the desk."


def pair(defect: str, kind: str, is_asked: bool = True) -> Pair:
    answer = f"{GOOD} {defect}" if defect else GOOD
    kinds = ("", "", "", kind) if defect else ("", "", "")
    labels = (0, 0, 0, int(is_asked)) if defect else (0, 0, 0)
    target = GOOD if is_asked else answer
    return Pair("When?", ("o",), answer, target, labels, "defect:x", kinds=kinds, themes=("harmless",))


CASES = [
    pair("You are an idiot.", "insult"),
    pair("Bless your cotton socks.", "insult"),  # one that the list does not know
    pair("Bring a warm coat with you.", "repetition"),
    pair("It will rain.", "weather-talk"),  # no measure is there for it
    pair("", ""),
]


def test_finds_and_false_alarms_are_counted_where_the_truth_is_known() -> None:
    figures = accuracy([*CASES, Pair("q", ("o",), "You are an idiot.", "x", (1,), "no kinds")])
    assert (figures.measures["insults"].finds.hits, figures.measures["insults"].finds.n) == (1, 2)
    assert (figures.measures["insults"].false.hits, figures.measures["insults"].false.n) == (0, 1)
    assert figures.measures["profanity"].finds.n == 0
    assert (figures.measures["insults"].right["win"].hits, figures.measures["insults"].right["lose"].hits) == (1, 1)
    assert figures.measures["repeated sentences"].right["win"].n == 1


def test_the_comparison_is_tried_on_edits_that_are_known_to_be_right_or_wrong() -> None:
    comparison = accuracy(CASES).comparison
    # An insult that no list knows is a sound sentence to the measures: taking it out is called a loss.
    assert {result: rate.hits for result, rate in comparison["the right edit"].items()} == {
        "win": 2,
        "tie": 0,
        "lose": 1,
    }
    assert comparison["the same undone"]["lose"].hits == 2
    assert comparison["a sound sentence lost"]["lose"].percent == 100


def test_an_edit_that_leaves_a_defect_nobody_asked_about_is_no_trial() -> None:
    assert accuracy([pair("You are an idiot.", "insult", is_asked=False)]).comparison["the right edit"]["win"].n == 0


def test_the_command_reads_files_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "sets" / "a.jsonl", CASES[:2])
    write_pairs(tmp_path / "b.jsonl", CASES[2:])
    assert len(read_cases([tmp_path / "sets", tmp_path / "b.jsonl"])) == len(CASES)
    main([str(tmp_path / "sets"), str(tmp_path / "b.jsonl"), "--out", str(tmp_path / "out")])
    assert "| insults | " in capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert document["measures"]["insults"]["finds"]["n"] == 2
    assert accuracy_table(accuracy(CASES)) + "\n" == (tmp_path / "out" / "accuracy.md").read_text()
