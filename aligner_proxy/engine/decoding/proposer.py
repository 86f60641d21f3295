"""Proposer of draft tokens, taken from the answer that is being edited. No torch.

The draft is the run of answer tokens behind a pointer. After a disagreement the pointer is set again: by the last 4,
3 or 2 tokens written, found in the answer nearest to where we are, else by the token at which the last run broke (an
insertion is over), else by the last token in a small window, else one further (a substitution). Lossless: the model
checks every token, so a bad draft costs time and never changes text. Tokens of segments that the detector did not flag
may be drafted at length before the model has been seen to copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from aligner_proxy.engine.scheduling.draft_length import Acceptance, Round, Rule
from aligner_proxy.text.structure import Segment

_NGRAMS = (4, 3, 2)
_BEHIND = 4
_AHEAD = 4
"""Window of the one-token search, around the point of disagreement: a deletion, or the end of an edit."""


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


class EditProposer:
    """Drafts for one answer. `lookup` is the text to draft from, normally the answer's tokens and EOS.

    `anchors` are positions in `lookup` where the text is likely to go on after a jump (the start of the next kept
    segment); drafting starts at the first of them. `rule` says how long a draft is; `trusted` are ranges of
    `lookup` that are drafted to their end as long as the model agrees: what the detector did not flag.
    """

    def __init__(
        self, lookup: Sequence[int], rule: Rule, anchors: Sequence[int] = (), trusted: Sequence[range] = ()
    ) -> None:
        self._lookup = list(lookup)
        self._trusted = tuple(trusted)
        self._rule = rule
        self._acceptance = Acceptance()
        self._anchors = tuple(anchors)
        self._pointer = self._broke = anchors[0] if anchors else 0
        self._index = self._build_index()

    def propose(self, room: int) -> list[int]:
        """The next draft tokens, at most `room`; empty when the answer has no more to offer."""
        most = max(0, min(room, len(self._lookup) - self._pointer))
        sure = min(most, self._sure())
        return self._lookup[self._pointer : self._pointer + sure + self._rule(self._acceptance, most - sure)]

    def guess_next_token(self, draft: Sequence[int]) -> list[int]:
        """The token that would come behind a draft just proposed, if there is one."""
        end = self._pointer + len(draft)
        return self._lookup[end : end + 1]

    def update(self, output: Sequence[int], drafted: int, accepted: int) -> None:
        """Take in one step: `output` is all that was written so far, its last token the one the model added."""
        at = self._pointer + accepted
        goes_on = accepted == drafted and self._lookup[at : at + 1] == [output[-1]]
        if accepted:
            self._broke = at
        if self._acceptance.running and accepted < drafted and any(at in clean for clean in self._trusted):
            self._trusted = ()  # the detector was wrong once
        self._pointer, located = self._resync(output, at)
        done = Round(drafted + 1, accepted + 1, located)
        self._acceptance = self._acceptance.add_step(accepted + goes_on, run_ended=not goes_on, done=done)

    def _sure(self) -> int:
        """Tokens from here to the end of an unflagged segment; 0 while the place is a guess."""
        here = next((clean for clean in self._trusted if self._pointer in clean), None)
        return here.stop - self._pointer if here and self._acceptance.running else 0

    def _build_index(self) -> dict[tuple[int, ...], list[int]]:
        """Every n-gram of the lookup text with the positions that follow it."""
        index: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for size in _NGRAMS:
            for end in range(size, len(self._lookup) + 1):
                index[tuple(self._lookup[end - size : end])].append(end)
        return dict(index)

    def _resync(self, output: Sequence[int], at: int) -> tuple[int, bool]:
        """Where the answer goes on, and whether that was found by what was written or is only supposed."""
        last_token = output[-1]
        if self._lookup[at : at + 1] == [last_token]:
            return at + 1, True
        for size in _NGRAMS:
            places = self._index.get(tuple(output[-size:]), []) if len(output) >= size else []
            if places:
                return _nearest(places, at + 1), True
        if self._lookup[self._broke : self._broke + 1] == [last_token]:
            return self._broke + 1, True
        place = self._one_token(last_token, at)
        return (at + 1, False) if place is None else (place + 1, True)

    def _one_token(self, token: int, at: int) -> int | None:
        """The place of a token among the anchors, else nearby."""
        window = range(max(0, at - _BEHIND), min(len(self._lookup), at + _AHEAD + 1))
        for candidates in (self._anchors, window):
            places = [i for i in candidates if self._lookup[i] == token]
            if places:
                return _nearest(places, at)
        return None


def _nearest(positions: Sequence[int], to: int) -> int:
    """The closest position, the later one of two equally close."""
    return min(positions, key=lambda position: (abs(position - to), position < to))


def count_matching(draft: Sequence[int], tokens: Sequence[int]) -> int:
    """Length of the longest common prefix of two token sequences."""
    if draft == tokens[: len(draft)]:
        return len(draft)
    for i, (drafted, token) in enumerate(zip(draft, tokens, strict=False)):
        if drafted != token:
            return i
    return min(len(draft), len(tokens))
