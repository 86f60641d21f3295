"""What a lexer finds in a block of code: comments, strings, and other text, such as that between tags.

Each language that the block may name has a lexer of its own (Pygments). Some take very long on some texts, so a lexer
is stopped if it takes much longer than for any real code (`_SECONDS_PER_CHAR`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Literal, Name, String, Text
from pygments.util import ClassNotFound

Place = tuple[int, int]
"""Start and end (exclusive) of words in a text."""

CODE_BLOCK = re.compile(
    r"(?P<head>[ \t]*(?P<fence>```++|~~~++)[ \t]*\{?\.?(?P<language>[\w+#.-]*)[^\n]*\n)(?P<code>.*?)"
    r"(?P<foot>(?:\n|(?<=\n))[ \t]*+(?P=fence)[ \t]*+)?",
    re.DOTALL,
)
DIFF_LANGUAGES = frozenset({"diff", "patch", "udiff"})
"""Names of patches, whose lines begin with a sign of their own. Their lexer sees no language in them."""
_NEEDED_COMMENTS = (Comment.Hashbang, Comment.Preproc, Comment.PreprocFile, Comment.Special)
"""Token types that lexers class as comments although a program needs them."""
_PATTERNS = (String.Regex, String.Symbol)
"""Token types that lexers class as strings although nobody reads them."""
_TEXTS = (Text, Literal.Scalar, Name.Constant, Generic.Output)
"""Token types of text; lines of a text in YAML are constants for its lexer."""
_BLOCK_HEAD = re.compile(r"\s*(?:(?:async\s+def|def|class)\b.*|\).*):\s*(?:#.*)?$")
"""Matches the last line of the head of a function or class in Python."""
_HEAD_CHARS = 400
"""Characters before a docstring in which the line above it is found."""
_ENDLESS_LEXERS = frozenset({"mcschema", "tnt"})
"""Languages whose lexers never end on some code, such as a single bracket."""
_LEXER_NAMES = {"htm": "html", "xhtml": "html", "svg": "xml", "jsonl": "json", "jsonc": "json5", "conf": "ini"}
"""Names of lexers for languages that have none of their own."""
_SECONDS_PER_CHAR = 60e-6
"""Processor time that a lexer may take per character, in addition to 20 ms: five times as much as for dense code on a
slow core. On some texts, such as thousands of empty lines, the time of lexers grows with the square of the length."""
_MAX_LEXER_SECONDS = 1.0
_MAX_REPEATED_CHARS = 4_000
"""Longest code that is read again if its lexer was stopped. In its first use, or in that of the lexers that it calls
(for the scripts of a page), a lexer makes its patterns, which takes longer than such code itself."""
_CACHED_BLOCKS = 64
_MAX_CACHED_CHARS = 16_000
"""Longest code that is cached. The cache is limited by number, so longer code could fill the memory."""


@dataclass(frozen=True, slots=True)
class LexedCode:
    """The places in code, in order, of what is no instruction."""

    remarks: tuple[tuple[Place, bool], ...]
    """Comments and docstrings as the lexer cuts them, each with whether it is a comment."""
    strings: tuple[Place, ...]
    """Strings with their quotation marks. What a string computes, such as "{name}", divides it."""
    texts: tuple[Place, ...]
    """Text without quotation marks: between tags, in values of YAML, and what a program prints in a terminal."""


def lex_code(code: str, language: str) -> LexedCode | None:
    """Read the code of a block; None if there is no lexer of the language, or if it takes too long."""
    if len(code) <= _MAX_CACHED_CHARS:
        return _lex_cached(code, language)
    return _lex_last(code, language)


def _lex(code: str, language: str) -> LexedCode | None:
    lexer = _find_lexer(language)
    if lexer is None:
        return None
    lexed = _read_tokens(lexer, code)
    if lexed is None and len(code) <= _MAX_REPEATED_CHARS:
        lexed = _read_tokens(lexer, code)
    return lexed


def _read_tokens(lexer: Lexer, code: str) -> LexedCode | None:
    """Read code with a lexer; None if it takes too long."""
    deadline = time.thread_time() + min(0.02 + len(code) * _SECONDS_PER_CHAR, _MAX_LEXER_SECONDS)
    remarks: list[tuple[Place, bool]] = []
    strings: list[Place] = []
    texts: list[Place] = []
    # the line feed, because many lexers see a comment only if its line ends
    for start, token_type, text in lexer.get_tokens_unprocessed(f"{code}\n"):
        if time.thread_time() > deadline:
            return None
        place = (start, min(start + len(text), len(code)))
        is_comment = _is_comment(token_type)
        if is_comment or _is_docstring(token_type, code, start, text):
            remarks.append((place, is_comment))
        elif token_type in String and token_type not in _PATTERNS:
            _add_piece(strings, place)
        elif not text.strip() and _is_open_string(code, strings, start):
            _add_piece(strings, place)  # YAML's lexer cuts a string at its spaces
        elif any(token_type in of_text for of_text in _TEXTS) and text.strip():
            _add_text(texts, place, code)
    return LexedCode(tuple(remarks), tuple(strings), tuple(texts))


_lex_cached = lru_cache(maxsize=_CACHED_BLOCKS)(_lex)
_lex_last = lru_cache(maxsize=1)(_lex)  # comments and sentences of a long block are found one after the other


def _add_piece(places: list[Place], piece: Place) -> None:
    """Add a place to `places`; lexers cut a string into pieces, which become one place."""
    start, end = piece
    if places and places[-1][1] == start:
        start, _ = places.pop()
    places.append((start, end))


def _add_text(texts: list[Place], piece: Place, code: str) -> None:
    """Add the place of a text; white space beside it, which may lie between two pieces of a text, belongs to it."""
    start, end = piece
    if texts and (not code[texts[-1][1] : start].strip()):
        start, _ = texts.pop()
    texts.append((start, end))


def _is_open_string(code: str, strings: Sequence[Place], end: int) -> bool:
    """Whether the last of the `strings` ends at offset `end`, and no quotation mark closes it."""
    if not strings or strings[-1][1] != end:
        return False
    start, _ = strings[-1]
    is_quoted = code[start] in "\"'"
    return is_quoted and (end == start + 1 or code[end - 1] != code[start])


def _is_comment(token_type: Any) -> bool:
    """Whether a token of this type is a comment that no program needs."""
    return token_type in Comment and not any(token_type in needed_type for needed_type in _NEEDED_COMMENTS)


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


def _find_lexer(language: str) -> Lexer | None:
    """The lexer of a language; None if the name is empty or unknown, or the lexer cannot be trusted to end."""
    name = language.lower()
    if not name or name in _ENDLESS_LEXERS | DIFF_LANGUAGES:
        return None
    try:
        # the option makes PHP's lexer read code without the opening tag; other lexers ignore it
        return get_lexer_by_name(_LEXER_NAMES.get(name, name), startinline=True)
    except ClassNotFound:
        return None
