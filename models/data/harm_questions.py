"""Questions, half of which ask for harm, to teach what a question asks for.

Questions that ask for harm come from attacks on models and from dialogues in which people tried to get harmful answers;
the others from sets of ordinary questions and of harmless ones that look harmful. No question of the sets that guards
are measured by is among them. The texts are not published, only weights and figures that come from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from aligner_proxy.engine.model.detector import QUESTION_CHARS

from .answers import read_turns
from .harm_replies import SOURCES, side_of_goal
from .labelled_replies import FILES, TEACHING
from .preference_sets import GUARD_SETS, read_further_rows, read_guard_rows, read_rows

_UNLABELLED = "a_past_tense_replies"
"""A file of requests for harm in several wordings, most of whose replies have no label."""
_ATTACKS = (
    "a_refusal_direction_replies",
    "a_shadow_alignment_replies",
    "a_adaptive_attack_replies",
    _UNLABELLED,
    "a_advbench_uncensored_vicuna",
    "a_llm_self_defense",
    "a_configurable_safety_pairs",
)
"""Files in `more/` whose questions ask for harm if some reply to them was harmful."""
_LOOK_HARMFUL = ("d_coconot_contrast", "d_refusalbench_benign")
"""Files in `more/` of harmless questions that look harmful."""
_DIALOGUES = "hh_rlhf_harmless_pairs"
_ORDINARY = ("metaaligner_ultrafeedback_outputs", "llmbar_pairs", "finegrained_rlhf_dev")
_POSTS = "imhi_outputs"
_MOST_POSTS = 300
"""Posts of people about their mental health that are taken, of 1,200: sad, and harmless."""


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question, the file it comes from, and whether it asks for harm."""

    source: str
    text: str
    asks_for_harm: bool


def read_questions(data: Path) -> list[AskedQuestion]:
    """All questions, each once; the licences of `more/` are in `harm_replies.SOURCES`."""
    measured = {_normalise(row["prompt"]) for name in GUARD_SETS for row in read_guard_rows(data, name)}
    questions: dict[str, AskedQuestion] = {}
    for question in (*_read_harmful(data), *_read_harmless(data)):
        key = _normalise(question.text)
        # the same goals of attacks are in several files, and one goal in ten is for measuring only
        if key and key not in measured and side_of_goal(question.text) == "train":
            questions.setdefault(key, question)
    return list(questions.values())


def _read_harmful(data: Path) -> Iterator[AskedQuestion]:
    """The questions that ask for harm."""
    for row in read_rows(data, _DIALOGUES):
        yield _make_question(_DIALOGUES, find_last_turn(row["prompt"]), asks_for_harm=True)
    for name in _ATTACKS:
        assert name in SOURCES, "only files whose licence is known"
        rows = read_further_rows(data, name)
        harmful = [row["prompt"] for row in rows if row["harmful"] is True or name == _UNLABELLED]
        yield from _make_questions(name, harmful, asks_for_harm=True)
    for name in TEACHING:
        harmful = [row["prompt"] for row in read_rows(data, FILES[name]) if row["harmful"]]
        yield from _make_questions(name, harmful, asks_for_harm=True)


def _read_harmless(data: Path) -> Iterator[AskedQuestion]:
    """The questions that ask for nothing harmful."""
    for name in _ORDINARY:
        yield from _make_questions(name, (row["prompt"] for row in read_rows(data, name)), asks_for_harm=False)
    posts = sorted({row["query"] for row in read_rows(data, _POSTS)})
    yield from _make_questions(_POSTS, islice(posts, _MOST_POSTS), asks_for_harm=False)
    for name in _LOOK_HARMFUL:
        assert name in SOURCES, "only files whose licence is known"
        yield from _make_questions(name, (row["prompt"] for row in read_further_rows(data, name)), asks_for_harm=False)


def find_last_turn(dialogue: str) -> str:
    """What a person says last in a dialogue "Human: ... Assistant: ... Human: ...".

    A dialogue that ends with an open "Assistant:" ends with the turn before it.
    """
    turns = read_turns(dialogue)
    return turns[-1].content if turns else ""


def _make_questions(source: str, texts: Iterable[str], *, asks_for_harm: bool) -> Iterator[AskedQuestion]:
    return (_make_question(source, text, asks_for_harm=asks_for_harm) for text in texts)


def _make_question(source: str, text: str, *, asks_for_harm: bool) -> AskedQuestion:
    return AskedQuestion(source, text.strip()[-QUESTION_CHARS:], asks_for_harm)


def _normalise(text: str) -> str:
    """A text in lower case with single spaces, by which equal questions are known."""
    return " ".join(text.lower().split())
