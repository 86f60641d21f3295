"""Escaping of untrusted text on a page: escaped, bounded and isolated, with invisible characters made visible.

An answer can contain HTML, direction marks, zero-width characters, terminal escapes and endless lines. None of these
may act on a page or hide from the reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from markupsafe import Markup, escape

from aligner_proxy.text.hidden import is_hidden

MOST_CHARS = 50_000
"""Characters of one text on a page."""
MOST_OF_NAME = 120
_MOST_MARKS = 500
"""Runs of hidden characters that are shown; the rest of the text is cut."""


def show_text(text: object, most: int = MOST_CHARS) -> Markup:
    """A text as HTML, in an element of its own."""
    return Markup('<span class="text" dir="auto">{}</span>').format(_escape_bounded(str(text), most))


def show_name(text: object) -> Markup:
    """A short text, such as the name of a tenant or a model, which a client may have chosen."""
    return Markup('<bdi class="name">{}</bdi>').format(_escape_bounded(str(text), MOST_OF_NAME))


def show_plain(text: object, most: int = MOST_OF_NAME) -> str:
    """The same for an attribute, where there are no elements."""
    text = str(text)
    visible = "".join(f"[U+{ord(char):04X}]" if is_hidden(char) else char for char in text[:most])
    return visible + ("…" if len(text) > most else "")


def _escape_bounded(text: str, most: int) -> Markup:
    """The text with each run of a hidden character replaced by its code point."""
    pieces = list[Markup]()
    marks = 0
    end = 0
    for run in _runs(text[:most]):
        if is_hidden(run[0]):
            marks += 1
            if marks > _MOST_MARKS:
                break
            pieces.append(_hidden_mark(run))
        else:
            pieces.append(escape(run))
        end += len(run)
    if more := len(text) - end:
        pieces.append(Markup(' <span class="cut">… and {} more characters</span>').format(f"{more:,}"))
    return Markup("").join(pieces)


def _runs(text: str) -> Iterator[str]:
    """The text split into runs of visible characters and runs of one hidden character."""
    for _, run in groupby(text, lambda char: char if is_hidden(char) else ""):
        yield "".join(run)


def _hidden_mark(run: str) -> Markup:
    times = f" ×{len(run):,}" if len(run) > 1 else ""
    return Markup('<span class="hidden-mark">U+{}{}</span>').format(f"{ord(run[0]):04X}", times)
