"""Items of lists and their marks."""

from __future__ import annotations

import pytest

from aligner_proxy.text.structure import item_marks, occurs_in_order


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. Boil it.\n2) Rest it.\n  - twice\n\u2022 or more", ["1", "2", "-", "-"]),
        ("a) one\nb) two", ["a", "b"]),
        ("In 1990. 5 of them. - no", []),
        ("Try it:\n```\n- x\n1. y\n```\n- Boil", ["-"]),
        ("**Bold** *soft*\n-5 degrees\n- ", []),
        ("The end.\n3. Third", ["3"]),
        (" \n\n- First\n", ["-"]),
        ("  a) one. b) two.", ["a"]),
    ],
)
def test_marks(text: str, expected: list[str]) -> None:
    assert item_marks(text) == expected


def test_order_matters_and_more_is_allowed() -> None:
    assert occurs_in_order(["1", "3"], ["1", "2", "3"])
    assert not occurs_in_order(["3", "1"], ["1", "2", "3"])
    assert not occurs_in_order(["-", "-"], ["-"])
