"""Token ranges of unflagged segments, usable as drafts of any length. No torch.

They are still verified: the ranges only say how long a draft may be before the model has been seen to copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from aligner_proxy.segments import Segment


def trusted_ranges(
    segments: Sequence[Segment], flags: Sequence[bool], offsets: Sequence[tuple[int, int]]
) -> tuple[range, ...]:
    """Ranges of draft tokens, the end mark behind the last of them; `offsets` are the (start, end) characters of each.

    Clean segments side by side are one range; white space belongs to the segment before it.
    """
    starts = [0, *(segment.start for segment in segments[1:])]
    clean = list[range]()
    first = 0
    for flagged, run in groupby(range(len(segments)), key=lambda i: flags[i]):
        last = list(run)[-1] + 1
        end = starts[last] if last < len(starts) else None
        stop = len(offsets) + 1 if end is None else sum(stop <= end for _, stop in offsets)
        if not flagged and stop > first:
            clean.append(range(first, stop))
        first = stop
    return tuple(clean)
