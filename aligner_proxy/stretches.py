"""What goes out in place of which characters of an answer? Stretches from the first character on, without a gap."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stretch:
    """`text` goes out in place of the characters `start` to `end` of the original."""

    start: int
    end: int
    text: str

    def part(self, start: int, end: int) -> str:
        """The share of `text` that goes out with these characters of the original."""
        size, length = self.end - self.start, len(self.text)
        first, last = max(start, self.start) - self.start, min(end, self.end) - self.start
        return self.text[length * first // size : length * last // size]


class Stretches:
    """All that is decided; what is not, goes out as it is."""

    def __init__(self) -> None:
        self.end = 0
        """So many characters are decided."""
        self._all: list[Stretch] = []

    def add(self, end: int, text: str) -> None:
        """`text` goes out in place of the next characters, up to `end`."""
        self._all.append(Stretch(self.end, end, text))
        self.end = end

    def out(self, start: int, end: int, original: str) -> str:
        """What goes out in place of these characters."""
        at, pieces = bisect_right(self._all, start, key=lambda stretch: stretch.end), list[str]()
        while start < end and at < len(self._all):
            pieces.append(self._all[at].part(start, end))
            start = min(end, self._all[at].end)
            at += 1
        return "".join(pieces) + original[start:end]
