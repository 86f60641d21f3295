"""Cutter that divides a growing text into the segments that `structure.split` would find in the whole.

Every character is examined once, however small the pieces are. An earlier version cut the present line again for every
piece, and a line of 23,000 characters took ten seconds.
"""

from __future__ import annotations

import re

from aligner_proxy.text.structure import LONGEST_ABBREVIATION, Segment, is_abbreviation, sentence_starts

_WIDE = frozenset("\u3002\uff01\uff1f")
_MARKS = frozenset(".!?\u2026") | _WIDE
_CLOSING = frozenset("\"'\u201d\u2019)]*_")
_BULLETS = frozenset("-*+")
_PLAIN = re.compile(rf"[^\n{re.escape(''.join(sorted(_MARKS)))}]+")
_WITHIN_CODE = re.compile(r"[^\n]+")
_FENCE_CHARS = frozenset("`~")
_FENCE_LENGTH = 3
_RECENT = LONGEST_ABBREVIATION + 1
"""Characters of a line that are kept, since an abbreviation is also recognised by the character before it."""


class _ListNumber:
    """Whether a line so far is only the number of a list item: white space, perhaps a bullet, digits, a full stop."""

    def __init__(self) -> None:
        self.state = "indent"

    def takes(self, char: str) -> None:
        """Process the next character of the line."""
        if self.state == "other":
            return
        before = self.state
        self.state = "other"
        if char.isspace():
            # white space is allowed before the bullet and between bullet and number, but not inside
            self.state = {"indent": "indent", "bullet": "space", "space": "space"}.get(before, "other")
        elif char in _BULLETS and before == "indent":
            self.state = "bullet"
        elif char.isdecimal() and before in ("indent", "space", "digits"):
            self.state = "digits"
        elif char == "." and before == "digits":
            self.state = "stop"


class _Fence:
    """The marker of a code block at the beginning of a line, as far as the line has come."""

    def __init__(self) -> None:
        self.char = ""
        self.length = 0
        self.state = "indent"

    def takes(self, char: str) -> None:
        """Process the next character of the line."""
        if self.state == "text":
            return
        if self.state == "indent" and char in _FENCE_CHARS:
            self.state = "mark"
            self.char = char
        if self.state == "mark" and char == self.char:
            self.length += 1
        elif self.state == "indent" and char in " \t":
            pass
        elif self.state in ("mark", "bare") and char.isspace():
            self.state = "bare"
        else:
            self.state = "text"

    @property
    def valid(self) -> bool:
        """Whether the line begins with a code block marker."""
        return self.length >= _FENCE_LENGTH

    def closes(self, opening: _Fence) -> bool:
        """Whether the line is only a marker, and one that ends the code block that `opening` began."""
        # a line such as "```python" opens a block, but closes none
        bare = self.valid and self.state != "text"
        return bare and self.char == opening.char and self.length >= opening.length


class _ProseLine:
    """One line of prose as far as it has come; finds the beginnings of its sentences."""

    def __init__(self) -> None:
        self.fence = _Fence()
        self._number = _ListNumber()
        self._recent = ""
        """The last characters, for recognising abbreviations."""
        self._in_run = False
        """Whether the last characters are end marks of a sentence, perhaps followed by quotation marks or brackets."""
        self._wide = False
        self._sentence_ended = False
        """Whether a sentence has ended; the next character other than white space decides whether another begins."""
        self._is_settled = False
        """Whether the line is known to be neither a code block marker nor a list number, whatever follows."""

    @property
    def has_begun(self) -> bool:
        """Whether any character of a line of prose has been processed."""
        return bool(self._recent)

    @property
    def awaits_mark(self) -> bool:
        """Whether nothing matters until the next sentence mark or the end of the line."""
        return self._is_settled and not (self._in_run or self._sentence_ended)

    def passes(self, plain: str) -> None:
        """Process characters of a settled line that contain no sentence mark."""
        self._recent = (self._recent + plain[-_RECENT:])[-_RECENT:]

    def takes(self, char: str) -> bool:
        """Process the next character; return whether a sentence begins with it."""
        begins = not self.fence.valid and self._begins(char)
        if not self._is_settled:
            self.fence.takes(char)
            self._number.takes(char)
            self._is_settled = self.fence.state == "text" and self._number.state == "other"
        self._recent = (self._recent + char)[-_RECENT:]
        return begins

    def _begins(self, char: str) -> bool:
        """Whether a sentence begins with this character; notes whether one has ended before it."""
        space = char.isspace()
        if char in _MARKS or char in _CLOSING:
            self._in_run |= char in _MARKS
        else:
            # A full-width mark ends a sentence even without white space after it.
            if (self._wide or (self._in_run and space)) and not self._is_abbreviated():
                self._sentence_ended = True
            self._in_run = False
        self._wide = char in _WIDE
        begins = self._sentence_ended and not space and not char.islower()
        self._sentence_ended &= space
        return begins

    def _is_abbreviated(self) -> bool:
        return self._number.state == "stop" or is_abbreviation(self._recent, len(self._recent))


class Cutter:
    """Cuts a growing text. A segment is finished as soon as the next one has begun."""

    def __init__(self) -> None:
        self._line = _ProseLine()
        self._open_fence: _Fence | None = None
        """The opening marker of the present code block; None outside of code."""
        self._length = 0
        self._start = 0
        """Start of the present piece, which is a segment or white space."""
        self._body: int | None = None
        """End of its last character other than white space; None if it has none yet."""
        self._waiting: tuple[int, int] | None = None
        """(start, end) of the segment before it, whose white space may not have ended."""
        self._is_first = True
        self._finished: list[tuple[int, int, int]] = []
        """(start, end, start of the next one) of finished segments."""
        self._texts: list[str] = []
        """The pieces of text from `_texts_start` on."""
        self._texts_start = 0

    def feed(self, more: str) -> list[Segment]:
        """Add text and return the segments that it finished."""
        self._texts.append(more)
        at = 0
        while at < len(more):
            if not self._line.has_begun and (line_end := self._take_line(more, at)):
                at = line_end
                continue
            plain = self._plain(more, at)
            if plain is not None:
                self._touch(plain.group(), self._length + at)
                self._line.passes(plain.group())
                at = plain.end()
            else:
                self._take(more[at], self._length + at)
                at += 1
        self._length += len(more)
        return self._cut_off()

    def end(self) -> list[Segment]:
        """The remaining segments, once the text has ended."""
        # a text of white space alone is one segment
        if self._body is None and self._is_first:
            self._body = self._length or None
        if self._body is not None:
            self._finished.append((self._start, self._body, self._length))
        elif self._waiting is not None:
            self._finished.append((*self._waiting, self._length))
        return self._cut_off()

    def _plain(self, more: str, at: int) -> re.Match[str] | None:
        """Match the characters from `at` on that neither end nor begin a segment, so that they are skipped at once."""
        if self._open_fence is None:
            return _PLAIN.match(more, at) if self._line.awaits_mark else None
        return _WITHIN_CODE.match(more, at) if self._line.fence.state == "text" else None

    def _take(self, char: str, offset: int) -> None:
        """Process one character that may matter."""
        if self._open_fence is not None:
            self._line.fence.takes(char)
        elif self._line.takes(char):
            self._begin(offset)
        self._touch(char, offset)
        if char == "\n":
            self._end_line(offset + 1)

    def _take_line(self, more: str, at: int) -> int | None:
        """Process a whole line of prose from `at` on and return its end; None if it may be code or is incomplete."""
        # a code block is followed character by character, since it may end with any line
        if self._open_fence is not None:
            return None
        end = more.find("\n", at) + 1
        line = more[at:end]
        if not end or line.lstrip(" \t")[:1] in _FENCE_CHARS:
            return None
        start = 0
        for next_start in (*sentence_starts(line), len(line)):
            self._touch(line[start:next_start], self._length + at + start)
            self._begin(self._length + at + next_start)
            start = next_start
        return end

    def _end_line(self, behind: int) -> None:
        """End the line; in prose, or with the line that closes a code block, the piece ends too."""
        fence = self._line.fence
        self._line = _ProseLine()
        if self._open_fence is None and fence.valid:
            self._open_fence = fence
        elif self._open_fence is None or fence.closes(self._open_fence):
            self._open_fence = None
            self._begin(behind)

    def _begin(self, offset: int) -> None:
        """Begin a piece at this offset."""
        if self._body is not None:
            self._waiting = (self._start, self._body)
        elif self._is_first and offset:
            self._waiting = (self._start, offset)  # white space before the first segment is a segment of its own
        self._is_first = False
        self._start = offset
        self._body = None

    def _touch(self, text: str, offset: int) -> None:
        """Extend the present piece by this text."""
        body = len(text.rstrip())
        if not body:
            return
        self._body = offset + body
        if self._waiting is not None:
            self._finished.append((*self._waiting, self._start))
            self._waiting = None

    def _cut_off(self) -> list[Segment]:
        """The finished segments, whose text is then forgotten."""
        if not self._finished:
            return []
        text = "".join(self._texts)
        base = self._texts_start
        segments = [
            Segment(start, text[start - base : end - base], text[end - base : behind - base])
            for start, end, behind in self._finished
        ]
        self._texts_start = self._finished[-1][2]
        self._texts = [text[self._texts_start - base :]]
        self._finished = []
        return segments
