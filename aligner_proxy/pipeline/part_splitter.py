"""Splitter that divides a growing text into parts; detector, editor and gate treat each part as a separate text.

A text no longer than a policy corrects at once is one part. A longer text is cut before a sentence that begins in the
last sixth of the part; if no sentence begins there, after a word. Example: with parts of 24,000 characters, a part with
a sentence that begins at 23,500 ends there. If a stream takes too much memory, the end of its part is hastened: the
part then ends before the next sentence. No part ever ends inside a word, since half a word could pass for another.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from enum import Enum, auto

from aligner_proxy.pipeline import outcomes
from aligner_proxy.text.splitter import Splitter
from aligner_proxy.types import OnSkip, Outcome, Policy, SkipReason, Status

_WORD_END = re.compile(r".?\s", re.DOTALL)
"""The last character of a word, if there is one, and the white space after it."""
LONGEST_WORD = 4
"""Multiple of a part's length: if a word is longer, the splitter stops waiting for its end."""
PART_CHARS = 24_000
"""Maximum length of a part, even if the policy allows longer answers. A held part is not visible before it ends."""
_HASTE_CHARS = 1_000
"""Characters within which a hastened part ends, unless a word goes on for longer."""
_EDGE_DIVISOR = 6
"""A part may end in its last sixth: its edge, in which the splitter looks for the beginning of a sentence."""


def longest_part(policy: Policy) -> int:
    """Maximum length of a part under this policy, in characters."""
    return min(policy.max_answer_chars, PART_CHARS)


def is_blocked(policy: Policy, length: int) -> bool:
    """Whether an answer of this length is too long for the policy, and neither judged nor delivered for that reason."""
    if length <= policy.max_answer_chars:
        return False
    # a policy with `too_long: judge` has long answers judged part by part
    is_judged = policy.on_skip.reaction_to(SkipReason.TOO_LONG) is OnSkip.JUDGE
    return not is_judged and outcomes.blocks(Outcome(Status.SKIPPED, SkipReason.TOO_LONG.value, None, policy))


class Edge(Enum):
    """Where a part ends."""

    HERE = auto()
    NOWHERE = auto()
    """The part has no end, because a word is too long to wait for its end."""


class PartSplitter:
    """Assigns the pieces of a growing text to the present part, and tells where this part ends.

    `limit` is the maximum length of a part, in characters. The last sixth of a part is its edge, in which it may end.
    """

    def __init__(self, limit: int) -> None:
        self.is_open = True
        """Whether the part may still end; if False, all further text belongs to it, whatever its length."""
        self._sentence_finder = Splitter()
        """Finds beginnings of sentences in the edge of the present part."""
        self._held_text = ""
        """The last sentence in the edge, held back because the part may have to end before it."""
        self._searched_chars = 0
        """Number of held-back characters that were searched for the end of a word, without success."""
        self._length = 0
        """Number of characters in the present part, without the held-back text."""
        self._last_char = ""
        """The last character of the present part; empty before the first."""
        self.is_hastened = False
        """Whether the present part ends before the next sentence."""
        self.widen(limit)

    def widen(self, limit: int) -> None:
        """Set a new maximum length, in characters, for the present part and later ones."""
        self._full_limit = limit
        """Maximum length of a part, in characters."""
        self._limit = limit
        """Maximum length of the present part; less than `_full_limit` once the part is hastened."""
        self._edge_start = limit - limit // _EDGE_DIVISOR
        """Offset in the present part at which its edge begins."""

    def hasten(self, line: str) -> None:
        """Let the present part end before the next sentence; if none begins within `_HASTE_CHARS`, after a word.

        `line` is the unfinished line at the end of the part.
        """
        # Before the edge nothing was read. The finder needs the line to recognise the end of its sentence.
        if self._length <= self._edge_start and not self._held_text:
            self._sentence_finder.feed(line)
        self.is_hastened = True
        self._edge_start = min(self._edge_start, self._length)
        self._limit = min(self._limit, self._length + len(self._held_text) + _HASTE_CHARS)

    @property
    def is_at_edge(self) -> bool:
        """Whether the text has just reached the edge of the present part."""
        return self._length == self._edge_start

    def cut(self, piece: str) -> Iterator[str | Edge]:
        """Yield the text of `piece` that belongs to the present part, and an `Edge` where the part ends.

        After an `Edge`, the caller must call `restart`, or clear `is_open`, before it takes the next item.
        """
        while piece:
            if not self.is_open:
                yield self._take(piece)
                return
            chars_before_edge = self._edge_start - self._length
            if chars_before_edge > 0:
                yield self._take(piece[:chars_before_edge])
                piece = piece[chars_before_edge:]
                continue
            chars_left = self._limit - self._length - len(self._held_text)
            if chars_left > 0:
                piece = yield from self._read_edge(piece, chars_left)
            else:
                piece = yield from self._end_full_part(piece)

    def _read_edge(self, piece: str, max_chars: int) -> Generator[str | Edge, None, str]:
        """Read up to `max_chars` characters in the edge of a part; return the rest of the piece.

        A sentence is held back until the next one begins, and then yielded. A hastened part ends there.
        """
        for number, char in enumerate(piece[:max_chars]):
            # `feed` returns the segment before `char` if `char` begins another
            begins_sentence = bool(self._sentence_finder.feed(char))
            if begins_sentence:
                sentence = self.take_back()
                if sentence:
                    yield self._take(sentence)
                if self.is_hastened:
                    yield Edge.HERE
                    return piece[number:]
            self._held_text += char
        return piece[max_chars:]

    def _end_full_part(self, piece: str) -> Generator[str | Edge, None, str]:
        """End a part before its last sentence or after a word, and return the rest of the piece.

        A part never ends inside a word, because both halves would be misjudged. If the word is too long to wait for its
        end, yields `Edge.NOWHERE`.
        """
        # no sentence began in the edge, so nothing of it was yielded, and the part would end inside a word
        if self._length <= self._edge_start and not _WORD_END.match(self._last_char + self._held_text[:1]):
            # one character back, because the match begins with the last character of the word
            word_end = _WORD_END.search(self._held_text, max(0, self._searched_chars - 1))
            self._searched_chars = len(self._held_text)
            if word_end is None and len(self._held_text) > self._limit * LONGEST_WORD:
                yield Edge.NOWHERE
                return piece
            if word_end is None:
                # hold back more, up to the end of the word if it is in the piece
                end_in_piece = _WORD_END.search(piece)
                count = end_in_piece.end() if end_in_piece else len(piece)
                self._held_text += piece[:count]
                return piece[count:]
            text = self.take_back()
            self._held_text = text[word_end.end() :]
            yield self._take(text[: word_end.end()])
        yield Edge.HERE
        return piece

    def restart(self) -> str:
        """Begin another part, of full length; return the held-back text, which is its beginning."""
        self._sentence_finder = Splitter()
        self._length = 0
        self._last_char = ""
        self.is_hastened = False
        self.widen(self._full_limit)
        return self.take_back()

    def take_back(self) -> str:
        """Return and clear the held-back text."""
        text = self._held_text
        self._held_text = ""
        self._searched_chars = 0
        return text

    def _take(self, text: str) -> str:
        """Note that `text` belongs to the present part, and return it."""
        self._length += len(text)
        self._last_char = text[-1:] or self._last_char
        return text
