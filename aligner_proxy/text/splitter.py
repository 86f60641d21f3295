"""Splitter that divides a growing text into the segments that `structure.split` would find in the whole text.

Every character is examined once, however small the pieces are in which the text comes. An earlier version cut the
present line again for every piece, and a line of 23,000 characters took ten seconds.
"""

from __future__ import annotations

import re

from aligner_proxy.text import sentence_ends
from aligner_proxy.text.prose_line import FENCE_CHARS, Fence, ProseLine, SentenceBoundary
from aligner_proxy.text.structure import Segment, sentence_starts

_NO_MARK = re.compile(rf"[^\n{re.escape(sentence_ends.MARKS)}{sentence_ends.PICTURES}]+")
_REST_OF_LINE = re.compile(r"[^\n]+")


class Splitter:
    """Cuts a growing text into segments. A segment is finished as soon as the next one has begun.

    A piece is a segment, or white space, that is not finished. All offsets count from the beginning of the text.
    """

    def __init__(self) -> None:
        self._line = ProseLine(0)
        """The present line."""
        self._open_fence: Fence | None = None
        """The fence that opened the present code block; None outside of code."""
        self._length = 0
        """Number of characters fed."""
        self._start = 0
        """Offset at which the present piece begins."""
        self._visible_end: int | None = None
        """Offset behind the last visible character of the present piece; None if it has only white space."""
        self._waiting: tuple[int, int] | None = None
        """(start, end) of the segment before the present piece; the white space behind it may not have ended."""
        self._is_first = True
        """Whether the present piece is the first one."""
        self._finished: list[tuple[int, int, int]] = []
        """(start, end, start of the next segment) of each finished segment that was not returned."""
        self._texts: list[str] = []
        """The text from `_texts_start` on, as it was fed."""
        self._texts_start = 0
        """Offset up to which segments were returned."""

    def feed(self, text: str) -> list[Segment]:
        """Add text and return the segments that it finished."""
        self._texts.append(text)
        position = 0
        while position < len(text):
            # a whole line at once, if possible; else all characters up to the next mark; else a single character
            line_end = None if self._line.has_begun else self._read_line(text, position)
            if line_end:
                position = line_end
                continue
            match = self._match_plain(text, position)
            if match is not None:
                plain = match.group()
                in_code = self._open_fence is not None
                boundaries = [] if in_code else self._line.read_plain(plain, self._length + position)
                self._extend_piece(plain, self._length + position)
                for boundary in boundaries:
                    self._divide_piece(boundary)
                position = match.end()
            else:
                self._read_char(text[position], self._length + position)
                position += 1
        self._length += len(text)
        return self._pop_finished()

    def end(self) -> list[Segment]:
        """Return the remaining segments, once the text has ended."""
        # a text of white space alone is one segment
        if self._visible_end is None and self._is_first:
            self._visible_end = self._length or None
        if self._visible_end is not None:
            self._finished.append((self._start, self._visible_end, self._length))
        elif self._waiting is not None:
            self._finished.append((*self._waiting, self._length))
        return self._pop_finished()

    def _match_plain(self, text: str, start: int) -> re.Match[str] | None:
        """Match the characters from `start` on that neither end nor begin a segment, to skip them at once."""
        if self._open_fence is None:
            return _NO_MARK.match(text, start) if self._line.awaits_mark else None
        return _REST_OF_LINE.match(text, start) if self._line.fence.state == "text" else None

    def _read_char(self, char: str, offset: int) -> None:
        """Process one character that may matter."""
        if self._open_fence is not None:
            self._line.fence.read(char)
        else:
            boundary = self._line.read(char, offset)
            if boundary is not None:
                self._divide_piece(boundary)
        self._extend_piece(char, offset)
        if char == "\n":
            self._end_line(offset + 1)

    def _read_line(self, text: str, line_start: int) -> int | None:
        """Process the line of prose at offset `line_start` of `text`; return its end.

        None if the line is incomplete or may be code, so that it must be read character by character.
        """
        # a code block may end with any line
        if self._open_fence is not None:
            return None
        end = text.find("\n", line_start) + 1
        line = text[line_start:end]
        if not end or line.lstrip(" \t")[:1] in FENCE_CHARS:
            return None
        start = 0
        for next_start in (*sentence_starts(line), len(line)):
            self._extend_piece(line[start:next_start], self._length + line_start + start)
            self._begin_piece(self._length + line_start + next_start)
            start = next_start
        self._line = ProseLine(self._length + end)
        return end

    def _end_line(self, next_line_start: int) -> None:
        """End the line; `next_line_start` is the offset behind its line feed.

        The present piece ends with the line in prose, and where the line closes a code block.
        """
        fence = self._line.fence
        self._line = ProseLine(next_line_start)
        if self._open_fence is None and fence.is_valid:
            self._open_fence = fence
        elif self._open_fence is None or fence.closes(self._open_fence):
            self._open_fence = None
            self._begin_piece(next_line_start)

    def _divide_piece(self, boundary: SentenceBoundary) -> None:
        """End the present piece and begin the next one at a boundary, which may be before the characters read last."""
        end, next_start = boundary
        if self._visible_end is None or self._visible_end <= next_start:
            self._begin_piece(next_start)
        else:
            # visible characters behind the boundary are read already, so the segment before it is finished
            self._finished.append((self._start, end, next_start))
            self._is_first = False
            self._start = next_start

    def _begin_piece(self, offset: int) -> None:
        """End the present piece, and begin the next one at this offset."""
        if self._visible_end is not None:
            self._waiting = (self._start, self._visible_end)
        elif self._is_first and offset:
            self._waiting = (self._start, offset)  # white space before the first segment is a segment of its own
        self._is_first = False
        self._start = offset
        self._visible_end = None

    def _extend_piece(self, text: str, offset: int) -> None:
        """Add text at this offset to the present piece. If it is visible, the segment before the piece is finished."""
        visible_length = len(text.rstrip())
        if not visible_length:
            return
        self._visible_end = offset + visible_length
        if self._waiting is not None:
            self._finished.append((*self._waiting, self._start))
            self._waiting = None

    def _pop_finished(self) -> list[Segment]:
        """Return the finished segments, and forget their text."""
        if not self._finished:
            return []
        text = "".join(self._texts)
        text_start = self._texts_start
        segments = [
            Segment(
                start, text[start - text_start : end - text_start], text[end - text_start : next_start - text_start]
            )
            for start, end, next_start in self._finished
        ]
        _, _, self._texts_start = self._finished[-1]
        self._texts = [text[self._texts_start - text_start :]]
        self._finished = []
        return segments
