"""Reading form of an answer: the plain sentences that a reader sees in text with another layout.

A detector that judges sentences misses one whose words are cells of a table, bullets, values of JSON, comments in code,
the text of a link, or a clause of a sentence without an end. This module removes markers, tags and commands, joins
lines and cells, and cuts the result into sentences. If no sentence ends, it cuts overlapping windows. Each window knows
from which characters of the answer it was made. A sentence that is a segment of the answer as it is gets no window. So
plain prose has no windows at all, and one search is enough to find that out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import groupby, pairwise

from aligner_proxy.text.fragments import strip_marks
from aligner_proxy.text.mapped import MappedText
from aligner_proxy.text.sentence_ends import CLOSING, MARKS
from aligner_proxy.text.structure import Segment, split

WINDOW_WORDS = 40
"""Most words of a window."""
STEP_WORDS = 25
"""Words from the beginning of a window to that of the next."""
MIN_WORDS = 3
"""A text with fewer words is no sentence that could say anything about a person."""
CLAUSE_WORDS = 16
"""Text without a sentence end and with more words than this is also read clause by clause."""
LONG_SENTENCE_WORDS = 40
"""A sentence with an end and at least this many words is also read clause by clause."""
ADDRESSING_WORDS = 14
"""In a sentence of at least this many words, clauses that address the reader are read separately."""
_LONG_CLAUSE_WORDS = 14
"""A clause with more words is cut into overlapping windows."""
_STRETCH_WORDS = 10
"""Words per window in a clause that is too long; consecutive windows overlap by half."""
_SHORT_WORDS = 3
_SHORT_CHARS = 80
"""A line, item, cell or value with no more words and characters may be a piece of a sentence."""
_MAX_COLUMNS = 40
"""Columns of wider tables are not read, because nobody reads so many downwards and their windows all overlap."""
_WORD = re.compile(r"\S+")
_LETTERS = re.compile(r"[^\W\d_]")
_LAYOUT = re.compile(
    r"[|`*_<\\#\[\]{}\"\u201c\u201e\u00ab&>]|^[ \t]*(?:[-+\u2022\u25e6\u25aa\u2013]|\w{1,3}[.)])[ \t]|[^\n]\n[^\n]"
    r"|(?:[^\s.!?\u3002]{1,40}[ \t]+){16}",
    re.MULTILINE,
)
_LINE = re.compile(r"[^\n]*\n?")
_FENCE = re.compile(r"[ \t>]*(?P<fence>```+|~~~+)")
_LEAD = re.compile(
    r"(?:[ \t>]{0,40}(?:#{1,6}[ \t]+|[-*+\u2022\u25e6\u25aa\u2013\u2014][ \t]+|\(?\w{1,3}[.)][ \t]+"
    r"|\[[ xX]\][ \t]+)?){1,3}"
)
_HEADING = re.compile(r"[ \t>]{0,40}#{1,6}[ \t]")
_ITEM = re.compile(r"[ \t>]{0,40}(?:[-*+\u2022\u25e6\u25aa\u2013\u2014]|\(?\w{1,3}[.)])[ \t]")
_RULE = re.compile(r"[ \t|:=_*+-]*")
_JSON = re.compile(r"[ \t]*(?:[{}\[\]]|\"(?:[^\"\\\n]|\\.){0,400}\"[ \t]*[:,]?[ \t]*$|\"[^\"\n]{1,100}\"[ \t]*:)")
_STRING = re.compile(r"\"(?P<value>(?:[^\"\\\n]|\\.){0,4000})\"(?P<key>[ \t]*:)?")
_COMMENT = re.compile(r"(?:^|(?<=[\s;{}(),]))(?:#+|//+|--|/\*+|\*+|<!--|%+|;+|\"\"\"|''')[ \t]?(?P<words>[^\n]*)")
_COMMENT_ENDS = ("*/", "-->", '"""', "'''")
_CODE_STRING = re.compile(r"\"(?P<double>[^\"\n]{12,400})\"|'(?P<single>[^'\n]{12,400})'")
CELL = re.compile(r"(?:\\.|[^|\\\n])+")
_LINK = re.compile(
    r"!?\[(?P<label>[^\[\]\n]{1,400})\](?:\([^()\s]{0,500}(?:[ \t][^()\n]{0,200})?\)|\[[^\[\]\n]{0,100}\]|:(?=[ \t]))"
)
_AUTOLINK = re.compile(r"<(?:https?://|mailto:)[^<>\s]{1,500}>|https?://[^\s<>()]{1,500}")
_BLOCK_TAG = re.compile(
    r"</?(?:p|div|li|ul|ol|dl|dt|dd|tr|table|thead|tbody|h[1-6]|details|summary|blockquote|section|article|pre|hr)"
    r"(?:\s[^<>]{0,300})?/?>",
    re.IGNORECASE,
)
_SPACE_TAG = re.compile(r"</?(?:td|th|br|option|button)(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)
TAG = re.compile(r"</?[A-Za-z][\w-]{0,20}(?:\s[^<>]{0,300})?/?>|<!--|-->")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,14});")
_TEX = re.compile(r"\\(?:[A-Za-z]{2,20}\*?\{|[(\[]|begin\{)")
_TEX_SPACE = re.compile(r"\\(?:[,;:! ~\\]|(?:q?quad|newline|hspace\{[^{}]{0,20}\})(?![A-Za-z]))|~|\$\$?|&|\\[()\[\]]")
_TEX_COMMAND = re.compile(r"\\(?:begin|end)\{[^{}\n]{0,40}\}|\\[A-Za-z]{1,20}\*?|[_^](?=\{)|[{}]")
_TICKS = re.compile(r"`+")
_STARS = re.compile(r"(?<=\S)[*~]{1,3}|[*~]{1,3}(?=\S)|(?<![^\W_])_{1,3}(?=\S)|(?<=\S)_{1,3}(?![^\W_])")
_EMPHASIS = re.compile(r"(?<![\w*~`])[*_~`]+|[*_~`]+(?![\w*~`])")
_GAPS = re.compile(r"[ \t\u00a0]{2,}|\u00a0")
SENTENCE_END = re.compile(rf"[{MARKS}:][{re.escape(CLOSING)}]*\s*$")
_SAYING = re.compile(
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
_ADDRESS = re.compile(r"\b(?:you|your|yours|yourself|yourselves|u|ur)\b", re.IGNORECASE)
_PART_END = re.compile(r"[,;:\u2013\u2014](?=\s)|\s(?=-{1,3}\s)|\s(?=\()|\)(?=\s)")


@dataclass(frozen=True, slots=True)
class Window:
    """A sentence, or some words of one, as a reader sees it; `start` and `end` bound its source in the answer."""

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
    """The parts of a line that a reader reads, as ranges of the answer; several if it has cells or values."""

    kind: _LineKind
    stretches: tuple[tuple[int, int], ...]
    is_short: bool = False
    """Whether it may be a piece of a sentence."""


def reading_windows(text: str) -> list[Window]:
    """The windows of an answer, in layout order; empty if all of its sentences are already segments."""
    if not _LAYOUT.search(text):
        return []
    segments = {_bare_sentence(piece.text) for piece in split(text)}
    windows = dict[str, Window]()
    for passage in _find_passages(text):
        for window in _passage_windows(passage):
            if window.text and _bare_sentence(window.text) not in segments:
                windows.setdefault(window.text, window)
    return sorted(windows.values(), key=lambda window: (window.start, window.end))


def _bare_sentence(sentence: str) -> str:
    """A sentence without list and emphasis markers, which hide nothing from a detector, and without its end mark."""
    return strip_marks(_EMPHASIS.sub("", sentence)).rstrip(" .!?:;,\u2026").casefold()


def without_overlap(windows: Sequence[Window]) -> list[list[Window]]:
    """Divide the windows into as few lists as possible without overlaps inside a list.

    In one text, overlapping windows would repeat words, and a detector hardly notices what was said before.
    """
    layers = list[list[Window]]()
    for window in sorted(windows, key=lambda window: (window.start, window.end)):
        free = next((layer for layer in layers if layer[-1].end <= window.start), None)
        if free is None:
            layers.append([window])
        else:
            free.append(window)
    return layers


def _find_passages(text: str) -> Iterator[MappedText]:
    """Yield the text as a reader sees it, in passages that do not continue each other."""
    lines = [_mark_short(text, line) for line in _read_lines(text)]
    yield from _read_columns(text, lines)
    stretches = list[tuple[int, int]]()
    before: _LayoutLine | None = None
    for line in lines:
        # a rule separates everything; short lines may be pieces of one sentence despite empty lines
        if line.kind is _LineKind.RULE:
            before = None
        elif not line.stretches:
            before = before if before is not None and before.is_short else None
        if not line.stretches:
            continue
        if before is None or not _goes_on(text, before, line):
            if stretches:
                yield _strip_layout(text, stretches)
            stretches = []
        stretches += line.stretches
        before = line
    if stretches:
        yield _strip_layout(text, stretches)


def _read_lines(text: str) -> Iterator[_LayoutLine]:
    """Yield the lines of an answer; those that open or close a code block have nothing to read."""
    fence = ""
    for match in _LINE.finditer(text):
        line = match.group().rstrip()
        mark = _FENCE.match(line)
        # a fence closes a block only if it is as long as the opening one and nothing follows it
        may_close = mark is not None and mark["fence"].startswith(fence) and mark.end() == len(line)
        if mark and (not fence or may_close):
            fence = "" if fence else mark["fence"]
            yield _LayoutLine(_LineKind.CODE, ())
        else:
            yield _read_line(line, match.start(), in_code=bool(fence))


def _read_line(line: str, line_start: int, *, in_code: bool) -> _LayoutLine:
    """The parts of a line that begins at offset `line_start` of the answer, `in_code` or outside of a code block."""
    if not line.strip():
        return _LayoutLine(_LineKind.BLANK, ())
    if in_code:
        return _read_code_line(line, line_start)
    if _JSON.match(line):
        values = [match.span("value") for match in _STRING.finditer(line) if match["key"] is None]
        if values:
            return _LayoutLine(_LineKind.JSON, _shift_ranges(values, line_start))
    if _RULE.fullmatch(line):
        return _LayoutLine(_LineKind.RULE, ())
    # a single sign inside a line is no table
    if line.count("|") > 1 or line.lstrip().startswith("|"):
        cells = (match.span() for match in CELL.finditer(line) if match.group().strip())
        return _LayoutLine(_LineKind.ROW, _shift_ranges(cells, line_start))
    lead = _LEAD.match(line)
    start = line_start + (lead.end() if lead else 0)
    return _LayoutLine(_prose_kind(line), ((start, line_start + len(line)),))


def _prose_kind(line: str) -> _LineKind:
    """The kind of a line of words: heading, list item or plain."""
    if _HEADING.match(line):
        return _LineKind.HEADING
    return _LineKind.ITEM if _ITEM.match(line) else _LineKind.PLAIN


def _shift_ranges(ranges: Iterable[tuple[int, int]], by: int) -> tuple[tuple[int, int], ...]:
    return tuple((start + by, end + by) for start, end in ranges)


def _read_code_line(line: str, line_start: int) -> _LayoutLine:
    """The parts of a line of code that are read: a comment, or strings long enough for a sentence."""
    comment = _COMMENT.search(line)
    if comment is not None:
        words = comment["words"]
        for sign in _COMMENT_ENDS:
            words = words.removesuffix(sign)
        start = line_start + comment.start("words")
        return _LayoutLine(_LineKind.COMMENT, ((start, start + len(words.rstrip())),))
    if _JSON.match(line):
        values = [match.span("value") for match in _STRING.finditer(line) if match["key"] is None]
        return _LayoutLine(_LineKind.JSON, _shift_ranges(values, line_start))
    strings = [match.span(match.lastgroup or 0) for match in _CODE_STRING.finditer(line)]
    return _LayoutLine(_LineKind.COMMENT if strings else _LineKind.CODE, _shift_ranges(strings, line_start))


def _read_columns(text: str, lines: Sequence[_LayoutLine]) -> Iterator[MappedText]:
    """Yield the columns of tables, each read from top to bottom as one passage."""
    for is_table, group in groupby(lines, key=lambda line: line.kind is _LineKind.ROW):
        if not is_table:
            continue
        columns: dict[int, list[tuple[int, int]]] = {}
        for row in group:
            for number, cell in enumerate(row.stretches):
                columns.setdefault(number, []).append(cell)
        # a single column is read with the rows
        if 1 < len(columns) <= _MAX_COLUMNS:
            yield from (_strip_layout(text, cells) for cells in columns.values() if len(cells) > 1)


def _goes_on(text: str, line: _LayoutLine, following: _LayoutLine) -> bool:
    """Whether a sentence may continue from one line to the one that follows."""
    last_start, last_end = line.stretches[-1]
    if line.kind is not _LineKind.JSON and SENTENCE_END.search(text[last_start:last_end]) is not None:
        return False
    # a sentence may be spread over short lines of any kind, one word in each
    if line.is_short and following.is_short:
        return True
    # items and headings do not continue each other
    flowing = (_LineKind.PLAIN, _LineKind.COMMENT, _LineKind.ROW, _LineKind.JSON)
    return line.kind is following.kind and line.kind in flowing


def _mark_short(text: str, line: _LayoutLine) -> _LayoutLine:
    """The line with `is_short` set."""
    is_short = all(
        end - start <= _SHORT_CHARS and len(text[start:end].split()) <= _SHORT_WORDS for start, end in line.stretches
    )
    return replace(line, is_short=is_short) if is_short else line


def _strip_layout(text: str, stretches: Iterable[tuple[int, int]]) -> MappedText:
    """Join ranges of an answer and remove layout that is not read."""
    parts = list[str]()
    origins = list[int]()
    for start, end in stretches:
        if parts:
            # the space between two ranges counts as the first character of the second
            parts.append(" ")
            origins.append(start)
        parts.append(text[start:end])
        origins += range(start, end)
    mapped = MappedText("".join(parts), origins)
    if "\\" in mapped.text and _TEX.search(mapped.text):
        mapped.replace(_TEX_SPACE, lambda _: " ")
        mapped.replace(_TEX_COMMAND, lambda _: "")
    if "<" in mapped.text:
        mapped.replace(_AUTOLINK, lambda _: " ")
        mapped.replace(_BLOCK_TAG, lambda _: "\n")
        mapped.replace(_SPACE_TAG, lambda _: " ")
        mapped.replace(TAG, lambda _: "")
    if "&" in mapped.text:
        mapped.replace(_ENTITY, lambda match: html.unescape(match[0]))
    if "[" in mapped.text:
        mapped.keep_group(_LINK, "label")
    mapped.replace(_TICKS, lambda _: "")
    mapped.replace(_STARS, lambda _: "")
    mapped.replace(_GAPS, lambda _: " ")
    return mapped


def _passage_windows(passage: MappedText) -> Iterator[Window]:
    """The windows of a passage: its sentences, what they quote, and clauses that a long sentence may hide."""
    for piece in _whole_sentences(passage.text):
        words = [(piece.start + word.start(), piece.start + word.end()) for word in _WORD.finditer(piece.text)]
        if len(words) < MIN_WORDS or not _LETTERS.search(piece.text):
            continue
        # no window is begun whose words the one before holds already
        for first in range(0, max(1, len(words) - (WINDOW_WORDS - STEP_WORDS)), STEP_WORDS):
            yield _build_window(passage, words[first][0], words[min(first + WINDOW_WORDS, len(words)) - 1][1])
        # what is quoted is read alone, too
        for match in _SAYING.finditer(piece.text):
            start, end = match.span(match.lastgroup or 0)
            if len(piece.text[start:end].split()) >= MIN_WORDS:
                yield _build_window(passage, piece.start + start, piece.start + end)
        if len(words) >= (LONG_SENTENCE_WORDS if SENTENCE_END.search(piece.text) else CLAUSE_WORDS):
            yield from _clause_windows(passage, piece.start, piece.text)
        elif len(words) >= ADDRESSING_WORDS:
            yield from _address_windows(passage, piece.start, piece.text)


def _whole_sentences(text: str) -> Iterator[Segment]:
    """Yield the segments of a text; one that was divided without an end is whole, since its windows overlap."""
    run: list[Segment] = []
    for piece in split(text):
        run.append(piece)
        if "\n" in piece.gap or SENTENCE_END.search(piece.text):
            yield _join_pieces(run)
            run = []
    if run:
        yield _join_pieces(run)


def _join_pieces(run: Sequence[Segment]) -> Segment:
    """One segment with the text of consecutive ones."""
    return Segment(run[0].start, "".join(piece.text + piece.gap for piece in run[:-1]) + run[-1].text, run[-1].gap)


def _address_windows(passage: MappedText, sentence_start: int, sentence: str) -> Iterator[Window]:
    """Yield the clauses in which a sentence addresses its reader, alone and together with the next clause.

    In "The sea is wide, you ..., and the sky is blue" a detector notices only the sea and the sky. Few sentences of an
    ordinary answer mix addressing the reader with something else, so this costs little.
    """
    ends = [*(match.end() for match in _PART_END.finditer(sentence)), len(sentence)]
    parts = list(pairwise([0, *ends]))
    addressed = [_ADDRESS.search(sentence, start, end) is not None for start, end in parts]
    for is_addressed, group in groupby(range(len(parts)), key=addressed.__getitem__):
        run = list(group)
        # if all clauses address the reader, the sentence itself is that window
        if not is_addressed or len(run) == len(parts):
            continue
        start, _ = parts[run[0]]
        _, end = parts[run[-1]]
        yield _build_window(passage, sentence_start + start, sentence_start + end)
        next_number = run[-1] + 1
        if next_number < len(parts):
            _, end_of_next = parts[next_number]
            yield _build_window(passage, sentence_start + start, sentence_start + end_of_next)


def _clause_windows(passage: MappedText, sentence_start: int, sentence: str) -> Iterator[Window]:
    """Yield the clauses of a long sentence, each alone and behind the end of the clause before.

    Short clauses join the next one.
    """
    start = 0
    context_start: int | None = None
    """Where the last words of the clause before begin."""
    for end in (*(match.end() for match in CLAUSE_END.finditer(sentence)), len(sentence)):
        word_starts = [match.start() for match in _WORD.finditer(sentence, start, end)]
        word_count = len(word_starts)
        if word_count <= MIN_WORDS and not (end == len(sentence) and word_count == MIN_WORDS):
            continue
        if word_count > _LONG_CLAUSE_WORDS:
            yield from _overlapping_windows(passage, sentence_start + start, sentence_start + end)
        elif end - start < len(sentence):
            yield _build_window(passage, sentence_start + start, sentence_start + end)
        if context_start is not None and word_count <= _LONG_CLAUSE_WORDS:
            yield _build_window(passage, sentence_start + context_start, sentence_start + end)
        # of the clause before, a few words are enough for the context
        context_start = word_starts[-min(word_count, _STRETCH_WORDS // 2 + 1)]
        start = end


def _overlapping_windows(passage: MappedText, start: int, end: int) -> Iterator[Window]:
    """Yield overlapping windows of words, for text without usable clauses."""
    words = [match.span() for match in _WORD.finditer(passage.text, start, end)]
    for first in range(0, len(words) - _STRETCH_WORDS // 2, _STRETCH_WORDS // 2):
        yield _build_window(passage, words[first][0], words[min(first + _STRETCH_WORDS, len(words)) - 1][1])


def _build_window(passage: MappedText, start: int, end: int) -> Window:
    """The characters from `start` to `end` of a passage as a sentence, with a capital and a full stop.

    The window is empty if they hold no words.
    """
    text = passage.text[start:end]
    # a clause begins and ends with words, not with the signs that divide it from others
    start += len(text) - len(text.lstrip(" \t\n,;:-\u2013\u2014([\"'\u201c"))
    text = passage.text[start:end].rstrip(" \t\n,;:-\u2013\u2014([\"'\u201c")
    if not text:
        return Window("", 0, 0)
    sentence = text[:1].upper() + text[1:]
    if text and not SENTENCE_END.search(text):
        sentence += "."
    return Window(sentence, passage.origins[start], passage.origins[start + len(text) - 1] + 1)
