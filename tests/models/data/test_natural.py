"""Answers that were written with faults: what is asked for goes or is replaced, and doubts count for nothing."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.text.structure import split
from models.data.natural import answers_of_side, make_natural_pair
from models.data.pairs import CHANGES, STAYS
from models.defects.natural import FAULTS, NATURAL, NaturalAnswer, Sentence

numbers = st.integers(0, 10**6)


@given(numbers, st.sampled_from(NATURAL))
def test_what_stays_is_in_the_target_and_what_goes_is_not(seed: int, answer: NaturalAnswer) -> None:
    made = make_natural_pair(Random(seed), answer)
    if made is None:
        return
    for segment, label, sentence in zip(split(made.answer), made.labels, answer.sentences, strict=True):
        if label == STAYS:
            assert segment.text in made.target
        if label == CHANGES:
            assert sentence.good in made.target


@given(numbers, st.sampled_from(NATURAL))
def test_nothing_changes_that_no_objective_asks_for(seed: int, answer: NaturalAnswer) -> None:
    made = make_natural_pair(Random(seed), answer)
    if made is None:
        return
    for kind, label in zip(made.kinds, made.labels, strict=True):
        asked = kind and (kind in made.themes or FAULTS[kind][0] & set(made.themes))
        assert (label == CHANGES) == bool(asked)


def test_most_answers_become_a_pair() -> None:
    made = [any(make_natural_pair(Random(i), answer) for i in range(8)) for answer in NATURAL]
    assert sum(made) > 0.95 * len(made)


def test_every_answer_is_on_one_side() -> None:
    sides = [answers_of_side("train"), answers_of_side("dev"), answers_of_side("test")]
    assert [len(side) > 8 for side in sides] == [True] * 3
    assert sum(map(len, sides)) == len(NATURAL)


def test_an_answer_that_is_cut_otherwise_gives_none() -> None:
    one = Sentence("First this. Then that.", "", (), "")
    assert make_natural_pair(Random(1), NaturalAnswer("q", (), (one,))) is None


def test_earlier_turns_stand_before_the_question() -> None:
    answer = next(a for a in NATURAL if a.turns)
    made = next(filter(None, (make_natural_pair(Random(i), answer) for i in range(40))))
    assert made.query.index(answer.turns[0][0]) < made.query.index(answer.query)
