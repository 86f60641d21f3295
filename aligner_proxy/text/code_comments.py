"""Comments in code: where they stand, code without them, and whether two pieces of code differ only in their comments.

The language is the one that the code block names. If it names no known language, only lines that begin with a comment
sign count as comments, and so it is if its lexer takes much longer than for any real code (`_SECONDS_PER_CHAR`).
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Any

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, String
from pygments.util import ClassNotFound

from aligner_proxy.text.structure import split

Place = tuple[int, int]
"""Start and end of words in a text."""

_BLOCK = re.compile(
    r"(?P<head>[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n)(?P<code>.*?)"
    r"(?P<foot>(?:\n|(?<=\n))[ \t]*+(?P=fence)[ \t]*+)?",
    re.DOTALL,
)
_LINE_COMMENT = re.compile(r"^[ \t]*(?:#(?!!)|//|--[ \t]).*(?:\n|$)", re.MULTILINE)
_DIFF_COMMENT = re.compile(r"^[+ -][ \t]*(?:#(?!!)|//|--[ \t]).*(?:\n|$)", re.MULTILINE)
"""The same in the lines of a diff, behind the sign of the line."""
_DIFFS = frozenset({"diff", "patch", "udiff"})
_HUNK = re.compile(r"^@@ ", re.MULTILINE)
"""Matches the head of a part of a diff, which counts its lines, so that none may go."""
_COMMENT_WORDS = re.compile(
    r"^[ \t]*\+?[#/*!<%;\"'-]*[ \t]*(?P<words>[^\n]*?)[ \t]*(?:\*+/|-->|\"{3}|'{3})?[ \t\r]*$",
    re.MULTILINE,
)
"""One line of a comment, with its signs around the words."""
_NO_REMARK = (Comment.Hashbang, Comment.Preproc, Comment.PreprocFile, Comment.Special)
"""Token types that lexers class as comments although a program needs them."""
QUOTES = ('"""', "'''")
"""Signs around a docstring."""
_BEFORE_DOCSTRING = re.compile(r"\s*(?:(?:async\s+def|def|class)\b.*|\).*):\s*(?:#.*)?$")
"""Matches the last line of the head of a function or class in Python."""
_LONGEST_HEAD = 400
"""Characters before a docstring in which the line above it is found."""
_NEXT_LINE = re.compile(r"\n(?P<indent>[ \t]*)\S")
_ENDLESS = frozenset({"mcschema", "tnt"})
"""Languages whose lexers never end on some code, such as a single bracket."""
_SECONDS_PER_CHAR = 60e-6
"""Processor time that a lexer may take, beside 20 ms: five times as long as for dense code on a slow core. On some
texts, such as thousands of empty lines, the time of lexers grows with the square of the length."""
_MAX_SECONDS = 1.0
_CACHED_BLOCKS = 64
_CACHED_CHARS = 16_000
"""The longest code whose comments are cached: the cache is limited by number, so long code could fill the memory."""


def without_comments(block: str) -> str | None:
    """A code block without its comments; None if it has none, is not a code block, or consists only of comments."""
    match = _BLOCK.fullmatch(block)
    if match is None:
        return None
    code = match["code"]
    code_alone = _remove_comments(code, match["language"])
    if code_alone == code or not code_alone.strip():
        return None
    return match["head"] + code_alone.strip("\n") + (match["foot"] or "")


def comment_ranges(block: str) -> list[Place]:
    """The places of the sentences in each line of a code block's comments, without the signs of a comment."""
    return [
        (start + line.start("words") + sentence.start, start + line.start("words") + sentence.end)
        for start, end in comment_places(block)
        for line in _COMMENT_WORDS.finditer(block[start:end])
        for sentence in split(line["words"])
    ]


def comment_places(block: str) -> list[Place]:
    """The places of a code block's comments and docstrings, with their signs; none of them ends in white space."""
    match = _BLOCK.fullmatch(block)
    if match is None:
        return []
    code = match["code"]
    remarks = _find_remarks(code, match["language"])
    if remarks is None:
        # without a lexer, comments are found by the signs of the language
        spans = [comment.span() for comment in _line_comments(code, match["language"]).finditer(code)]
    else:
        spans = _join_pieces(code, [(start, end) for start, end, _ in remarks])
    code_start = match.start("code")
    return [_trim_place(block, code_start + start, code_start + end) for start, end in spans]


def _find_remarks(code: str, language: str) -> tuple[tuple[int, int, bool], ...] | None:
    """What `_lex_remarks` finds, cached for code of usual length."""
    return (_lex_remarks if len(code) <= _CACHED_CHARS else _lex_remarks.__wrapped__)(code, language)


@lru_cache(maxsize=_CACHED_BLOCKS)
def _lex_remarks(code: str, language: str) -> tuple[tuple[int, int, bool], ...] | None:
    """Where comments and docstrings are, as the lexer cuts them, each with whether it is a comment.

    None if no lexer of the language can be trusted with this code.
    """
    lexer = _find_lexer(language)
    if lexer is None:
        return None
    last_moment = time.thread_time() + min(0.02 + len(code) * _SECONDS_PER_CHAR, _MAX_SECONDS)
    remarks: list[tuple[int, int, bool]] = []
    # many lexers see a comment only if its line ends
    for start, kind, text in lexer.get_tokens_unprocessed(f"{code}\n"):
        if time.thread_time() > last_moment:
            return None
        is_comment = _is_remark(kind)
        if is_comment or _is_docstring(kind, code, start, text):
            remarks.append((start, min(start + len(text), len(code)), is_comment))
    return tuple(remarks)


def _join_pieces(code: str, pieces: list[Place]) -> list[Place]:
    """The places of remarks; one that the lexer cuts into pieces within a line is one."""
    places: list[Place] = []
    for start, end in pieces:
        first = start
        if places and places[-1][1] == start and code[start - 1] != "\n":
            first, _ = places.pop()
        places.append((first, end))
    return places


def _trim_place(text: str, start: int, end: int) -> Place:
    """A place in a text without the white space around its words."""
    words = text[start:end]
    return start + len(words) - len(words.lstrip()), start + len(words.rstrip())


def _is_docstring(kind: Any, code: str, start: int, text: str) -> bool:
    """Whether a token is a comment that a lexer classes as a string: of Rust, or the docstring of a Python block."""
    if kind not in String.Doc:
        return False
    if text.startswith(("//", "/*")):
        return True
    before = code[max(0, start - _LONGEST_HEAD) : start].rstrip().rpartition("\n")[2]
    return not before or _BEFORE_DOCSTRING.match(before) is not None


def is_needed_docstring(block: str, start: int, end: int) -> bool:
    """Whether the comment between `start` and `end` is a docstring that is the whole body of its function or class."""
    if block[start : start + 3] not in QUOTES:
        return False
    indent = start - block.rfind("\n", 0, start) - 1
    behind = _NEXT_LINE.search(block, end)
    return indent > 0 and (behind is None or len(behind["indent"]) < indent)


def same_code(block: str, other: str) -> bool:
    """Whether two blocks are equal apart from comments, empty lines and trailing white space."""
    return _compared_lines(block) == _compared_lines(other)


def _compared_lines(block: str) -> list[str]:
    """The lines of a block without comments, empty lines and trailing white space."""
    lines = ((without_comments(block) or block).strip()).splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def _remove_comments(code: str, language: str) -> str:
    """The code without comments; lines that held nothing else are dropped."""
    remarks = _find_remarks(code, language)
    if remarks is None:
        return _line_comments(code, language).sub("", code)
    pieces: list[str] = []
    position = 0
    for start, end, is_comment in remarks:
        if is_comment:
            # the line breaks of a comment stay, so that each line can be compared with the original line
            pieces += [code[position:start], "\n" * code.count("\n", start, end)]
            position = end
    stripped = "".join([*pieces, code[position:]])
    return "\n".join(_drop_comment_lines(code.split("\n"), stripped.split("\n")))


def _line_comments(code: str, language: str) -> re.Pattern[str]:
    """Matches the lines of comments, where no lexer finds them."""
    return _DIFF_COMMENT if language.lower() in _DIFFS and not _HUNK.search(code) else _LINE_COMMENT


def _is_remark(kind: Any) -> bool:
    """Whether a token of this type is a comment that no program needs."""
    return kind in Comment and not any(kind in needed for needed in _NO_REMARK)


def _drop_comment_lines(original_lines: list[str], stripped_lines: list[str]) -> list[str]:
    """The lines of code without its comments, except those that consisted only of a comment."""
    pairs = zip(original_lines, stripped_lines, strict=True)
    return [new if new == old else new.rstrip() for old, new in pairs if new.strip() or not old.strip()]


def _find_lexer(language: str) -> Lexer | None:
    """The lexer of a language; None if the name is empty or unknown, or the lexer cannot be trusted to end."""
    name = language.lower()
    try:
        # PHP without its opening tag is read as PHP all the same; other lexers ignore the option
        return get_lexer_by_name(name, startinline=True) if name and name not in _ENDLESS | _DIFFS else None
    except ClassNotFound:
        return None
