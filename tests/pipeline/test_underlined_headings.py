"""Headings with a line of dashes or equals signs below them: both lines go together, whole and in streams."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways

TEA = "Tea is good for you."
HOT = "It is best when it is hot."
FOOL = "You are a fool."
CASES: list[tuple[str, str]] = [
    # the heading itself is flagged
    (f"{TEA}\n\nYou are a fool\n===\n\n{HOT}", f"{TEA}\n\n{HOT}"),
    (f"{TEA}\n\nYou are a fool\n---\n\n{HOT}", f"{TEA}\n\n{HOT}"),
    (f"You are a fool\n===\n\n{HOT}\n\n{TEA}", f"{HOT}\n\n{TEA}"),
    (f"You are a fool\n---\n\n{FOOL}\n\n{HOT}", HOT),
    (f"You are a fool\r\n===\r\n\r\n{HOT}", HOT),
    # all of its section is
    (f"{TEA}\n\nAbout you\n---\n\n{FOOL}\n\nAbout tea\n---\n\n{HOT}", f"{TEA}\n\nAbout tea\n---\n\n{HOT}"),
    (f"About you\n===\n\n{FOOL}\n\nAbout tea\n===\n\n{HOT}", f"About tea\n===\n\n{HOT}"),
    (f"{TEA}\n\nAbout you\n---\n\n{FOOL}", TEA),
    (f"{TEA}\n\nAbout you\n---\n\n{FOOL}\n\n# End\n\n{HOT}", f"{TEA}\n\n# End\n\n{HOT}"),
    (
        f"{TEA}\n\nA\n---\n\n{FOOL}\n\nB\n---\n\n{FOOL}\n\nC\n---\n\n{HOT}",
        f"{TEA}\n\nC\n---\n\n{HOT}",
    ),
    # more of its section stays
    (f"{TEA}\n\nAbout you\n---\n\n{FOOL} {HOT}", f"{TEA}\n\nAbout you\n---\n\n{HOT}"),
    (f"About you\n===\n\n{FOOL}\n\nAbout tea\n---\n\n{HOT}", f"About you\n===\n\nAbout tea\n---\n\n{HOT}"),
    # no underline: a list, a break
    (f"{FOOL}\n\nAll there is to bring\n- {TEA}\n- {HOT}", f"All there is to bring\n- {TEA}\n- {HOT}"),
    (f"{TEA}\n\n{FOOL}\n\n---\n\n{HOT}", f"{TEA}\n\n---\n\n{HOT}"),
]


@pytest.mark.parametrize(("answer", "left"), CASES)
async def test_an_underline_goes_with_its_heading_and_a_heading_with_its_section(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}
