"""Characters that nobody sees, or that act on others: controls, marks of direction and of no width, halves of pairs."""

from __future__ import annotations

import re
import unicodedata

_SEEN = re.compile(r"[\n\t -~]*")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def is_hidden(char: str) -> bool:
    """Whether a character is not seen, or acts on others. Ends of lines and tabs are what they look like."""
    # Printable ASCII is most of every text, and asking for a category is slow.
    if " " <= char <= "~" or char in "\n\t":
        return False
    return unicodedata.category(char) in _HIDDEN


def escape_hidden(text: str) -> str:
    """The text with each such character as its number, as in a literal of Python or JSON: `\\x1b`, `\\u202e`."""
    if _SEEN.fullmatch(text):
        return text
    return "".join(escape_char(char) if is_hidden(char) else char for char in text)


def escape_char(char: str) -> str:
    """A character as the literal that stands for it."""
    code = ord(char)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
