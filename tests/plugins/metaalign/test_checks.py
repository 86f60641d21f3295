"""Whether an answer meets a preference, by form alone."""

from __future__ import annotations

import pytest

from aligner_proxy_systems.metaalign.checks import check_adherence, count_items, is_met
from aligner_proxy_systems.metaalign.types import Preference, PreferenceSource
from aligner_proxy_systems.metaalign.types import PreferenceKind as K

R = PreferenceSource.REQUEST


@pytest.mark.parametrize(
    ("preference", "yes", "no"),
    [
        (Preference(K.MAX_WORDS, R, 3), "It's so well-known.", "It is so well known."),
        (Preference(K.MAX_SENTENCES, R, 2), "One. Two.", "One. Two. Three."),
        (Preference(K.MAX_PARAGRAPHS, R, 1), "a\nb", "a\n\nb"),
        (Preference(K.MAX_CHARS, R, 3), "abc", "abcd"),
        (Preference(K.MIN_WORDS, R, 2), "a b", "a"),
        (Preference(K.MIN_SENTENCES, R, 2), "One. Two.", "One."),
        (Preference(K.NO_LISTS), "a - b", "- a\n- b"),
        (Preference(K.LISTS), "- a\n- b", "- a"),
        (Preference(K.NO_EMOJI), "ok :)", "ok \U0001f600"),
        (Preference(K.EMOJI), "ok \U0001f600", "ok"),
        (Preference(K.NO_EXCLAMATION), '`a!` is "Go!" and a != b', "Go!"),
        (Preference(K.NO_MARKDOWN), "2 * 3 * 4", "**a**"),
        (Preference(K.NO_CONTRACTIONS), "It is Ann's. \"I don't\", she said.", "It's Ann."),
        (Preference(K.NO_QUESTIONS), "So it is.", "Is it?"),
        (Preference(K.ENDS_WITH_QUESTION), "Yes. (Is it?)", "Is it? Yes."),
        (Preference(K.LANGUAGE, R, words=("de",)), "Das ist nicht die ganze Antwort.", "That is not the whole answer."),
        (Preference(K.BANNED_WORDS, R, words=("Delve",)), "We delved.", "let us delve."),
        (Preference(K.UPPER_CASE), "SEE http://a.b/c", "See"),
        (Preference(K.LOWER_CASE), "see `X`", "See"),
    ],
)
def test_each_kind_has_a_yes_and_a_no(preference: Preference, yes: str, no: str) -> None:
    assert (is_met(preference, yes), is_met(preference, no)) == (True, False)


def test_every_checkable_kind_has_a_check() -> None:
    for kind in K:
        if Preference(kind).checkable:
            assert is_met(Preference(kind, words=("en",)), "x") in (True, False)


def test_only_checkable_preferences_are_reported() -> None:
    preferences = {"no-emoji": Preference(K.NO_EMOJI), "preference": Preference(K.WORDED)}
    assert check_adherence(preferences, "a \U0001f600", "a") == {"no-emoji": [False, True]}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1. Boil it.\n2) Rest it.\n  - twice\n\u2022 or more", 4),
        ("a) one\nb) two", 2),
        ("In 1990. 5 of them. - no", 0),
        ("Try it:\n```\n- x\n1. y\n```\n- Boil", 1),
        ("**Bold** *soft*\n-5 degrees\n- ", 0),
        ("The end.\n3. Third", 1),
        (" \n\n- First\n", 1),
        ("  a) one. b) two.", 1),
    ],
)
def test_items_of_lists_are_counted(text: str, count: int) -> None:
    assert count_items(text) == count
