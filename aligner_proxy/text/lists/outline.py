"""Outline of an answer: which segments belong to a list item, a heading, a table row, or a line that announces a list.

When segments are removed, others must be removed, too: a lone marker ("a." is a separate segment), a heading with an
empty section, a line that announces an empty list, a row without content. And something must stay: the marker of an
item of which other sentences stay, the bars of a table row. Segments are named by their index in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, takewhile

from aligner_proxy.text.lists.contents import find_entries
from aligner_proxy.text.lists.frames import find_frames, is_frame
from aligner_proxy.text.lists.headings import TITLE_LEVEL, is_admonition, is_run_in_title, read_title_word
from aligner_proxy.text.lists.items import OutlineItem, find_items
from aligner_proxy.text.lists.lines import (
    AMOUNT,
    BARE_VALUE,
    CONTENT,
    STROKE,
    UNDERLINE,
    OutlineLine,
    find_line_start,
    join_underlined,
    make_line,
    read_lines,
    stands_alone,
)
from aligner_proxy.text.lists.marks import PICTURE_BULLET
from aligner_proxy.text.lists.ordinals import begins_with_number, find_numbered_sentences
from aligner_proxy.text.lists.tables import OutlineTable, find_tables, keeps_cells
from aligner_proxy.text.sentence_ends import NOTE_LABEL
from aligner_proxy.text.structure import FENCES, Segment

_MAX_LIST_ITEMS = 256
"""Most items that are read of a list that belongs to the line above it."""
_MAX_INTRO_LINES = 4
"""Most lines of text between a heading and the list that it counts."""
FoundCount = tuple[tuple[int, int, int], re.Pattern[str]]
"""((segment with a count, number of items before, number of items after), pattern that matches the count)."""
_ROW_NUMBER = re.compile(r"\d{1,3}")
_LINE_LEAD = re.compile(
    rf"[ \t>]*(?:#{{1,6}}[ \t]+|:[ \t]+|\\item\b[ \t]*|{NOTE_LABEL}:[ \t]+|\[[ xX]\][ \t]+|{PICTURE_BULLET}[ \t]*"
    r"|\[?\d{1,2}:\d\d\]?(?:[ \t]?[ap]m)?(?::|[ \t]*[-\u2013\u2014])?(?=[ \t]))?",
    re.IGNORECASE,
)
"""Matches the indentation, signs of a quotation or heading, the box of a task, the label of a note, or a time."""


@dataclass(frozen=True, slots=True)
class ListCompletion:
    """What a removal of segments comes to, once the lists, tables and headings around them are considered."""

    removed: frozenset[int]
    """The segments that are removed as a whole."""
    kept_texts: dict[int, str] = field(default_factory=dict)
    """For each segment of which only a part stays, that part, such as the marker of an item."""


class Outline:
    """The lines, list items and tables of an answer with the segments `pieces`.

    `in_table` says whether the answer may begin with a further row of a table in earlier text.
    """

    def __init__(self, pieces: Sequence[Segment], *, in_table: bool = False) -> None:
        self._segments = pieces
        self.lines = list(join_underlined(read_lines(pieces, in_table=in_table)))
        self.items, starts_outside_items = find_items(self.lines, len(pieces))
        self._item_by_first = {item.first: item for item in self.items}
        """Each item by its first segment."""
        self._item_by_line_end = {item.line.segments.stop: item for item in self.items}
        """Each item by the segment behind its first line."""
        self._all_tables = list(find_tables(self.lines, in_table=in_table))
        """The tables, and loose rows, which are treated like those of tables if cells are removed."""
        self.tables = [table for table in self._all_tables if not table.is_loose]
        self._table_by_start = {table.head[0].segments.start: table for table in self.tables if table.head}
        """Each table with a head by its first segment."""
        row_starts = {line.segments.start for line in self.lines if line.is_row}
        self.fresh_line_starts = [start for start in starts_outside_items if start not in row_starts]
        """Segments that begin a line outside of all earlier items and tables. The outline from such a line on does not
        depend on the text before."""
        table_rows = {row.segments.start for table in self.tables for row in table.rows}
        self.table_row_starts = table_rows.intersection(starts_outside_items)
        """Segments that begin a row of a table outside of all items."""
        self._has_content = [
            bool(segment.text.strip()) and not self.is_lone_mark(index) and not is_frame(segment.text)
            for index, segment in enumerate(pieces)
        ]
        """For each segment, whether it has content, that is, is more than a marker or a frame (frames.py)."""

    def complete_removal(
        self, removed: Collection[int], first_unsent: int, is_insult: Callable[[str], bool]
    ) -> ListCompletion:
        """Find what must be removed together with the segments in `removed`, and what stays of removed segments.

        Segments before `first_unsent` were sent, so they stay. `is_insult` is asked about sentences: it says whether a
        sentence only says what the reader is. The title of such a sentence may be complete without it.
        """
        if not removed:
            return ListCompletion(frozenset(removed))
        all_removed = set(removed)
        heads = [*self._find_heads(), *self._find_titles(is_insult)]
        frames = list(find_frames(self._segments))
        last_count = -1
        # what is removed may empty something else, such as the section of a heading, so repeat until nothing is added
        while last_count != len(all_removed):
            last_count = len(all_removed)
            for emptied_segments in self._find_emptied(heads, all_removed):
                all_removed.update(i for i in emptied_segments if i >= first_unsent)
            # frames around nothing are better than an empty answer, which would be refused
            if any(has_content and i not in all_removed for i, has_content in enumerate(self._has_content)):
                is_emptied = self._emptiness_test(all_removed)
                all_removed.update(frame for frame, framed in frames if frame >= first_unsent and is_emptied(framed))
        kept_texts = self._find_kept_marks(all_removed, first_unsent)
        kept_texts |= self._find_kept_bars(all_removed)
        kept_texts |= self._find_kept_leads(all_removed, first_unsent)
        return ListCompletion(frozenset(all_removed - kept_texts.keys()), kept_texts)

    def announced_lists(
        self, removed: Collection[int], patterns: Sequence[re.Pattern[str]], *, needs_colon: bool = True
    ) -> Iterator[FoundCount]:
        """Yield the counts of lists and tables that lost items in the lines that announce them, with their patterns.

        Such a count is in the last segment of a heading, or of a line with a colon. If `needs_colon` is false, it is in
        any segment of the line above the list.
        """
        for line_index, line in enumerate(self.lines[:-1]):
            if needs_colon and not (line.level or line.announces):
                continue
            list_start = self._find_list_start(line_index)
            # most lines have no list below them, and the patterns are slow
            if list_start is None:
                continue
            candidates = line.segments[-1:] if needs_colon else line.segments
            matches = list(self._find_matches(candidates, removed, patterns))
            if not matches:
                continue
            counted = self._find_counted(list_start, self._block_end(list_start))
            kept_count = _count_kept(counted, removed)
            if kept_count < len(counted):
                yield from (((index, len(counted), kept_count), match.re) for index, match in matches)

    def _find_matches(
        self, candidates: Iterable[int], removed: Collection[int], patterns: Sequence[re.Pattern[str]]
    ) -> Iterator[tuple[int, re.Match[str]]]:
        """Yield (segment, first match in it) for each pattern and each of the segments `candidates` that remains."""
        for index in candidates:
            if index not in removed:
                text = self._segments[index].text
                yield from ((index, match) for pattern in patterns if (match := pattern.search(text)) is not None)

    def _find_list_start(self, line_index: int) -> int | None:
        """The first segment of the list or table below a line; below a heading, text may come before the list.

        None if there is no such list or table.
        """
        next_index = line_index + 1
        if self.lines[line_index].level:
            # a line with a colon announces a list of its own
            later_lines = self.lines[next_index : next_index + _MAX_INTRO_LINES]
            text_lines = takewhile(lambda later: later.is_plain and not later.announces, later_lines)
            next_index += sum(1 for _ in text_lines)
        # an empty line of a quotation
        if next_index < len(self.lines) and not self.lines[next_index].text.strip(" \t>"):
            next_index += 1
        if next_index == len(self.lines):
            return None
        start = self.lines[next_index].segments.start
        return start if start in self._item_by_first or start in self._table_by_start else None

    def _find_counted(self, start: int, end: int) -> list[range]:
        """What a count of the list or table that begins with segment `start` counts: items or rows, as segments.

        Of an item only the first segment. Empty for a table whose columns may be meant: one with a label before them.
        """
        table = self._table_by_start.get(start)
        if table is None:
            siblings = self._find_siblings(start, end)
            # text between the items, such as a block of code, does not end the numbers
            series = self._item_by_first[start].series
            items = series if len(series) > len(siblings) else siblings
            return [item.segments[:1] for item in items]
        column_count = len(STROKE.split(table.head[0].text.strip().strip("|")))
        return [] if column_count == len(table.rows) + 1 else [row.segments for row in table.rows]

    def lists_above(
        self,
        removed: Collection[int],
        patterns: Sequence[re.Pattern[str]],
        names_thing: Callable[[re.Match[str], str], bool],
    ) -> Iterator[FoundCount]:
        """Yield the counts of lists and tables that lost items in the lines behind them, with their patterns.

        Only those of which `names_thing` is true, which is asked about the match and the text above the list.
        """
        line_by_start = {line.segments.start: line for line in self.lines if line.is_plain}
        for start, list_end in self._find_blocks():
            counted = self._find_counted(start, list_end)
            kept_count = _count_kept(counted, removed)
            if list_end in line_by_start and kept_count < len(counted):
                text_above = self._read_above(start)
                for index, match in self._find_matches(line_by_start[list_end].segments, removed, patterns):
                    if names_thing(match, text_above):
                        yield (index, len(counted), kept_count), match.re

    def _find_blocks(self) -> Iterator[tuple[int, int]]:
        """Yield (first segment, segment behind the last one) of each list and each table with a head."""
        list_end = -1
        for item in self.items:
            # headings are no list, and a list is read once, with its first item
            if item.line.level or item.first < list_end:
                continue
            list_end = self._find_siblings(item.first, len(self._segments))[-1].stop
            yield item.first, list_end
        for start, table in self._table_by_start.items():
            if table.rows:
                yield start, table.rows[-1].segments.stop

    def _read_above(self, start: int) -> str:
        """The line above segment `start`, and the head of the table that begins there."""
        above = next((line.text for line in reversed(self.lines) if line.segments.stop == start), "")
        table = self._table_by_start.get(start)
        return above if table is None else f"{above}\n{table.head[0].text}"

    def _find_siblings(self, start: int, end: int) -> list[OutlineItem]:
        """The consecutive items of one list from segment `start` to `end`, without nested items."""
        items: list[OutlineItem] = []
        while start < end and (item := self._item_by_first.get(start)) is not None:
            # an item further to the left belongs to the list above this one
            if items and item.line.indent < items[0].line.indent:
                break
            items.append(item)
            start = item.stop
        return items

    def _find_emptied(self, heads: Sequence[tuple[range, range]], removed: Collection[int]) -> Iterator[Iterable[int]]:
        """Yield the segments of each item, line, heading and row that has lost all of its content.

        `heads` has (segments of a heading or title, segments below it).
        """
        is_emptied = self._emptiness_test(removed)
        for item in self.items:
            if is_emptied(item.segments):
                yield item.segments
            elif is_emptied(item.line.segments) and self._is_replaced_by_nested(item, removed):
                yield item.line.segments
        yield from (segments for segments, headed in heads if is_emptied(headed))
        for table in self._all_tables:
            yield from self._find_emptied_rows(table, removed)

    def _is_replaced_by_nested(self, item: OutlineItem, removed: Collection[int]) -> bool:
        """Whether a nested item takes the place of an item whose first line is removed.

        It does if it is the first content that remains of the item. But a number does not move among numbers of the
        same style, since "1. 2. 1." would be no list.
        """
        behind_line = range(item.line.segments.stop, item.stop)
        first_kept = next((i for i in behind_line if self._has_content[i] and i not in removed), None)
        if first_kept is None:
            return False
        nested_item = self._item_by_first.get(find_line_start(self._segments, first_kept))
        if nested_item is None:
            return False
        outer = item.mark
        inner = nested_item.mark
        has_same_style = outer.style == inner.style and outer.number.isdecimal() == inner.number.isdecimal()
        return inner.is_bullet or not has_same_style

    def _emptiness_test(self, removed: Collection[int]) -> Callable[[range], bool]:
        """Return a fast test: whether a range of segments had content, and all of it is removed."""
        # the number of segments with content before each segment, counting all of them, and those that remain
        all_counts = list(accumulate(self._has_content, initial=0))
        remains = (has_content and i not in removed for i, has_content in enumerate(self._has_content))
        kept_counts = list(accumulate(remains, initial=0))

        def is_emptied(segments: range) -> bool:
            had_content = all_counts[segments.start] < all_counts[segments.stop]
            return had_content and kept_counts[segments.start] == kept_counts[segments.stop]

        return is_emptied

    def _find_heads(self) -> Iterator[tuple[range, range]]:
        """Yield (segments of a head, segments that it heads); a head is removed if all that it heads is removed.

        Heads are headings, sentences that announce a list, numbers before a sentence, entries of a table of contents,
        and the underlines of headings.
        """
        for index, sentences in find_numbered_sentences(self._segments):
            yield range(index, index + 1), sentences
        yield from find_entries([item.line for item in self.items], self.lines)
        for line_index, line in enumerate(self.lines):
            if len(line.segments) > 1 and UNDERLINE.fullmatch(self._segments[line.segments[-1]].text):
                yield line.segments[-1:], line.segments[:-1]
            headed = self._section_below(line_index, line)
            if headed:
                # a heading is removed as a whole; of another line only the sentence with the colon
                is_whole_line = line.level or is_admonition(line.text)
                yield line.segments if is_whole_line else line.segments[-1:], headed

    def _find_titles(self, is_insult: Callable[[str], bool]) -> Iterator[tuple[range, range]]:
        """Yield (segments of a title that is no heading, segments after or below it).

        A title is a few words in emphasis before others in a line; or an item ("2. Online") or a word with a number
        ("Day 2: Museums") above a text, if all others of its list have a text below them, too, as far as it has come.
        Before a text that is only insults a line is no title, because it may be complete without them.
        """

        def says_something(segments: range) -> bool:
            """Whether any of the segments says more than an insult."""
            return not all(is_insult(self._segments[i].text) for i in segments if self._has_content[i])

        run_in = list(self._find_run_in_titles())
        yield from ((title, text) for title, text in run_in if len(run_in) > 1 or says_something(text))
        lists = [[(item.line, self._text_below(item)) for item in items] for items in self.find_lists()]
        for lines_with_text in (*lists, *self._group_numbered_titles()):
            last_line, _ = lines_with_text[-1]
            # the text below the last line may not have come yet
            if last_line.segments.stop == len(self._segments):
                lines_with_text.pop()
            if len(lines_with_text) < 2 or not all(text_below for _, text_below in lines_with_text):
                continue
            for line, text_below in lines_with_text:
                if line.is_short and says_something(text_below):
                    yield line.segments, text_below

    def _find_run_in_titles(self) -> Iterator[tuple[range, range]]:
        """Yield (segment of a title in emphasis, segments of its text, which begins in the same line).

        The text ends with the item, or before an empty line, a line with a colon, or the next title.
        """
        has_title = [
            len(line.segments) > 1 and is_run_in_title(self._segments[line.segments[0]].text, line.content_start)
            for line in self.lines
        ]
        ends_text = [
            line.follows_blank_line or line.announces or line_has_title
            for line, line_has_title in zip(self.lines, has_title, strict=True)
        ]
        for line, line_has_title, text_end in zip(self.lines, has_title, self._find_ends(ends_text), strict=True):
            if line_has_title:
                item = self._item_by_first.get(line.segments.start)
                end = text_end if item is None else item.stop
                yield line.segments[:1], range(line.segments[1], end)

    def _group_numbered_titles(self) -> Iterable[list[tuple[OutlineLine, range]]]:
        """The numbered titles ("Day 2: Museums"), each (line, segments of the text below), grouped by their word."""
        text_ends = self._find_ends([line.level > 0 or line.is_title for line in self.lines])
        titles_by_word: dict[str, list[tuple[OutlineLine, range]]] = {}
        for line, text_end in zip(self.lines, text_ends, strict=True):
            word = read_title_word(line.text) if line.is_title else ""
            if word:
                titles_by_word.setdefault(word, []).append((line, range(line.segments.stop, text_end)))
        return titles_by_word.values()

    def _find_ends(self, ends_text: Sequence[bool]) -> list[int]:
        """For each line, the first segment of the next line for which `ends_text` is true.

        It is the number of segments if there is no such line.
        """
        ends: list[int] = []
        end = len(self._segments)
        for line, ends_here in zip(reversed(self.lines), reversed(ends_text), strict=True):
            ends.append(end)
            if ends_here:
                end = line.segments.start
        return ends[::-1]

    def find_lists(self) -> Iterator[list[OutlineItem]]:
        """Yield the items of each list, without nested items, which are lists of their own."""
        yielded: set[int] = set()  # first segments of items
        for item in self.items:
            if item.first not in yielded:
                siblings = self._find_siblings(item.first, len(self._segments))
                yielded.update(sibling.first for sibling in siblings)
                yield siblings

    def _text_below(self, item: OutlineItem) -> range:
        """The segments below the first line of an item.

        Plain lines right below the last item of a list count, too, although they are not indented.
        """
        start = item.line.segments.stop
        if item.stop > start:
            return range(start, item.stop)
        next_index = item.line_index + 1
        no_text = range(start, start)
        if next_index == len(self.lines):
            return no_text
        next_line = self.lines[next_index]
        if next_line.follows_blank_line or not next_line.is_plain:
            return no_text
        return range(start, self._paragraph_end(next_index))

    def would_begin_line(self, index: int, line: OutlineLine) -> bool:
        """Whether segment `index` inside `line` would look like an item, title or row if it began a line."""
        segments = range(index, line.segments.stop)
        new_line = make_line(self._segments, segments, follows_blank_line=False)
        return new_line.mark is not None or new_line.level > 0 or new_line.text.startswith(("|", "*", "_"))

    def is_lone_mark(self, index: int) -> bool:
        """Whether segment `index` is the marker of an item and nothing else."""
        item = self._item_by_first.get(index)
        return item is not None and stands_alone(item.mark, self._segments[index])

    def _section_below(self, line_index: int, line: OutlineLine) -> range:
        """The segments that a line heads: the section of a heading, or what a line with a colon or a term announces.

        Empty for any other line. `line_index` is the index of `line` in `lines`.
        """
        start = line.segments.stop
        # the text below a title with a colon may be a list and further text that the title does not head
        heads_list = line.level == TITLE_LEVEL and line.has_colon
        if line.is_heading and not heads_list:
            end = self._section_end(line_index, line.level)
            return range(start, min(end, self._quotation_end(line_index)) if line.is_quoted else end)
        next_index = line_index + 1
        if next_index == len(self.lines):
            return range(0)
        if is_admonition(line.text):
            return range(start, self._end_while(line_index, lambda later: later.indent > line.indent))
        if self.lines[next_index].is_definition and not line.is_definition:
            return range(start, self._end_while(line_index, lambda later: later.is_definition))
        if line.announces or line.is_heading:
            return range(start, self._announced_end(line_index))
        return range(0)

    def _section_end(self, line_index: int, level: int) -> int:
        """The segment behind the section that a line heads, which ends before the next heading of `level` or above."""
        later_headings = (later for later in self.lines[line_index + 1 :] if 0 < later.level <= level)
        return next((later.segments.start for later in later_headings), len(self._segments))

    def _announced_end(self, line_index: int) -> int:
        """The segment behind the text that a line with a colon announces.

        This is a list, table, quotation, code block or element right after the line, or the paragraph in the next line,
        or else the rest of the section: of several paragraphs nobody knows which ones are meant.
        """
        line = self.lines[line_index]
        start = line.segments.stop
        block_end = self._block_end(start)
        ends_item_line = start in self._item_by_line_end
        if block_end > start or ends_item_line or line.mark is not None:
            return block_end
        next_line = self.lines[line_index + 1]
        if next_line.text.lstrip().startswith(FENCES):
            return next_line.segments.stop
        if next_line.is_quoted:
            return self._quotation_end(line_index)
        if start in self._framed_ends:
            return self._framed_ends[start]
        section_end = self._section_end(line_index, TITLE_LEVEL)
        return section_end if next_line.follows_blank_line else min(section_end, self._paragraph_end(line_index + 1))

    def _paragraph_end(self, line_index: int) -> int:
        """The segment behind the paragraph that begins with a line: an empty line or a line with a colon ends it."""
        return self._end_while(line_index, lambda later: not (later.follows_blank_line or later.announces))

    def _quotation_end(self, line_index: int) -> int:
        """The segment behind the quoted lines that follow a line."""
        return self._end_while(line_index, lambda later: later.is_quoted)

    def _end_while(self, line_index: int, continues: Callable[[OutlineLine], bool]) -> int:
        """The segment behind a line and the consecutive lines below it for which `continues` is true."""
        return [self.lines[line_index], *takewhile(continues, self.lines[line_index + 1 :])][-1].segments.stop

    @cached_property
    def _framed_ends(self) -> dict[int, int]:
        """For each frame, the segment behind the element that it begins."""
        ends: dict[int, int] = {}
        for frame, framed in find_frames(self._segments):
            # the closing tag, or the next break, is the segment behind what is framed; the last break has none
            ends.setdefault(frame, min(framed.stop + 1, len(self._segments)))
        return ends

    def _block_end(self, start: int) -> int:
        """The segment behind the list or the table that begins with segment `start`; `start` if none begins there."""
        list_end = start
        list_indent = self._item_by_first[start].line.indent if start in self._item_by_first else 0
        # below the first line of an item only the items nested in it count
        outer_item = self._item_by_line_end.get(start)
        end = len(self._segments) if outer_item is None else outer_item.stop
        for _ in range(_MAX_LIST_ITEMS):
            item = self._item_by_first.get(list_end)
            if item is None or list_end >= end or item.line.indent < list_indent:
                break
            list_end = item.stop
        if list_end > start or start not in self._table_by_start:
            return list_end
        table = self._table_by_start[start]
        last_line = table.rows[-1] if table.rows else table.head[-1]
        return last_line.segments.stop

    def _find_emptied_rows(self, table: OutlineTable, removed: Collection[int]) -> Iterator[Iterable[int]]:
        """Yield the segments of each row that has only bars and numbers left, and of the head if all rows are gone."""
        for row in table.rows:
            # a row that was empty before stays
            lost_any = any(i in removed for i in row.segments)
            remaining_text = "".join(self._segments[i].text for i in row.segments if i not in removed)
            cells = [cell.strip() for cell in STROKE.split(remaining_text)]
            is_amount = BARE_VALUE.fullmatch if self._loses_name(row, removed) else str.isdecimal
            if lost_any and not any(CONTENT.search(cell) and not is_amount(cell) for cell in cells):
                yield row.segments
        if table.head and table.rows and all(i in removed for row in table.rows for i in row.segments):
            yield range(table.head[0].segments.start, table.rows[0].segments.start)

    def _loses_name(self, row: OutlineLine, removed: Collection[int]) -> bool:
        """Whether the first cell of a row with words is removed, and nothing but the row's number stands before it."""
        first_removed = next((index for index in row.segments if index in removed), row.segments.stop - 1)
        segments = self._segments[row.segments.start : first_removed + 1]
        cells = [cell.strip() for cell in STROKE.split("".join(segment.text for segment in segments))]
        leading_cells = takewhile(lambda cell: not CONTENT.search(cell) or AMOUNT.fullmatch(cell), cells)
        return all(not cell or _ROW_NUMBER.fullmatch(cell) for cell in leading_cells)

    def _find_kept_marks(self, removed: Collection[int], first_unsent: int) -> dict[int, str]:
        """The markers that stay of removed segments, because other segments of their items stay.

        Returns the marker by the index of the segment that began with it.
        """
        kept_texts = {}
        is_emptied = self._emptiness_test(removed)
        for item in self.items:
            if item.first < first_unsent or is_emptied(item.segments):
                continue
            first_kept = next((i for i in item.segments if i not in removed), None)
            # of "1) Eat. 2) Sleep." the rest has a number of its own
            if item.first in removed and first_kept is not None and begins_with_number(self._segments, first_kept):
                continue
            is_line_removed = all(i in removed for i in item.line.segments)
            if is_line_removed and self._is_replaced_by_nested(item, removed):
                continue
            # a lone "**1." opens emphasis that the next segment would have closed
            lost_end_of_emphasis = item.mark.emphasis and self.is_lone_mark(item.first) and item.first + 1 in removed
            if item.first in removed or lost_end_of_emphasis:
                kept_texts[item.first] = self._copy_mark(item)
        return kept_texts

    def _copy_mark(self, item: OutlineItem) -> str:
        """The marker of an item, with the box or time behind it; emphasis that it opens is closed."""
        text = self._segments[item.first].text
        mark = text[: item.mark.stop] + _find_lead(text[item.mark.stop :])
        return mark.rstrip() + item.mark.emphasis

    def _find_kept_leads(self, removed: Collection[int], first_unsent: int) -> dict[int, str]:
        """What stays of the first segments of other lines, because other segments of the line stay.

        It is the lead: signs of a quotation or heading, a box or a time. Returns the lead by the segment's index.
        """
        kept_texts = {}
        for line in self.lines:
            start = line.segments.start
            loses_beginning = start in removed and any(i not in removed for i in line.segments)
            if loses_beginning and start >= first_unsent and line.mark is None and not line.is_row:
                lead = _find_lead(line.text)
                kept_texts[start] = lead.rstrip() or lead
        return kept_texts

    def _find_kept_bars(self, removed: Collection[int]) -> dict[int, str]:
        """What stays of removed cells if other cells of their row stay: the bars, and numbers that fill a cell.

        Of the first cell, the indentation and the signs of a quotation stay, too.
        Returns the text that stays by the index of its segment.
        """
        kept_texts = {}
        for row in self._find_rows_with_bars(removed):
            for index in row.segments:
                if index not in removed:
                    continue
                is_first = index == row.segments.start
                removed_text = self._segments[index].text
                cells_text = removed_text.lstrip(" \t>") if is_first else removed_text
                lead = removed_text[: len(removed_text) - len(cells_text)]
                cells = [cell.strip() for cell in STROKE.split(cells_text)]
                text = "|".join(f" {cell} " if cell.isdecimal() else " " for cell in cells).strip()
                # without a bar before it, the second cell would become the first
                needs_bar = row.is_open_row and is_first and text[:1] in ("", "|")
                kept_texts[index] = lead + (f"| {text}".rstrip() if needs_bar else text)
        return kept_texts

    def _find_rows_with_bars(self, removed: Collection[int]) -> Iterator[OutlineLine]:
        """Yield the rows that keep their bars whatever is removed of their cells."""
        for table in self._all_tables:
            keeps_rule = table.rows and table.head and table.head[1].segments.start not in removed
            # without its first row the table would be no table
            if keeps_rule and keeps_cells(table.head[0], removed):
                yield table.head[0]
            # another row goes with its bars
            yield from (row for row in table.rows if any(i not in removed for i in row.segments))


def _count_kept(counted: Iterable[range], removed: Collection[int]) -> int:
    """How many of the items or rows with these segments remain, at least in part."""
    return sum(any(i not in removed for i in segments) for segments in counted)


def _find_lead(text: str) -> str:
    """The signs, box or time before the words of a line or item; empty if there are none."""
    lead = _LINE_LEAD.match(text)
    return lead.group() if lead else ""
