"""Joints of lists: the "and" behind the last item but one of a list that is one sentence, which goes or moves.

(a) keep the keys safe;              (a) keep the keys safe; and
(b) report losses; and               (b) report losses.
(c) be a fool.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from aligner_proxy.text.lists.outline import Outline, OutlineItem
from aligner_proxy.text.structure import Segment

_JOINT = re.compile(r"[;,]?[ \t]{1,4}(?:and(?:/or)?|or|und|oder|et|ou|y|o)$", re.IGNORECASE)
_END = re.compile(rf"{_JOINT.pattern}|[;,.]?$", re.IGNORECASE)
"""Matches what divides an item from the next one, or ends the last one."""


def move_joints(pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
    """Let the items that remain in `text`, what is left of `pieces`, end as those before the `removed` ones did."""
    position = 0
    for segment, end in sorted(_find_new_ends(pieces, removed)):
        piece = pieces[segment].text
        found_at = text.find(piece, position)
        # an item that is no longer as it was written keeps its end
        if found_at >= 0:
            new_piece = _END.sub(lambda _, e=end: e, piece, count=1)  # type: ignore[misc]
            text = text[:found_at] + new_piece + text[found_at + len(piece) :]
            position = found_at + len(new_piece)
    return text


def _find_new_ends(pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[tuple[int, str]]:
    """Yield the last segments of items that become the last or the last but one of their list, and their new ends."""
    if not any(_JOINT.search(piece.text) for piece in pieces):
        return
    for items in Outline(pieces).find_lists():
        remaining = [item for item in items if item.first not in removed]
        joint, end = ([_read_end(pieces, item) for item in items[-2:]] + [""])[:2]
        loses_either = any(item.first in removed for item in items[-2:])
        is_one_sentence = _JOINT.fullmatch(joint) is not None and _JOINT.fullmatch(end) is None
        has_nested = any(item.stop > item.line.segments.stop for item in remaining[-2:])
        if not remaining or not loses_either or not is_one_sentence or has_nested:
            continue
        ends = [joint, end][-len(remaining) :]
        for item, new_end in zip(remaining[-2:], ends, strict=True):
            if _read_end(pieces, item) != new_end:
                yield item.stop - 1, new_end


def _read_end(pieces: Sequence[Segment], item: OutlineItem) -> str:
    """The sign and word at the end of an item's line."""
    match = _END.search(pieces[item.line.segments[-1]].text)
    return match.group() if match else ""
