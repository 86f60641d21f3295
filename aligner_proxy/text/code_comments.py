"""Comments in code: where they stand, code without them, and whether two pieces of code differ only in their comments.

A lexer of the language that the code block names finds the comments. If the block names no known language, or if the
lexer takes much longer than for any real code (`_SECONDS_PER_CHAR`), only lines that begin with a comment sign count.
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
"""Start and end (exclusive) of words in a text."""

_CODE_BLOCK = re.compile(
    r"(?P<head>[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n)(?P<code>.*?)"
    r"(?P<foot>(?:\n|(?<=\n))[ \t]*+(?P=fence)[ \t]*+)?",
    re.DOTALL,
)
_LINE_COMMENT = re.compile(r"^[ \t]*(?:#(?!!)|//|--[ \t]).*(?:\n|$)", re.MULTILINE)
_DIFF_COMMENT = re.compile(r"^[+ -][ \t]*(?:#(?!!)|//|--[ \t]).*(?:\n|$)", re.MULTILINE)
"""Matches a comment line in a diff, behind the diff's sign at the beginning of the line."""
_DIFF_LANGUAGES = frozenset({"diff", "patch", "udiff"})
_HUNK_HEAD = re.compile(r"^@@ ", re.MULTILINE)
"""Matches the head of a part of a diff. The head counts the lines, so none of them may be removed."""
_COMMENT_WORDS = re.compile(
    r"^[ \t]*\+?[#/*!<%;\"'-]*[ \t]*(?P<words>[^\n]*?)[ \t]*(?:\*+/|-->|\"{3}|'{3})?[ \t\r]*$",
    re.MULTILINE,
)
"""Matches one line of a comment, with the comment signs around its words."""
_NEEDED_COMMENTS = (Comment.Hashbang, Comment.Preproc, Comment.PreprocFile, Comment.Special)
"""Token types that lexers class as comments although a program needs them."""
QUOTES = ('"""', "'''")
"""Signs around a docstring."""
_BLOCK_HEAD = re.compile(r"\s*(?:(?:async\s+def|def|class)\b.*|\).*):\s*(?:#.*)?$")
"""Matches the last line of the head of a function or class in Python."""
_HEAD_CHARS = 400
"""Characters before a docstring in which the line above it is found."""
_NEXT_LINE = re.compile(r"\n(?P<indent>[ \t]*)\S")
_ENDLESS_LEXERS = frozenset({"mcschema", "tnt"})
"""Languages whose lexers never end on some code, such as a single bracket."""
_SECONDS_PER_CHAR = 60e-6
"""Processor time that a lexer may take per character, in addition to 20 ms: five times as much as for dense code on a
slow core. On some texts, such as thousands of empty lines, the time of lexers grows with the square of the length."""
_MAX_LEXER_SECONDS = 1.0
_CACHED_BLOCKS = 64
_MAX_CACHED_CHARS = 16_000
"""Longest code whose comments are cached. The cache is limited by number, so longer code could fill the memory."""


def without_comments(block: str) -> str | None:
    """A code block without its comments; None if it has none, is not a code block, or consists only of comments."""
    match = _CODE_BLOCK.fullmatch(block)
    if match is None:
        return None
    code = match["code"]
    code_alone = _remove_comments(code, match["language"])
    if code_alone == code or not code_alone.strip():
        return None
    return match["head"] + code_alone.strip("\n") + (match["foot"] or "")


def comment_ranges(block: str) -> list[Place]:
    """The places of the sentences in a code block's comments, line by line and without the signs of the comments."""
    places: list[Place] = []
    for start, end in comment_places(block):
        for line in _COMMENT_WORDS.finditer(block[start:end]):
            words_start = start + line.start("words")
            for sentence in split(line["words"]):
                places.append((words_start + sentence.start, words_start + sentence.end))
    return places


def comment_places(block: str) -> list[Place]:
    """The places of a code block's comments and docstrings, with their signs; no place ends in white space.

    Empty if `block` is not a code block.
    """
    match = _CODE_BLOCK.fullmatch(block)
    if match is None:
        return []
    code = match["code"]
    remarks = _find_remarks(code, match["language"])
    if remarks is None:
        # without a lexer, comments are found by the signs of the language
        places = [comment.span() for comment in _line_comments(code, match["language"]).finditer(code)]
    else:
        places = _join_pieces(code, [(start, end) for start, end, _ in remarks])
    code_start = match.start("code")
    return [_trim_place(block, code_start + start, code_start + end) for start, end in places]


def _find_remarks(code: str, language: str) -> tuple[tuple[int, int, bool], ...] | None:
    """What `_lex_remarks` finds, cached for code of usual length."""
    if len(code) <= _MAX_CACHED_CHARS:
        return _lex_remarks(code, language)
    return _lex_remarks.__wrapped__(code, language)


@lru_cache(maxsize=_CACHED_BLOCKS)
def _lex_remarks(code: str, language: str) -> tuple[tuple[int, int, bool], ...] | None:
    """The comments and docstrings in code as the lexer cuts them, each (start, end, whether it is a comment).

    None if there is no lexer of the language, or if it takes too long.
    """
    lexer = _find_lexer(language)
    if lexer is None:
        return None
    deadline = time.thread_time() + min(0.02 + len(code) * _SECONDS_PER_CHAR, _MAX_LEXER_SECONDS)
    remarks: list[tuple[int, int, bool]] = []
    # the line feed, because many lexers see a comment only if its line ends
    for start, token_type, text in lexer.get_tokens_unprocessed(f"{code}\n"):
        if time.thread_time() > deadline:
            return None
        is_comment = _is_comment(token_type)
        if is_comment or _is_docstring(token_type, code, start, text):
            remarks.append((start, min(start + len(text), len(code)), is_comment))
    return tuple(remarks)


def _join_pieces(code: str, pieces: list[Place]) -> list[Place]:
    """The places of comments, given the places of the `pieces` into which the lexer cuts some within a line."""
    places: list[Place] = []
    for start, end in pieces:
        continues_last = bool(places) and places[-1][1] == start and code[start - 1] != "\n"
        place_start = places.pop()[0] if continues_last else start
        places.append((place_start, end))
    return places


def _trim_place(text: str, start: int, end: int) -> Place:
    """The place from `start` to `end` of a text without the white space at its edges."""
    words = text[start:end]
    leading_space = len(words) - len(words.lstrip())
    return start + leading_space, start + len(words.rstrip())


def _is_docstring(token_type: Any, code: str, start: int, text: str) -> bool:
    """Whether the token `text` at offset `start` is documentation that a lexer classes as a string.

    That is a documentation comment of Rust, or a docstring of Python.
    """
    if token_type not in String.Doc:
        return False
    if text.startswith(("//", "/*")):
        return True
    line_above = code[max(0, start - _HEAD_CHARS) : start].rstrip().rpartition("\n")[2]
    return not line_above or _BLOCK_HEAD.match(line_above) is not None


def is_needed_docstring(block: str, start: int, end: int) -> bool:
    """Whether the comment from `start` to `end` is a docstring that is the whole body of its function or class.

    Without it the code could not be run.
    """
    if block[start : start + 3] not in QUOTES:
        return False
    indent = start - block.rfind("\n", 0, start) - 1
    next_line = _NEXT_LINE.search(block, end)
    ends_body = next_line is None or len(next_line["indent"]) < indent
    return indent > 0 and ends_body


def same_code(block: str, other: str) -> bool:
    """Whether two blocks are equal apart from comments, empty lines and trailing white space."""
    return _compared_lines(block) == _compared_lines(other)


def _compared_lines(block: str) -> list[str]:
    """The lines of a block without comments, empty lines and trailing white space."""
    lines = ((without_comments(block) or block).strip()).splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def _remove_comments(code: str, language: str) -> str:
    """The code without comments; lines that were only a comment are dropped."""
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
    """The pattern of comment lines for a language without a lexer; in a diff they may begin with its sign."""
    return _DIFF_COMMENT if language.lower() in _DIFF_LANGUAGES and not _HUNK_HEAD.search(code) else _LINE_COMMENT


def _is_comment(token_type: Any) -> bool:
    """Whether a token of this type is a comment that no program needs."""
    return token_type in Comment and not any(token_type in needed_type for needed_type in _NEEDED_COMMENTS)


def _drop_comment_lines(original_lines: list[str], stripped_lines: list[str]) -> list[str]:
    """The `stripped_lines` (code without its comments), except those that were only a comment in `original_lines`.

    Both have the same number of lines.
    """
    lines: list[str] = []
    for original, stripped in zip(original_lines, stripped_lines, strict=True):
        was_only_comment = bool(original.strip()) and not stripped.strip()
        if not was_only_comment:
            lines.append(stripped if stripped == original else stripped.rstrip())
    return lines


def _find_lexer(language: str) -> Lexer | None:
    """The lexer of a language; None if the name is empty or unknown, or the lexer cannot be trusted to end."""
    name = language.lower()
    if not name or name in _ENDLESS_LEXERS | _DIFF_LANGUAGES:
        return None
    try:
        # the option makes PHP's lexer read code without the opening tag; other lexers ignore it
        return get_lexer_by_name(name, startinline=True)
    except ClassNotFound:
        return None
