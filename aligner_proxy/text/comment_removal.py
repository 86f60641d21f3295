"""Removal of words from the comments of a code block: a comment without words goes, the code stays byte for byte.

A comment that stood alone goes with its line, and one behind code with the spaces before it. Of a comment of several
lines only the lines without words go, as long as others have some.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from aligner_proxy.text.code_comments import QUOTES, Place, comment_places, is_needed_docstring

_MARK = "\x00"
"""Put in place of a character that goes."""
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_BLANK = re.compile(r"[ \t*]*\s*")
"""Matches an empty line, also one of a comment whose lines begin with a star."""
_EDGE = re.compile(r"[ \t]*(?:(?:```|~~~).*|/\*+|\*+/|\"{3}|'{3}|<!--|-->)\s*")
"""Matches a line that only begins or ends a block or a comment."""
_RUBY = re.compile(r"^=(?:begin|end)\b", re.MULTILINE)
_BEFORE_SPACE = ("", " ", "\t", "(", "[", "{")
_GLUED = re.compile(r"\w\w|([-+&|<>=*/:.])\1")
"""Matches two neighbours that mean something else without a space between them."""
_BRACES = re.compile(r"\{[ \t]*(?P<comment>\x00+)[ \t]*\}")
"""Matches a removed comment in braces, as JSX writes it."""


def remove_comment_words(block: str, places: Sequence[Place]) -> str:
    """A code block without the words at these places in its comments, and without the comments that lose all words."""
    # nothing can be marked in a block with such characters
    if _MARK in block:
        return ""
    chars = list(block)
    for start, end in places:
        chars[start:end] = _MARK * (end - start)
    starts = sorted(start for start, _ in places)
    for start, end in comment_places(block):
        if bisect_left(starts, start) < bisect_left(starts, end):
            _empty_comment(chars, block, start, end)
    text = _BRACES.sub(lambda match: _MARK * len(match[0]), "".join(chars))
    return _join_lines(text)


def _empty_comment(chars: list[str], block: str, start: int, end: int) -> None:
    """Mark the signs of the comment between `start` and `end`: of all of it, or of its lines without words."""
    rest = "".join(chars[start:end])
    if not _has_words(rest):
        if not is_needed_docstring(block, start, end):
            chars[start:end] = _MARK * (end - start)
        return
    breaks = [start, *(start + match.end() for match in re.finditer("\n", rest)), end]
    lines = list(pairwise(breaks))
    # the first and the last line have the signs that begin and end the comment
    for first, stop in lines[1:-1]:
        line = "".join(chars[first:stop])
        if _MARK in line and not _has_words(line):
            body = len(line.rstrip())
            chars[first : first + body] = _MARK * body


def _has_words(text: str) -> bool:
    """Whether a comment or a line of one says anything; the words of Ruby that begin and end a comment do not."""
    return any(map(str.isalnum, _RUBY.sub("", text)))


def _join_lines(text: str) -> str:
    """The lines without what is marked; a line of which nothing is left goes, and one of two empty lines around it."""
    remaining_lines: list[str] = []
    is_behind_gone = False
    for line in _LINE.findall(text):
        if _MARK in line:
            line = _remove_marked(line)
            if not line.strip():
                # a line that ends in a backslash goes on with the next one, which must be empty
                if remaining_lines and remaining_lines[-1].rstrip().endswith("\\"):
                    remaining_lines.append("\n")
                is_behind_gone = True
                continue
        elif is_behind_gone and remaining_lines:
            if _BLANK.fullmatch(line) and (
                _BLANK.fullmatch(remaining_lines[-1]) or _EDGE.fullmatch(remaining_lines[-1])
            ):
                continue
            if _EDGE.fullmatch(line) and _BLANK.fullmatch(remaining_lines[-1]):
                remaining_lines.pop()
        is_behind_gone = False
        remaining_lines.append(line)
    joined = "".join(remaining_lines)
    return joined if text.endswith("\n") else joined.rstrip("\n")


def _remove_marked(line: str) -> str:
    """A line without what is marked, and without the spaces around it that have become superfluous.

    Of spaces on both sides one behind goes ("a /* b */ c" becomes "a c"), and at the end of a line all go.
    """
    first, *others = re.split(f"{_MARK}+", line)
    text = first
    for piece in others:
        # what went stood at the end of the line, or before the quotation marks that end a docstring
        if not piece.strip() or piece.startswith(QUOTES):
            text = text.rstrip(" \t")
        # without the comment two words would become one, and "+" and "+" another sign
        if _GLUED.fullmatch(text[-1:] + piece[:1]):
            text += " "
        has_double_space = piece[:1] == " " and text[-1:] in _BEFORE_SPACE
        text += piece[1:] if has_double_space else piece
    return text
