"""Which facts does a text hold? Numbers, addresses, code blocks and names, found by form alone.

Every function reads one text and returns a set; comparing sets is the gate's business. Names are capitalised words in
the middle of a sentence, so scripts without capitals have none, and languages that capitalise every noun have many.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aligner_proxy import segments

FactReader = Callable[[str], set[str]]
_WEB = re.compile(r"(?:https?://|\bwww\.)[^\s<>]+", re.IGNORECASE)
# The look-behind and the bound keep the search linear on long runs of letters.
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
# A minus counts only where no word, number or bracket stands before it: "2-3" is a range, not 2 and -3.
_NUMBER = re.compile(r"(?:(?<![\w.)\]])[-\u2212])?\d+(?:[.,:/]\d+)*")
_LIST_MARK = re.compile(r"^[ \t]*\d{1,3}[.)](?=\s)", re.MULTILINE)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NAME = re.compile(r"(?<=[\w,;)] )[^\W\d_][\w'\u2019-]*")


def addresses(text: str) -> set[str]:
    """Web and mail addresses, without the punctuation that follows them in a sentence."""
    found = [match.group().rstrip(".,;:!?)]}'\"*_\u201d\u2019") for match in _WEB.finditer(text)]
    return {*found, *_MAIL.findall(text)}


def numbers(text: str) -> set[str]:
    """Numbers, times, dates and versions as written, thousands with or without commas; list marks do not count."""
    text = _LIST_MARK.sub(" ", _WEB.sub(" ", text))
    return {_THOUSANDS.sub("", match.group()).replace("\u2212", "-") for match in _NUMBER.finditer(text)}


def code(text: str) -> set[str]:
    """Fenced code blocks, whole."""
    pieces = (segment.text.strip() for segment in segments.split(text))
    return {piece for piece in pieces if piece.startswith(("```", "~~~"))}


def names(text: str) -> set[str]:
    """The words of names, in lower case: capitalised words that do not begin a sentence, a line or a heading."""
    found: set[str] = set()
    for segment in segments.split(text):
        piece = segment.text.strip()
        if not piece.startswith(("#", "```", "~~~")):
            found.update(word for match in _NAME.finditer(piece) if (word := _name(match.group())))
    return found


def _name(word: str) -> str | None:
    stem = re.split(r"['\u2019-]", word, maxsplit=1)[0]
    return stem.casefold() if len(stem) > 1 and stem[0].isupper() else None
