"""Cutter that divides a growing text into the segments that `structure.split` would find in the whole.

Every character is examined once, however small the pieces are. An earlier version cut the present line again for every
piece, and a line of 23,000 characters took ten seconds.
"""

from __future__ import annotations

import re

from aligner_proxy.text import sentence_ends
from aligner_proxy.text.abbreviations import LONGEST_ABBREVIATION
from aligner_proxy.text.sentence_ends import RunOn
from aligner_proxy.text.structure import Segment, is_abbreviated, sentence_starts

_WIDE = frozenset(sentence_ends.WIDE)
_MARKS = frozenset(sentence_ends.MARKS)
_CLOSING = frozenset(sentence_ends.CLOSING)
_JOINERS = frozenset(sentence_ends.JOINERS)
_PICTURE = re.compile(f"[{sentence_ends.PICTURES}]")
_BULLETS = frozenset("-*+")
_PLAIN = re.compile(rf"[^\n{re.escape(sentence_ends.MARKS)}{sentence_ends.PICTURES}]+")
_STRETCH = re.compile(r"\s+|\S+")
_WITHIN_CODE = re.compile(r"[^\n]+")
_FENCE_CHARS = frozenset("`~")
_FENCE_LENGTH = 3
_RECENT = LONGEST_ABBREVIATION + 1
_WORD_CHARS = 32
"""Characters of a word that are kept, besides its last one."""
Start = tuple[int, int]
"""End of a sentence, and where the next one begins."""


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


class _SentenceWords:
    """The words of the present sentence of a line, which is divided when there are too many."""

    def __init__(self) -> None:
        self._run_on = RunOn()
        self._word = ""
        """The present word; of a long one, the beginning and the last character."""
        self._start = 0
        self._end = 0

    def begin(self) -> None:
        """Begin a sentence."""
        self._run_on = RunOn()
        self._word = ""

    def divide(self, offset: int) -> Start | None:
        """Where the sentence is divided if a word begins at `offset`."""
        return None if self._word else self._run_on.divide(offset)

    def add(self, text: str, offset: int) -> None:
        """Add characters that are all white space, or none."""
        if not text.isspace():
            self._start = self._start if self._word else offset
            self._end = offset + len(text)
            word = self._word + text
            self._word = word if len(word) <= _WORD_CHARS else word[: _WORD_CHARS - 1] + word[-1]
        elif self._word:
            self._run_on.add(self._start, self._end, self._word)
            self._word = ""


class _SentenceTail:
    """Where the present sentence of a line begins and ends, and its last characters, as many as abbreviations have."""

    def __init__(self, start: int) -> None:
        self._recent = ""
        self._start = start
        self._length = start
        """Offset behind the last character."""
        self.end = start
        """Offset behind the last character other than white space."""

    @property
    def last_char(self) -> str:
        """The last character of the line; empty before the first one."""
        return self._recent[-1:]

    def begin(self, offset: int) -> None:
        """Begin a sentence."""
        self._start = offset

    def add(self, text: str, offset: int) -> None:
        """Add characters that are all white space, or none."""
        self._length = offset + len(text)
        if not text.isspace():
            self.end = self._length
        self._recent = (self._recent + text[-_RECENT:])[-_RECENT:]

    def cut_before(self, offset: int) -> str:
        """The end of the present sentence before `offset`."""
        recent = self._recent[: len(self._recent) - (self._length - offset)]
        size = min(LONGEST_ABBREVIATION, offset - self._start)
        return recent[-size:] if size else ""


class _PictureEnd:
    """A picture that may end a sentence; the next character other than white space decides."""

    def __init__(self) -> None:
        self._sentence: str | None = None
        """The sentence before the picture; None if there is none to decide about."""
        self._is_spaced = False
        """Whether white space follows the picture."""

    @property
    def is_open(self) -> bool:
        """Whether there is a picture to decide about."""
        return self._sentence is not None

    def note(self, sentence: str) -> None:
        """Note a picture behind a sentence."""
        self._sentence = sentence
        self._is_spaced = False

    def decides(self, char: str) -> bool:
        """Whether the picture has ended the sentence, and this character begins the next."""
        if self._sentence is None:
            return False
        if char.isspace():
            self._is_spaced = True
            return False
        if not self._is_spaced and (char in _JOINERS or _PICTURE.match(char)):
            return False
        begins = sentence_ends.ends_with_picture(self._sentence, char, spaced=self._is_spaced)
        self._sentence = None
        return begins


class _AbbreviationEnd:
    """An abbreviation that may end a sentence; the next word decides."""

    def __init__(self) -> None:
        self._sentence: str | None = None
        """The sentence up to the abbreviation; None if there is none to decide about."""
        self._word = ""
        """The next word as far as it has come."""

    @property
    def is_open(self) -> bool:
        """Whether there is an abbreviation to decide about."""
        return self._sentence is not None

    def note(self, sentence: str) -> None:
        """Note a sentence that may have ended with its abbreviation."""
        self._sentence = sentence

    def takes(self, char: str) -> bool:
        """Whether this character belongs to the word that decides."""
        return self._sentence is not None and (bool(self._word) or not char.isspace())

    def decides(self, char: str) -> tuple[str, bool] | None:
        """Add a character to the word; once that decides, the word and whether a sentence begins with it."""
        assert self._sentence is not None
        self._word += char
        begins = sentence_ends.ends_abbreviated(self._sentence, self._word)
        if begins is None:
            return None
        word = self._word
        self._sentence = None
        self._word = ""
        return word, begins


class _ProseLine:
    """One line of prose as far as it has come; finds the beginnings of its sentences."""

    def __init__(self, start: int) -> None:
        self.fence = _Fence()
        self.has_begun = False
        """Whether any character of the line has been processed."""
        self._number = _ListNumber()
        self._is_row: bool | None = None
        """Whether this is the row of a table, which is not divided; None before its first sign."""
        self._words = _SentenceWords()
        self._tail = _SentenceTail(start)
        self._in_run = False
        """Whether the last characters are end marks of a sentence, perhaps followed by quotation marks or brackets."""
        self._wide = False
        self._sentence_ended = False
        """Whether a sentence has ended; the next character other than white space decides whether another begins."""
        self._picture = _PictureEnd()
        self._abbreviation = _AbbreviationEnd()
        self._is_settled = False
        """Whether the line is known to be neither a code block marker nor a list number, whatever follows."""

    @property
    def awaits_mark(self) -> bool:
        """Whether nothing but the number of words matters until the next mark, picture or end of the line."""
        undecided = self._in_run or self._sentence_ended or self._picture.is_open or self._abbreviation.is_open
        return self._is_settled and not undecided

    def passes(self, plain: str, offset: int) -> list[Start]:
        """Process characters of a settled line that hold no mark and no picture; return where sentences begin."""
        starts: list[Start] = []
        for match in _STRETCH.finditer(plain):
            place = self._add(match.group(), offset + match.start())
            starts += [] if place is None else [place]
        return starts

    def takes(self, char: str, offset: int) -> Start | None:
        """Process the next character of the line; return the beginning of a sentence that it decides, if any."""
        if not self._abbreviation.takes(char):
            return self._process(char, offset, begins=self._begins(char, offset))
        decided = self._abbreviation.decides(char)
        if decided is None:
            return None
        word, begins = decided
        first = offset + 1 - len(word)
        self._begins(word[0], first)
        start = self._process(word[0], first, begins=begins)
        for at, later in enumerate(word[1:], first + 1):
            # no sentence begins within a word
            self._process(later, at, begins=self._begins(later, at))
        return start

    def _process(self, char: str, offset: int, *, begins: bool) -> Start | None:
        """Take note of a character, with which a sentence begins or not; return where one begins."""
        start = (self._tail.end, offset) if begins and not self.fence.valid else None
        if start is not None:
            self._tail.begin(offset)
            self._words.begin()
        before = self._tail.last_char
        place = self._add(char, offset)
        # the first picture of several
        if not self._picture.is_open and _PICTURE.match(char) and not (_PICTURE.match(before) or before in _JOINERS):
            self._picture.note(self._tail.cut_before(offset))
        if not self._is_settled:
            self.fence.takes(char)
            self._number.takes(char)
            self._is_settled = self.fence.state == "text" and self._number.state == "other"
        self.has_begun = True
        return start or place

    def _add(self, text: str, offset: int) -> Start | None:
        """Add characters that are all white space or none; return where the sentence is divided before them."""
        place = None
        if not text.isspace():
            if self._is_row is None:
                self._is_row = text[0] == "|"
            if not (self._is_row or self.fence.valid) and (place := self._words.divide(offset)) is not None:
                self._tail.begin(place[1])
        self._words.add(text, offset)
        self._tail.add(text, offset)
        return place

    def _begins(self, char: str, offset: int) -> bool:
        """Whether a sentence begins with this character; notes whether one has ended before it."""
        space = char.isspace()
        pictured = self._picture.decides(char)
        if char in _MARKS or char in _CLOSING:
            self._in_run |= char in _MARKS
        else:
            # A full-width mark ends a sentence even without white space after it.
            if self._wide or (self._in_run and space):
                self._end_sentence(offset)
            self._in_run = False
        self._wide = char in _WIDE
        begins = pictured or (self._sentence_ended and not space and not char.islower())
        self._sentence_ended &= space
        return begins

    def _end_sentence(self, offset: int) -> None:
        """End the sentence with the marks before `offset`, unless they belong to a number or an abbreviation."""
        if self._number.state == "stop":
            return
        sentence = self._tail.cut_before(offset)
        if is_abbreviated(sentence):
            self._abbreviation.note(sentence)
        else:
            self._sentence_ended = True


class Cutter:
    """Cuts a growing text. A segment is finished as soon as the next one has begun."""

    def __init__(self) -> None:
        self._line = _ProseLine(0)
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
                in_code = self._open_fence is not None
                starts = [] if in_code else self._line.passes(plain.group(), self._length + at)
                self._touch(plain.group(), self._length + at)
                for start in starts:
                    self._divide(start)
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
        elif (start := self._line.takes(char, offset)) is not None:
            self._divide(start)
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
        self._line = _ProseLine(self._length + end)
        return end

    def _end_line(self, behind: int) -> None:
        """End the line; in prose, or with the line that closes a code block, the piece ends too."""
        fence = self._line.fence
        self._line = _ProseLine(behind)
        if self._open_fence is None and fence.valid:
            self._open_fence = fence
        elif self._open_fence is None or fence.closes(self._open_fence):
            self._open_fence = None
            self._begin(behind)

    def _divide(self, place: Start) -> None:
        """Begin a piece at a place that may lie before the characters that came last."""
        end, offset = place
        if self._body is None or self._body <= offset:
            self._begin(offset)
        else:
            self._finished.append((self._start, end, offset))
            self._is_first = False
            self._start = offset

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
