"""Splitter that divides a text of any length into parts; detector, editor and gate treat each as a separate text.

A text no longer than a policy corrects at once is one part. A longer text is cut before a sentence that begins in the
last sixth of the part; if there is none, after a word. Example: with parts of 24,000 characters, a part with a sentence
that begins at 23,500 ends there. A stream that takes too much room hastens the end of its part, which then comes before
the next sentence. Even so no part ends inside a word, since half of it would pass for something else.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from enum import Enum, auto

from aligner_proxy.pipeline import outcomes
from aligner_proxy.text.splitter import Splitter
from aligner_proxy.types import OnSkip, Outcome, Policy, SkipReason, Status

_GAP = re.compile(r".?\s", re.DOTALL)
"""The last character of a word, if there is one, and the white space after it."""
LONGEST_WORD = 4
"""Multiple of the part's length after which the splitter stops waiting for the end of a word."""
PART_CHARS = 24_000
"""Maximum length of a part, even if the policy allows longer answers. A held part is not visible before it ends."""
_HASTE_CHARS = 1_000
"""Characters within which a hastened part ends, unless a word goes on for longer."""
_EDGE = 6
"""One over the share of a part (the last sixth) in which the splitter looks for a sentence to end before."""


def longest_part(policy: Policy) -> int:
    """Length in characters after which a text is cut into another part."""
    return min(policy.max_answer_chars, PART_CHARS)


def is_blocked(policy: Policy, length: int) -> bool:
    """Whether an answer of this length is blocked because it is too long."""
    if length <= policy.max_answer_chars:
        return False
    is_judged = policy.on_skip.reaction_to(SkipReason.TOO_LONG) is OnSkip.JUDGE  # judged part by part
    return not is_judged and outcomes.blocks(Outcome(Status.SKIPPED, SkipReason.TOO_LONG.value, None, policy))


class Edge(Enum):
    """Where a part ends: here, or nowhere if a word is too long to wait for its end."""

    HERE = auto()
    NOWHERE = auto()


class PartSplitter:
    """Assigns the pieces of a growing text to the present part, and says where that part ends."""

    def __init__(self, limit: int) -> None:
        self.is_open = True
        """Whether the part may still end; if False, all further text belongs to it, whatever its length."""
        self._edge = Splitter()
        """Finds sentence starts in the last sixth of a part."""
        self._held_text = ""
        """The last sentence in the last sixth of a part, held back because the part may have to end before it."""
        self._unbroken = 0
        """Number of held-back characters already searched for a gap after a word, without success."""
        self._length = 0
        """Number of characters in the present part."""
        self._last = ""
        """Its last character."""
        self.is_hastened = False
        """Whether the present part ends with the sentence that it is in."""
        self.widen(limit)

    def widen(self, limit: int) -> None:
        """Set a new length limit for the present and later parts."""
        self._full_limit = limit
        """Maximum length of a part, in characters."""
        self._limit = limit
        """Maximum length of the present part; less than `_full_limit` once the part is hastened."""
        self._edge_start = limit - limit // _EDGE
        """Offset at which the last sixth of a part begins."""

    def hasten(self, line: str) -> None:
        """Let the present part, which ends with this line, end before the next sentence.

        If there is none within some characters, it ends after a word.
        """
        # before the last sixth, `_edge` has read nothing; it needs the line to recognise the end of its sentence
        if self._length <= self._edge_start and not self._held_text:
            self._edge.feed(line)
        self.is_hastened = True
        self._edge_start = min(self._edge_start, self._length)
        self._limit = min(self._limit, self._length + len(self._held_text) + _HASTE_CHARS)

    @property
    def is_at_edge(self) -> bool:
        """Whether the text has just reached the last sixth of the part."""
        return self._length == self._edge_start

    def cut(self, piece: str) -> Iterator[str | Edge]:
        """Yield the text of `piece` that belongs to the present part, and an `Edge` where the part ends.

        On an edge, the caller must begin another part, or pass on the rest unchanged (`is_open`), before it continues.
        """
        while piece:
            if not self.is_open:
                yield self._take(piece)
                return
            before_edge = self._edge_start - self._length
            if before_edge > 0:
                yield self._take(piece[:before_edge])
                piece = piece[before_edge:]
                continue
            room = self._limit - self._length - len(self._held_text)
            if room > 0:
                piece = yield from self._seek_sentence(piece, room)
            else:
                piece = yield from self._end_full_part(piece)

    def _seek_sentence(self, piece: str, room: int) -> Generator[str | Edge, None, str]:
        """Read up to `room` characters in the last sixth of a part; return the rest of the piece.

        A sentence is held back until the next one begins, and then yielded. A hastened part ends there.
        """
        for number, char in enumerate(piece[:room]):
            # the splitter returns a segment as soon as `char` begins the next one
            begins_sentence = bool(self._edge.feed(char))
            if begins_sentence:
                if sentence := self.take_back():
                    yield self._take(sentence)
                if self.is_hastened:
                    yield Edge.HERE
                    return piece[number:]
            self._held_text += char
        return piece[room:]

    def _end_full_part(self, piece: str) -> Generator[str | Edge, None, str]:
        """End a part before its last sentence or after a word, and return the rest of the piece.

        A part never ends inside a word, because both halves would be misjudged. If the word is too long to wait for its
        end, the rest is not judged at all.
        """
        # no sentence began in the last sixth, and the part would end inside a word
        if self._length <= self._edge_start and not _GAP.match(self._last + self._held_text[:1]):
            # one character back, because a word may have ended with the last one searched
            gap = _GAP.search(self._held_text, max(0, self._unbroken - 1))
            self._unbroken = len(self._held_text)
            if gap is None and len(self._held_text) > self._limit * LONGEST_WORD:
                yield Edge.NOWHERE
                return piece
            if gap is None:
                more = _GAP.search(piece)
                count = more.end() if more else len(piece)
                self._held_text += piece[:count]
                return piece[count:]
            text = self.take_back()
            self._held_text = text[gap.end() :]
            yield self._take(text[: gap.end()])
        yield Edge.HERE
        return piece

    def restart(self) -> str:
        """Begin another part, of full length; return the held-back text with which it begins."""
        self._edge = Splitter()
        self._length = 0
        self._last = ""
        self.is_hastened = False
        self.widen(self._full_limit)
        return self.take_back()

    def take_back(self) -> str:
        """Return and clear the held-back text."""
        text = self._held_text
        self._held_text = ""
        self._unbroken = 0
        return text

    def _take(self, text: str) -> str:
        """Count `text` as part of the present part, and return it."""
        self._length += len(text)
        self._last = text[-1:] or self._last
        return text
