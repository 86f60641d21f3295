"""Removal of words from the comments of a code block. A comment that loses all words is removed, too.

The code stays byte for byte. A comment alone in its line is removed with the line, a comment behind code with the
spaces before it. Of a comment of several lines only the lines without words are removed if other lines have words.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from aligner_proxy.text.code_comments import QUOTES, comment_places, is_needed_docstring
from aligner_proxy.text.code_lexing import Place

_REMOVED = "\x00"
"""Character that stands in place of each character to be removed."""
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_EMPTY_LINE = re.compile(r"[ \t*]*\s*")
"""Matches a line without words, also in a comment whose lines begin with a star."""
_BORDER_LINE = re.compile(r"[ \t]*(?:(?:```|~~~).*|/\*+|\*+/|\"{3}|'{3}|<!--|-->)\s*")
"""Matches a line that only begins or ends a code block or a comment."""
_RUBY_COMMENT_BORDER = re.compile(r"^=(?:begin|end)\b", re.MULTILINE)
_ENDS_BEFORE_EXTRA_SPACE = ("", " ", "\t", "(", "[", "{")
_PAIR_TO_SEPARATE = re.compile(r"\w\w|([-+&|<>=*/:.])\1")
"""Matches two characters that mean something else if they stand side by side without a space."""
_REMOVED_IN_BRACES = re.compile(r"\{[ \t]*(?P<comment>\x00+)[ \t]*\}")
"""Matches a removed comment in braces, as JSX writes it."""


def remove_comment_words(block: str, places: Sequence[Place]) -> str:
    """A code block without the words at `places` (in its comments), and without the comments that lose all words.

    Empty if the block has a NUL character, which marks here what is to be removed.
    """
    if _REMOVED in block:
        return ""
    chars = list(block)
    for start, end in places:
        chars[start:end] = _REMOVED * (end - start)
    starts = sorted(start for start, _ in places)
    for start, end in comment_places(block):
        has_removed_words = bisect_left(starts, start) < bisect_left(starts, end)
        if has_removed_words:
            _remove_comment_signs(chars, block, start, end)
    text = _REMOVED_IN_BRACES.sub(lambda match: _REMOVED * len(match[0]), "".join(chars))
    return _join_lines(text)


def _remove_comment_signs(chars: list[str], block: str, start: int, end: int) -> None:
    """Mark the comment from `start` to `end` as removed if no words are left, otherwise only its lines without words.

    `chars` are the characters of `block`, in which the words to be removed are marked already.
    """
    comment = "".join(chars[start:end])
    if not _has_words(comment):
        if not is_needed_docstring(block, start, end):
            chars[start:end] = _REMOVED * (end - start)
        return
    line_starts = [start, *(start + match.end() for match in re.finditer("\n", comment)), end]
    lines = list(pairwise(line_starts))
    # the first and the last line have the signs that begin and end the comment
    for line_start, line_end in lines[1:-1]:
        line = "".join(chars[line_start:line_end])
        if _REMOVED in line and not _has_words(line):
            visible_length = len(line.rstrip())
            chars[line_start : line_start + visible_length] = _REMOVED * visible_length


def _has_words(text: str) -> bool:
    """Whether a comment or a line has words; Ruby's "=begin" and "=end" around a comment do not count."""
    return any(map(str.isalnum, _RUBY_COMMENT_BORDER.sub("", text)))


def _join_lines(text: str) -> str:
    """The lines of a text without the marked characters.

    A line of which nothing is left is dropped, and so is one of two lines without words around it.
    """
    remaining_lines: list[str] = []
    follows_dropped = False
    for line in _LINE.findall(text):
        if _REMOVED in line:
            line = _remove_marked(line)
            if not line.strip():
                # a line that ends in a backslash continues with the next line, so that line must stay, but empty
                if remaining_lines and remaining_lines[-1].rstrip().endswith("\\"):
                    remaining_lines.append("\n")
                follows_dropped = True
                continue
        elif follows_dropped and remaining_lines:
            last_is_empty = _EMPTY_LINE.fullmatch(remaining_lines[-1])
            if _EMPTY_LINE.fullmatch(line) and (last_is_empty or _BORDER_LINE.fullmatch(remaining_lines[-1])):
                continue
            if _BORDER_LINE.fullmatch(line) and last_is_empty:
                remaining_lines.pop()
        follows_dropped = False
        remaining_lines.append(line)
    joined = "".join(remaining_lines)
    return joined if text.endswith("\n") else joined.rstrip("\n")


def _remove_marked(line: str) -> str:
    """A line without its marked characters, and without the spaces that are superfluous then.

    Of spaces on both sides one is dropped ("a /* b */ c" becomes "a c"); at the end of a line all are dropped.
    """
    text, *later_pieces = re.split(f"{_REMOVED}+", line)
    for piece in later_pieces:
        # the removed characters stood at the end of the line, or before the quotation marks that end a docstring
        if not piece.strip() or piece.startswith(QUOTES):
            text = text.rstrip(" \t")
        # without a space two words would become one word, and two "+" another operator
        if _PAIR_TO_SEPARATE.fullmatch(text[-1:] + piece[:1]):
            text += " "
        begins_text = text[-1:] in _ENDS_BEFORE_EXTRA_SPACE or text.endswith(QUOTES)
        has_double_space = piece[:1] == " " and begins_text
        text += piece[1:] if has_double_space else piece
    return text
