"""Whether an answer meets a wish, by form alone."""

from __future__ import annotations

import pytest

from aligner_proxy.preferences.checks import adherence, met
from aligner_proxy.wishes import Adherence, Wish, WishSource
from aligner_proxy.wishes import WishKind as K

R = WishSource.REQUEST


@pytest.mark.parametrize(
    ("wish", "yes", "no"),
    [
        (Wish(K.MAX_WORDS, R, 3), "It's so well-known.", "It is so well known."),
        (Wish(K.MAX_SENTENCES, R, 2), "One. Two.", "One. Two. Three."),
        (Wish(K.MAX_PARAGRAPHS, R, 1), "a\nb", "a\n\nb"),
        (Wish(K.MAX_CHARS, R, 3), "abc", "abcd"),
        (Wish(K.MIN_WORDS, R, 2), "a b", "a"),
        (Wish(K.MIN_SENTENCES, R, 2), "One. Two.", "One."),
        (Wish(K.NO_LISTS), "a - b", "- a\n- b"),
        (Wish(K.LISTS), "- a\n- b", "- a"),
        (Wish(K.NO_EMOJI), "ok :)", "ok \U0001f600"),
        (Wish(K.EMOJI), "ok \U0001f600", "ok"),
        (Wish(K.NO_EXCLAMATION), '`a!` is "Go!" and a != b', "Go!"),
        (Wish(K.NO_MARKDOWN), "2 * 3 * 4", "**a**"),
        (Wish(K.NO_CONTRACTIONS), "It is Ann's. \"I don't\", she said.", "It's Ann."),
        (Wish(K.NO_QUESTIONS), "So it is.", "Is it?"),
        (Wish(K.ENDS_WITH_QUESTION), "Yes. (Is it?)", "Is it? Yes."),
        (Wish(K.LANGUAGE, R, words=("de",)), "Das ist nicht die ganze Antwort.", "That is not the whole answer."),
        (Wish(K.BANNED_WORDS, R, words=("Delve",)), "We delved.", "let us delve."),
        (Wish(K.UPPER_CASE), "SEE http://a.b/c", "See"),
        (Wish(K.LOWER_CASE), "see `X`", "See"),
    ],
)
def test_each_kind_has_a_yes_and_a_no(wish: Wish, yes: str, no: str) -> None:
    assert (met(wish, yes), met(wish, no)) == (True, False)


def test_every_checkable_kind_has_a_check() -> None:
    for kind in K:
        if Wish(kind).checkable:
            assert met(Wish(kind, words=("en",)), "x") in (True, False)


def test_only_checkable_wishes_are_reported() -> None:
    wishes = {"no-emoji": Wish(K.NO_EMOJI), "preference": Wish(K.WORDED)}
    assert adherence(wishes, "a \U0001f600", "a") == (Adherence("no-emoji", False, True),)
