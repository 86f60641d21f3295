"""Escaping of untrusted text for pages: HTML is escaped, length is bounded, and hidden characters become visible.

An answer can contain HTML, direction marks, zero-width characters, terminal escapes and endless lines. None of these
may affect a page or be invisible to the reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from markupsafe import Markup, escape

from aligner_proxy.text.hidden import is_hidden

MAX_CHARS = 50_000
"""Longest text shown on a page."""
MAX_OF_NAME = 120
"""Longest name shown on a page."""
_MAX_MARKS = 500
"""How many runs of hidden characters are shown; the text is cut after them."""


def show_text(text: object, max_chars: int = MAX_CHARS) -> Markup:
    """A text as escaped HTML in its own element."""
    return Markup('<span class="text" dir="auto">{}</span>').format(_escape_bounded(str(text), max_chars))


def show_name(text: object) -> Markup:
    """A short text as escaped HTML, such as the name of a tenant or model, which a client may have chosen."""
    return Markup('<bdi class="name">{}</bdi>').format(_escape_bounded(str(text), MAX_OF_NAME))


def show_plain(text: object, max_chars: int = MAX_OF_NAME) -> str:
    """A text for an HTML attribute, cut, with hidden characters as [U+....], since no elements are possible there."""
    text = str(text)
    visible = "".join(f"[U+{ord(char):04X}]" if is_hidden(char) else char for char in text[:max_chars])
    return visible + ("…" if len(text) > max_chars else "")


def _escape_bounded(text: str, max_chars: int) -> Markup:
    """Escape at most `max_chars` of a text; each run of a hidden character becomes its code point."""
    pieces = list[Markup]()
    marks = 0
    end = 0
    for run in _split_runs(text[:max_chars]):
        if is_hidden(run[0]):
            marks += 1
            if marks > _MAX_MARKS:
                break
            pieces.append(_hidden_mark(run))
        else:
            pieces.append(escape(run))
        end += len(run)
    # cut by length or by the number of marks
    if more := len(text) - end:
        pieces.append(Markup(' <span class="cut">… and {} more characters</span>').format(f"{more:,}"))
    return Markup("").join(pieces)


def _split_runs(text: str) -> Iterator[str]:
    """The text split into runs of visible characters and runs of one hidden character."""
    # all visible characters have the same key, each hidden one its own
    for _, run in groupby(text, lambda char: char if is_hidden(char) else ""):
        yield "".join(run)


def _hidden_mark(run: str) -> Markup:
    """The code point of a hidden character, and how often it occurs in this run, as in "U+200B ×3"."""
    times = f" ×{len(run):,}" if len(run) > 1 else ""
    return Markup('<span class="hidden-mark">U+{}{}</span>').format(f"{ord(run[0]):04X}", times)
