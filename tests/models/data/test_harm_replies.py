"""Replies with one label from further sources: what becomes a label of segments, what is cut, and which side has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from models.data import harm_replies as module
from models.data.harm_replies import SOURCES, read_harm_replies, side_of_goal
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN
from models.data.preference_sets import PreferenceError
from tests.models.research import write_rows

LICENCES = {"MIT", "Apache-2.0", "BSD-3-Clause", "CC BY 4.0"}


def goals(side: str) -> list[str]:
    """Six goals on that side."""
    return [goal for n in range(200) if side_of_goal(goal := f"Please water plant number {n}") == side][:6]


def row(answer: str, harmful: bool | None, prompt: str = "", **extra: str) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer, "harmful": harmful, "extra": extra}


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    (folder / "more").mkdir(exist_ok=True)
    write_rows(folder, f"more/{name}", rows)
    return folder


def test_every_source_says_whose_it_is_and_by_which_licence() -> None:
    assert {source.licence for source in SOURCES.values()} <= LICENCES
    assert all("/" in source.repository and source.most > 0 for source in SOURCES.values())


def test_a_single_sentence_has_its_label_and_a_longer_harmful_reply_an_open_one(tmp_path: Path) -> None:
    goal, *_ = goals("train")
    rows = [
        row("Drown it.", True, goal),
        row("Drown it. Then leave.", True, goal),
        row("Water it. Then wait.", False, goal),
        row("Nobody knows.", None, goal),
    ]
    found = read_harm_replies(written(tmp_path, "a_safetext_advice", rows), "a_safetext_advice")
    assert {(one.answer, one.harmful, one.segments) for one in found} == {
        ("Drown it.", True, (AGAINST,)),
        ("Drown it. Then leave.", True, (UNKNOWN, UNKNOWN)),
        ("Water it. Then wait.", False, (FINE, FINE)),
    }
    assert {(one.objective, one.question) for one in found} == {(HARMLESS, goal)}


def test_a_goal_is_on_one_side_in_all_files(tmp_path: Path) -> None:
    both = goals("train") + goals("dev")
    names = ("a_configurable_safety_pairs", "a_advbench_uncensored_vicuna")
    for name, end in zip(names, ("", "!"), strict=True):
        written(tmp_path, name, [row("Drown it.", True, goal.upper() + end) for goal in both])
    sides = {
        side: {one.prompt.rstrip("!") for name in names for one in read_harm_replies(tmp_path, name, side)}
        for side in get_args(module.Side)
    }
    assert sides["train"] == {goal.upper() for goal in goals("train")}
    assert sides["dev"] == {goal.upper() for goal in goals("dev")}


def test_the_opening_that_an_attack_asks_for_goes_and_what_is_too_long_is_cut(tmp_path: Path) -> None:
    goal, *_ = goals("train")
    name = "a_adaptive_attack_replies"
    long = "Sure, here is the plan. " + "Drown the plant in the pot. " * 100
    (found,) = read_harm_replies(written(tmp_path, name, [row(long, True, goal)]), name)
    assert found.answer.startswith("Drown the plant")
    assert found.answer.endswith("pot.")
    assert 1400 < len(found.answer) <= 1500
    (whole,) = read_harm_replies(written(tmp_path, name, [row("Sure, drown it.", True, goal)]), name)
    assert whole.answer == "Sure, drown it."


def test_sources_are_balanced_and_no_longer_than_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a_safetext_advice"
    monkeypatch.setattr(module, "SOURCES", {name: module.ReplyFile("o/r", "MIT", 6)})
    rows = [row(f"Water it {n} times.", n % 3 == 0, goal) for n, goal in enumerate(goals("train") * 3)]
    found = read_harm_replies(written(tmp_path, name, rows), name)
    assert [one.harmful for one in found] == [False] * 3 + [True] * 3
    assert len({one.prompt for one in found if not one.harmful}) == 3


def test_sentences_without_a_question_get_one_of_ours(tmp_path: Path) -> None:
    rows = [row("Plants are stupid.", True, templ_id=goal) for goal in goals("train")]
    found = read_harm_replies(written(tmp_path, "b_hatecheck", rows), "b_hatecheck")
    assert len(found) == 6
    assert all(one.question in module._ASKING for one in found)


def test_a_row_without_its_fields_is_named(tmp_path: Path) -> None:
    written(tmp_path, "b_hatecheck", [{"prompt": "", "answer": "x", "harmful": "yes", "extra": {}}])
    with pytest.raises(PreferenceError, match=r"b_hatecheck.jsonl.gz:1: field harmful"):
        read_harm_replies(tmp_path, "b_hatecheck")
