"""Proposer of draft tokens, taken from the answer that is being edited. No torch.

The draft is the run of answer tokens after a pointer. In the answer "The big cat sat down", the model writes "The cat":
"big" was a wrong draft, "cat" is found in the answer, and the next draft is "sat down". When the model disagrees with
the draft, the pointer is set again, by the first of these that applies:

- the last 4, 3 or 2 tokens written occur in the answer: after the occurrence nearest to the current position
- the token written is the one at which the last run broke: after that one (an insertion has ended)
- the token written occurs at an anchor, or in a small window around the pointer: after it
- else one token further (a substitution)

Drafts never change the text, because the model checks every token; a bad draft only costs time. Tokens of segments that
the detector did not flag may be drafted at length, even before the model has been seen to copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from aligner_proxy.engine.scheduling.draft_length import Acceptance, LengthRule, Round
from aligner_proxy.text.structure import Segment

_NGRAMS = (4, 3, 2)
"""Lengths of the token runs that are looked up; the longest match is the surest, so it is tried first."""
_BEHIND = 4
_AHEAD = 4
"""Window of the one-token search around the point of disagreement; it finds deletions and the ends of edits."""


def find_trusted_ranges(
    segments: Sequence[Segment], flags: Sequence[bool], offsets: Sequence[tuple[int, int]]
) -> tuple[range, ...]:
    """The ranges of draft tokens that belong to unflagged segments; `flags` say which of `segments` are flagged.

    `offsets` are the (start, end) characters of each token; the end mark follows as one more token. Adjacent unflagged
    segments form one range. White space belongs to the segment before it. If of four sentences of ten tokens each only
    the third is flagged: `(range(0, 20), range(30, 41))`.
    """
    # the first one begins at 0, because tokens before it belong to it
    starts = [0, *(segment.start for segment in segments[1:])]
    ranges = list[range]()
    first_token = 0
    for flagged, run in groupby(range(len(segments)), key=lambda number: flags[number]):
        next_segment = list(run)[-1] + 1
        if next_segment < len(starts):
            stop_token = sum(end <= starts[next_segment] for _, end in offsets)
        else:
            # after the last segment the end mark is included
            stop_token = len(offsets) + 1
        if not flagged and stop_token > first_token:
            ranges.append(range(first_token, stop_token))
        first_token = stop_token
    return tuple(ranges)


class DraftProposer:
    """Proposes drafts for one answer. `lookup` is the text to draft from, normally the answer's tokens and EOS.

    `anchors` are positions in `lookup` where the text is likely to continue after a jump (the start of the next kept
    segment); drafting starts at the first of them. `rule` returns the length of a draft. `trusted` are ranges of
    `lookup` that the detector did not flag; they are drafted to their end as long as the model agrees.
    """

    def __init__(
        self, lookup: Sequence[int], rule: LengthRule, anchors: Sequence[int] = (), trusted: Sequence[range] = ()
    ) -> None:
        self._lookup = list(lookup)
        self._trusted = tuple(trusted)  # emptied once the model rejects a token in one of them
        self._rule = rule
        self._acceptance = Acceptance()
        self._anchors = tuple(anchors)
        first_position = anchors[0] if anchors else 0
        # positions in `lookup`: where the next draft begins, and where the last run of accepted tokens ended
        self._pointer = first_position
        self._break_position = first_position
        self._index = self._build_index()

    def propose(self, room: int) -> list[int]:
        """The next draft tokens, at most `room`; empty at the end of the lookup text."""
        limit = max(0, min(room, len(self._lookup) - self._pointer))
        sure_count = min(limit, self._count_sure_tokens())
        length = sure_count + self._rule(self._acceptance, limit - sure_count)
        return self._lookup[self._pointer : self._pointer + length]

    def guess_next_token(self, draft: Sequence[int]) -> list[int]:
        """The token after the draft just proposed, as a list of one, or empty at the end of the lookup text."""
        end = self._pointer + len(draft)
        return self._lookup[end : end + 1]

    def update(self, output: Sequence[int], drafted: int, accepted: int) -> None:
        """Record one step, of whose `drafted` tokens `accepted` were accepted, and move the pointer.

        `output` are all tokens so far; the last one is the model's own.
        """
        position = self._pointer + accepted
        run_continues = accepted == drafted and self._lookup[position : position + 1] == [output[-1]]
        # a run broke only if there was one; otherwise the former place still counts
        if accepted:
            self._break_position = position
        if self._acceptance.in_run and accepted < drafted and any(position in trusted for trusted in self._trusted):
            self._trusted = ()  # the model rejected an unflagged token, so the detector is not trusted any more
        self._pointer, located = self._find_pointer(output, position)
        step_round = Round(drafted + 1, accepted + 1, located)
        # the model's own token is copied, too, if it is the next one of the answer
        copied = accepted + 1 if run_continues else accepted
        self._acceptance = self._acceptance.add_step(copied, run_ended=not run_continues, step_round=step_round)

    def _count_sure_tokens(self) -> int:
        """Tokens from the pointer to the end of its trusted range; 0 if there is none or the position is a guess."""
        trusted = next((tokens for tokens in self._trusted if self._pointer in tokens), None)
        return trusted.stop - self._pointer if trusted and self._acceptance.in_run else 0

    def _build_index(self) -> dict[tuple[int, ...], list[int]]:
        """Map every n-gram of the lookup text to the positions right after its occurrences.

        Tokens `[7, 8, 7, 8]`: `(7, 8)` -> `[2, 4]`, `(8, 7)` -> `[3]`, and so on.
        """
        index: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for size in _NGRAMS:
            for end in range(size, len(self._lookup) + 1):
                index[tuple(self._lookup[end - size : end])].append(end)
        return dict(index)

    def _find_pointer(self, output: Sequence[int], position: int) -> tuple[int, bool]:
        """The new pointer, and True if written tokens located it, False if it is a guess (rules of the module).

        `position` is the place in the lookup text after the accepted tokens.
        """
        last_token = output[-1]
        if self._lookup[position : position + 1] == [last_token]:
            return position + 1, True
        # a longer run occurs only where its last two tokens do
        if tuple(output[-2:]) in self._index:
            for size in _NGRAMS:
                places = self._index.get(tuple(output[-size:]))
                if places:
                    return _nearest(places, position + 1), True
        if self._lookup[self._break_position : self._break_position + 1] == [last_token]:
            return self._break_position + 1, True
        place = self._find_token(last_token, position)
        return (position + 1, False) if place is None else (place + 1, True)

    def _find_token(self, token: int, position: int) -> int | None:
        """The position of a token at an anchor, else in the window around `position`; None if it is at neither."""
        lookup = self._lookup
        first = max(0, position - _BEHIND)
        stop = min(len(lookup), position + _AHEAD + 1)
        places = [number for number in self._anchors if lookup[number] == token]
        # most tokens are not in the window, which is far quicker to see than where they are
        if not places and token in lookup[first:stop]:
            places = [number for number in range(first, stop) if lookup[number] == token]
        return _nearest(places, position) if places else None


def _nearest(positions: Sequence[int], to: int) -> int:
    """The position closest to `to`; of two equally close ones the later."""
    return min(positions, key=lambda position: (abs(position - to), position < to))


def count_matching(draft: Sequence[int], tokens: Sequence[int]) -> int:
    """Length of the longest common prefix of two token sequences: of `[5, 6, 7]` and `[5, 6, 9, 7]` it is 2."""
    # comparing whole lists is far quicker than the loop
    if draft == tokens[: len(draft)]:
        return len(draft)
    for place, (drafted, token) in enumerate(zip(draft, tokens, strict=False)):
        if drafted != token:
            return place
    return min(len(draft), len(tokens))
