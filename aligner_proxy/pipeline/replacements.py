"""Replacements in an answer that is released piece by piece, and the white space around them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from aligner_proxy.text.structure import Segment, gap_of_edit


@dataclass(frozen=True, slots=True)
class Replacement:
    """`text` goes out in place of the characters `start` to `end` of the original."""

    start: int
    end: int
    text: str

    def part(self, start: int, end: int) -> str:
        """The share of `text` for these characters of the original; `text` is spread evenly over its range."""
        size = self.end - self.start
        length = len(self.text)
        first = max(start, self.start) - self.start
        last = min(end, self.end) - self.start
        # rounded alike at both ends, so that adjoining parts add up to the whole text
        return self.text[length * first // size : length * last // size]


class ReplacementMap:
    """All decided replacements of an answer; undecided text goes out unchanged."""

    def __init__(self) -> None:
        self.end = 0
        """Number of decided characters."""
        self.changed_ranges: list[tuple[int, int]] = []
        """(start, end) of each place where the output differs from the original, in characters of the original."""
        self.has_text = False
        """Whether anything but white space goes out for them."""
        self._all: list[Replacement] = []
        """The replacements in order; each begins where the one before it ends."""
        self._texts: list[str] = []
        """What goes out, in pieces."""

    @property
    def is_changed(self) -> bool:
        """Whether the output differs from the original anywhere."""
        return bool(self.changed_ranges)

    def add(self, end: int, text: str, *, is_changed: bool = True) -> None:
        """Decide that `text` goes out for the next characters, up to `end`; `is_changed` is False if it equals them."""
        if is_changed:
            self.changed_ranges.append((self.end, end))
        self.has_text = self.has_text or bool(text.strip())
        self._all.append(Replacement(self.end, end, text))
        self._texts.append(text)
        self.end = end

    @property
    def text(self) -> str:
        """The output for all decided characters. The joined text is kept, because each edit asks for it."""
        self._texts = ["".join(self._texts)]
        return self._texts[0]

    def render(self, start: int, end: int, original: str) -> str:
        """The output for the characters `start` to `end` of `original`; undecided ones are unchanged."""
        index = bisect_right(self._all, start, key=lambda replacement: replacement.end)
        pieces: list[str] = []
        while start < end and index < len(self._all):
            pieces.append(self._all[index].part(start, end))
            start = min(end, self._all[index].end)
            index += 1
        return "".join(pieces) + original[start:end]


def place_replacement(run: Sequence[Segment], lead: str, text: str, *, begins: bool, last: bool) -> tuple[int, str]:
    """(end of the replaced range of `run`, text for the range, including the white space `lead` before it).

    A removed run leaves no white space if the answer `begins` with it, and that behind it if it is the `last`.
    """
    if text:
        return run[-1].end, lead + text
    gap = run[-1].gap
    white_space = gap if last else gap_of_edit(run, text, lead)
    return run[-1].end + len(gap), "" if begins else white_space
