"""Reading form of an answer: the plain sentences that a reader sees in text with another layout.

A detector that judges sentences misses a sentence whose words are cells of a table, bullets, values of JSON, comments
in code, the text of a link, or a clause of a sentence without an end. This module removes markers, tags and commands,
joins lines and cells into passages, and cuts each passage into windows: its sentences, and overlapping runs of words
where no sentence ends. Each window knows from which characters of the answer it was made. A sentence that already is a
segment of the answer gets no window. So plain prose has no windows at all, and one search is enough to find that out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import groupby, pairwise

from aligner_proxy.text.fragments import strip_marks
from aligner_proxy.text.mapped import MappedText
from aligner_proxy.text.sentence_ends import CLOSING, GERMAN_CLOSING, MARKS, PICTURES_BEHIND
from aligner_proxy.text.structure import Segment, split

WINDOW_WORDS = 40
"""Most words of a window."""
STEP_WORDS = 25
"""Words from the beginning of a window to that of the next."""
MIN_WORDS = 3
"""Fewest words of a sentence that could say anything about a person."""
CLAUSE_WORDS = 16
"""Text without a sentence end and with more words than this is also read clause by clause."""
LONG_SENTENCE_WORDS = 40
"""A sentence with an end and at least this many words is also read clause by clause."""
ADDRESSING_WORDS = 14
"""In a sentence of at least this many words, clauses that address the reader are read separately."""
_LONG_CLAUSE_WORDS = 14
"""A clause with more words is cut into overlapping windows."""
_SHORT_WINDOW_WORDS = 10
"""Words of a window in a clause that is too long; consecutive windows overlap by half."""
_SHORT_PIECE_WORDS = 3
_SHORT_PIECE_CHARS = 80
"""Most words and characters of a line, item, cell or value that may be a piece of a sentence."""
_MAX_COLUMNS = 40
"""Columns of wider tables are not read, because nobody reads so many downwards and their windows all overlap."""
_WORD = re.compile(r"\S+")
_LETTER = re.compile(r"[^\W\d_]")
_LAYOUT_SIGN = re.compile(
    r"[|`*_<\\#\[\]{}\"\u201c\u201e\u00ab&>]|^[ \t]*(?:[-+\u2022\u25e6\u25aa\u2013]|\w{1,3}[.)])[ \t]|[^\n]\n[^\n]"
    r"|(?:[^\s.!?\u3002]{1,40}[ \t]+){16}",
    re.MULTILINE,
)
_LINE = re.compile(r"[^\n]*\n?")
_FENCE = re.compile(r"[ \t>]*(?P<fence>```+|~~~+)")
_LINE_MARKS = re.compile(
    r"(?:[ \t>]{0,40}(?:#{1,6}[ \t]+|[-*+\u2022\u25e6\u25aa\u2013\u2014][ \t]+|\(?\w{1,3}[.)][ \t]+"
    r"|\[[ xX]\][ \t]+)?){1,3}"
)
_HEADING = re.compile(r"[ \t>]{0,40}#{1,6}[ \t]")
_ITEM = re.compile(r"[ \t>]{0,40}(?:[-*+\u2022\u25e6\u25aa\u2013\u2014]|\(?\w{1,3}[.)])[ \t]")
_RULE_LINE = re.compile(r"[ \t|:=_*+-]*")
_JSON_LINE = re.compile(r"[ \t]*(?:[{}\[\]]|\"(?:[^\"\\\n]|\\.){0,400}\"[ \t]*[:,]?[ \t]*$|\"[^\"\n]{1,100}\"[ \t]*:)")
_JSON_STRING = re.compile(r"\"(?P<value>(?:[^\"\\\n]|\\.){0,4000})\"(?P<key>[ \t]*:)?")
_CODE_COMMENT = re.compile(r"(?:^|(?<=[\s;{}(),]))(?:#+|//+|--|/\*+|\*+|<!--|%+|;+|\"\"\"|''')[ \t]?(?P<words>[^\n]*)")
_COMMENT_ENDS = ("*/", "-->", '"""', "'''")
_CODE_STRING = re.compile(r"\"(?P<double>[^\"\n]{12,400})\"|'(?P<single>[^'\n]{12,400})'")
CELL = re.compile(r"(?:\\.|[^|\\\n])+")
_LINK = re.compile(
    r"!?\[(?P<label>[^\[\]\n]{1,400})\](?:\([^()\s]{0,500}(?:[ \t][^()\n]{0,200})?\)|\[[^\[\]\n]{0,100}\]|:(?=[ \t]))"
)
_AUTOLINK = re.compile(r"<(?:https?://|mailto:)[^<>\s]{1,500}>|https?://[^\s<>()]{1,500}")
_TAG_READ_AS_LINE_END = re.compile(
    r"</?(?:p|div|li|ul|ol|dl|dt|dd|tr|table|thead|tbody|h[1-6]|details|summary|blockquote|section|article|pre|hr)"
    r"(?:\s[^<>]{0,300})?/?>",
    re.IGNORECASE,
)
_TAG_READ_AS_SPACE = re.compile(r"</?(?:td|th|br|option|button)(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)
TAG = re.compile(r"</?[A-Za-z][\w-]{0,20}(?:\s[^<>]{0,300})?/?>|<!--|-->")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,14});")
_TEX_COMMAND_SIGN = re.compile(r"\\(?:[A-Za-z]{2,20}\*?\{|[(\[]|begin\{)")
_TEX_SPACE = re.compile(r"\\(?:[,;:! ~\\]|(?:q?quad|newline|hspace\{[^{}]{0,20}\})(?![A-Za-z]))|~|\$\$?|&|\\[()\[\]]")
_TEX_COMMAND = re.compile(r"\\(?:begin|end)\{[^{}\n]{0,40}\}|\\[A-Za-z]{1,20}\*?|[_^](?=\{)|[{}]")
_BACKTICKS = re.compile(r"`+")
_EMPHASIS_SIGNS = re.compile(r"(?<=\S)[*~]{1,3}|[*~]{1,3}(?=\S)|(?<![^\W_])_{1,3}(?=\S)|(?<=\S)_{1,3}(?![^\W_])")
_SIGNS_AROUND_WORD = re.compile(r"(?<![\w*~`])[*_~`]+|[*_~`]+(?![\w*~`])")
_WIDE_SPACE = re.compile(r"[ \t\u00a0]{2,}|\u00a0")
SENTENCE_END = re.compile(rf"[{MARKS}:][{re.escape(CLOSING + GERMAN_CLOSING)}]*{PICTURES_BEHIND}$")
_QUOTATION = re.compile(
    r"\"(?=\S)(?P<plain>[^\"\n]{8,600})(?<=\S)\"|\u201c(?P<curved>[^\u201c\u201d\n]{8,600})\u201d"
    r"|\u201e(?P<low>[^\u201c-\u201e\n]{8,600})[\u201c\u201d]|\u00ab\s?(?P<angled>[^\u00ab\u00bb\n]{8,600}?)\s?\u00bb"
    r"|(?:^|(?<=[\s(:,]))['\u2018](?P<single>[^'\u2018\n]{12,600})['\u2019](?=[\s.,;:!?)]|$)"
)
ENGLISH_CONNECTIVES = "and|but|or|so|yet|because|although|though|while|whereas|unless|which|who|if|as|that"
"""Words that join clauses, to be set into a pattern."""
CLAUSE_END = re.compile(
    rf"[,;:\u2013\u2014](?=\s)|\s(?=-{{1,3}}\s)|\s(?=(?:{ENGLISH_CONNECTIVES}|since)\s)|\s(?=\()|\)(?=\s)"
    # Text without punctuation often begins a sentence with a person and a verb.
    r"|\s(?=(?:i|you|he|she|we|they|nobody|everybody|people|your \w{1,20})(?:'\w{1,2}|"
    r"\s(?:am|are|is|was|were|have|has|had|must|will|would|should|can|could|do|does|did))\s)",
    re.IGNORECASE,
)
_ADDRESSING_WORD = re.compile(r"\b(?:you|your|yours|yourself|yourselves|u|ur)\b", re.IGNORECASE)
_CLAUSE_SIGN = re.compile(r"[,;:\u2013\u2014](?=\s)|\s(?=-{1,3}\s)|\s(?=\()|\)(?=\s)")


@dataclass(frozen=True, slots=True)
class Window:
    """A sentence, or some words of one, as a reader sees it; it was made from the answer's text at `start` to `end`."""

    text: str
    start: int
    end: int


class _LineKind(Enum):
    """Kind of a line of an answer."""

    BLANK = auto()
    RULE = auto()
    PLAIN = auto()
    ITEM = auto()
    HEADING = auto()
    ROW = auto()
    JSON = auto()
    COMMENT = auto()
    CODE = auto()


@dataclass(frozen=True, slots=True)
class _LayoutLine:
    """One line of an answer, and which parts of it a reader reads."""

    kind: _LineKind
    ranges: tuple[tuple[int, int], ...]
    """(start, end) in the answer of each part that is read; several in a line with cells or values."""


def reading_windows(text: str) -> list[Window]:
    """The windows of an answer, sorted by place; empty if all of its sentences are already segments.

    Of windows with the same text only one is returned.
    """
    if not _LAYOUT_SIGN.search(text):
        return []
    segment_texts = {_bare_sentence(segment.text) for segment in split(text)}
    window_by_text = dict[str, Window]()
    for passage in _find_passages(text):
        for window in _passage_windows(passage):
            if window.text and _bare_sentence(window.text) not in segment_texts:
                window_by_text.setdefault(window.text, window)
    return sorted(window_by_text.values(), key=lambda window: (window.start, window.end))


def _bare_sentence(sentence: str) -> str:
    """A sentence in lower case without list marker, emphasis and end mark, which hide nothing from a detector."""
    return strip_marks(_SIGNS_AROUND_WORD.sub("", sentence)).rstrip(" .!?:;,\u2026").casefold()


def without_overlap(windows: Sequence[Window]) -> list[list[Window]]:
    """Divide the windows into as few lists as possible, so that the windows of a list do not overlap.

    The detector reads each list as one text. With overlaps, the text would say words twice, and a detector takes little
    notice of what it has read before.
    """
    window_lists = list[list[Window]]()
    for window in sorted(windows, key=lambda window: (window.start, window.end)):
        fitting_list = next((earlier for earlier in window_lists if earlier[-1].end <= window.start), None)
        if fitting_list is None:
            window_lists.append([window])
        else:
            fitting_list.append(window)
    return window_lists


def _find_passages(text: str) -> Iterator[MappedText]:
    """Yield the passages of an answer as a reader sees them; no sentence continues from one passage to the next."""
    lines = list(_read_lines(text))
    yield from _read_columns(text, lines)
    ranges = list[tuple[int, int]]()  # those of the present passage
    last_line: _LayoutLine | None = None  # None if the next line cannot continue the passage
    for line in lines:
        # a rule ends every passage, an empty line not that of short lines, which may be pieces of one sentence
        if line.kind is _LineKind.RULE:
            last_line = None
        elif not line.ranges:
            last_line = last_line if last_line is not None and _is_short(text, last_line) else None
        if not line.ranges:
            continue
        if last_line is None or not _may_continue(text, last_line, line):
            if ranges:
                yield _strip_layout(text, ranges)
            ranges = []
        ranges += line.ranges
        last_line = line
    if ranges:
        yield _strip_layout(text, ranges)


def _read_lines(text: str) -> Iterator[_LayoutLine]:
    """Yield the lines of an answer; those that open or close a code block have nothing to read."""
    fence = ""  # that of the present code block; empty outside of code
    for match in _LINE.finditer(text):
        line = match.group().rstrip()
        fence_match = _FENCE.match(line)
        # a fence closes a block only if it is as long as the opening one and nothing follows it
        may_close = (
            fence_match is not None and fence_match["fence"].startswith(fence) and fence_match.end() == len(line)
        )
        if fence_match and (not fence or may_close):
            fence = "" if fence else fence_match["fence"]
            yield _LayoutLine(_LineKind.CODE, ())
        else:
            yield _read_line(line, match.start(), in_code=bool(fence))


def _read_line(line: str, line_start: int, *, in_code: bool) -> _LayoutLine:
    """Find the kind and the ranges of a line, which begins at offset `line_start` of the answer.

    `in_code` says whether the line is within a code block.
    """
    if not line.strip():
        return _LayoutLine(_LineKind.BLANK, ())
    if in_code:
        return _read_code_line(line, line_start)
    values = _find_json_values(line)
    if values:
        return _LayoutLine(_LineKind.JSON, _shift_ranges(values, line_start))
    if _RULE_LINE.fullmatch(line):
        return _LayoutLine(_LineKind.RULE, ())
    # a single bar inside a line makes no table
    if line.count("|") > 1 or line.lstrip().startswith("|"):
        cells = (match.span() for match in CELL.finditer(line) if match.group().strip())
        return _LayoutLine(_LineKind.ROW, _shift_ranges(cells, line_start))
    marks = _LINE_MARKS.match(line)
    start = line_start + (marks.end() if marks else 0)
    return _LayoutLine(_prose_kind(line), ((start, line_start + len(line)),))


def _find_json_values(line: str) -> list[tuple[int, int]] | None:
    """The places of the strings in a line of JSON that are values; None if it is no line of JSON."""
    if not _JSON_LINE.match(line):
        return None
    return [match.span("value") for match in _JSON_STRING.finditer(line) if match["key"] is None]


def _prose_kind(line: str) -> _LineKind:
    """The kind of a line of words: heading, list item or plain."""
    if _HEADING.match(line):
        return _LineKind.HEADING
    return _LineKind.ITEM if _ITEM.match(line) else _LineKind.PLAIN


def _shift_ranges(ranges: Iterable[tuple[int, int]], offset: int) -> tuple[tuple[int, int], ...]:
    """The (start, end) ranges, each moved by `offset` characters."""
    return tuple((start + offset, end + offset) for start, end in ranges)


def _read_code_line(line: str, line_start: int) -> _LayoutLine:
    """Find what is read of a line of code: a comment, values of JSON, or strings long enough for a sentence."""
    comment = _CODE_COMMENT.search(line)
    if comment is not None:
        words = comment["words"]
        for sign in _COMMENT_ENDS:
            words = words.removesuffix(sign)
        start = line_start + comment.start("words")
        return _LayoutLine(_LineKind.COMMENT, ((start, start + len(words.rstrip())),))
    values = _find_json_values(line)
    if values is not None:
        return _LayoutLine(_LineKind.JSON, _shift_ranges(values, line_start))
    strings = [match.span(match.lastgroup or 0) for match in _CODE_STRING.finditer(line)]
    return _LayoutLine(_LineKind.COMMENT if strings else _LineKind.CODE, _shift_ranges(strings, line_start))


def _read_columns(text: str, lines: Sequence[_LayoutLine]) -> Iterator[MappedText]:
    """Yield the columns of tables, each read from top to bottom as one passage."""
    for is_table, group in groupby(lines, key=lambda line: line.kind is _LineKind.ROW):
        if not is_table:
            continue
        cells_by_column: dict[int, list[tuple[int, int]]] = {}
        for row in group:
            for column, cell in enumerate(row.ranges):
                cells_by_column.setdefault(column, []).append(cell)
        # a table of one column is read row by row only, since both ways are the same
        if 1 < len(cells_by_column) <= _MAX_COLUMNS:
            yield from (_strip_layout(text, cells) for cells in cells_by_column.values() if len(cells) > 1)


def _may_continue(text: str, line: _LayoutLine, next_line: _LayoutLine) -> bool:
    """Whether a sentence may continue from a line to the next one."""
    last_start, last_end = line.ranges[-1]
    if line.kind is not _LineKind.JSON and SENTENCE_END.search(text[last_start:last_end]) is not None:
        return False
    # a sentence may be spread over short lines of any kind, one word in each
    if _is_short(text, line) and _is_short(text, next_line):
        return True
    # items and headings do not continue each other
    continuing_kinds = (_LineKind.PLAIN, _LineKind.COMMENT, _LineKind.ROW, _LineKind.JSON)
    return line.kind is next_line.kind and line.kind in continuing_kinds


def _is_short(text: str, line: _LayoutLine) -> bool:
    """Whether each part of a line is short enough to be a piece of a sentence."""
    return all(
        end - start <= _SHORT_PIECE_CHARS and len(text[start:end].split()) <= _SHORT_PIECE_WORDS
        for start, end in line.ranges
    )


def _strip_layout(text: str, ranges: Iterable[tuple[int, int]]) -> MappedText:
    """Join the (start, end) ranges of an answer with spaces, and remove the markup that a reader does not see."""
    parts = list[str]()
    origins = list[int]()  # for each character of the joined text, its position in the answer
    for start, end in ranges:
        if parts:
            # the space between two ranges counts as the first character of the second
            parts.append(" ")
            origins.append(start)
        parts.append(text[start:end])
        origins += range(start, end)
    mapped = MappedText("".join(parts), origins)
    if "\\" in mapped.text and _TEX_COMMAND_SIGN.search(mapped.text):
        mapped.replace(_TEX_SPACE, lambda _: " ")
        mapped.replace(_TEX_COMMAND, lambda _: "")
    if "<" in mapped.text:
        mapped.replace(_AUTOLINK, lambda _: " ")
        mapped.replace(_TAG_READ_AS_LINE_END, lambda _: "\n")
        mapped.replace(_TAG_READ_AS_SPACE, lambda _: " ")
        mapped.replace(TAG, lambda _: "")
    if "&" in mapped.text:
        mapped.replace(_ENTITY, lambda match: html.unescape(match[0]))
    if "[" in mapped.text:
        mapped.keep_group(_LINK, "label")
    mapped.replace(_BACKTICKS, lambda _: "")
    mapped.replace(_EMPHASIS_SIGNS, lambda _: "")
    mapped.replace(_WIDE_SPACE, lambda _: " ")
    return mapped


def _passage_windows(passage: MappedText) -> Iterator[Window]:
    """Yield the windows of a passage: its sentences, quotations in them, and clauses that a long sentence may hide."""
    for sentence in _whole_sentences(passage.text):
        words = [match.span() for match in _WORD.finditer(passage.text, sentence.start, sentence.end)]
        if len(words) < MIN_WORDS or not _LETTER.search(sentence.text):
            continue
        # a window of which the window before has all words is left out
        first_words = range(0, max(1, len(words) - (WINDOW_WORDS - STEP_WORDS)), STEP_WORDS)
        for window_words in (words[first : first + WINDOW_WORDS] for first in first_words):
            yield _build_window(passage, window_words[0][0], window_words[-1][1])
        for match in _QUOTATION.finditer(sentence.text):
            start, end = match.span(match.lastgroup or 0)
            if len(sentence.text[start:end].split()) >= MIN_WORDS:
                yield _build_window(passage, sentence.start + start, sentence.start + end)
        min_words = LONG_SENTENCE_WORDS if SENTENCE_END.search(sentence.text) else CLAUSE_WORDS
        if len(words) >= min_words:
            yield from _clause_windows(passage, sentence)
        elif len(words) >= ADDRESSING_WORDS:
            yield from _address_windows(passage, sentence)


def _whole_sentences(text: str) -> Iterator[Segment]:
    """Yield the segments of a text, but segments into which `split` divided a long sentence joined again.

    Overlapping windows are cut from the whole sentence.
    """
    parts: list[Segment] = []
    for segment in split(text):
        parts.append(segment)
        if "\n" in segment.gap or SENTENCE_END.search(segment.text):
            yield _join_segments(parts)
            parts = []
    if parts:
        yield _join_segments(parts)


def _join_segments(segments: Sequence[Segment]) -> Segment:
    """One segment with the text of consecutive segments."""
    *earlier, last = segments
    text_before = "".join(segment.text + segment.gap for segment in earlier)
    return Segment(segments[0].start, text_before + last.text, last.gap)


def _address_windows(passage: MappedText, sentence: Segment) -> Iterator[Window]:
    """Yield the clauses in which a sentence addresses its reader, alone and together with the next clause.

    Consecutive clauses of this kind are one window. In "The sea is wide, you ..., and the sky is blue" a detector
    notices only the sea and the sky. Few sentences of an ordinary answer mix addressing the reader with something else,
    so this costs little.
    """
    ends = [*(match.end() for match in _CLAUSE_SIGN.finditer(sentence.text)), len(sentence.text)]
    clauses = list(pairwise([0, *ends]))
    addresses_reader = [_ADDRESSING_WORD.search(sentence.text, start, end) is not None for start, end in clauses]
    for is_addressing, group in groupby(range(len(clauses)), key=addresses_reader.__getitem__):
        indexes = list(group)
        # if all clauses address the reader, the sentence itself is already a window
        if not is_addressing or len(indexes) == len(clauses):
            continue
        start, _ = clauses[indexes[0]]
        _, end = clauses[indexes[-1]]
        yield _build_window(passage, sentence.start + start, sentence.start + end)
        next_index = indexes[-1] + 1
        if next_index < len(clauses):
            _, end_of_next = clauses[next_index]
            yield _build_window(passage, sentence.start + start, sentence.start + end_of_next)


def _clause_windows(passage: MappedText, sentence: Segment) -> Iterator[Window]:
    """Yield the clauses of a long sentence, each alone, and each together with the last words of the clause before.

    A short clause is joined to the next one.
    """
    text = sentence.text
    start = 0
    context_start: int | None = None  # where the last words of the clause before begin; None in the first clause
    for end in (*(match.end() for match in CLAUSE_END.finditer(text)), len(text)):
        word_starts = [match.start() for match in _WORD.finditer(text, start, end)]
        word_count = len(word_starts)
        if word_count <= MIN_WORDS and not (end == len(text) and word_count == MIN_WORDS):
            continue
        if word_count > _LONG_CLAUSE_WORDS:
            yield from _overlapping_windows(passage, sentence.start + start, sentence.start + end)
        elif end - start < len(text):
            yield _build_window(passage, sentence.start + start, sentence.start + end)
        if context_start is not None and word_count <= _LONG_CLAUSE_WORDS:
            yield _build_window(passage, sentence.start + context_start, sentence.start + end)
        # a few words of a clause are enough as context of the next one
        context_start = word_starts[-min(word_count, _SHORT_WINDOW_WORDS // 2 + 1)]
        start = end


def _overlapping_windows(passage: MappedText, start: int, end: int) -> Iterator[Window]:
    """Yield overlapping windows of a passage's words from `start` to `end`, where no clauses can be told apart."""
    words = [match.span() for match in _WORD.finditer(passage.text, start, end)]
    step = _SHORT_WINDOW_WORDS // 2
    for first in range(0, len(words) - step, step):
        window_words = words[first : first + _SHORT_WINDOW_WORDS]
        yield _build_window(passage, window_words[0][0], window_words[-1][1])


def _build_window(passage: MappedText, start: int, end: int) -> Window:
    """Make the characters from `start` to `end` of a passage a sentence, with a capital and a full stop.

    The window's text is empty if there are no words.
    """
    text = passage.text[start:end]
    # a clause begins and ends with words, not with the signs that divide it from others
    start += len(text) - len(text.lstrip(" \t\n,;:-\u2013\u2014([\"'\u201c"))
    text = passage.text[start:end].rstrip(" \t\n,;:-\u2013\u2014([\"'\u201c")
    if not text:
        return Window("", 0, 0)
    sentence = text[:1].upper() + text[1:]
    if not SENTENCE_END.search(text):
        sentence += "."
    return Window(sentence, passage.origins[start], passage.origins[start + len(text) - 1] + 1)
