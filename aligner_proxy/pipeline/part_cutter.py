"""Cutter of a text without a bound into parts, each a text of its own to detector, editor and gate.

A text is one part as long as it is no longer than a policy corrects at once; a longer one goes on in further parts. A
part ends before a sentence where one begins in its last sixth, else behind a word. Example: of parts of 24,000
characters, one that has a sentence beginning at 23,500 ends there.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from enum import Enum, auto

from aligner_proxy.pipeline import outcomes
from aligner_proxy.text.cutter import Cutter
from aligner_proxy.types import OnSkip, Outcome, Policy, SkipReason, Status

_GAP = re.compile(r".?\s", re.DOTALL)
LONGEST_WORD = 4
"""Times the length of a part that is waited for the end of a word."""
PART_CHARS = 24_000
"""The longest part, however long the answers are that a policy corrects: a client sees nothing of it before its end."""
_EDGE = 6
"""The share of a part, one in so many, in which a sentence is looked for before which it may end."""


def longest_part(policy: Policy) -> int:
    """Characters beyond which a text goes on in another part."""
    return min(policy.max_answer_chars, PART_CHARS)


def is_blocked(policy: Policy, length: int) -> bool:
    """Whether the client gets an error in place of an answer of this length, because that is too long."""
    if length <= policy.max_answer_chars:
        return False
    is_judged = policy.on_skip.reaction_to(SkipReason.TOO_LONG) is OnSkip.JUDGE  # part by part
    return not is_judged and outcomes.blocks(Outcome(Status.SKIPPED, SkipReason.TOO_LONG.value, None, policy))


class Edge(Enum):
    """Where a part ends: here, or nowhere, since a word is too long to wait for its end."""

    HERE = auto()
    NOWHERE = auto()


class PartCutter:
    """Says of a growing text what belongs to the present part, and where that ends."""

    def __init__(self, limit: int) -> None:
        self.is_open = True
        """False: the rest belongs to the present part, whatever its length."""
        self._edge = Cutter()
        """Cuts what comes in the last sixth of a part."""
        self._back = ""
        """The last sentence of a part in its last sixth: kept, since the part may have to end before it."""
        self._unbroken = 0
        """So many characters of it are known to have no gap behind a word."""
        self._length = 0
        """How much belongs to the present part."""
        self._last = ""
        """The last character of that."""
        self.widen(limit)

    def widen(self, limit: int) -> None:
        """Parts may be so long from here on."""
        self._limit = limit
        self._soft = limit - limit // _EDGE
        """Where the last sixth of a part begins."""

    @property
    def is_at_edge(self) -> bool:
        """Whether the last sixth of the part begins here."""
        return self._length == self._soft

    def cut(self, piece: str) -> Iterator[str | Edge]:
        """What belongs to the present part of a text with this piece behind it, and where that part ends.

        Whoever takes an edge begins another part, or takes the rest as it is (`is_open`), before going on.
        """
        while piece:
            room = self._soft - self._length
            if room > 0 or not self.is_open:
                count = room if self.is_open else len(piece)
                yield self._take(piece[:count])
                piece = piece[count:]
            elif (room := self._limit - self._length - len(self._back)) > 0:
                for char in piece[:room]:
                    if self._edge.feed(char):
                        yield self._take(self.take_back())
                    self._back += char
                piece = piece[room:]
            else:
                piece = yield from self._end_full_part(piece)

    def _end_full_part(self, piece: str) -> Generator[str | Edge, None, str]:
        """End a part before its last sentence, or behind a word; the rest of the piece.

        Half a word would be judged on either side. One that is too long to wait for its end is not judged at all.
        """
        if self._length <= self._soft and not _GAP.match(self._last + self._back[:1]):
            gap = _GAP.search(self._back, max(0, self._unbroken - 1))
            self._unbroken = len(self._back)
            if gap is None and len(self._back) > self._limit * LONGEST_WORD:
                yield Edge.NOWHERE
                return piece
            if gap is None:
                more = _GAP.search(piece)
                count = more.end() if more else len(piece)
                self._back += piece[:count]
                return piece[count:]
            back = self.take_back()
            self._back = back[gap.end() :]
            yield self._take(back[: gap.end()])
        yield Edge.HERE
        return piece

    def restart(self) -> str:
        """Another part begins; it begins with this text, which was kept back."""
        self._edge = Cutter()
        self._length = 0
        self._last = ""
        return self.take_back()

    def take_back(self) -> str:
        """What was kept back, and is not any more."""
        back = self._back
        self._back = ""
        self._unbroken = 0
        return back

    def _take(self, text: str) -> str:
        """This text belongs to the present part."""
        self._length += len(text)
        self._last = text[-1:] or self._last
        return text
