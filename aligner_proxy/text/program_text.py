"""Text that a program reads although it stands in an answer: calls and edits, data, and forms that a request began.

Agents let models write calls as plain text: XML tags, SEARCH/REPLACE blocks, patches, lines of ReAct. A call counts
where it begins a line outside fenced code, and only with the structure of a call, because prose names tags, too. Data
are answers that are nothing but a YAML document or a table of separated values. A form is a structure such as JSON that
a request begins and the answer completes: by a last turn that is the beginning of the answer (a prefill), or by a
prompt that asks for the middle of a text.

All of this is linear: every repetition is bounded, or cannot match what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aligner_proxy.text.pairs import read_halves
from aligner_proxy.text.structure import FENCES, Segment, split

# calls and edits

_LINE_END = r"[ \t]{0,8}(?:\r?\n|\Z)"
"""The rest of a line that holds nothing else."""
_CALL_FORMS = (
    # <function_calls>, <tool_call>{...}: the usual names, alone in a line or right before what they hold
    rf"<(?:[a-z]{{1,12}}:)?(?:function_calls?|tool_calls?|tool_use|tool_code)>(?:{_LINE_END}|[ \t]{{0,8}}[{{<\[])",
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
    rf"<{{5,9}}[ \t]?(?:SEARCH|ORIGINAL|BEFORE|HEAD)>?{_LINE_END}",
    rf"\*\*\* Begin Patch{_LINE_END}",
    r"diff --git \S{1,400} \S",
    r"--- \S[^\n]{0,400}\n\+\+\+ \S",
    r"@@ -\d{1,9}(?:,\d{1,9})? \+\d{1,9}(?:,\d{1,9})? @@",
    # ReAct: a tool and its input
    r"\*{0,2}Action(?: \d{1,3})?:\*{0,2}[ \t]{0,8}(?:"
    r"[^\n]{1,100}\n\s{0,8}\*{0,2}Action Input(?: \d{1,3})?:"
    rf"|[\w.-]{{1,64}}\[(?!\d)[^\]\n]{{1,400}}\]{_LINE_END}"
    r"|\s{1,8}(?:```|~~~)(?:json)?\s{1,8}\{\s{0,40}\"action\")",
    # a call as JSON behind prose, and as Llama writes it: [search(query="tides")]
    r"\{\s{0,40}\"(?:name|tool|tool_name|function|function_name|action|recipient_name)\"\s{0,8}:\s{0,8}"
    r"\"[^\"\n]{1,100}\"\s{0,40},\s{0,40}\"(?:arguments|parameters|args|input|action_input|tool_input)\"\s{0,8}:",
    r"\[[A-Za-z_][\w.]{0,63}\((?:\)\]|[A-Za-z_]\w{0,63}=)",
)
_CALL_AT_LINE_START = re.compile(rf"^[ \t]{{0,8}}(?:{'|'.join(_CALL_FORMS)})", re.MULTILINE)
CALL_SIGNS = ("<", "{", "[", "*** Begin", "diff --git", "\n+++ ", "@@ -", "Action")
"""Every text with a call contains at least one of these signs."""
_MAX_CALL_LINES = 4
"""Most lines that the pattern of a call spans."""


class CallReader:
    """Finds out whether a call begins in a growing text."""

    def __init__(self) -> None:
        self.has_call = False
        """Whether a call was found."""
        self._read_count = 0
        """Number of segments when the text was read last."""
        self._first_unsure = 0
        """Index of the first segment with which a call may begin that is not complete yet."""

    def read(self, text: str, segments: Sequence[Segment]) -> bool:
        """Whether a call begins with one of `segments`, the finished segments of the text so far."""
        if len(segments) > self._read_count:
            # a call begins a line, and where a line begins outside code, so does a segment
            unsure = segments[self._first_unsure :]
            self.has_call = self.has_call or any(_CALL_AT_LINE_START.match(text, segment.start) for segment in unsure)
            self._first_unsure = max(self._first_unsure, len(segments) - _MAX_CALL_LINES)
            self._read_count = len(segments)
        return self.has_call


def has_call(text: str) -> bool:
    """Whether a call or edit for a program begins in a text."""
    if not any(sign in text for sign in CALL_SIGNS) or _CALL_AT_LINE_START.search(text) is None:
        return False
    return CallReader().read(text, split(text))


# data

DATA_SIGN = re.compile(r"\s{0,99}(?:---|%YAML|(?:- )?[a-z_$][\w.$/-]{0,63}:\s|[^\n]{1,200}?[^\s,;][,;\t][^\s,;])")
"""Matches a text whose first line may be data; matches prose only seldom."""
_MIN_DATA_LINES = 3
_YAML_PAIR = re.compile(
    r"(?P<indent> *)(?P<items>(?:- {1,8}){0,4})"
    r"(?P<key>[\w$][\w.$/-]{0,63}|\"[^\"\n]{1,64}\"|'[^'\n]{1,64}'):(?:[ \t]+(?P<value>\S.*))?"
)
_OTHER_YAML_LINE = re.compile(r" *(?:- *(?P<value>\S.*)?|#.*|---.*|\.\.\.|%YAML.*|[\]}],?)")
_BLOCK_SIGN = re.compile(r"[|>][-+]?\d?")
"""Matches the value of a key whose text follows in indented lines."""
_TYPED_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|[\[{&!|>].*|true|false|null|~")
_IDENTIFIER_KEY = re.compile(r"[a-z]+[A-Z]\w*|\w*[a-z]_[\w.]*|\$\w+|\w+\.\w[\w.]*")
"""Matches a key that looks like no label in prose."""
_QUOTED_FIELD = re.compile(r'"[^"\n]*"')
_MIN_DELIMITERS = 2
"""Fewest delimiters in each line of a table, and fewest pairs of a document."""
_THOUSANDS_COMMA = re.compile(r"\d,\d{3}(?!\d)")
_SENTENCE_BOUNDARY = re.compile(r"[.!?]\s+[A-Z]")


def is_data(text: str) -> bool:
    """Whether all of an answer is a YAML document or a table of separated values."""
    lines = _filled_lines(text) if may_become_data(text) else []
    return len(lines) >= _MIN_DATA_LINES and (_is_document(lines) or _is_table(lines))


def begins_data(text: str) -> bool:
    """Whether a growing text may be the beginning of a YAML document or a table; its last line may be unfinished."""
    if not may_become_data(text):
        return False
    finished_lines = _filled_lines(text[: text.rfind("\n") + 1])
    # without a finished line, every text that passes the test above may be data
    return not finished_lines or all(map(_may_be_yaml_line, finished_lines)) or _is_table(finished_lines)


def may_become_data(text: str) -> bool:
    """Whether the first line of a text, which may be unfinished, may be a line of data."""
    first_line = text.strip().partition("\n")[0].strip()
    if first_line.startswith(("---", "%YAML")):
        return first_line.strip("-") == "" or first_line.startswith("%")
    pair = _YAML_PAIR.fullmatch(first_line)
    if pair is not None:
        first_char = pair["key"][0]
        # "note: bring a ticket." is prose, "$note: bring a ticket." is not
        return first_char in "_$" or (first_char.islower() and not _is_sentence(pair["value"] or ""))
    if _is_sentence(first_line) or _THOUSANDS_COMMA.search(first_line):
        return False
    return any(_count_delimiters(first_line))


def _filled_lines(text: str) -> list[str]:
    """The lines of a text that are not empty, each without white space at its end."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _may_be_yaml_line(line: str) -> bool:
    """Whether a line may be part of a YAML document. Every indented line may be, as text of a block."""
    return line[0] in " #" or _YAML_PAIR.fullmatch(line) is not None or _OTHER_YAML_LINE.fullmatch(line) is not None


def _is_document(lines: Sequence[str]) -> bool:
    """Whether these lines are a YAML document rather than prose with labels.

    A document has several pairs of key and value, at most half of the values are sentences, and something in it does
    not occur in prose: its first line "---", pairs below a key, quoted values, or names of variables.
    """
    has_evidence = lines[0] == "---"
    pair_count = 0
    value_count = 0
    sentence_count = 0
    # Spaces before a key whose text follows in lines with more spaces, which are skipped; None outside of such a text.
    block_indent: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip(" "))
        if block_indent is not None and indent > block_indent:
            continue
        pair = _YAML_PAIR.fullmatch(line)
        yaml_line = pair or _OTHER_YAML_LINE.fullmatch(line)
        if yaml_line is None:
            return False
        value = yaml_line["value"] or ""
        block_indent = indent if pair and _BLOCK_SIGN.fullmatch(value) else None
        pair_count += pair is not None
        value_count += bool(value)
        sentence_count += _is_sentence(value)
        has_evidence |= pair is not None and _has_data_form(pair)
    return has_evidence and pair_count >= _MIN_DELIMITERS and sentence_count * 2 <= value_count


def _has_data_form(pair: re.Match[str]) -> bool:
    """Whether a pair of key and value has a form that does not occur in prose with labels."""
    is_below_key = bool(pair["indent"]) and not pair["items"]
    if is_below_key or _IDENTIFIER_KEY.fullmatch(pair["key"]):
        return True
    return _TYPED_VALUE.fullmatch(pair["value"] or "") is not None


def _is_table(lines: Sequence[str]) -> bool:
    """Whether all lines have the same number of commas, of semicolons or of tabs, with no space behind them."""
    counts_by_line = [_count_delimiters(line) for line in lines]
    counts_by_delimiter = zip(*counts_by_line, strict=True)
    return any(len(set(counts)) == 1 and counts[0] > 0 for counts in counts_by_delimiter)


def _count_delimiters(line: str) -> tuple[int, int, int]:
    """The numbers of commas, semicolons and tabs that separate the fields of a line.

    The number is 0 for a sign that occurs less than `_MIN_DELIMITERS` times or has a space behind it.
    """
    unquoted = _QUOTED_FIELD.sub("", line)

    def count_delimiter(sign: str) -> int:
        count = unquoted.count(sign)
        return count if count >= _MIN_DELIMITERS and f"{sign} " not in unquoted else 0

    return count_delimiter(","), count_delimiter(";"), count_delimiter("\t")


def _is_sentence(value: str) -> bool:
    """Whether a value is written like a sentence: several words and an end mark."""
    has_end_mark = value.rstrip("\"')*_").endswith((".", "!", "?", "\u2026"))
    return " " in value and (has_end_mark or _SENTENCE_BOUNDARY.search(value) is not None)


# what a request begins

_MIDDLE_TEMPLATE = re.compile(
    r"<[|\uff5c]?fim[_\u2581-](?:prefix|suffix|middle|begin|hole|end|pad)[|\uff5c]?>"
    r"|<(?:PRE|SUF|MID|FILL_ME)>|\[(?:PREFIX|SUFFIX|MIDDLE)\]"
)
_ENCLOSING_KINDS = ('"', "\u201c\u201d\u201e", "\u00ab\u00bb", "{", "[", "`")
"""Kinds of pairs (pairs.py) within which the answer counts as a form."""


def fills_middle(prompt: str) -> bool:
    """Whether a prompt contains the signs of a template that asks for the middle of a text."""
    return _MIDDLE_TEMPLATE.search(prompt) is not None


def begins_form(prefill: str) -> bool:
    """Whether the beginning of an answer, given by a request, is JSON, or ends inside code, a pair or an element."""
    text = prefill.strip()
    if not text:
        return False
    if text[0] in "{[" or _ends_in_code(text):
        return True
    text += "a"  # stands for the answer, so that a quotation mark before the answer counts as opening
    paragraph_start = text.rfind("\n\n")
    for half in read_halves(text, split(text)):
        if not half.opens or half.partner is not None:
            continue
        if half.is_inline:
            holds_answer = half.start > paragraph_start and half.kind in _ENCLOSING_KINDS
        else:
            # a tag before a space is more likely a <placeholder> in a sentence
            holds_answer = text[half.end] != " "
        if holds_answer:
            return True
    return False


def _ends_in_code(text: str) -> bool:
    """Whether a text ends inside a code block that no fence closes."""
    last_segment = split(text)[-1].text.strip()
    if not last_segment.startswith(FENCES):
        return False
    lines = last_segment.splitlines()
    fence = last_segment[:3]
    return "\n" not in last_segment or not lines[-1].strip().startswith(fence)
