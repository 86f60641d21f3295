"""Characters that nobody sees: each is shown as its number, and nothing else is touched."""

from __future__ import annotations

import unicodedata

import pytest

from aligner_proxy.text.hidden import escape_hidden, is_hidden


def test_no_control_and_no_mark_of_direction_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = {unicodedata.category(char) for char in escape_hidden(every) if char not in "\n\t"}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("char", "shown"),
    [("\x1b", "\\x1b"), ("\x7f", "\\x7f"), ("\x9b", "\\x9b"), ("\r", "\\x0d"), ("\u202e", "\\u202e"),
     ("\ud800", "\\ud800"), ("\U000e0041", "\\U000e0041")],
)  # fmt: skip
def test_a_hidden_character_is_its_number(char: str, shown: str) -> None:
    assert is_hidden(char)
    assert escape_hidden(f"a{char}b") == f"a{shown}b"


@pytest.mark.parametrize("text", ["", "Plain words.\n\tMore.", "Grüße, ありがとう, 🙂", "a\\x1b"])
def test_other_texts_stay(text: str) -> None:
    assert escape_hidden(text) == text
