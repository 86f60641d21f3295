"""Code without its comments, and whether two pieces of code differ in their comments alone.

The language is the one that the block names; where it names none that is known, only lines that are a comment from
their first character count as comments.
"""

from __future__ import annotations

import re

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
_NO_REMARK = (Comment.Hashbang, Comment.Preproc, Comment.PreprocFile, Comment.Special)
"""What lexers call comments and a program needs."""


def without_comments(block: str) -> str | None:
    """A code block without its comments; None where it has none, is no block, or is nothing else."""
    match = _BLOCK.fullmatch(block)
    if match is None:
        return None
    code = match["code"]
    bare = _strip_comments(code, match["language"])
    if bare == code or not bare.strip():
        return None
    return match["head"] + bare.strip("\n") + (match["foot"] or "")


def same_code(block: str, other: str) -> bool:
    """Whether two blocks are the same but for comments, empty lines and white space at the ends of lines."""
    return _essence(block) == _essence(other)


def _essence(block: str) -> list[str]:
    lines = ((without_comments(block) or block).strip()).splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def _strip_comments(code: str, language: str) -> str:
    lexer = _lexer(language)
    if lexer is None:
        return _LINE_COMMENT.sub("", code)
    pieces: list[str] = []
    for _, kind, text in lexer.get_tokens_unprocessed(code):
        remark = kind in Comment and not any(kind in needed for needed in _NO_REMARK)
        pieces.append("\n" * text.endswith("\n") if remark else text)
    return "\n".join(_drop_empty_lines(code.split("\n"), "".join(pieces)))


def _drop_empty_lines(before: list[str], bare: str) -> list[str]:
    """The lines of the bare code, without those that were nothing but a comment."""
    after = bare.split("\n")
    if len(after) != len(before):  # a comment of several lines is gone
        return [line.rstrip() for line in after if line.strip()]
    pairs = zip(before, after, strict=True)
    return [new if new == old else new.rstrip() for old, new in pairs if new.strip() or not old.strip()]


def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language.lower()) if language else None
    except ClassNotFound:
        return None
