"""Text that a program reads although it stands in an answer: calls and edits, data, and forms that a request began.

Agents let models write calls as plain text: XML tags, SEARCH/REPLACE blocks, patches, lines of ReAct. A call counts
where it begins a line outside fenced code, and only with the structure of a call, because prose names tags, too. Data
are answers that are nothing but a YAML document or a table of separated values. A request begins a form if its last
turn is the beginning of the answer (a prefill), or if its prompt asks for the middle of a text.

All of this is linear: every repetition is bounded, or cannot match what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aligner_proxy.text.pairs import read_halves
from aligner_proxy.text.structure import FENCES, Segment, split

# calls and edits

_END = r"[ \t]{0,8}(?:\r?\n|\Z)"
"""The rest of a line that holds nothing else."""
_CALL_FORMS = (
    # <function_calls>, <tool_call>{...}: the usual names, alone in a line or right before what they hold
    rf"<(?:[a-z]{{1,12}}:)?(?:function_calls?|tool_calls?|tool_use|tool_code)>(?:{_END}|[ \t]{{0,8}}[{{<\[])",
    r"<(?:[a-z]{1,12}:)?invoke[ \t]{1,8}name[ \t]?=",
    r"<(?:function|tool)[ \t]?=[ \t]?[\w.:-]{1,64}>",
    r"<(?:function|tool|tool_call|action|boltAction|boltArtifact|antArtifact)[ \t]{1,8}"
    r"(?:name|type|id|identifier|title)[ \t]?=[ \t]?[\"']",
    # <write path="a.py">: no element of HTML names a file so
    r"<[A-Za-z][\w:-]{0,63}[ \t]{1,8}(?:path|file|file_path|filePath|filename|target_file)[ \t]?=[ \t]?[\"']",
    # <write_to_file> and right within it <path>: HTML has no names with underscores, and a parameter is none of HTML's
    r"<[a-z]{1,40}(?:_[a-z0-9]{1,40}){1,8}>\s{0,20}"
    r"<(?!(?:p|b|i|u|a|em|strong|[uod]l|li|br|h[1-6]|div|span|table|code|pre)[\s>/])[a-z][\w-]{0,63}>",
    # signs with which chat templates begin calls
    r"<[|\uff5c](?:tool|python_tag|function|action_start|plugin)[\w\u2581]{0,40}[|\uff5c]?>",
    r"<\|channel\|>(?:commentary|analysis) to=",
    r"\[TOOL_CALLS?\]",
    # blocks that replace what they quote, and patches
    rf"<{{5,9}}[ \t]?(?:SEARCH|ORIGINAL|BEFORE|HEAD)>?{_END}",
    rf"\*\*\* Begin Patch{_END}",
    r"diff --git \S{1,400} \S",
    r"--- \S[^\n]{0,400}\n\+\+\+ \S",
    r"@@ -\d{1,9}(?:,\d{1,9})? \+\d{1,9}(?:,\d{1,9})? @@",
    # ReAct: a tool and its input
    r"\*{0,2}Action(?: \d{1,3})?:\*{0,2}[ \t]{0,8}(?:"
    r"[^\n]{1,100}\n\s{0,8}\*{0,2}Action Input(?: \d{1,3})?:"
    rf"|[\w.-]{{1,64}}\[(?!\d)[^\]\n]{{1,400}}\]{_END}"
    r"|\s{1,8}(?:```|~~~)(?:json)?\s{1,8}\{\s{0,40}\"action\")",
    # a call as JSON behind prose, and as Llama writes it: [search(query="tides")]
    r"\{\s{0,40}\"(?:name|tool|tool_name|function|function_name|action|recipient_name)\"\s{0,8}:\s{0,8}"
    r"\"[^\"\n]{1,100}\"\s{0,40},\s{0,40}\"(?:arguments|parameters|args|input|action_input|tool_input)\"\s{0,8}:",
    r"\[[A-Za-z_][\w.]{0,63}\((?:\)\]|[A-Za-z_]\w{0,63}=)",
)
_CALL = re.compile(rf"^[ \t]{{0,8}}(?:{'|'.join(_CALL_FORMS)})", re.MULTILINE)
CALL_SIGNS = ("<", "{", "[", "*** Begin", "diff --git", "\n+++ ", "@@ -", "Action")
"""At least one of these is in every text with a call."""
_MAX_LINES = 4
"""Lines of the longest form of a call."""


class CallReader:
    """Finds out whether a call begins in a growing text."""

    def __init__(self) -> None:
        self.has_call = False
        """Whether a call was found."""
        self._count = 0
        """Number of segments when the text was read last."""
        self._next = 0
        """The first segment of which it is not certain that no call begins with it."""

    def read(self, text: str, segments: Sequence[Segment]) -> bool:
        """Whether a call begins with one of these finished segments of the text."""
        if len(segments) > self._count:
            # a call begins a line, and where a line begins outside code, so does a segment
            unread = segments[self._next :]
            self.has_call = self.has_call or any(_CALL.match(text, segment.start) for segment in unread)
            self._next = max(self._next, len(segments) - _MAX_LINES)
            self._count = len(segments)
        return self.has_call


def has_call(text: str) -> bool:
    """Whether a call or edit for a program begins in a text."""
    if not any(sign in text for sign in CALL_SIGNS) or _CALL.search(text) is None:
        return False
    return CallReader().read(text, split(text))


# data

DATA_SIGN = re.compile(r"\s{0,99}(?:---|%YAML|(?:- )?[a-z_$][\w.$/-]{0,63}:\s|[^\n]{1,200}?[^\s,;][,;\t][^\s,;])")
"""Matches a text that may be data, by its first line; prose it seldom matches."""
_MIN_LINES = 3
_PAIR = re.compile(
    r"(?P<indent> *)(?P<items>(?:- {1,8}){0,4})"
    r"(?P<key>[\w$][\w.$/-]{0,63}|\"[^\"\n]{1,64}\"|'[^'\n]{1,64}'):(?:[ \t]+(?P<value>\S.*))?"
)
_OTHER_LINE = re.compile(r" *(?:- *(?P<value>\S.*)?|#.*|---.*|\.\.\.|%YAML.*|[\]}],?)")
_BLOCK = re.compile(r"[|>][-+]?\d?")
"""The value of a key whose text follows, indented."""
_TYPED = re.compile(r"\"[^\"]*\"|'[^']*'|[\[{&!|>].*|true|false|null|~")
_IDENTIFIER = re.compile(r"[a-z]+[A-Z]\w*|\w*[a-z]_[\w.]*|\$\w+|\w+\.\w[\w.]*")
"""A key that no label of prose looks like."""
_QUOTED = re.compile(r'"[^"\n]*"')
_MIN_DELIMITERS = 2
"""Fewest delimiters in each line of a table, and fewest pairs of a document."""
_THOUSANDS = re.compile(r"\d,\d{3}(?!\d)")
_NEXT_SENTENCE = re.compile(r"[.!?]\s+[A-Z]")


def is_data(text: str) -> bool:
    """Whether all of an answer is a YAML document or a table of separated values."""
    lines = _filled_lines(text) if may_become_data(text) else []
    return len(lines) >= _MIN_LINES and (_is_document(lines) or _is_table(lines))


def begins_data(text: str) -> bool:
    """Whether a text so far may be the beginning of a YAML document or a table; its last line may be unfinished."""
    if not may_become_data(text):
        return False
    finished_lines = _filled_lines(text[: text.rfind("\n") + 1])
    # nothing speaks against a text of which not even the first line is finished
    return not finished_lines or all(map(_may_be_line, finished_lines)) or _is_table(finished_lines)


def may_become_data(text: str) -> bool:
    """Whether the first line of a text may be one of data; it may be unfinished."""
    line = text.strip().partition("\n")[0].strip()
    if line.startswith(("---", "%YAML")):
        return line.strip("-") == "" or line.startswith("%")
    pair = _PAIR.fullmatch(line)
    if pair is not None:
        first_char = pair["key"][0]
        # "note: bring a ticket." is prose, "$note: bring a ticket." is not
        return first_char in "_$" or (first_char.islower() and not _is_sentence(pair["value"] or ""))
    return not _is_sentence(line) and not _THOUSANDS.search(line) and any(_count_delimiters(line))


def _filled_lines(text: str) -> list[str]:
    """The lines of a text that are not empty, without white space at their ends."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _may_be_line(line: str) -> bool:
    """Whether a line may stand in a YAML document, as every indented line may in the text of a block."""
    return line[0] in " #" or _PAIR.fullmatch(line) is not None or _OTHER_LINE.fullmatch(line) is not None


def _is_document(lines: Sequence[str]) -> bool:
    """Whether these lines are a YAML document rather than prose with labels.

    A document has pairs, most of its values are no sentences, and something in it is no form of prose: its first line
    "---", pairs below a key, quoted values, or names of variables.
    """
    has_evidence = lines[0] == "---"
    pair_count = 0
    value_count = 0
    sentence_count = 0
    # indentation of a key whose text follows, in lines indented further; None outside such text
    block_indent: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip(" "))
        if block_indent is not None and indent > block_indent:
            continue
        pair = _PAIR.fullmatch(line)
        match = pair or _OTHER_LINE.fullmatch(line)
        if match is None:
            return False
        value = match["value"] or ""
        block_indent = indent if pair and _BLOCK.fullmatch(value) else None
        pair_count += pair is not None
        value_count += bool(value)
        sentence_count += _is_sentence(value)
        has_evidence |= pair is not None and _has_data_form(pair)
    return has_evidence and pair_count >= _MIN_DELIMITERS and sentence_count * 2 <= value_count


def _has_data_form(pair: re.Match[str]) -> bool:
    """Whether a pair is in a form that prose with labels does not have."""
    is_below = bool(pair["indent"]) and not pair["items"]
    return (
        is_below or _IDENTIFIER.fullmatch(pair["key"]) is not None or _TYPED.fullmatch(pair["value"] or "") is not None
    )


def _is_table(lines: Sequence[str]) -> bool:
    """Whether all lines have the same number of the same delimiter, with no space behind it."""
    counts = [_count_delimiters(line) for line in lines]
    return any(len(set(column)) == 1 and column[0] for column in zip(*counts, strict=True))


def _count_delimiters(line: str) -> tuple[int, int, int]:
    """How many commas, semicolons and tabs separate the fields of a line; 0 where they do not separate fields."""
    bare = _QUOTED.sub("", line)
    comma, semicolon, tab = (
        bare.count(sign) if bare.count(sign) >= _MIN_DELIMITERS and f"{sign} " not in bare else 0 for sign in ",;\t"
    )
    return comma, semicolon, tab


def _is_sentence(value: str) -> bool:
    """Whether a value is written like a sentence."""
    is_ended = value.rstrip("\"')*_").endswith((".", "!", "?", "\u2026"))
    return " " in value and (is_ended or _NEXT_SENTENCE.search(value) is not None)


# what a request begins

_MIDDLE = re.compile(
    r"<[|\uff5c]?fim[_\u2581-](?:prefix|suffix|middle|begin|hole|end|pad)[|\uff5c]?>"
    r"|<(?:PRE|SUF|MID|FILL_ME)>|\[(?:PREFIX|SUFFIX|MIDDLE)\]"
)
_HOLDING = ('"', "\u201c\u201d\u201e", "\u00ab\u00bb", "{", "[", "`")
"""Kinds of pairs within which a text counts as a form."""


def fills_middle(prompt: str) -> bool:
    """Whether a prompt holds a template that asks for the middle of a text."""
    return _MIDDLE.search(prompt) is not None


def begins_form(prefill: str) -> bool:
    """Whether the beginning of an answer, given by a request, is JSON, or ends inside code, a pair or a tag."""
    text = prefill.strip()
    if not text:
        return False
    if text[0] in "{[" or _ends_in_code(text):
        return True
    text += "a"  # in place of the answer, so that a quotation mark before it counts as opening
    paragraph_start = text.rfind("\n\n")
    for half in read_halves(text, split(text)):
        if not half.opens or half.partner is not None:
            continue
        if half.is_inline:
            holds_answer = half.start > paragraph_start and half.kind in _HOLDING
        else:
            # a tag before a space is a <placeholder> in a sentence
            holds_answer = text[half.end] != " "
        if holds_answer:
            return True
    return False


def _ends_in_code(text: str) -> bool:
    """Whether a text ends inside a code block, which no fence closes."""
    last_segment = split(text)[-1].text.strip()
    if not last_segment.startswith(FENCES):
        return False
    has_one_line = "\n" not in last_segment
    fence = last_segment[:3]
    return has_one_line or not last_segment.splitlines()[-1].strip().startswith(fence)
