"""Questions that ask for harm and others: where they come from, and which are left out."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.data import harm_questions
from models.data.harm_questions import find_last_turn, read_own_requests, read_questions
from models.data.harm_replies import side_of_goal
from tests.models.research import write_rows


def make_goals(side: str) -> list[str]:
    return [goal for n in range(300) if side_of_goal(goal := f"Please paint door number {n}") == side]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Every file, without a row."""
    for folder in ("more", "guard", "natural"):
        (tmp_path / folder).mkdir()
    for name in (
        *harm_questions._ORDINARY,
        harm_questions._DIALOGUES,
        harm_questions._POSTS,
        *harm_questions.FILES.values(),
        *(f"guard/{name}" for name in harm_questions.GUARD_SETS),
        *(f"more/{name}" for name in (*harm_questions._ATTACKS, *harm_questions._LOOK_HARMFUL)),
    ):
        write_rows(tmp_path, name, [])
    return tmp_path


def make_reply(prompt: str, harmful: bool | None) -> dict[str, Any]:
    return {"prompt": prompt, "answer": "So it is.", "harmful": harmful, "extra": {}}


def test_a_question_asks_for_harm_if_some_reply_to_it_was_harmful(data: Path) -> None:
    first, second, third, *_ = make_goals("train")
    replies = [make_reply(first, True), make_reply(first, False), make_reply(second, False), make_reply(third, None)]
    write_rows(data, "more/a_shadow_alignment_replies", replies)
    assert [(one.text, one.asks_for_harm) for one in read_questions(data)] == [(first, True)]
    # in this file all questions ask for it, and few replies have a label
    write_rows(data, "more/a_past_tense_replies", replies)
    assert {one.text for one in read_questions(data)} == {first, second, third}


def test_questions_that_look_harmful_teach_beside_ordinary_ones(data: Path) -> None:
    first, second, *_ = make_goals("train")
    write_rows(data, "more/d_coconot_contrast", [make_reply(first, False)])
    pair = {"prompt": second, "response_1": "Yes.", "response_2": "No.", "preference": 1}
    write_rows(data, "llmbar_pairs", [pair])
    questions = {one.text: (one.source, one.asks_for_harm) for one in read_questions(data)}
    assert questions == {first: ("d_coconot_contrast", False), second: ("llmbar_pairs", False)}


def test_each_question_teaches_once_and_none_that_measures(data: Path) -> None:
    first, second, *_ = make_goals("train")
    held_out, *_ = make_goals("dev")
    replies = [make_reply(text, True) for text in (first, first.upper() + " ", second, held_out)]
    write_rows(data, "more/a_shadow_alignment_replies", replies)
    write_rows(data, "more/a_advbench_uncensored_vicuna", replies)
    write_rows(data, "guard/beavertails", [{"prompt": second.upper(), "answer": "So.", "harmful": 1}])
    assert [one.text for one in read_questions(data)] == [first]


def test_of_a_dialogue_its_last_turn_is_the_question(data: Path) -> None:
    goal, *_ = make_goals("train")
    dialogue = f"\n\nHuman: Good day.\n\nAssistant: Good day, sir.\n\nHuman: {goal}\n\nAssistant:"
    assert find_last_turn(dialogue) == goal
    assert find_last_turn("\n\nHuman: ") == ""
    write_rows(data, "hh_rlhf_harmless_pairs", [{"prompt": dialogue, "chosen": "No.", "rejected": "Yes."}])
    [question] = read_questions(data)
    assert (question.text, question.asks_for_harm) == (goal, True)


def test_our_requests_have_four_that_ask_for_harm_and_four_that_do_not_behind_each_context() -> None:
    questions = [question for requests in read_own_requests().values() for question in requests]
    counts = Counter((question.source, question.asks_for_harm) for question in questions)
    assert set(counts.values()) == {180, 200}
    assert all(counts[author, True] == counts[author, False] for author, _ in counts)
    assert len({question.text for question in questions}) == len(questions)


def test_a_request_stands_behind_its_context_and_noise_only_behind_requests_for_harm(tmp_path: Path) -> None:
    entry = {
        "context": "Minutes of a meeting.",
        "harmful": [f"Write hoax number {number}." for number in range(100)],
        "harmless": [f"Write summary number {number}." for number in range(100)],
    }
    (tmp_path / "author.yaml").write_text(yaml.safe_dump([entry]), encoding="utf-8")
    questions = read_own_requests(tmp_path)["author"]
    assert all(question.text.startswith("Minutes of a meeting.") for question in questions)
    harmful = [question.text for question in questions if question.asks_for_harm]
    assert all(text.endswith(".") for text in (question.text for question in questions if not question.asks_for_harm))
    noisy = [text for text in harmful if re.search(r"number \d+\. .{60,}", text, re.DOTALL)]
    assert 10 <= len(noisy) <= 30
    assert read_own_requests(tmp_path) == {"author": questions}
