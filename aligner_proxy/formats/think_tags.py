"""Reasoning inside a text: finds where the reasoning at its beginning ends and the answer begins.

Some upstreams write `<think>...</think>` before the answer, into the same text. The tags are those that LiteLLM takes
out of whole answers. They count only at the beginning, since further on an answer may speak of them. A closing tag
without an opening one is text, as LiteLLM has it. A text that ends before the closing tag holds no answer. Blocks that
follow one another are one reasoning, so that nothing looks like reasoning once it was removed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from aligner_proxy.types import Exchange

_NAMES = ("think", "thinking", "budget:thinking")
_OPENING_TAGS = tuple(f"<{name}>" for name in _NAMES)
_CLOSING_TAGS = tuple(f"</{name}>" for name in _NAMES)
OPENING = re.compile(rf"\s*(?:{'|'.join(_OPENING_TAGS)})")
"""The beginning of a text that begins with reasoning: white space and an opening tag."""
_CLOSING = re.compile("|".join(_CLOSING_TAGS))


class DividedText(NamedTuple):
    """A text, or a piece of a text, that begins with reasoning."""

    tagged_reasoning: str
    """Everything before the answer: reasoning, tags, and white space before the opening tag."""
    reasoning: str
    """The reasoning without the tags."""
    answer: str

    @property
    def whole(self) -> str:
        """The text as the upstream wrote it."""
        return self.tagged_reasoning + self.answer

    @classmethod
    def from_exchange(cls, exchange: Exchange) -> DividedText:
        """Return the text from which the answer of an exchange was taken."""
        return cls(exchange.tagged_reasoning, remove_tags(exchange.tagged_reasoning), exchange.answer or "")


class ThinkTagReader:
    """Reader of one growing text, until its reasoning has ended and the answer begins."""

    def __init__(self) -> None:
        self.reasoning_end = 0
        """Number of characters at the beginning that are certainly no part of the answer."""
        self.read_chars = 0
        """Number of characters read; those of the answer are not counted from its second piece on."""
        self.is_answer = False
        """Whether the answer has begun, so that no more of the text is reasoning."""
        self._is_inside = False
        """Whether the text so far ends inside reasoning."""
        self._tail = ""
        """The last characters that were read, if they may belong to a tag."""

    @property
    def is_undecided(self) -> bool:
        """Whether the last characters may belong to an opening tag that has not arrived as a whole."""
        return not (self.is_answer or self._is_inside)

    def feed(self, piece: str) -> str:
        """Read the next piece of the text; return the reasoning, without its tags, that this piece completes.

        A possible half of a tag at the end is kept for the next call: of "<think>No. </thi" this returns "No. ".
        """
        if self.is_answer:
            return ""
        self.read_chars += len(piece)
        self._tail += piece
        reasoning = ""
        position = 0
        while tag := self._find_tag(position):
            if self._is_inside:
                reasoning += self._tail[position : tag.start()]
            position = tag.end()
            self._is_inside = not self._is_inside
        self._tail = self._tail[position:]
        if self._is_inside:
            half_tag_start = self._find_half_tag()
            reasoning += self._tail[:half_tag_start]
            self._tail = self._tail[half_tag_start:]
            self.reasoning_end = self.read_chars
        else:
            self.reasoning_end = self.read_chars - len(self._tail)
            # The answer has begun unless what is left may still become an opening tag.
            beginning = self._tail.lstrip()
            self.is_answer = not any(tag_text.startswith(beginning) for tag_text in _OPENING_TAGS)
        return reasoning

    def end(self) -> None:
        """Count undecided characters as part of the answer; called when no more of the text can be waited for."""
        self.is_answer = self.is_answer or not self._is_inside

    def _find_tag(self, position: int) -> re.Match[str] | None:
        """Return the next closing tag inside reasoning; outside, an opening tag if one begins at `position`."""
        return _CLOSING.search(self._tail, position) if self._is_inside else OPENING.match(self._tail, position)

    def _find_half_tag(self) -> int:
        """Return the offset at which the tail may begin a closing tag; the length of the tail if it begins none."""
        start = self._tail.rfind("<")
        may_be_tag = start >= 0 and any(tag.startswith(self._tail[start:]) for tag in _CLOSING_TAGS)
        return start if may_be_tag else len(self._tail)


def remove_tags(tagged_reasoning: str) -> str:
    """Return the reasoning at the beginning of a text without its tags."""
    return ThinkTagReader().feed(tagged_reasoning)


def find_answer_start(text: str) -> int:
    """The offset of the answer in a whole text: 0 without reasoning before it, the text's length without an answer."""
    reader = ThinkTagReader()
    reader.feed(text)
    return reader.reasoning_end


def divide_exchange(exchange: Exchange, start: int | None = None) -> Exchange:
    """Move the reasoning before offset `start` (looked for if None) out of an exchange's answer; the same if none."""
    text = exchange.answer or ""
    if start is None:
        start = find_answer_start(text)
    return replace(exchange, answer=text[start:], tagged_reasoning=text[:start]) if start else exchange
