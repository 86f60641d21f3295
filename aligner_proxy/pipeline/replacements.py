"""Replacements in an answer that is released piece by piece, and the white space around them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from aligner_proxy.text.structure import Segment, gap_of_edit


@dataclass(frozen=True, slots=True)
class Replacement:
    """The text that goes out in place of the characters `start` to `end` (exclusive) of the original."""

    start: int
    end: int
    text: str

    def share(self, start: int, end: int) -> str:
        """The share of `text` for the characters `start` to `end` of the original.

        `text` is spread evenly over all characters that it replaces. The shares of adjoining ranges add up to it.
        """
        original_length = self.end - self.start
        new_length = len(self.text)
        first = max(start, self.start) - self.start
        stop = min(end, self.end) - self.start
        return self.text[new_length * first // original_length : new_length * stop // original_length]


class ReplacementMap:
    """All decided replacements of an answer; undecided text goes out unchanged."""

    def __init__(self) -> None:
        self.end = 0
        """Number of decided characters."""
        self.changed_ranges: list[tuple[int, int]] = []
        """(start, end) of each place where the output differs from the original, in characters of the original."""
        self.has_text = False
        """Whether anything but white space goes out for the decided characters."""
        self._replacements: list[Replacement] = []
        """All replacements in order; each begins where the one before it ends."""
        self._output_pieces: list[str] = []
        """The text that goes out for all decided characters, in pieces."""

    @property
    def is_changed(self) -> bool:
        """Whether the output differs from the original anywhere."""
        return bool(self.changed_ranges)

    def add(self, end: int, text: str, *, is_changed: bool = True) -> None:
        """Decide that `text` goes out for the undecided characters up to `end`; `is_changed` if it is another text."""
        if is_changed:
            self.changed_ranges.append((self.end, end))
        self.has_text = self.has_text or bool(text.strip())
        self._replacements.append(Replacement(self.end, end, text))
        self._output_pieces.append(text)
        self.end = end

    @property
    def text(self) -> str:
        """The text that goes out for all decided characters."""
        # joined for good, because each edit asks for the text
        self._output_pieces = ["".join(self._output_pieces)]
        return self._output_pieces[0]

    def render(self, start: int, end: int, original: str) -> str:
        """The text that goes out for the characters `start` to `end` of `original`; undecided ones are unchanged."""
        # the first replacement that ends after `start`
        index = bisect_right(self._replacements, start, key=lambda replacement: replacement.end)
        pieces: list[str] = []
        while start < end and index < len(self._replacements):
            replacement = self._replacements[index]
            pieces.append(replacement.share(start, end))
            start = min(end, replacement.end)
            index += 1
        return "".join(pieces) + original[start:end]


def place_replacement(
    run: Sequence[Segment], space_before: str, text: str, *, is_first: bool, is_last: bool
) -> tuple[int, str]:
    """Return (end of the replaced range, text for the range) if `text` replaces the segments of `run`.

    The range begins with the white space `space_before` the run. If `text` is empty, the run is removed, and the range
    includes the white space behind it: no white space is left if the run is the first of the answer, only that behind
    the run if it is the last.
    """
    if text:
        return run[-1].end, space_before + text
    space_behind = run[-1].gap
    white_space = space_behind if is_last else gap_of_edit(run, text, space_before)
    return run[-1].end + len(space_behind), "" if is_first else white_space
