"""Edit distance against its definition."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.reporting.edit_distance import EditDistances, word_distance

words = st.lists(st.sampled_from("abc"), max_size=12)


def by_definition(one: Sequence[str], other: Sequence[str]) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before = row[0]
        row[0] = i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


@settings(deadline=None)
@given(words, words)
def test_it_is_what_the_definition_says(one: list[str], other: list[str]) -> None:
    expected = by_definition(one, other) / max(len(one), len(other), 1)
    assert word_distance(" ".join(one), " ".join(other)) == expected


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["go", "left", "right"]), max_size=200),
    st.lists(st.sampled_from(["go", "on"]), max_size=200),
)
def test_distance_is_a_share_and_does_not_care_which_comes_first(one: list[str], other: list[str]) -> None:
    there = word_distance(" ".join(one), " ".join(other))
    back = word_distance(" ".join(other), " ".join(one))
    assert there == back
    assert 0 <= there <= 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("a b", "a b", 0), ("a b", "a  b", 0), ("", "a", 1), ("a b c d", "a b", 0.5), ("a b", "c d", 1)],
)
def test_distance_of_texts(one: str, other: str, expected: float) -> None:
    assert word_distance(one, other) == expected


def test_words_to_edit_edited_and_left() -> None:
    done = "One. Fool! Two.", "One. Two.", "One. Two."
    half = "One. Fool! Two.", "One. Two.", "One. Fool! Two."
    assert str(EditDistances.from_texts([done])) == "33.3%, 33.3%, 0.0%"
    assert EditDistances.from_texts([done, half]).remaining == pytest.approx(1 / 6)
    assert EditDistances.from_texts([]) == EditDistances(0.0, 0.0, 0.0)
