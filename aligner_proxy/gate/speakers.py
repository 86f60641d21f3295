"""Is a text a dialogue from its beginning, and how often does each speaker say something? Read from its form alone.

An answer that runs on into an invented dialogue begins with a reply. One that opens with a speaker's line, or with a
title and then one, is the interview, scene or sample chat that somebody asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import takewhile

_LINE = re.compile(
    r"[ \t>*_#-]{0,12}\[?(?P<name>[^\W_][^\n:*_\"?!;\[\]()]{0,39}?)"  # who speaks, perhaps set off and in brackets
    r"[ \t]{0,3}(?:\([^()\n]{1,40}\))?[\]*_ \t]{0,6}:[*_]{0,4}[ \t]{1,9}\S"  # perhaps how, the colon, and what
)
_WORDS = 4
_SPEAKERS, _TURNS = 2, 2
# What models write who run on: of these each has to speak again before it is a dialogue.
_ROLES = frozenset({"human", "user", "assistant", "system"})
_TITLE_LINES, _TITLE_CHARS = 4, 80
_SENTENCE = re.compile(r"\w[.!?][\"'\u201d]?$")
_STAGE = tuple("([*_#")


def turns(text: str) -> Counter[str]:
    """How often each speaker of a dialogue has a line; empty where the text is none.

    Nobody has to speak twice but the first who does: a stream is judged by what there is of it.
    """
    spoken = lines(text)
    fewest = _TURNS if _ROLES & spoken.keys() else 1
    speaking = Counter({name: count for name, count in spoken.items() if count >= fewest})
    again = max(spoken.values(), default=0) >= _TURNS
    return speaking if again and len(speaking) >= _SPEAKERS and _opens(text) else Counter()


def lines(text: str) -> Counter[str]:
    """How many lines begin with each name and a colon."""
    return Counter(name for line in text.splitlines() if (name := _speaker(line.strip())))


def _opens(text: str) -> bool:
    """Whether nothing but titles stands before the first speaker's line."""
    before = list(takewhile(lambda line: not _speaker(line), (line.strip() for line in text.splitlines())))
    titles = [line for line in before if line]
    return len(titles) <= _TITLE_LINES and all(map(_is_title, titles))


def _speaker(line: str) -> str | None:
    """Whose line it is; a sentence that ends in a colon is nobody's."""
    match = _LINE.match(line)
    name = match["name"].strip().casefold() if match else ""
    return name if name and len(name.split()) <= _WORDS else None


def _is_title(line: str) -> bool:
    """A title, an announcement or a stage direction: nothing that would be a reply by itself."""
    return line.startswith(_STAGE) or (len(line) <= _TITLE_CHARS and not _SENTENCE.search(line))
