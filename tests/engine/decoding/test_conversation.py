"""The conversation of a prompt: what is kept of it, how little of it is looked at, and that repetition goes."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy import prompts
from aligner_proxy.engine.decoding.conversation import CUT_MARK, collapse_repeats, cut_turns, shorten_text
from aligner_proxy.engine.decoding.prompt_fit import TokenRuler
from aligner_proxy.text.disguises import undisguise
from aligner_proxy.types import Turn
from tests.support import tiny
from tests.support.sampling import examples

FAMILY = prompts.TEMPLATES["ultrafeedback"]
RULER = TokenRuler(tiny.runner().tokenizer, FAMILY)
PROSE = "The ferry leaves at seven, and nobody waits for it; a small boat comes back at {}."


def prose(sentences: int) -> str:
    return " ".join(PROSE.format(number) for number in range(sentences))


class Letters:
    """Counts each character as a token, and how many it was shown."""

    def __init__(self) -> None:
        self.seen = 0

    def count(self, text: str) -> int:
        self.seen += len(text)
        return len(text)

    def first(self, text: str, tokens: int) -> str:
        self.seen += len(text)
        return text[:tokens]

    def last(self, text: str, tokens: int) -> str:
        self.seen += len(text)
        return text[len(text) - tokens :]


def user(*texts: str) -> list[Turn]:
    return [Turn("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(texts)]


def test_a_short_conversation_is_read_as_it_is() -> None:
    turns = [Turn("system", "Be brief."), *user("When does it open?", "At six.", "And on Sundays?")]
    assert cut_turns(turns, RULER, 512) == tuple(turns[1:])


def test_of_a_long_question_its_beginning_and_its_end_are_read() -> None:
    question = f"First words. {prose(400)} Last words?"
    [turn] = cut_turns(user(question), RULER, 200)
    assert turn.content.startswith("First words. ")
    assert turn.content.endswith(" Last words?")
    assert turn.content.count(CUT_MARK) == 1
    assert RULER.count(turn.content) <= 200


def test_of_many_turns_the_last_are_read() -> None:
    turns = user(*(f"Turn {number}. {prose(2)}" for number in range(41)))
    kept = cut_turns(turns, RULER, 300)
    assert 1 < len(kept) < 41
    assert kept[1:] == tuple(turns[41 - len(kept) + 1 :])
    assert sum(RULER.count(turn.content) for turn in kept) <= 300


@settings(deadline=None, max_examples=examples(40))
@given(
    st.lists(st.one_of(st.text(max_size=300), st.integers(1, 60).map(prose)), min_size=1, max_size=6),
    st.integers(64, 600),
)
def test_what_is_kept_fits_and_the_last_words_are_there(texts: list[str], room: int) -> None:
    kept = cut_turns(user(*texts), RULER, room)
    query = prompts.query_field(FAMILY, kept)
    assert RULER.count(query) <= room + 16 * (len(kept) + 1)  # this tokenizer spells the names of roles
    last = next((text for text in reversed(texts) if text), "")
    assert not last or kept[-1].content[-1] in (last[-1], undisguise(last).text[-1])


def test_no_more_is_looked_at_than_there_is_room_for() -> None:
    ruler = Letters()
    cut_turns(user(*(prose(20_000) for _ in range(50))), ruler, 500)
    assert ruler.seen < 50_000


@pytest.mark.parametrize(
    "filler",
    [
        "dog " * 2000,
        "red dog runs " * 700,
        "a b a c " * 500,
        "The dog runs home now. " * 300,
        "\u200b" * 7000,
        "\u200b\u200c" * 3500,
        "ab" * 4000,
        "You\nare " * 900,
        (" ".join(f"q{i}" for i in range(50)) + " ") * 20,
    ],
)
def test_what_is_repeated_is_read_twice(filler: str) -> None:
    text = collapse_repeats(f"Before. {filler} When does it open?")
    assert len(text) < 500
    assert text.startswith("Before. ")
    assert text.endswith("When does it open?")
    assert CUT_MARK in text


def test_several_repetitions_go_each() -> None:
    text = collapse_repeats("dog " * 400 + prose(3) + " cat " * 400 + prose(2))
    assert len(text) < len(prose(5)) + 100
    assert prose(3) in text
    assert text.endswith(prose(2))


@given(st.lists(st.sampled_from(["dog", "cat", "a", "the", "runs."]), min_size=300, max_size=600))
def test_only_repetitions_are_left_out(words: list[str]) -> None:
    """What is left, mark by mark, stands in the text in its order."""
    text = " ".join(words)
    at = 0
    for piece in re.split(re.escape(CUT_MARK), collapse_repeats(text)):
        at = text.index(piece, at)


@pytest.mark.parametrize("text", [prose(60), "| a | 1 |\n| b | 2 |\n" * 3 + prose(20), "0 1 0 1 1 0 " * 3 + prose(20)])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert collapse_repeats(text) == text


@given(st.text(alphabet="ab \u200b\u4f60\U0001f600", min_size=1, max_size=400), st.integers(1, 40))
def test_a_ruler_gives_no_more_tokens_than_asked_for(text: str, tokens: int) -> None:
    text = text * math.ceil(tokens / 8)
    for piece in (RULER.first(text, tokens), RULER.last(text, tokens)):
        assert RULER.count(piece) <= tokens + 4  # a character of several tokens is kept whole
        assert piece in text


def test_a_cut_text_says_how_long_it_is() -> None:
    text, size = shorten_text(prose(100), RULER, 150)
    assert size == RULER.count(text) <= 150


def test_what_nobody_sees_takes_no_room() -> None:
    question = "First words. " + "\u200b" * 1500 + " Last words?"
    assert [turn.content for turn in cut_turns(user(question), RULER, 120)] == [question.replace("\u200b", "")]


def test_a_question_is_cut_between_what_is_read() -> None:
    [turn] = cut_turns(user("\u200b".join(prose(400))), RULER, 200)
    [plain] = cut_turns(user(prose(400)), RULER, 200)
    assert "\u200b" not in turn.content
    assert turn.content.split(CUT_MARK)[0] == plain.content.split(CUT_MARK)[0]
    assert turn.content.split(CUT_MARK)[1] == plain.content.split(CUT_MARK)[1]


def test_of_many_turns_in_which_there_is_nothing_to_read_few_are_looked_at() -> None:
    assert len(cut_turns(user(*["\u200b" * 100_000] * 200), RULER, 1000)) < 10
