"""Outline of an answer: which segments belong to a list item, a heading, a table row, or a line that announces a list.

When segments are removed, others may have to go, too: a lone marker ("a." is a separate segment), a heading with an
empty section, a line that announces an empty list, a row without content. And something may have to stay: the marker of
an item that continues, the pipes of a table row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile

from aligner_proxy.text.lists.contents import find_entries
from aligner_proxy.text.lists.frames import find_frames, is_frame
from aligner_proxy.text.lists.headings import TITLE_LEVEL, is_admonition, is_run_in_title, read_title_word
from aligner_proxy.text.lists.lines import (
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
from aligner_proxy.text.lists.marks import PICTURE_BULLET, Mark
from aligner_proxy.text.lists.ordinals import begins_with_number, find_numbered_sentences
from aligner_proxy.text.sentence_ends import NOTE_LABEL
from aligner_proxy.text.structure import FENCES, Segment

_LONGEST_LIST = 256
"""Maximum number of items examined in a list that belongs to the line above it."""
_LEAD = re.compile(
    rf"[ \t>]*(?:#{{1,6}}[ \t]+|:[ \t]+|\\item\b[ \t]*|{NOTE_LABEL}:[ \t]+|\[[ xX]\][ \t]+|{PICTURE_BULLET}[ \t]*"
    r"|\[?\d{1,2}:\d\d\]?(?:[ \t]?[ap]m)?(?::|[ \t]*[-\u2013\u2014])?(?=[ \t]))?",
    re.IGNORECASE,
)
"""Matches the indentation, signs of a quotation or heading, the box of a task, the label of a note, or a time."""


@dataclass(slots=True)
class OutlineItem:
    """An item of a list: its line, and its segments up to `stop` (excluded), with those of nested items."""

    line: OutlineLine
    mark: Mark
    line_number: int
    stop: int = 0

    @property
    def first(self) -> int:
        """Its first segment, which holds the marker."""
        return self.line.segments.start

    @property
    def segments(self) -> range:
        return range(self.first, self.stop)


@dataclass(frozen=True, slots=True)
class ListCompletion:
    """Segments removed along with others, and, for segments that leave something, the text that remains."""

    removed: frozenset[int]
    kept_texts: dict[int, str] = field(default_factory=dict)
    """By number of a segment that is not wholly `removed`, the text that stays of it, such as its marker."""


@dataclass(frozen=True, slots=True)
class OutlineTable:
    """The lines of a table; `head` is its first row and the rule below it, nothing where it began in earlier text."""

    head: Sequence[OutlineLine]
    rows: Sequence[OutlineLine]
    is_loose: bool = False
    """Whether it is only rows one below the other, without a rule."""


class Outline:
    """The lines and items of an answer with the segments `pieces`, which may begin `in_table`.

    `fresh` are the segments that begin a line outside of all earlier items and tables. The outline from there on does
    not depend on the text before. `rows` are those that begin a row of a table outside of all items.
    """

    def __init__(self, pieces: Sequence[Segment], *, in_table: bool = False) -> None:
        self._pieces = pieces
        self.lines = list(join_underlined(read_lines(pieces, in_table=in_table)))
        self.items, outside = _find_items(self.lines, len(pieces))
        self._item_by_first = {item.first: item for item in self.items}
        """By the first segment of its line, the item."""
        self._by_line_end = {item.line.segments.stop: item for item in self.items}
        """By the segment after its line, the item."""
        self._grids = list(_find_grids(self.lines, in_table=in_table))
        """The tables and the loose rows, which lose their bars as those of tables do."""
        self.tables = [grid for grid in self._grids if not grid.is_loose]
        self._by_head = {table.head[0].segments.start: table for table in self.tables if table.head}
        """By the first segment of its head, the table."""
        in_rows = {line.segments.start for line in self.lines if line.is_row}
        self.fresh = [start for start in outside if start not in in_rows]
        self.rows = {row.segments.start for table in self.tables for row in table.rows}.intersection(outside)
        self._has_content = [
            bool(piece.text.strip()) and not self.is_lone_mark(i) and not is_frame(piece.text)
            for i, piece in enumerate(pieces)
        ]
        """Which segments have content, that is, are not only a marker or a frame."""
        self._framed_ends: dict[int, int] | None = None
        """By each frame, the segment after the first text that it frames; None until a line asks for it."""

    def complete_removal(
        self, removed: Collection[int], first_open: int, is_insult: Callable[[str], bool]
    ) -> ListCompletion:
        """All segments that go if those in `removed` go, and what stays of some.

        Segments before `first_open` have gone out, so they stay. `is_insult` says whether a sentence only says what the
        reader is, so that it is no text without which an item would say nothing.
        """
        if not removed:
            return ListCompletion(frozenset(removed))
        all_removed = set(removed)
        heads = [*self._find_heads(), *self._find_titles(is_insult)]
        frames = list(find_frames(self._pieces))
        count = -1
        # one removal may empty another thing, such as the heading above: repeat until nothing is added
        while count != len(all_removed):
            count = len(all_removed)
            for segments in self._emptied_segments(heads, all_removed):
                all_removed.update(i for i in segments if i >= first_open)
            # what divides or encloses nothing is better than an empty answer, which would be refused
            if any(has_content and i not in all_removed for i, has_content in enumerate(self._has_content)):
                empty = self._emptiness_test(all_removed)
                all_removed.update(frame for frame, framed in frames if frame >= first_open and empty(framed))
        kept_texts = self._remaining_marks(all_removed, first_open) | self._remaining_strokes(all_removed)
        kept_texts |= self._remaining_leads(all_removed, first_open)
        return ListCompletion(frozenset(all_removed - kept_texts.keys()), kept_texts)

    def announced_lists(self, removed: Collection[int], form: re.Pattern[str]) -> Iterator[tuple[int, int, int]]:
        """Yield (segment, item count before, item count after) for segments right above a list that lost items.

        Only segments that match `form` are looked at.
        """
        for line in self.lines[:-1]:
            start = line.segments.stop
            segment = line.segments[-1]
            heads_list = (line.level or line.announces) and segment not in removed and start in self._item_by_first
            if not heads_list or not form.search(self._pieces[segment].text):
                continue
            items = self._siblings(start, self._block_end(start))
            after = sum(item.first not in removed for item in items)
            if after < len(items):
                yield segment, len(items), after

    def lists_above(self, removed: Collection[int], form: re.Pattern[str]) -> Iterator[tuple[int, int, int]]:
        """Yield (segment, item count before, item count after) for segments of the line behind a list that lost items.

        Only segments that match `form` are looked at.
        """
        line_by_start = {line.segments.start: line for line in self.lines if line.is_plain}
        list_end = -1
        for item in self.items:
            if item.line.level or item.first < list_end:
                continue
            items = self._siblings(item.first, len(self._pieces))
            list_end = items[-1].stop
            after = sum(sibling.first not in removed for sibling in items)
            if list_end in line_by_start and after < len(items):
                for segment in line_by_start[list_end].segments:
                    if segment not in removed and form.search(self._pieces[segment].text):
                        yield segment, len(items), after

    def _siblings(self, start: int, end: int) -> list[OutlineItem]:
        """The consecutive items from segment `start` to `end`, without nested ones."""
        items: list[OutlineItem] = []
        while start < end and (item := self._item_by_first.get(start)) is not None:
            # behind the last nested item the list above it goes on
            if items and item.line.indent < items[0].line.indent:
                break
            items.append(item)
            start = item.stop
        return items

    def _emptied_segments(
        self, heads: Sequence[tuple[range, range]], removed: Collection[int]
    ) -> Iterator[Iterable[int]]:
        """Yield groups of segments that belong to something of which nothing is left."""
        empty = self._emptiness_test(removed)
        for item in self.items:
            if empty(item.segments):
                yield item.segments
            elif empty(item.line.segments) and self._gives_way_to_nested(item, removed):
                yield item.line.segments
        yield from (segments for segments, headed in heads if empty(headed))
        for table in self._grids:
            yield from self._empty_rows(table, removed)

    def _gives_way_to_nested(self, item: OutlineItem, removed: Collection[int]) -> bool:
        """Whether the first content that remains behind the line of an item is a nested item, which may take its place.

        Numbers do not move among numbers of the same form, since "1. 2. 1." would be no list.
        """
        behind = range(item.line.segments.stop, item.stop)
        first = next((i for i in behind if self._has_content[i] and i not in removed), None)
        nested = None if first is None else self._item_by_first.get(find_line_start(self._pieces, first))
        if nested is None:
            return False
        outer = item.mark
        inner = nested.mark
        has_same_form = outer.style == inner.style and outer.number.isdecimal() == inner.number.isdecimal()
        return inner.is_bullet or not has_same_form

    def _emptiness_test(self, removed: Collection[int]) -> Callable[[range], bool]:
        """A constant-time test whether a range of segments had content, and all of it is removed."""
        # sums up to each segment: a range has content if the sum at its end is higher than at its start
        before = list(accumulate(self._has_content, initial=0))
        after = list(accumulate((says and i not in removed for i, says in enumerate(self._has_content)), initial=0))
        return lambda stretch: (
            before[stretch.start] < before[stretch.stop] and after[stretch.start] == after[stretch.stop]
        )

    def _find_heads(self) -> Iterator[tuple[range, range]]:
        """Yield (segments of a heading or of a sentence that announces a list, segments of what it heads)."""
        yield from ((range(i, i + 1), numbered) for i, numbered in find_numbered_sentences(self._pieces))
        yield from find_entries([item.line for item in self.items], self.lines)
        for number, line in enumerate(self.lines):
            if len(line.segments) > 1 and UNDERLINE.fullmatch(self._pieces[line.segments[-1]].text):
                yield line.segments[-1:], line.segments[:-1]
            headed = self._section_below(number, line)
            if headed:
                # a heading is removed as a whole; of another line only the sentence with the colon
                yield (line.segments if line.level or is_admonition(line.text) else line.segments[-1:]), headed

    def _find_titles(self, is_insult: Callable[[str], bool]) -> Iterator[tuple[range, range]]:
        """Yield (segments of a title that is no heading, the text after or below it).

        It is a few words in emphasis before others in a line; or an item ("2. Online") or a word with a number ("Day 2:
        Museums") above a text, if all others of its list have a text, too, as far as it is known. What stands before an
        insult may be complete without it.
        """

        def says_something(below: range) -> bool:
            """Whether any of these segments says more than an insult."""
            return not all(is_insult(self._pieces[i].text) for i in below if self._has_content[i])

        run_in = list(self._find_run_in_titles())
        yield from (pair for pair in run_in if says_something(pair[1]) or len(run_in) > 1)
        groups = [[(item.line, self._text_below(item)) for item in items] for items in self.find_lists()]
        for titled in (*groups, *self._group_numbered_titles()):
            # what stands below the last one may not have come yet
            if titled[-1][0].segments.stop == len(self._pieces):
                titled.pop()
            if len(titled) > 1 and all(below for _, below in titled):
                yield from ((line.segments, b) for line, b in titled if line.is_short and says_something(b))

    def _find_run_in_titles(self) -> Iterator[tuple[range, range]]:
        """Yield (segment of a title before other words of its line, these and what belongs to them)."""
        titled = [len(line.segments) > 1 and self._begins_with_title(line) for line in self.lines]
        ends = self._find_ends([line.follows_blank_line or line.announces for line in self.lines], titled)
        for line, has_title, end in zip(self.lines, titled, ends, strict=True):
            if has_title:
                item = self._item_by_first.get(line.segments.start)
                yield line.segments[:1], range(line.segments[1], item.stop if item is not None else end)

    def _begins_with_title(self, line: OutlineLine) -> bool:
        """Whether the first segment of a line is a title in emphasis."""
        return is_run_in_title(self._pieces[line.segments[0]].text, line.content_start)

    def _group_numbered_titles(self) -> Iterable[list[tuple[OutlineLine, range]]]:
        """The titles with a word and a number, by their word, each with the text below it."""
        titled = [line.is_title for line in self.lines]
        ends = self._find_ends([line.level > 0 for line in self.lines], titled)
        groups: dict[str, list[tuple[OutlineLine, range]]] = {}
        for line, has_title, end in zip(self.lines, titled, ends, strict=True):
            if has_title and (word := read_title_word(line.text)):
                groups.setdefault(word, []).append((line, range(line.segments.stop, end)))
        return groups.values()

    def _find_ends(self, *stops: Sequence[bool]) -> list[int]:
        """By line, where the next later line begins at whose number any of `stops` is true, or the text ends."""
        ends: list[int] = []
        end = len(self._pieces)
        for line, *stops_here in zip(reversed(self.lines), *map(reversed, stops), strict=True):
            ends.append(end)
            end = line.segments.start if any(stops_here) else end
        return ends[::-1]

    def find_lists(self) -> Iterator[list[OutlineItem]]:
        """Yield the items of each list, without nested ones."""
        read_items: set[int] = set()
        for item in self.items:
            if item.first not in read_items:
                siblings = self._siblings(item.first, len(self._pieces))
                read_items.update(sibling.first for sibling in siblings)
                yield siblings

    def _text_below(self, item: OutlineItem) -> range:
        """The segments of an item below its line; of the last item of a list, the lines right below it."""
        start = item.line.segments.stop
        if item.stop > start:
            return range(start, item.stop)
        below = self.lines[item.line_number + 1 : item.line_number + 2]
        if not below or below[0].follows_blank_line or not below[0].is_plain:
            return range(start, start)
        return range(start, self._paragraph_end(item.line_number + 1))

    def would_begin_line(self, number: int, line: OutlineLine) -> bool:
        """Whether a segment inside a line would pass for the beginning of an item, title or row, if it began one."""
        new_line = make_line(self._pieces, range(number, line.segments.stop), apart=False)
        return new_line.mark is not None or new_line.level > 0 or new_line.text.startswith(("|", "*", "_"))

    def is_lone_mark(self, number: int) -> bool:
        """Whether a segment is the mark of an item and no more."""
        item = self._item_by_first.get(number)
        return item is not None and stands_alone(item.mark, self._pieces[number])

    def _section_below(self, number: int, line: OutlineLine) -> range:
        """The segments below a heading (its section) or a line with a colon (the list or table right after it).

        Empty below any other line.
        """
        start = line.segments.stop
        # a title with a colon may stand above a list behind which the text goes on
        heads_list = line.level == TITLE_LEVEL and line.has_colon
        if line.is_heading and not heads_list:
            end = self._section_end(number, line.level)
            return range(start, min(end, self._quotation_end(number)) if line.is_quoted else end)
        if number + 1 == len(self.lines):
            return range(0)
        if is_admonition(line.text):
            indented = takewhile(lambda other: other.indent > line.indent, self.lines[number + 1 :])
            return range(start, [line, *indented][-1].segments.stop)
        if self.lines[number + 1].is_definition and not line.is_definition:
            explained = takewhile(lambda other: other.is_definition, self.lines[number + 1 :])
            return range(start, [line, *explained][-1].segments.stop)
        if line.announces or line.is_heading:
            return range(start, self._announced_end(number))
        return range(0)

    def _section_end(self, number: int, level: int) -> int:
        """Where the text ends that a line heads: before the next heading of its level or above it."""
        later = (other for other in self.lines[number + 1 :] if 0 < other.level <= level)
        return next((other.segments.start for other in later), len(self._pieces))

    def _announced_end(self, number: int) -> int:
        """Where the text ends that a line with a colon announces.

        That is a list, table, quotation, block of code or element right after it, or the paragraph in the next line,
        or else the rest of its section: of several paragraphs nobody knows which ones are meant.
        """
        line = self.lines[number]
        start = line.segments.stop
        stop = self._block_end(start)
        above = self._by_line_end.get(start)
        if stop > start or above is not None or line.mark is not None:
            return stop
        following = self.lines[number + 1 :]
        if following[0].text.lstrip().startswith(FENCES):
            return following[0].segments.stop
        if following[0].is_quoted:
            return self._quotation_end(number)
        framed_end = self._framed_end(start)
        if framed_end is not None:
            return framed_end
        section_end = self._section_end(number, TITLE_LEVEL)
        return section_end if following[0].follows_blank_line else min(section_end, self._paragraph_end(number + 1))

    def _paragraph_end(self, number: int) -> int:
        """Where the paragraph ends that begins with a line: before an empty line or the next line with a colon."""
        rest = takewhile(lambda other: not (other.follows_blank_line or other.announces), self.lines[number + 1 :])
        return [self.lines[number], *rest][-1].segments.stop

    def _quotation_end(self, number: int) -> int:
        """Where the lines of a quotation end that follow a line."""
        quoted = takewhile(lambda other: other.is_quoted, self.lines[number + 1 :])
        return [self.lines[number], *quoted][-1].segments.stop

    def _framed_end(self, start: int) -> int | None:
        """Where the element ends that begins with segment `start`; None if none begins there."""
        if self._framed_ends is None:
            self._framed_ends = {}
            for frame, framed in find_frames(self._pieces):
                self._framed_ends.setdefault(frame, framed.stop + 1)
        return self._framed_ends.get(start)

    def _block_end(self, start: int) -> int:
        """Where the items or the table that begin with segment `start` end; `start` itself if none begins there."""
        stop = start
        depth = self._item_by_first[start].line.indent if start in self._item_by_first else 0
        # where the line is an item itself, only the items nested in it are its list
        above = self._by_line_end.get(start)
        end = above.stop if above is not None else len(self._pieces)
        for _ in range(_LONGEST_LIST):
            item = self._item_by_first.get(stop)
            if item is None or stop >= end or item.line.indent < depth:
                break
            stop = item.stop
        table = self._by_head.get(start) if stop == start else None
        return (*table.head, *table.rows)[-1].segments.stop if table else stop

    def _empty_rows(self, table: OutlineTable, removed: Collection[int]) -> Iterator[Iterable[int]]:
        """Yield the segments of rows of which only pipes and numbers are left, and of a head all of whose rows go."""
        rows = table.rows
        for row in rows:
            # a row that was empty before stays
            lost_any = any(i in removed for i in row.segments)
            remaining_text = "".join(self._pieces[i].text for i in row.segments if i not in removed)
            cells = [cell.strip() for cell in STROKE.split(remaining_text)]
            if lost_any and not any(CONTENT.search(cell) and not cell.isdecimal() for cell in cells):
                yield row.segments
        if table.head and rows and all(i in removed for row in rows for i in row.segments):
            yield range(table.head[0].segments.start, rows[0].segments.start)

    def _remaining_marks(self, removed: Collection[int], first_open: int) -> dict[int, str]:
        """The markers of items that continue although the segment with the marker is removed."""
        kept_texts = {}
        empty = self._emptiness_test(removed)
        for item in self.items:
            if item.first < first_open or empty(item.segments):
                continue
            rest = next((i for i in item.segments if i not in removed), None)
            if item.first in removed and rest is not None and begins_with_number(self._pieces, rest):
                continue
            if all(i in removed for i in item.line.segments) and self._gives_way_to_nested(item, removed):
                continue
            # the emphasis that begins in a lone marker would have ended in the segment after it
            is_torn = item.mark.emphasis and self.is_lone_mark(item.first) and item.first + 1 in removed
            if item.first in removed or is_torn:
                kept_texts[item.first] = self._mark_of(item)
        return kept_texts

    def _mark_of(self, item: OutlineItem) -> str:
        """The marker, perhaps with a box or a time; emphasis that begins in it is closed."""
        text = self._pieces[item.first].text
        return (text[: item.mark.stop] + _find_lead(text[item.mark.stop :])).rstrip() + item.mark.emphasis

    def _remaining_leads(self, removed: Collection[int], first_open: int) -> dict[int, str]:
        """What stands before the words of other lines that go on although their first sentence is removed."""
        kept_texts = {}
        for line in self.lines:
            goes_on = first_open <= line.segments.start in removed and any(i not in removed for i in line.segments)
            if goes_on and line.mark is None and not line.is_row:
                lead = _find_lead(line.text)
                kept_texts[line.segments.start] = lead.rstrip() or lead
        return kept_texts

    def _remaining_strokes(self, removed: Collection[int]) -> dict[int, str]:
        """What stays of removed cells in a row with others left: the pipes, and numbers that fill a cell."""
        kept_texts = {}
        for row in (row for table in self._grids for row in table.rows):
            # the whole row goes, with its pipes
            if all(i in removed for i in row.segments):
                continue
            for i in row.segments:
                if i in removed:
                    cells = STROKE.split(self._pieces[i].text)
                    text = "|".join(f" {c.strip()} " if c.strip().isdecimal() else " " for c in cells).strip()
                    # without a bar before it, the second cell would become the first
                    is_open = row.is_open_row and i == row.segments.start and text[:1] in ("", "|")
                    kept_texts[i] = f"| {text}".rstrip() if is_open else text
        return kept_texts


def _find_lead(text: str) -> str:
    """What stands before the words of a line, or of an item."""
    lead = _LEAD.match(text)
    return lead.group() if lead else ""


def _find_items(lines: Sequence[OutlineLine], end: int) -> tuple[list[OutlineItem], list[int]]:
    """Find all items: (the items, first segments of the lines in no item).

    An item ends at the first line that does not belong to it.
    """
    items: list[OutlineItem] = []
    open_items: list[OutlineItem] = []
    outside: list[int] = []
    for number, line in enumerate(lines):
        ended_index = _first_ended(open_items, line)
        for item in open_items[ended_index:]:
            item.stop = line.segments.start
        del open_items[ended_index:]
        if not open_items:
            outside.append(line.segments.start)
        if line.mark is not None:
            open_items.append(OutlineItem(line, line.mark, number))
            items.append(open_items[-1])
    for item in open_items:
        item.stop = end
    _end_last_items(items, lines)
    return items, outside


def _end_last_items(items: Sequence[OutlineItem], lines: Sequence[OutlineLine]) -> None:
    """End the last item of each list at a line indented no more than its marker, where normal text continues."""
    families = {item.first: item.mark.family for item in items}
    line_numbers = {line.segments.start: number for number, line in enumerate(lines)}
    for item in items:
        # sections end at headings, and an item before another of its list ends there anyway
        if item.line.level or families.get(item.stop) == item.mark.family:
            continue
        for line in lines[line_numbers[item.first] + 1 :]:
            if line.segments.start >= item.stop or line.mark is not None:
                break
            if line.indent <= item.line.indent:
                item.stop = line.segments.start
                break


def _first_ended(open_items: Sequence[OutlineItem], line: OutlineLine) -> int:
    """The index of the outermost open item that this line ends; the number of open items if it ends none."""
    mark = line.mark
    # the next number of a list ends the item before it; bullets are compared by their depth alone
    if mark is not None and not mark.is_bullet:
        same = (i for i, item in enumerate(open_items) if item.mark.family == mark.family)
        sibling = next(same, None)
        if sibling is not None:
            return sibling
    return next((i for i, item in enumerate(open_items) if _ends_item(item, line)), len(open_items))


def _ends_item(item: OutlineItem, line: OutlineLine) -> bool:
    """Whether a line is outside of an item; the caller has ruled out that it has the next number of the list."""
    item_line = item.line
    # a real heading ends everything but a section above its level
    if line.level and line.level != TITLE_LEVEL:
        return not item_line.level or item_line.level >= line.level
    # text and lists below a title or heading belong to it
    if item_line.level:
        return line.level == TITLE_LEVEL == item_line.level
    if line.mark is None:
        return line.level > 0 or (line.follows_blank_line and line.indent <= item_line.indent)
    # one column more or less is the same depth
    if line.indent // 2 != item_line.indent // 2:
        return line.indent < item_line.indent
    # Bullets or letters after a number at the same depth belong to it.
    return item.mark.is_bullet or not (line.mark.is_bullet or line.mark.readings[0][1] == 1)


def _runs_of_rows(lines: Sequence[OutlineLine]) -> Iterator[list[OutlineLine]]:
    """Yield the runs of rows that follow one another; the first run begins with the first line, and may be empty."""
    rows: list[OutlineLine] = []
    # None ends a run at the end of the text
    for number, line in enumerate((*lines, None)):
        if line is not None and line.is_row and not (rows and line.follows_blank_line):
            rows.append(line)
            continue
        if rows or not number:
            yield rows
        rows = []


def _find_grids(lines: Sequence[OutlineLine], *, in_table: bool = False) -> Iterator[OutlineTable]:
    """Yield the tables, each with its head and the rule below it, unless the lines begin `in_table`; and loose rows."""
    for number, rows in enumerate(_runs_of_rows(lines)):
        if in_table and not number:
            yield OutlineTable((), rows)
        elif len(rows) > 1 and rows[1].is_rule:
            yield OutlineTable(rows[:2], rows[2:])
        elif len(rows) > 1:
            yield OutlineTable((), rows, is_loose=True)


def marked_lines(pieces: Sequence[Segment]) -> list[tuple[range, str]]:
    """The segments of each line with a marker, and the marker: its number, or a dash for any bullet.

    A line that counts on within itself, as "1) Eat. 2) Sleep." does, is no item.
    """
    return [
        (line.segments, "-" if line.mark.is_bullet else line.mark.number)
        for line in read_lines(pieces)
        if line.mark is not None and not any(begins_with_number(pieces, i) for i in line.segments[1:])
    ]


def row_signs(pieces: Sequence[Segment], *, in_table: bool = False) -> list[tuple[range, str]]:
    """The segments of each table row, and its number of cells as text; the text may begin `in_table`."""
    if not any("|" in piece.text for piece in pieces):
        return []
    grids = _find_grids(list(read_lines(pieces, in_table=in_table)), in_table=in_table)
    table_rows = (row for grid in grids if not grid.is_loose for row in (*grid.head, *grid.rows))
    return [(row.segments, str(_count_cells(row.text))) for row in table_rows]


def _count_cells(row: str) -> int:
    """The number of cells of a row; a bar at its beginning is no cell, one at its end may divide an empty one."""
    return len(STROKE.findall(row)) + (not row.lstrip(" \t>").startswith("|"))


def remaining_signs(lines: Iterable[tuple[range, str]], removed: Collection[int] = ()) -> list[str]:
    """The signs of the lines (`marked_lines`, `row_signs`) that have a segment which is not removed."""
    return [sign for segments, sign in lines if any(i not in removed for i in segments)]
