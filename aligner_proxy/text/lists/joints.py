"""Joints of lists: the "and" behind the last item but one, where a list is one sentence.

If the last items are removed, the "and" moves to another item, or is removed with the second item of two:

(a) keep the keys safe;              (a) keep the keys safe; and
(b) report losses; and               (b) report losses.
(c) be a fool.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from aligner_proxy.text.lists.items import OutlineItem
from aligner_proxy.text.lists.outline import Outline
from aligner_proxy.text.structure import Segment, replace_segments

_JOINT = re.compile(r"[;,]?[ \t]{1,4}(?:and(?:/or)?|or|und|oder|et|ou|y|o)$", re.IGNORECASE)
_ITEM_END = re.compile(rf"{_JOINT.pattern}|[;,.]?$", re.IGNORECASE)
"""Matches what divides an item from the next item, or ends the last item."""


def move_joints(outline: Outline, pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
    """Give the last two remaining items of each list in `text` the ends that the last two items had before.

    `text` is what is left of the segments `pieces`, whose outline is `outline`, without those at the indexes `removed`.
    """
    replacements: list[tuple[str, str]] = []
    for index, new_end in sorted(_find_new_ends(outline, pieces, removed)):
        # the ends have no backslash, so they may be templates
        replacements.append((pieces[index].text, _ITEM_END.sub(new_end, pieces[index].text, count=1)))
    return replace_segments(text, replacements)[0]


def _find_new_ends(outline: Outline, pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[tuple[int, str]]:
    """Yield (index of an item's last segment, its new end) for the last two remaining items of each list.

    Only lists that are one sentence with a joint and lost one of their last two items are considered.
    """
    if not any(_JOINT.search(segment.text) for segment in pieces):
        return
    for items in outline.find_lists():
        if len(items) == 1:
            continue
        *_, last_but_one, last = items
        joint = _read_end(pieces, last_but_one)
        end = _read_end(pieces, last)
        is_one_sentence = _JOINT.fullmatch(joint) is not None and _JOINT.fullmatch(end) is None
        loses_either = last_but_one.first in removed or last.first in removed
        remaining = [item for item in items if item.first not in removed]
        has_nested = any(item.stop > item.line.segments.stop for item in remaining[-2:])
        if not remaining or not loses_either or not is_one_sentence or has_nested:
            continue
        new_ends = [joint, end][-len(remaining) :]
        for item, new_end in zip(remaining[-2:], new_ends, strict=True):
            if _read_end(pieces, item) != new_end:
                yield item.stop - 1, new_end


def _read_end(pieces: Sequence[Segment], item: OutlineItem) -> str:
    """The sign and the "and" at the end of an item's first line; empty if there are none."""
    match = _ITEM_END.search(pieces[item.line.segments[-1]].text)
    return match.group() if match else ""
