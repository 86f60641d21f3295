"""What stays of a segment whose sentence goes: the title of an item, the cells of a row."""

from __future__ import annotations

import pytest

from aligner_proxy.text.lists.beside import remaining_title


@pytest.mark.parametrize(
    ("text", "behind", "stays"),
    [
        ("1. **Water**: You fool.", "Boil it.", "1. **Water**:"),
        ("- **Water:** You fool.", "Boil it.", "- **Water:**"),
        ("2) __Water__ - You fool.", "Boil it.", "2) __Water__ -"),
        ("**Water** You fool.", "Boil it.", "**Water**"),
        ("1. **Water**: You fool.", "", ""),
        ("1. You fool.", "Boil it.", ""),
        ("1. You **utter** fool.", "Boil it.", ""),
        ("1. **You fool.**", "Boil it.", ""),
        ("| Tap | You fool.", "Turn it. |", "| Tap |"),
        ("| Tap | You fool.", "| Slowly. |", "| Tap |"),
        ("| Tap | 3 | You fool.", "Turn it. |", "| Tap | 3 |"),
        ("| Tap | You fool.", "|", ""),
        ("| Tap | You fool.", "| 3 |", ""),
        ("| 1 | You fool.", "Turn it. |", ""),
        ("| You fool.", "Turn it. |", ""),
        (r"| a \| b | You fool.", "Turn it. |", r"| a \| b |"),
        ("", "", ""),
    ],
)
def test_what_stands_beside_a_sentence(text: str, behind: str, stays: str) -> None:
    assert remaining_title(text, behind) == stays
