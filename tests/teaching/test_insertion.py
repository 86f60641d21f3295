"""Insertion of a sentence into a neutral answer: where it may stand, and that it stays whole."""

from __future__ import annotations

from random import Random

import pytest

from aligner_proxy.teaching.insertion import insert_randomly, insert_text, insertion_places, usable_answers
from aligner_proxy.teaching.neutral import Neutral, neutral_answers
from aligner_proxy.text.structure import split

SENTENCE = "I feel lonely at night when nobody writes to me."


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("One here. Two here. Three here.", [0, 1, 2, 3]),
        ("Do this:\n- Open it.\n- Close it.\n\nThat is all.", [0, 4]),
        ("1. Open it.\n2. Close it.", []),
        ("```\ncode()\n```", []),
        ("| a | b |\n|---|---|", []),
        ("# Title\n\nOne here. Two here.", [2, 3]),
    ],
)
def test_places_are_those_of_prose(answer: str, expected: list[int]) -> None:
    assert list(insertion_places(answer)) == expected


def test_the_sentence_is_a_segment_of_its_own_wherever_it_stands() -> None:
    answers = neutral_answers()
    for host in usable_answers(answers, range(len(answers))):
        for place in insertion_places(answers[host].answer):
            one = insert_text(SENTENCE, host, answers[host], place)
            inside = [s for s in split(one.neutral.answer) if one.covers(s.start, s.end)]
            assert [s.text.strip() for s in inside] == [SENTENCE], (host, place)
            outside = [s.text.strip() for s in split(one.neutral.answer) if not one.covers(s.start, s.end)]
            assert outside == [s.text.strip() for s in split(answers[host].answer)], (host, place)


def test_a_sentence_without_an_end_gets_one() -> None:
    one = insert_text("I feel sad", 0, Neutral("q", "One here. Two here."), 1)
    assert one.neutral.answer == "One here. I feel sad. Two here."


def test_several_sentences_stay_together() -> None:
    one = insert_text("I cry. I laugh.", 0, Neutral("q", "One here. Two here."), 1)
    covered = [s.text for s in split(one.neutral.answer) if one.covers(s.start, s.end)]
    assert covered == ["I cry.", "I laugh."]


def test_the_same_generator_plants_at_the_same_places() -> None:
    answers = neutral_answers()
    chosen = usable_answers(answers, range(20))
    first, again = ([insert_randomly(SENTENCE, n, answers[n], rng) for n in chosen] for rng in (Random(1), Random(1)))
    assert first == again
