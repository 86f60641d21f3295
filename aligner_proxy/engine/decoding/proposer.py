"""Proposer of draft tokens, which the model checks in one pass. They are taken from a text of known tokens (`lookup`),
as a rule the answer that is being edited. The pointer is the place in this text where the next draft begins. A run is a
series of tokens that the model copies from it. No torch.

In the answer "The big cat sat down", the model writes "The cat": "big" was a wrong draft, "cat" is found in the answer,
and the next draft is "sat down". When the model disagrees with the draft, the pointer is set again, by the first of
these that applies:

- the last 4, 3 or 2 tokens written occur in the answer: after the occurrence nearest to the current position
- the token written is the one at which the last run broke: after this token (an insertion has ended)
- the token written occurs at an anchor, or in a small window around the pointer: after its place
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
_TOKENS_BEHIND = 4
_TOKENS_AHEAD = 4
"""Tokens on either side of the pointer in which a single token is searched; this finds deletions and ends of edits."""


def find_trusted_ranges(
    segments: Sequence[Segment], flags: Sequence[bool], offsets: Sequence[tuple[int, int]]
) -> tuple[range, ...]:
    """Return the ranges of draft tokens that belong to unflagged segments; `flags` say which of `segments` are flagged.

    `offsets` are the (start, end) characters of each token; the end mark follows as one more token. Adjacent unflagged
    segments form one range. White space belongs to the segment before it. With four sentences of ten tokens each, of
    which only the third is flagged, the result is `(range(0, 20), range(30, 41))`.
    """
    ranges = list[range]()
    first_token = 0
    next_segment = 0
    for flagged, run_flags in groupby(flags):
        next_segment += len(list(run_flags))
        if next_segment < len(segments):
            next_start = segments[next_segment].start
            stop_token = sum(end <= next_start for _, end in offsets)
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
    segment); drafting starts at the first of them. `choose_length` is called for each draft with the statistics of
    earlier drafts and the most tokens that the draft may have, and returns its length. `trusted` are ranges of `lookup`
    that the detector did not flag; they are drafted to their end as long as the model agrees.
    """

    def __init__(
        self,
        lookup: Sequence[int],
        choose_length: LengthRule,
        anchors: Sequence[int] = (),
        trusted: Sequence[range] = (),
    ) -> None:
        self._lookup = list(lookup)
        # no range is trusted any more once the model rejects a token in one of them
        self._trusted_ranges = tuple(trusted)
        self._choose_length = choose_length
        self._acceptance = Acceptance()
        self._anchors = tuple(anchors)
        first_position = anchors[0] if anchors else 0
        # positions in `lookup`: where the next draft begins, and where the last run of accepted tokens ended
        self._pointer = first_position
        self._break_position = first_position
        self._places_after = self._index_places_after()

    def propose(self, room: int) -> list[int]:
        """Return the next draft tokens, at most `room`; empty at the end of the lookup text."""
        max_length = max(0, min(room, len(self._lookup) - self._pointer))
        sure_count = min(max_length, self._count_sure_tokens())
        length = sure_count + self._choose_length(self._acceptance, max_length - sure_count)
        return self._lookup[self._pointer : self._pointer + length]

    def guess_next_token(self, draft: Sequence[int]) -> list[int]:
        """Return the token after the draft just proposed, as a list of one; empty at the end of the lookup text."""
        end = self._pointer + len(draft)
        return self._lookup[end : end + 1]

    def update(self, output: Sequence[int], drafted: int, accepted: int) -> None:
        """Move the pointer after a step that `accepted` some of the draft; `output` ends with the model's own token."""
        position = self._pointer + accepted  # the place after the accepted tokens
        run_continues = accepted == drafted and self._lookup[position : position + 1] == [output[-1]]
        # without an accepted token no run has broken here, so the former place still counts
        if accepted:
            self._break_position = position
        if (
            self._acceptance.in_run
            and accepted < drafted
            and any(position in tokens for tokens in self._trusted_ranges)
        ):
            self._trusted_ranges = ()  # the model rejected an unflagged token, so the detector is not trusted any more
        self._pointer, located = self._find_pointer(output, position)
        step_round = Round(drafted + 1, accepted + 1, located)
        # the model's own token counts as copied, too, if it is the next one of the answer
        copied_count = accepted + 1 if run_continues else accepted
        self._acceptance = self._acceptance.add_step(copied_count, run_ended=not run_continues, step_round=step_round)

    def _count_sure_tokens(self) -> int:
        """Return how many tokens are left of a trusted range; 0 outside of one, or if the pointer may be wrong."""
        trusted_range = next((tokens for tokens in self._trusted_ranges if self._pointer in tokens), None)
        return trusted_range.stop - self._pointer if trusted_range and self._acceptance.in_run else 0

    def _index_places_after(self) -> dict[tuple[int, ...], list[int]]:
        """Map every run of 4, 3 or 2 tokens of the lookup text to the positions right after its occurrences.

        Of the tokens `[7, 8, 7, 8]`, `(7, 8)` is mapped to `[2, 4]`, `(8, 7)` to `[3]`, and so on.
        """
        places_after: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for size in _NGRAMS:
            for end in range(size, len(self._lookup) + 1):
                places_after[tuple(self._lookup[end - size : end])].append(end)
        return dict(places_after)

    def _find_pointer(self, output: Sequence[int], position: int) -> tuple[int, bool]:
        """Return the new pointer, and whether it was located by the tokens written; otherwise it is a guess.

        The module lists the rules. `position` is the place in the lookup text after the accepted tokens.
        """
        last_token = output[-1]
        if self._lookup[position : position + 1] == [last_token]:
            return position + 1, True
        # the last tokens may occur elsewhere; more of them occur only where the last two do
        if tuple(output[-2:]) in self._places_after:
            for size in _NGRAMS:
                places = self._places_after.get(tuple(output[-size:]))
                if places:
                    return _find_nearest(places, position + 1), True
        # the token at which the last run broke ends an insertion
        if self._lookup[self._break_position : self._break_position + 1] == [last_token]:
            return self._break_position + 1, True
        # the token may stand nearby; otherwise one token was probably replaced by another
        place = self._find_token(last_token, position)
        return (position + 1, False) if place is None else (place + 1, True)

    def _find_token(self, token: int, position: int) -> int | None:
        """Return the position of a token at an anchor, else in the window around `position`; None if at neither."""
        lookup = self._lookup
        first = max(0, position - _TOKENS_BEHIND)
        stop = min(len(lookup), position + _TOKENS_AHEAD + 1)
        places = [place for place in self._anchors if lookup[place] == token]
        # most tokens are not in the window, and `in` is far quicker than the search for their places
        if not places and token in lookup[first:stop]:
            places = [place for place in range(first, stop) if lookup[place] == token]
        return _find_nearest(places, position) if places else None


def _find_nearest(positions: Sequence[int], target: int) -> int:
    """Return the position closest to `target`; of two equally close positions, the later one."""
    return min(positions, key=lambda position: (abs(position - target), position < target))


def count_matching(draft: Sequence[int], tokens: Sequence[int]) -> int:
    """Return how many first tokens two sequences have in common: 2 for `[5, 6, 7]` and `[5, 6, 9, 7]`."""
    # comparing whole lists is far quicker than the loop
    if draft == tokens[: len(draft)]:
        return len(draft)
    # the lengths may differ
    for place, (draft_token, token) in enumerate(zip(draft, tokens, strict=False)):
        if draft_token != token:
            return place
    return min(len(draft), len(tokens))
