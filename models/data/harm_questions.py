"""Questions, half of which ask for harm, to teach what a question asks for.

Questions that ask for harm come from attacks on models and from dialogues in which people tried to get harmful answers;
the others from sets of ordinary questions and of harmless ones that look harmful. No question of the sets that guards
are measured by is among them. The texts are not published, only weights and figures that come from them.

`harm_requests` has requests that were written for this project, and that are published: behind the same context, or in
the same clothes, half ask for harm and half do not. None tells how harm is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import yaml

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
_OWN = Path(__file__).parent / "harm_requests"
_WORDS = (_OWN / "noise_words.txt").read_text(encoding="utf-8").split()
_SCRIPTS = ("az", "az", "\u0430\u044f", "\u10d0\u10f0", "\u4e00\u4fff", "\u0e01\u0e2e", "\u00e0\u00ff", "09")
"""First and last letters of scripts: Latin, Cyrillic, Georgian, Chinese, Thai, accented Latin, and digits."""
_CONTEXT_ENDS = ("\n\n", "\n\n---\n\n", "\n", " ")
"""What may stand between a context and the request behind it."""
_NOISE_SHARE = 0.2
"""Share of our requests for harm that end in noise, as those of attacks do whose end was found by a search."""


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question, the file it comes from, and whether it asks for harm."""

    source: str
    text: str
    asks_for_harm: bool


def read_questions(data: Path) -> list[AskedQuestion]:
    """All questions of others, each once; the licences of `more/` are in `harm_replies.SOURCES`."""
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


def read_own_requests(folder: Path = _OWN) -> dict[str, list[AskedQuestion]]:
    """Our own requests behind their contexts by author, which is also their source: the name of the author's file."""
    return {path.stem: list(_read_requests(path)) for path in sorted(folder.glob("*.yaml"))}


def _read_requests(path: Path) -> Iterator[AskedQuestion]:
    """The requests of one author."""
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        for asks_for_harm, requests in ((True, entry["harmful"]), (False, entry["harmless"])):
            for request in requests:
                text = _set_behind_context(entry["context"], request, asks_for_harm=asks_for_harm)
                yield _make_question(path.stem, text, asks_for_harm=asks_for_harm)


def _set_behind_context(context: str, request: str, *, asks_for_harm: bool) -> str:
    """The context and the request behind it; some requests for harm end in noise."""
    # of its own, so that a new request changes no other
    rng = Random(request)
    text = context + rng.choice(_CONTEXT_ENDS) + request if context else request
    if asks_for_harm and rng.random() < _NOISE_SHARE:
        text += " " + _make_noise(rng)
    return text


def _make_noise(rng: Random) -> str:
    """Pieces of words in several scripts, and signs, in no order: 60 to 200 characters."""
    noise = ""
    length = rng.randint(60, 200)
    while len(noise) < length:
        noise += rng.choice(("", "", " ")) + rng.choice(_NOISE_MAKERS)(rng)
    return noise


def _make_piece(rng: Random) -> str:
    """One to seven letters of one script."""
    first, last = rng.choice(_SCRIPTS)
    piece = "".join(chr(rng.randint(ord(first), ord(last))) for _ in range(rng.randint(1, 7)))
    return rng.choice((piece, piece.capitalize()))


def _make_sign(rng: Random) -> str:
    """One to three signs."""
    return "".join(rng.choice("()[]{}\\\"'*+=:;!?#$%&<>/|^_~`-.,") for _ in range(rng.randint(1, 3)))


def _make_word(rng: Random) -> str:
    """A word of `noise_words.txt` behind a space."""
    return " " + rng.choice(_WORDS)


_NOISE_MAKERS: tuple[Callable[[Random], str], ...] = (_make_piece, _make_word, _make_word, _make_sign)
"""Each is as likely as another, so half of the noise is words."""


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
