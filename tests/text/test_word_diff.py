"""The passages of a word diff are those of both texts, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.text.word_diff import WordChange, word_diff


@pytest.mark.parametrize(
    ("before", "after", "passages"),
    [
        ("", "", []),
        ("a b", "a b", [(WordChange.KEPT, "a b")]),
        ("a b c", "a c", [(WordChange.KEPT, "a "), (WordChange.REMOVED, "b "), (WordChange.KEPT, "c")]),
        ("a b", "a c", [(WordChange.KEPT, "a "), (WordChange.REMOVED, "b"), (WordChange.ADDED, "c")]),
        ("", "x", [(WordChange.ADDED, "x")]),
    ],
)
def test_what_stayed_went_and_came(before: str, after: str, passages: list[tuple[WordChange, str]]) -> None:
    assert list(word_diff(before, after)) == passages


@given(st.text("ab .\n"), st.text("ab .\n"))
def test_both_texts_can_be_read_from_it(before: str, after: str) -> None:
    passages = list(word_diff(before, after))
    assert "".join(text for change, text in passages if change is not WordChange.ADDED) == before
    assert "".join(text for change, text in passages if change is not WordChange.REMOVED) == after
