"""Escaping of untrusted text for pages: HTML is escaped, length is bounded, and hidden characters become visible.

An answer can contain HTML, direction marks, zero-width characters, terminal escapes and endless lines. None of these
may affect a page or be invisible to the reader.
"""

from __future__ import annotations

from itertools import groupby

from markupsafe import Markup, escape

from aligner_proxy.text.hidden import is_hidden

MAX_CHARS = 50_000
"""A longer text is cut."""
MAX_OF_NAME = 120
"""A name with more characters is cut."""
_MAX_MARKS = 500
"""A text is cut behind this many runs of hidden characters."""


def show_text(text: object, max_chars: int = MAX_CHARS) -> Markup:
    """Return a text as escaped HTML in an element of its own."""
    return Markup('<span class="text" dir="auto">{}</span>').format(_escape_bounded(str(text), max_chars))


def show_name(text: object) -> Markup:
    """Return a short text as escaped HTML, such as the name of a tenant or model, which a client may have chosen."""
    return Markup('<bdi class="name">{}</bdi>').format(_escape_bounded(str(text), MAX_OF_NAME))


def show_plain(text: object, max_chars: int = MAX_OF_NAME) -> str:
    """Return a text for an HTML attribute, cut, with hidden characters as [U+....], since it can have no elements."""
    text = str(text)
    visible_text = "".join(f"[U+{ord(char):04X}]" if is_hidden(char) else char for char in text[:max_chars])
    return visible_text + ("…" if len(text) > max_chars else "")


def _escape_bounded(text: str, max_chars: int) -> Markup:
    """Escape at most `max_chars` of a text for HTML; a mark takes the place of each run of hidden characters.

    Behind a text that is cut, at `max_chars` or after `_MAX_MARKS` marks, the number of further characters is shown.
    """
    html_parts = list[Markup]()
    mark_count = 0
    shown_chars = 0
    # all visible characters have the same key, each hidden character its own
    for _, characters in groupby(text[:max_chars], lambda char: char if is_hidden(char) else ""):
        run = "".join(characters)
        if is_hidden(run[0]):
            mark_count += 1
            if mark_count > _MAX_MARKS:
                break
            html_parts.append(_hidden_mark(run))
        else:
            html_parts.append(escape(run))
        shown_chars += len(run)
    if further_chars := len(text) - shown_chars:
        html_parts.append(Markup(' <span class="cut">… and {} more characters</span>').format(f"{further_chars:,}"))
    return Markup("").join(html_parts)


def _hidden_mark(run: str) -> Markup:
    """Return the mark for a run of one hidden character: its code point, and how often it occurs, as in "U+200B ×3"."""
    times = f" ×{len(run):,}" if len(run) > 1 else ""
    return Markup('<span class="hidden-mark">U+{}{}</span>').format(f"{ord(run[0]):04X}", times)
