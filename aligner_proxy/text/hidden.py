"""Hidden characters: invisible ones and ones that act on others, such as controls, bidi marks and lone surrogates."""

from __future__ import annotations

import re
import unicodedata

_SEEN = re.compile(r"[\n\t -~]*")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def is_hidden(char: str) -> bool:
    """Whether a character is invisible or acts on others. Line feeds and tabs count as visible."""
    # Most text is printable ASCII, and looking up a category is slow.
    if " " <= char <= "~" or char in "\n\t":
        return False
    return unicodedata.category(char) in _HIDDEN


def escape_hidden(text: str) -> str:
    """The text with each hidden character written as an escape, as in Python or JSON: `\\x1b`, `\\u202e`."""
    if _SEEN.fullmatch(text):
        return text
    return "".join(escape_char(char) if is_hidden(char) else char for char in text)


def escape_char(char: str) -> str:
    """The escape of a character, as in Python: `\\x1b`, `\\u202e`."""
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
