"""Comments in code: where they stand, code without them, and whether two pieces of code differ only in their comments.

A lexer of the language that the code block names finds the comments (code_lexing.py). If the block names no known
language, or if the lexer takes too long, only lines that begin with a comment sign count.
"""

from __future__ import annotations

import re

from aligner_proxy.text.code_lexing import CODE_BLOCK, DIFF_LANGUAGES, Place, lex_code
from aligner_proxy.text.structure import split

_LINE_COMMENT = re.compile(r"^[ \t]*(?:#(?!!)|//|--[ \t]).*(?:\n|$)", re.MULTILINE)
_DIFF_COMMENT = re.compile(r"^[+ -][ \t]*(?:#(?!!)|//|--[ \t]).*(?:\n|$)", re.MULTILINE)
"""Matches a comment line in a diff, behind the diff's sign at the beginning of the line."""
_HUNK_HEAD = re.compile(r"^@@ ", re.MULTILINE)
"""Matches the head of a part of a diff. The head counts the lines, so none of them may be removed."""
_COMMENT_WORDS = re.compile(
    r"^[ \t]*\+?[#/*!<%;\"'-]*[ \t]*(?P<words>[^\n]*?)[ \t]*(?:\*+/|-->|\"{3}|'{3})?[ \t\r]*$",
    re.MULTILINE,
)
"""Matches one line of a comment, with the comment signs around its words."""
QUOTES = ('"""', "'''")
"""Signs around a docstring."""
_NEXT_LINE = re.compile(r"\n(?P<indent>[ \t]*)\S")


def without_comments(block: str) -> str | None:
    """A code block without its comments; None if it has none, is not a code block, or consists only of comments."""
    match = CODE_BLOCK.fullmatch(block)
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
    match = CODE_BLOCK.fullmatch(block)
    if match is None:
        return []
    code = match["code"]
    lexed = lex_code(code, match["language"])
    if lexed is None:
        # without a lexer, comments are found by the signs of the language
        places = [comment.span() for comment in _line_comments(code, match["language"]).finditer(code)]
    else:
        places = _join_pieces(code, [place for place, _ in lexed.remarks])
    code_start = match.start("code")
    return [_trim_place(block, code_start + start, code_start + end) for start, end in places]


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
    lexed = lex_code(code, language)
    if lexed is None:
        return _line_comments(code, language).sub("", code)
    pieces: list[str] = []
    position = 0
    for (start, end), is_comment in lexed.remarks:
        if is_comment:
            # the line breaks of a comment stay, so that each line can be compared with the original line
            pieces += [code[position:start], "\n" * code.count("\n", start, end)]
            position = end
    stripped = "".join([*pieces, code[position:]])
    return "\n".join(_drop_comment_lines(code.split("\n"), stripped.split("\n")))


def _line_comments(code: str, language: str) -> re.Pattern[str]:
    """The pattern of comment lines for a language without a lexer; in a diff they may begin with its sign."""
    return _DIFF_COMMENT if language.lower() in DIFF_LANGUAGES and not _HUNK_HEAD.search(code) else _LINE_COMMENT


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
