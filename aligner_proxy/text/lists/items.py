"""Items of the lists in an answer: where each item begins and ends, and which items have consecutive numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aligner_proxy.text.lists.headings import TITLE_LEVEL
from aligner_proxy.text.lists.lines import OutlineLine
from aligner_proxy.text.lists.marks import Family, Mark, MarkKind


@dataclass(slots=True)
class OutlineItem:
    """An item of a list, with its nested items."""

    line: OutlineLine
    """The first line of the item."""
    mark: Mark
    line_index: int
    """Index of the first line in the outline's `lines`."""
    stop: int = 0
    """Index of the segment behind the last segment of the item and its nested items."""
    series: list[OutlineItem] = field(default_factory=list, repr=False, compare=False)
    """The items with consecutive numbers of one style to which the item belongs; a bullet alone."""

    @property
    def first(self) -> int:
        """Index of the first segment, which has the marker."""
        return self.line.segments.start

    @property
    def segments(self) -> range:
        """The segments of the item and its nested items."""
        return range(self.first, self.stop)


def find_items(lines: Sequence[OutlineLine], end: int) -> tuple[list[OutlineItem], list[int]]:
    """Find all list items: (the items, first segments of the lines outside of all items).

    An item ends at the first line that does not belong to it. `end` is the number of segments.
    """
    items: list[OutlineItem] = []
    open_items: list[OutlineItem] = []  # those that may contain the present line, the outermost first
    starts_outside: list[int] = []
    for line_index, line in enumerate(lines):
        first_ended = _find_first_ended(open_items, line)
        for item in open_items[first_ended:]:
            item.stop = line.segments.start
        del open_items[first_ended:]
        if not open_items:
            starts_outside.append(line.segments.start)
        if line.mark is not None:
            new_item = OutlineItem(line, line.mark, line_index)
            open_items.append(new_item)
            items.append(new_item)
    for item in open_items:
        item.stop = end
    _end_last_items(items, lines)
    _find_series(items)
    return items, starts_outside


def _find_series(items: Sequence[OutlineItem]) -> None:
    """Set the series of each item."""
    open_series: dict[tuple[MarkKind, Family], tuple[int, list[OutlineItem]]] = {}  # with the last number
    for item in items:
        family = item.mark.family
        readings = [] if item.mark.is_bullet else item.mark.readings
        for kind, value in readings:
            last_value, series = open_series.get((kind, family), (0, item.series))
            if value == last_value + 1:
                item.series = series
        item.series.append(item)
        open_series |= {(kind, family): (value, item.series) for kind, value in readings}


def _end_last_items(items: Sequence[OutlineItem], lines: Sequence[OutlineLine]) -> None:
    """End the last item of each list before the first line that is indented no more than its marker.

    Such a line belongs to the text behind the list.
    """
    families = {item.first: item.mark.family for item in items}
    for item in items:
        # sections end at headings, and an item before another item of its list ends there anyway
        if item.line.level or families.get(item.stop) == item.mark.family:
            continue
        for line in lines[item.line_index + 1 :]:
            if line.segments.start >= item.stop or line.mark is not None:
                break
            if line.indent <= item.line.indent:
                item.stop = line.segments.start
                break


def _find_first_ended(open_items: Sequence[OutlineItem], line: OutlineLine) -> int:
    """The index of the outermost open item that this line ends; the number of open items if it ends none."""
    mark = line.mark
    # the next number of a list ends the item before it; bullets are compared by their depth alone
    if mark is not None and not mark.is_bullet:
        for index, item in enumerate(open_items):
            if item.mark.family == mark.family:
                return index
    return next((index for index, item in enumerate(open_items) if _ends_item(item, line)), len(open_items))


def _ends_item(item: OutlineItem, line: OutlineLine) -> bool:
    """Whether a line is outside of an item. The caller has ruled out that the line has the next number of the list."""
    item_line = item.line
    # a heading ends every list, and every section but one of a higher heading
    if line.level and line.level != TITLE_LEVEL:
        return not item_line.level or item_line.level >= line.level
    # text and lists below a numbered title or heading belong to it
    if item_line.level:
        return line.level == TITLE_LEVEL == item_line.level
    if line.mark is None:
        return line.level > 0 or (line.follows_blank_line and line.indent <= item_line.indent)
    # one column more or less is the same depth
    if line.indent // 2 != item_line.indent // 2:
        return line.indent < item_line.indent
    # at the same depth, bullets or a new list behind a number belong to the numbered item
    _, value = line.mark.readings[0]
    begins_list = line.mark.is_bullet or value == 1
    return item.mark.is_bullet or not begins_list
