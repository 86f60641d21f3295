"""What an editor is asked, and what is read from its replies."""

from __future__ import annotations

import json

import pytest

from aligner_proxy.correctors import editor_prompt
from aligner_proxy.correctors.editor_prompt import Passage
from aligner_proxy.errors import AnswerTooLong, InvalidOutput
from aligner_proxy.text import structure
from aligner_proxy.types import SegmentScore, Turn

KIND = "Kindness: the response should never insult the reader"
BRIEF = "Brevity: the response should be short"
ASKED = (Turn("system", "Our prices are secret."), Turn("user", "How do I paint a fence?"))


def scored(answer: str, flagged: str, objective: int | None = 0) -> tuple[list[structure.Segment], list[SegmentScore]]:
    segments = structure.split(answer)
    return segments, [SegmentScore(s.text, 1.0, flagged in s.text, objective) for s in segments]


def marked(answer: str, flagged: str, objective: int | None = 0) -> list[Passage]:
    return editor_prompt.make_passages(*scored(answer, flagged, objective), (KIND, BRIEF))


def material(answer: str, flagged: str) -> dict[str, object]:
    segments, _ = scored(answer, flagged)
    content = editor_prompt.make_edit_messages(ASKED, segments, marked(answer, flagged))[1]["content"]
    parsed: dict[str, object] = json.loads(content)
    return parsed


def test_the_editor_sees_the_question_the_marked_answer_and_the_objective_of_each_passage() -> None:
    told = material("Take a brush. You fool. Then paint. Listen, fool.", "fool")
    assert told["conversation"] == [{"role": "user", "text": "How do I paint a fence?"}]
    assert told["answer"] == (
        "Take a brush. <passage-1>You fool.</passage-1> Then paint. <passage-2>Listen, fool.</passage-2>"
    )
    assert told["passages"] == [{"number": 1, "against": [KIND]}, {"number": 2, "against": [KIND]}]


def test_a_passage_without_a_known_objective_goes_against_any_of_them() -> None:
    [passage] = marked("Take a brush. You fool.", "fool", None)
    assert passage.objectives == (KIND, BRIEF)
    [passage] = marked("Take a brush. You fool.", "fool", 7)
    assert passage.objectives == (KIND, BRIEF)


def test_the_mark_of_an_item_is_not_asked_for() -> None:
    answer = "Steps:\n\n1. Take a brush.\n2. Paint, you fool.\n"
    [passage] = marked(answer, "fool")
    assert (passage.list_mark, passage.text) == ("2. ", "Paint, you fool.")
    assert "2. <passage-1>Paint, you fool.</passage-1>" in str(material(answer, "fool")["answer"])


@pytest.mark.parametrize("text", ["I think you are a fool.", "A fool asks that.", "You fool - really."])
def test_a_sentence_has_no_mark(text: str) -> None:
    [passage] = marked(f"Take a brush. {text}", "fool")
    assert (passage.list_mark, passage.text) == ("", text)


def test_the_marks_occur_nowhere_in_the_answer() -> None:
    answer = "Use <passage-1>x</passage-1> or <pass\u200bagex-2>. You fool."
    shown = str(material(answer, "fool")["answer"])
    assert "<passagexx-1>You fool.</passagexx-1>" in shown


def test_of_a_long_answer_what_stands_near_is_shown() -> None:
    answer = "All is well. " * 3_000 + "You fool. " + "All is well. " * 3_000
    shown = str(material(answer, "fool")["answer"])
    assert len(shown) < 3 * editor_prompt.CONTEXT_CHARS
    assert shown.startswith("[...]")
    assert shown.endswith("[...]")
    assert "well. <passage-1>You fool.</passage-1> All" in shown


def test_of_a_long_conversation_the_last_turns_are_shown() -> None:
    turns = [Turn("user", f"{n} " + "x" * 5_000) for n in range(9)]
    told = json.loads(
        editor_prompt.make_edit_messages(turns, *[scored("You fool.", "fool")[0], marked("You fool.", "fool")])[1][
            "content"
        ]
    )
    assert [turn["text"][0] for turn in told["conversation"]] == ["7", "8"]
    long = [Turn("user", "x" * 50_000)]
    told = json.loads(
        editor_prompt.make_edit_messages(long, *[scored("You fool.", "fool")[0], marked("You fool.", "fool")])[1][
            "content"
        ]
    )
    assert len(told["conversation"][0]["text"]) == editor_prompt.CONVERSATION_CHARS


def test_more_passages_than_one_call_can_be_asked_for() -> None:
    with pytest.raises(AnswerTooLong, match="at most 64"):
        marked("You fool. " * 65, "fool")


PASSAGES = [
    Passage(1, 3, "", "You fool.", (KIND,)),
    Passage(2, 5, "2. ", "Paint, you fool.", (KIND,)),
]


@pytest.mark.parametrize(
    "reply",
    [
        '{"replacements": [{"number": 1, "text": "Friend."}, {"number": 2, "text": "Paint."}]}',
        '```json\n{"replacements": [{"number": 1, "text": "Friend."}, {"number": 2, "text": "Paint."}]}\n```',
        'Here you are:\n{"replacements": {"1": "Friend.", "2": "Paint."}}\nGood luck!',
        '{"1": "Friend.", "2": "Paint."}',
        '[{"number": "1", "replacement": "Friend."}, {"number": 2.0, "content": "2. Paint."}]',
        '{"replacements": [{"number": "passage-1", "text": "<passage-1>Friend.</passage-1>"}, '
        '{"number": 2, "text": "Paint."}, {"number": 3, "text": "More."}]}',
    ],
)
def test_replies_are_read_leniently(reply: str) -> None:
    assert editor_prompt.read_replacements(reply, PASSAGES) == {3: "Friend.", 5: "Paint."}


@pytest.mark.parametrize(
    ("reply", "texts"),
    [
        (
            '{"replacements": [{"number": 1, "text": "Friend."}, {"number": 2, "text": "Paint. And th',
            ("Friend.", "Paint."),
        ),
        ('{"replacements": [{"number": 1, "text": "Friend. It is \\"so\\". It', ('Friend. It is "so".', "")),
        ('{"replacements": [{"number": 1, "text": "Friend.\\', ("Friend.", "")),
        ('{"replacements": [{"number": 1, "text": "Friend."}, {"numb', ("Friend.", "")),
        ('{"replacements": [{"number": 1, "text": "Fri', ("", "")),
    ],
)
def test_of_a_reply_that_is_cut_off_whole_sentences_count(reply: str, texts: tuple[str, str]) -> None:
    assert editor_prompt.read_replacements(reply, PASSAGES) == dict(zip((3, 5), texts, strict=True))


@pytest.mark.parametrize(
    "reply", ['{"replacements": [{"number": 1, "text": ""}]}', '{"1": null}', '{"1": "", "2": ""}', '{"1": "  "}']
)
def test_nothing_for_a_passage_removes_it(reply: str) -> None:
    assert editor_prompt.read_replacements(reply, PASSAGES) == {3: "", 5: ""}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Certainly!",
        "{",
        '{"replacements": []}',
        '{"replacements": [{"number": 9, "text": "x"}]}',
        "[" * 100_000,
        "7",
    ],
)
def test_a_reply_without_a_form_is_refused(reply: str) -> None:
    with pytest.raises(InvalidOutput):
        editor_prompt.read_replacements(reply, PASSAGES)


def test_a_replacement_ends_with_the_last_sentence_that_fits() -> None:
    reply = json.dumps({"1": "All is well. " * 100})
    text = editor_prompt.read_replacements(reply, PASSAGES)[3]
    assert text.endswith("well.")
    assert PASSAGES[0].max_chars - 20 < len(text) <= PASSAGES[0].max_chars


def test_another_answer_is_asked_for_with_the_objectives_and_without_the_first_one() -> None:
    told = editor_prompt.make_new_answer_messages([*ASKED, Turn("tool", "42")], [KIND, BRIEF])
    assert [message["role"] for message in told] == ["system", "system", "user"]
    assert f"- {KIND}\n- {BRIEF}" in told[0]["content"]
