"""Which clauses of a sentence an edit left word for word."""

from __future__ import annotations

import signal

import pytest

from aligner_proxy.gate.clauses import unchanged_clauses

SENTENCE = "Your parcel leaves on Monday (order 4711), and I'll take another 30 % off."
# What is written in its place, and the clauses whose facts have to stay.
CASES = (
    ("Your parcel leaves on Monday (order 4711).", "Your parcel leaves on Monday (order 4711), "),
    ("I'll take another 30 % off.", "and I'll take another 30 % off."),
    ("So it is: your parcel leaves on Monday (order 4711)!", "Your parcel leaves on Monday (order 4711), "),
    # a word or a note in brackets is missing or new in each clause
    ("Your parcel leaves soon (order 4711), and I'll take some off.", ""),
    ("Your parcel leaves on Monday.", ""),
    ("Your parcel now leaves on Monday (order 4711).", ""),
    ("On Monday leaves your parcel.", ""),
    ("", ""),
)
WITHOUT_BOUNDARY = "Take 5 mg of it with breakfast."


def test_clauses_are_left_if_their_words_stand_in_a_row() -> None:
    assert [(new, unchanged_clauses(SENTENCE, new)) for new, _ in CASES] == [*CASES]


def test_a_sentence_of_one_clause_is_left_whole_or_not_at_all() -> None:
    assert unchanged_clauses(WITHOUT_BOUNDARY, "Take it with breakfast.") == ""
    assert unchanged_clauses(WITHOUT_BOUNDARY, "Please take 5 mg of it with breakfast.") == WITHOUT_BOUNDARY


def test_a_number_with_other_digits_is_another_word() -> None:
    assert unchanged_clauses("It costs 2,500 euros, and you pay 30.5 more.", "It costs 2,50 euros.") == ""


def test_languages_other_than_english_have_clauses() -> None:
    assert unchanged_clauses("Das Paket kommt am Montag und ich erlasse Ihnen 30 Euro.", "Das Paket kommt am Montag.")
    assert unchanged_clauses("Le colis part lundi mais je vous offre 30 euros.", "Le colis part lundi.")


def test_what_is_outside_of_brackets_is_left_if_only_they_are_gone() -> None:
    sentence = "Our oven (the other one, model 90, is cheaper) heats up in 4 minutes."
    assert unchanged_clauses(sentence, "Our oven heats up in 4 minutes.") == "Our oven  heats up in 4 minutes."
    assert unchanged_clauses(sentence, "Our oven heats up in 5 minutes.") == ""


@pytest.mark.parametrize("sign", [" ", ",", "-", "\u2026"])
def test_a_run_of_signs_between_two_words_is_read_once(sign: str) -> None:
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the time grows with the square of the length"))
    signal.alarm(20)
    try:
        assert unchanged_clauses(f"You fool, go{sign * 200_000}home now.", "Please leave at once.") == ""
    finally:
        signal.alarm(0)
