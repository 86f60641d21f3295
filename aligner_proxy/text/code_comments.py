"""Comments in code: where they stand, code without them, and whether two pieces of code differ only in their comments.

The language is the one that the code block names. If it names no known language, only lines that begin with a comment
sign count as comments.
"""

from __future__ import annotations

import re
from typing import Any

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment
from pygments.util import ClassNotFound

_BLOCK = re.compile(
    r"(?P<head>[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n)(?P<code>.*?)"
    r"(?P<foot>\n?[ \t]*(?P=fence)[ \t]*)?",
    re.DOTALL,
)
_LINE_COMMENT = re.compile(r"^[ \t]*(?:#(?!!)|//|--[ \t]).*(?:\n|$)", re.MULTILINE)
_COMMENT_WORDS = re.compile(r"^[ \t]*[#/*!<%;\"'-]*[ \t]*(?P<words>[^\n]*?)[ \t]*(?:\*+/|-->)?[ \t]*$", re.MULTILINE)
"""One line of a comment, with its signs around the words."""
_NO_REMARK = (Comment.Hashbang, Comment.Preproc, Comment.PreprocFile, Comment.Special)
"""Token types that lexers class as comments although a program needs them."""
_ENDLESS = frozenset({"mcschema", "tnt"})
"""Languages whose lexers never end on some code, such as a single bracket."""


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


def comment_ranges(block: str) -> list[tuple[int, int]]:
    """The places of the words in each line of a code block's comments, without the signs of a comment."""
    match = _BLOCK.fullmatch(block)
    if match is None:
        return []
    code = match["code"]
    lexer = _find_lexer(match["language"])
    if lexer is None:
        comments = [comment.span() for comment in _LINE_COMMENT.finditer(code)]
    else:
        tokens = lexer.get_tokens_unprocessed(code)
        comments = [(start, start + len(text)) for start, kind, text in tokens if _is_remark(kind)]
    code_start = match.start("code")
    return [
        (code_start + start + line.start("words"), code_start + start + line.end("words"))
        for start, end in comments
        for line in _COMMENT_WORDS.finditer(code[start:end])
        if line["words"]
    ]


def same_code(block: str, other: str) -> bool:
    """Whether two blocks are equal apart from comments, empty lines and trailing white space."""
    return _compared_lines(block) == _compared_lines(other)


def _compared_lines(block: str) -> list[str]:
    """The lines of a block without comments, empty lines and trailing white space."""
    lines = ((without_comments(block) or block).strip()).splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def _remove_comments(code: str, language: str) -> str:
    """The code without comments; lines that held nothing else are dropped. Unchanged if the lexer loses lines of it."""
    lexer = _find_lexer(language)
    if lexer is None:
        return _LINE_COMMENT.sub("", code)
    pieces: list[str] = []
    for _, kind, text in lexer.get_tokens_unprocessed(code):
        # the line breaks of a comment stay, so that each line can be compared with the original line
        pieces.append("\n" * text.count("\n") if _is_remark(kind) else text)
    original_lines = code.split("\n")
    stripped = "".join(pieces)
    # some lexers end the last line
    stripped_lines = (stripped if code.endswith("\n") else stripped.removesuffix("\n")).split("\n")
    if len(stripped_lines) != len(original_lines):
        return code
    return "\n".join(_drop_comment_lines(original_lines, stripped_lines))


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
        return get_lexer_by_name(name) if name and name not in _ENDLESS else None
    except ClassNotFound:
        return None
