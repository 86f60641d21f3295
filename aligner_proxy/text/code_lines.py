"""Lines of code that a block can lose: calls, settings, commands and statements of SQL that no other line needs.

"session.verify = False" can go, "def pay():" cannot. Nor can a line that is only a part of a statement, the only line
of a body, or a line that sets a name that another line uses. Only the forms below are offered, in languages in which
they are whole lines. They do not show whether the rest still does what it should, so a caller must also know that the
line is at fault, and that the rest is not. Several lines may go only if `can_go_together` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from aligner_proxy.text.code_comments import comment_places
from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.structure import FENCES

_MAX_LINES = 40
"""Most lines of a block of which one is removed; a longer block is code that nobody reads line by line."""
_MAX_LINE_CHARS = 300
"""Most characters of each of its lines; the time that the patterns take may grow with the square of this."""
_MAX_TOGETHER = 8
"""Most lines that go from one block; for each of them the rest is read again."""
_PROGRAM_LANGUAGES = frozenset(
    {"python", "py", "javascript", "js", "jsx", "typescript", "ts", "tsx", "java", "csharp", "c#", "cs", "php", "c"}
    | {"cpp", "c++", "rust", "rs", "dart"}
)
SHELL_LANGUAGES = frozenset({"bash", "sh", "shell", "zsh"})
_SETTING_LANGUAGES = frozenset({"ini", "toml", "env", "dotenv", "properties", "conf", "cfg"})
_YAML_LANGUAGES = frozenset({"yaml", "yml"})
_SQL_LANGUAGES = frozenset({"sql", "postgresql", "postgres", "mysql", "psql", "tsql", "sqlite"})
_LANGUAGES = _PROGRAM_LANGUAGES | SHELL_LANGUAGES | _SETTING_LANGUAGES | _YAML_LANGUAGES | _SQL_LANGUAGES
_STRING = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`[^`\n]*`")
_QUOTE = re.compile(r"[\"'`]")
"""Matches a quotation mark that no other in its line closes, once strings are replaced."""
_LONG_STRING = re.compile(r"\"{3}|'{3}|<<[-~]?\s*['\"]?\w")
"""Matches the beginning of a string of several lines, as in Python or a shell."""
_NEEDED_CALLS = (
    r"super|exit|quit|die|close|unlock|release|commit|rollback|begin|join|define|require\w*|include\w*|import\w*|"
    r"disconnect|finish|end|resolve|reject|next|done|add_argument|register\w*|setup|init\w*|main"
)
_NAME = r"[\w$]+(?:(?:\.|->|::)[\w$]+)*"
_CALL = re.compile(rf"(?:await )?(?!(?:[\w$]+(?:\.|->|::))*(?:{_NEEDED_CALLS})\(){_NAME}\(.*\)\s*;?$")
"""Matches a call whose result is not used. Some calls are needed by others, such as one that closes what was opened."""
_ATTRIBUTE = re.compile(rf"{_NAME}(?:\.|->)(?P<name>[\w$]+) = .*;?$")
"""Matches a line that sets an attribute of an object."""
_PART_BEFORE = re.compile(r"[-+*/%,.=<>&|?(\[\\]$")
"""Matches the end of a line of a program that the next line continues."""
_PART_BEHIND = (".", "?", "&", "|", "->", "+", "=")
"""Beginnings of a line of a program that continues the line before it."""
_SETTING = re.compile(r"(?P<name>[\w.-]+)\s*=\s*(?![{\[])\S.*$")
_YAML_SETTING = re.compile(r"(?P<name>[\w./-]+):\s+(?![|>&*{\[])\S.*$")
_TEXT_BLOCK = re.compile(r"[|>][+-]?$")
"""Matches the end of a line in YAML below which a text begins."""
_SQL_STATEMENT = re.compile(
    r"(?:truncate|drop|delete|grant|revoke|insert|update|alter|comment|analyze|vacuum|set|select|reindex)\b.*;$", re.I
)
_NO_COMMAND = re.compile(
    r"(?:if|then|else|elif|fi|for|while|until|do|done|case|esac|function|return|exit|trap|set|source|read|mapfile|"
    r"declare|local|export|readonly|typeset|shift|cd|pushd|popd|alias|break|continue|select|in|eval|exec)\b"
    r"|[\w\[\]]+\+?=|\w+\s*\(\)|[\[({})!&|<>;:]"
)
"""Matches the beginning of a line of a script that decides, sets or declares something."""
_CONTINUES = re.compile(r"(?:\\|\||&&)$")
"""Matches the end of a line of a script that the next line continues."""
_OPENS_BODY = re.compile(r"(?:\b(?:then|do|else)|[{(])$")
"""Matches the end of a line of a script or program that opens a body."""
_CLOSES_BODY = re.compile(r"(?:fi|done|esac|else|elif|\}|\))")
"""Matches the beginning of a line that closes one."""
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class _CodeLine:
    """A line of code that is not empty."""

    place: Place
    """From its first sign to the end of its words, with a comment behind them."""
    indent: int
    text: str
    """All signs in `place`."""
    code: str
    """Without the comment, and with "_" in place of each string."""
    bracket: str
    """The last bracket that is open before the line; empty if none is."""


def find_code_lines(block: str) -> list[Place]:
    """The places of the lines of a code block that it can lose, without their indentation and line break, in order.

    Empty if `block` is no closed code block of a known language, or if it has too many lines or a very long one.
    """
    language, body = _read_head(block)
    if body is None or language not in _LANGUAGES:
        return []
    if block.count("\n") > _MAX_LINES or max(map(len, block.split("\n"))) > _MAX_LINE_CHARS:
        return []
    code = _blank_comments(block)
    if code is None or _LONG_STRING.search(code, body.start, body.stop):
        return []
    lines = list(_read_lines(block, code, body))
    has_text_block = language in _YAML_LANGUAGES and any(_TEXT_BLOCK.search(line.code) for line in lines)
    if has_text_block or any(_QUOTE.search(line.code) for line in lines):
        return []
    places = []
    for index, line in enumerate(lines):
        before = lines[index - 1] if index else None
        behind = lines[index + 1] if index + 1 < len(lines) else None
        others = [other for other in lines if other is not line]
        if _can_go(language, line, before, behind, others) and not _is_whole_body(line, before, behind):
            places.append(line.place)
    return places


def can_go_together(block: str, places: Sequence[Place]) -> bool:
    """Whether a block can lose the lines at all these places, some of its `find_code_lines`, one after the other.

    False for more than `_MAX_TOGETHER`.
    """
    if len(places) > _MAX_TOGETHER:
        return False
    # from the last one on, so that the places of the others stay the same
    for start, end in sorted(places, reverse=True):
        if (start, end) not in find_code_lines(block):
            return False
        line_start = block.rfind("\n", 0, start) + 1
        block = block[:line_start] + block[end + 1 :]
    return True


def make_line_block(block: str, place: Place) -> str:
    """A code block with nothing but the line at `place`."""
    first_line, *_, last_line = block.split("\n")
    return f"{first_line}\n{block[slice(*place)]}\n{last_line}"


def _read_head(block: str) -> tuple[str, range | None]:
    """(The language of a code block in lower case, the range of its code); no range if it is no closed code block."""
    first_line, _, rest = block.partition("\n")
    last_line = rest.rpartition("\n")[2]
    fence = first_line.lstrip()[:3]
    words = first_line.strip("`~ \t\r").lower().split()
    if not words or not first_line.lstrip().startswith(FENCES) or last_line.strip().strip(fence[:1]) or "\r" in block:
        return "", None
    return words[0], range(len(first_line) + 1, len(block) - len(last_line))


def _blank_comments(block: str) -> str | None:
    """The block with spaces in place of its comments; None if a comment has several lines."""
    for start, end in comment_places(block):
        if "\n" in block[start:end]:
            return None
        block = block[:start] + " " * (end - start) + block[end:]
    return block


def _read_lines(block: str, code: str, body: range) -> Iterator[_CodeLine]:
    """The lines from `body` that have code; `code` is the block without its comments."""
    ends = [body.start, *(match.end() for match in re.finditer("\n", code[: body.stop]) if match.end() > body.start)]
    open_brackets: list[str] = []
    for start, end in pairwise(ends):
        line = _STRING.sub("_", code[start:end]).strip()
        if not line:
            continue
        whole_line = block[start:end]
        indent = len(whole_line) - len(whole_line.lstrip())
        text = whole_line.strip()
        bracket = open_brackets[-1] if open_brackets else ""
        yield _CodeLine((start + indent, start + indent + len(text)), indent, text, line, bracket)
        for sign in line:
            if sign in _BRACKETS:
                open_brackets.append(sign)
            elif open_brackets and sign == _BRACKETS[open_brackets[-1]]:
                open_brackets.pop()


def _can_go(
    language: str, line: _CodeLine, before: _CodeLine | None, behind: _CodeLine | None, others: Sequence[_CodeLine]
) -> bool:
    """Whether a line has one of the forms that can go, and no neighbour is a part of the same statement."""
    if any(line.code.count(opening) != line.code.count(closing) for opening, closing in _BRACKETS.items()):
        return False
    if behind is not None and behind.indent > line.indent:
        return False
    if language in _PROGRAM_LANGUAGES:
        return _is_program_statement(language, line, before, behind, others)
    if language in SHELL_LANGUAGES:
        continues = before is not None and _CONTINUES.search(before.code) is not None
        is_continued = _CONTINUES.search(line.code) is not None or line.bracket != ""
        return not (continues or is_continued or _NO_COMMAND.match(line.code))
    if language in _SQL_LANGUAGES:
        return _SQL_STATEMENT.match(line.code) is not None and (before is None or before.code.endswith(";"))
    pattern = _YAML_SETTING if language in _YAML_LANGUAGES else _SETTING
    setting = pattern.match(line.code)
    return setting is not None and not line.bracket and not _is_used(setting["name"], others)


def _is_program_statement(
    language: str, line: _CodeLine, before: _CodeLine | None, behind: _CodeLine | None, others: Sequence[_CodeLine]
) -> bool:
    """Whether a line of a program is a call, or sets an attribute that no other line uses, and is a whole statement."""
    # in a body such as "{ ... }" a line may be a statement, in other brackets it is a part of one
    if line.bracket and (line.bracket != "{" or language in ("python", "py")):
        return False
    ends_in_semicolons = any(other.code.endswith(";") for other in others)
    if ends_in_semicolons and not line.code.endswith(";"):
        return False
    if not _begins_statement(before, ends_in_semicolons) or (behind and behind.code.startswith(_PART_BEHIND)):
        return False
    attribute = _ATTRIBUTE.match(line.code)
    return _CALL.match(line.code) is not None or (attribute is not None and not _is_used(attribute["name"], others))


def _begins_statement(before: _CodeLine | None, ends_in_semicolons: bool) -> bool:
    """Whether the line behind `before` begins a statement."""
    if before is None or before.code.endswith((";", "{", "}", ":")):
        return True
    return not ends_in_semicolons and _PART_BEFORE.search(before.code) is None


def _is_used(name: str, others: Sequence[_CodeLine]) -> bool:
    """Whether a name stands in one of these lines, also in a string, other than where it is set anew."""
    use = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)(?!\s*[=:](?![=:]))")
    return any(use.search(other.text) for other in others)


def _is_whole_body(line: _CodeLine, before: _CodeLine | None, behind: _CodeLine | None) -> bool:
    """Whether a line is all that the line before it heads."""
    opens = before is not None and (before.indent < line.indent or _OPENS_BODY.search(before.code) is not None)
    ends = behind is None or behind.indent < line.indent or _CLOSES_BODY.match(behind.code) is not None
    return opens and ends
