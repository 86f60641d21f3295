"""Hidden characters: invisible ones and ones that act on others, such as controls, bidi marks and lone surrogates."""

from __future__ import annotations

import re
import unicodedata

_VISIBLE_ASCII = re.compile(r"[\n\t -~]*")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def is_hidden(char: str) -> bool:
    """Whether a character is invisible or acts on others. Line feeds and tabs count as visible."""
    # Most text is printable ASCII, and looking up a category is slow.
    if " " <= char <= "~" or char in "\n\t":
        return False
    return unicodedata.category(char) in _HIDDEN_CATEGORIES


def escape_hidden(text: str) -> str:
    """The text with each hidden character written as an escape sequence, such as `\\x1b` or `\\u202e`."""
    if _VISIBLE_ASCII.fullmatch(text):
        return text
    return "".join(escape_char(char) if is_hidden(char) else char for char in text)


def escape_char(char: str) -> str:
    """The escape sequence of a character, as in Python: `\\x1b`, `\\u202e`."""
    code_point = ord(char)
    if code_point <= 0xFF:
        return f"\\x{code_point:02x}"
    return f"\\u{code_point:04x}" if code_point <= 0xFFFF else f"\\U{code_point:08x}"
