"""What is read out of preference texts, and what stays among their words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy_systems.metaalign.parser import parse
from aligner_proxy_systems.metaalign.types import Preference, PreferenceSource
from aligner_proxy_systems.metaalign.types import PreferenceKind as K
from models.systems.metaalign.wordings import TRAIN, WORDED
from tests.support.counting import growth

REQUEST = PreferenceSource.REQUEST


@pytest.mark.parametrize("word", ["no lists ", "not in english ", "avoid , ", "lists ", "never use prose "])
def test_a_sentence_is_read_in_linear_time(word: str) -> None:
    """A system prompt of 20 kB once took two seconds: each word of refusal looked for its end, each thing for all."""
    assert growth(lambda size: parse((word * size)[:size], REQUEST), 450) < 2.4


def kinds(text: str) -> set[K]:
    return {preference.kind for preference in parse(text, REQUEST).preferences}


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("at most 80 words", K.MAX_WORDS, 80),
        ("under 80 words", K.MAX_WORDS, 79),
        ("no more than thirty-five words", K.MAX_WORDS, 35),
        ("never write more than 1,200 words", K.MAX_WORDS, 1200),
        ("a hundred words or fewer", K.MAX_WORDS, 100),
        ("word limit: 50", K.MAX_WORDS, 50),
        ("don't go over 60 words", K.MAX_WORDS, 60),
        ("in two sentences", K.MAX_SENTENCES, 2),
        ("one sentence only", K.MAX_SENTENCES, 1),
        ("a single paragraph, please: keep it to a single paragraph", K.MAX_PARAGRAPHS, 1),
        ("max 280 characters", K.MAX_CHARS, 280),
        ("at least 200 words", K.MIN_WORDS, 200),
        ("more than 3 sentences", K.MIN_SENTENCES, 4),
    ],
)
def test_bounds(text: str, kind: K, number: int) -> None:
    assert [(preference.kind, preference.number) for preference in parse(text, REQUEST).preferences] == [(kind, number)]


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        (
            "Do not write more than 3 sentences and do not write more than 50 words.",
            [(K.MAX_SENTENCES, 3), (K.MAX_WORDS, 50)],
        ),
        (
            "Do not write more than 3 sentences, but write more than 20 words.",
            [(K.MAX_SENTENCES, 3), (K.MIN_WORDS, 21)],
        ),
        (
            "Do not write less than 3 sentences, but write under 100 words.",
            [(K.MIN_SENTENCES, 3), (K.MAX_WORDS, 99)],
        ),
        ("Do not write more than 3 sentences or more than 50 words.", [(K.MAX_SENTENCES, 3), (K.MAX_WORDS, 50)]),
        ("Do not write less than 3 sentences or less than 50 words.", [(K.MIN_SENTENCES, 3), (K.MIN_WORDS, 50)]),
    ],
)
def test_bounds_of_one_sentence_are_negated_one_by_one(text: str, bounds: list[tuple[K, int]]) -> None:
    assert [(preference.kind, preference.number) for preference in parse(text, REQUEST).preferences] == bounds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("formal, no lists, at most 80 words", {K.NO_CONTRACTIONS, K.NO_EMOJI, K.NO_LISTS, K.MAX_WORDS}),
        ("No emoji, lists or exclamation marks; short sentences.", {K.NO_EMOJI, K.NO_LISTS, K.NO_EXCLAMATION}),
        ("Use bullet points but no emoji!", {K.LISTS, K.NO_EMOJI}),
        ("Do not end with a question", set()),
        ("don't write in all caps", set()),
        ("I prefer paragraphs to bullet points", {K.NO_LISTS}),
        ("emoji-free and in lower case", {K.NO_EMOJI, K.LOWER_CASE}),
        ("Numbered lists annoy me, leave them out", {K.NO_LISTS}),
        ("Don\u2019t use emojis", {K.NO_EMOJI}),
    ],
)
def test_what_is_wanted_and_what_is_not(text: str, wanted: set[K]) -> None:
    assert kinds(text) == wanted


def test_words_to_avoid() -> None:
    assert parse("Never use the words 'delve', 'Tapestry' or \"synergy\".", REQUEST).preferences == [
        Preference(K.BANNED_WORDS, REQUEST, words=("delve", "Tapestry", "synergy"))
    ]
    assert parse("Avoid the words foo, bar and baz.", REQUEST).preferences[0].words == ("foo", "bar", "baz")


def test_languages() -> None:
    assert parse("Answer in German.", REQUEST).preferences == [Preference(K.LANGUAGE, REQUEST, words=("de",))]
    assert kinds("You cook French food.") == set()
    assert kinds("Never answer in French") == set()


def test_what_is_not_understood_keeps_its_words() -> None:
    said = parse("Max 3 sentences, kind and warm. Write like a pirate!", REQUEST)
    assert (said.words, [preference.kind for preference in said.preferences]) == (
        "kind, warm Write like a pirate!",
        [K.MAX_SENTENCES],
    )


def test_what_holds_only_at_times_is_no_certain_preference() -> None:
    said = parse("If the user is angry, use no emoji.", REQUEST)
    assert (said.preferences, said.words) == ([], "If the user is angry, use no emoji.")


def test_the_later_word_counts() -> None:
    assert parse("At most 80 words. No: at most 40 words.", REQUEST).preferences == [
        Preference(K.MAX_WORDS, REQUEST, 40)
    ]


@pytest.mark.parametrize(("kind", "wording"), [(kind, one) for kind, every in TRAIN.items() for one in every])
def test_the_wordings_that_patterns_were_made_from(kind: K, wording: str) -> None:
    assert kind in kinds(wording.format(n=7, word="delve"))


def test_words_alone_are_read_as_nothing_else() -> None:
    assert [text for text in (*WORDED["train"], *WORDED["dev"]) if kinds(text)] == []


@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    said = parse(text, REQUEST)
    assert len({preference.kind for preference in said.preferences}) == len(said.preferences)


@pytest.mark.parametrize("piece", ["no ", "never use ", "at most 1 ", 'the word "a', "in , ", "end ", "x" * 50 + " "])
def test_time_grows_with_the_text_and_no_faster(piece: str) -> None:
    assert growth(lambda size: parse((piece * size)[:size], REQUEST), 450) < 2.4
    parse((piece * 20_000)[:20_000], REQUEST)  # patterns: the suite's own time limit is the assertion
