"""Lines of code that a block can lose: simple statements, settings and commands that no other line needs.

"session.verify = False" can go, "def pay():" cannot. Nor can a line that is only a part of a statement, the only line
of a body, or a line that sets a name that another line uses. The form does not show whether the rest still does what it
should, so a caller must also know that the line is at fault, and that the rest is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from aligner_proxy.text.code_comments import Place, comment_places
from aligner_proxy.text.structure import FENCES

_MAX_LINES = 40
"""Most lines of a block of which one is removed; a longer block is code that nobody reads line by line."""
_MAX_LINE_CHARS = 300
"""Most characters of each of its lines; the time that the patterns take may grow with the square of this."""
_OTHER_LANGUAGES = frozenset(
    {"json", "jsonl", "jsonc", "json5", "csv", "tsv", "xml", "svg", "html", "vue", "markdown", "md", "diff", "patch"}
    | {"haskell", "hs", "elm", "ocaml", "makefile", "make"}
)
"""Languages whose lines are no statements that stand alone. Values of JSON and rows of CSV are found elsewhere
(judged_words.py)."""
_STRING = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`[^`\n]*`")
_QUOTE = re.compile(r"[\"'`]")
"""Matches a quotation mark that no other in its line closes, once strings are replaced."""
_LONG_STRING = re.compile(r"\"{3}|'{3}|<<[-~]?\s*['\"]?\w")
"""Matches the beginning of a string of several lines, as in Python or a shell."""
_CONTINUES = re.compile(r"(?:(?<!\+)\+|(?<!-)-|[\\,(\[{:&|*/=<.?~^]|=>|->|\b(?:and|or|not|in|is|then|do|else|begin))$")
"""Matches the end of a line that the next line continues."""
_OPENS_BODY = re.compile(r"(?:[:{]|\b(?:then|do|else|begin|try))$")
_IS_CONTINUED = re.compile(r"[)\]}.,&|+*/?:<=>%]|-(?!-)\S")
"""Matches the beginning of a line that continues the line before it, or ends a body."""
_ENDS_BODY = re.compile(r"[)\]}]|(?:fi|done|esac|end|else|elif|elsif|except|catch|finally|case|default|when)\b")
_NO_STATEMENT = re.compile(
    r"[@#]|(?:def|class|function|func|fn|fun|pub|public|private|protected|internal|static|interface|struct|enum|union|"
    r"impl|trait|type|sealed|data|object|abstract|typedef|module|package|namespace|import|from|using|use|include|"
    r"require|return|yield|break|continue|pass|throw|raise|if|else|elif|elsif|unless|for|foreach|while|until|do|done|"
    r"then|fi|case|esac|switch|match|when|is|default|try|except|catch|finally|with|begin|end|async|template|extern|go|"
    r"defer|where|values|and|or|on|join|group|order|having|union|select(?! into)\b(?!.*;$))\b",
    re.IGNORECASE,
)
"""Matches the beginning of a line that declares, decides or returns something, or continues a query."""
_NAME_SET = re.compile(r"(?P<name>[$\w.:-]*\w)\s*(?::\s*[\w\[\], .<>|]+?\s*)?(?:[-+*/|&]|:|\?\?)?=(?![=>~])")
"""Matches the name that a line sets, before its equals sign."""
_DECLARED_NAME = re.compile(r"(?:let|const|var|val|my|local|export|declare|auto|\w+)\s+(?P<name>[$\w]+)\s*;?$")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_NO_BRACES = frozenset({"python", "py", "yaml", "yml", "toml", "ini", "bash", "sh", "shell"})
"""Languages in which braces are no body."""
_SECTION = re.compile(r"\[.*\]$")
"""Matches the head of a section of settings."""


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


def find_code_lines(block: str) -> list[Place]:
    """The places of the lines of a code block that it can lose, without their indentation and line break, in order.

    Empty if `block` is no code block, or if it has more than `_MAX_LINES` lines or a very long one.
    """
    language, body = _read_head(block)
    if body is None or language in _OTHER_LANGUAGES or block.count("\n") > _MAX_LINES:
        return []
    if max(map(len, block.split("\n"))) > _MAX_LINE_CHARS:
        return []
    code = _blank_comments(block)[: body.stop]
    lines = list(_read_lines(block, code, body))
    if _LONG_STRING.search(code, body.start) or any(_QUOTE.search(line.code) for line in lines):
        return []
    ends_in_semicolons = any(line.code.endswith(";") for line in lines)
    open_brackets = _find_open_brackets(lines)
    places = []
    for index, line in enumerate(lines):
        before = lines[index - 1] if index else None
        behind = lines[index + 1] if index + 1 < len(lines) else None
        if ends_in_semicolons and not (line.code.endswith(";") and _begins_statement(before)):
            continue
        # in a body such as "{ ... }" a line may be a statement, in brackets it is a part of one
        is_inside = open_brackets[index] not in ("", "{") or (open_brackets[index] and language in _NO_BRACES)
        if is_inside or not _is_statement(line, before, behind):
            continue
        if not _is_whole_body(line, before, behind) and not _sets_used_name(index, lines):
            places.append(line.place)
    return places


def _read_head(block: str) -> tuple[str, range | None]:
    """(The language of a code block in lower case, the range of its code); no range if it is no closed code block."""
    first_line, _, rest = block.partition("\n")
    last_line = rest.rpartition("\n")[2]
    fence = first_line.lstrip()[:3]
    if not first_line.lstrip().startswith(FENCES) or not last_line.strip().startswith(fence):
        return "", None
    return first_line.strip("`~ \t").lower(), range(len(first_line) + 1, len(block) - len(last_line))


def _blank_comments(block: str) -> str:
    """The block with spaces in place of its comments."""
    for start, end in comment_places(block):
        block = block[:start] + re.sub(r"[^\n]", " ", block[start:end]) + block[end:]
    return block


def _read_lines(block: str, code: str, body: range) -> Iterator[_CodeLine]:
    """The lines from `body` that have code; `code` is the block without its comments."""
    ends = [body.start, *(match.end() for match in re.finditer("\n", code) if match.end() > body.start)]
    for start, end in pairwise(ends):
        line = _STRING.sub("_", code[start:end]).strip()
        if line:
            whole_line = block[start:end]
            indent = len(whole_line) - len(whole_line.lstrip())
            text = whole_line.strip()
            yield _CodeLine((start + indent, start + indent + len(text)), indent, text, line)


def _find_open_brackets(lines: Sequence[_CodeLine]) -> list[str]:
    """For each line the last bracket that is open before it; empty if none is."""
    open_before: list[str] = []
    stack: list[str] = []
    for line in lines:
        open_before.append(stack[-1] if stack else "")
        for sign in line.code:
            if sign in _BRACKETS:
                stack.append(sign)
            elif stack and sign == _BRACKETS[stack[-1]]:
                stack.pop()
    return open_before


def _is_statement(line: _CodeLine, before: _CodeLine | None, behind: _CodeLine | None) -> bool:
    """Whether a line is a whole statement, setting or command, without a body, that nothing continues."""
    if any(line.code.count(opening) != line.code.count(closing) for opening, closing in _BRACKETS.items()):
        return False
    forms = (_NO_STATEMENT.match, _IS_CONTINUED.match, _SECTION.match, _CONTINUES.search)
    if any(has_form(line.code) for has_form in forms):
        return False
    if behind is not None and (behind.indent > line.indent or _is_continuation(behind.code)):
        return False
    return before is None or not _CONTINUES.search(before.code) or _OPENS_BODY.search(before.code) is not None


def _begins_statement(before: _CodeLine | None) -> bool:
    """Whether a line behind `before` begins a statement, in a language in which a semicolon ends each."""
    return before is None or before.code.endswith((";", "{", "}", ":"))


def _is_continuation(code: str) -> bool:
    """Whether a line continues the line before it, and does not end its body."""
    return _IS_CONTINUED.match(code) is not None and code[0] not in ")]}"


def _is_whole_body(line: _CodeLine, before: _CodeLine | None, behind: _CodeLine | None) -> bool:
    """Whether a line is all that the line before it heads."""
    opens = before is not None and (_OPENS_BODY.search(before.code) is not None or before.indent < line.indent)
    ends = behind is None or behind.indent < line.indent or _ENDS_BODY.match(behind.code) is not None
    return opens and ends


def _sets_used_name(index: int, lines: Sequence[_CodeLine]) -> bool:
    """Whether a line sets a name that stands in another line, too, also inside a string."""
    code = lines[index].code
    match = _NAME_SET.search(code) or _DECLARED_NAME.fullmatch(code)
    if match is None:
        return False
    name = rf"(?<![\w.]){re.escape(match['name'].lstrip('$'))}(?!\w)"
    # a line that sets the name anew does not use it
    use = re.compile(rf"{name}(?!\s*=[^=])")
    return any(use.search(line.text) for number, line in enumerate(lines) if number != index)


def make_line_block(block: str, place: Place) -> str:
    """A code block with nothing but the line at `place`."""
    first_line, *_, last_line = block.split("\n")
    return f"{first_line}\n{block[slice(*place)]}\n{last_line}"
