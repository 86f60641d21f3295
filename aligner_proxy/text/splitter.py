"""Splitter that divides a growing text into the segments that `structure.split` would find in the whole.

Every character is examined once, however small the pieces are. An earlier version cut the present line again for every
piece, and a line of 23,000 characters took ten seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from aligner_proxy.text import chat_style, sentence_ends
from aligner_proxy.text.abbreviations import LONGEST_ABBREVIATION
from aligner_proxy.text.sentence_ends import RunOn
from aligner_proxy.text.structure import Segment, is_abbreviated, sentence_starts

_WIDE = frozenset(sentence_ends.WIDE)
_WIDE_OPENING = frozenset(sentence_ends.WIDE_OPENING)
_MARKS = frozenset(sentence_ends.MARKS)
_CLOSING = frozenset(sentence_ends.CLOSING)
_JOINERS = frozenset(sentence_ends.JOINERS)
_PICTURE = re.compile(f"[{sentence_ends.PICTURES}]")
_NOTE = re.compile(sentence_ends.NOTES)
_NOTE_BEGINNING = re.compile(r"\[(?:\^[\w-]{0,24}|\w{0,8})")
_BULLETS = frozenset("-*+")
_PLAIN = re.compile(rf"[^\n{re.escape(sentence_ends.MARKS)}{sentence_ends.PICTURES}]+")
_STRETCH = re.compile(r"\s+|\S+")
_WITHIN_CODE = re.compile(r"[^\n]+")
_FENCE_CHARS = frozenset("`~")
_FENCE_LENGTH = 3
_RECENT = LONGEST_ABBREVIATION + 1
_WORD_CHARS = 32
"""Characters of a word that are kept, besides its last one."""
SentenceBoundary = tuple[int, int]
"""Where a sentence ends, and where the next one begins."""


class _ListNumber:
    """Whether a line so far is only the number of a list item: white space, perhaps a bullet, digits, a full stop."""

    def __init__(self) -> None:
        self.state = "indent"
        """What came last: "indent", "bullet", "space" (behind a bullet), "digits", "stop"; "other" if no number."""

    def read(self, char: str) -> None:
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
        """The sign that the marker repeats; empty before the first one."""
        self.length = 0
        """Number of signs in the marker."""
        self.state = "indent"
        """Where the line ends so far: in its "indent", the "mark", white space behind it ("bare"), or other "text"."""

    def read(self, char: str) -> None:
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
        """The complete words of the sentence."""
        self._word = ""
        """The present word; of a long one, the beginning and the last character."""
        self._start = 0
        """Offset of the present word."""
        self._end = 0
        """Offset behind the present word."""

    def begin(self) -> None:
        """Begin a sentence, which has no words yet."""
        self._run_on = RunOn()
        self._word = ""

    def divide(self, offset: int) -> SentenceBoundary | None:
        """Where the sentence is divided if a word begins at `offset`; None if it is not."""
        return None if self._word else self._run_on.divide(offset)

    def add(self, text: str, offset: int) -> None:
        """Add characters that are all white space, or none."""
        if not text.isspace():
            if not self._word:
                self._start = offset
            self._end = offset + len(text)
            self._word += text
            # its beginning and its last character show all that is asked about a word
            if len(self._word) > _WORD_CHARS:
                self._word = self._word[: _WORD_CHARS - 1] + self._word[-1]
        elif self._word:
            self._run_on.add(self._start, self._end, self._word)
            self._word = ""


class _SentenceTail:
    """Where the present sentence of a line begins and ends, and its last characters, as many as abbreviations have."""

    def __init__(self, start: int) -> None:
        self._first: str | None = None
        """The first character of the present sentence other than white space; None before it has come."""
        self._recent = ""
        """The last characters of the line."""
        self._start = start
        """Offset at which the present sentence begins."""
        self._length = start
        """Offset behind the last character."""
        self.end = start
        """Offset behind the last character other than white space."""

    @property
    def last_char(self) -> str:
        """The last character of the line; empty before the first one."""
        return self._recent[-1:]

    @property
    def begins_small(self) -> bool:
        """Whether the present sentence begins with a small letter; False for a part of a divided one."""
        return self._first is not None and self._first.islower()

    def begin(self, offset: int, first: str | None = None) -> None:
        """Begin a sentence at this offset; `first` is its first character, if that is not added next."""
        self._start = offset
        self._first = first

    def add(self, text: str, offset: int) -> None:
        """Add characters that are all white space, or none."""
        self._length = offset + len(text)
        if not text.isspace():
            self.end = self._length
            self._first = text[0] if self._first is None else self._first
        self._recent = (self._recent + text[-_RECENT:])[-_RECENT:]

    def cut_before(self, offset: int) -> str:
        """The last characters of the present sentence before `offset`, as many as abbreviations have."""
        recent = self._recent[: len(self._recent) - (self._length - offset)]
        size = min(LONGEST_ABBREVIATION, offset - self._start)
        return recent[-size:] if size else ""


class _NoteMark:
    """A reference to a note behind the mark of a sentence, as far as it has come."""

    def __init__(self) -> None:
        self._text = ""
        """The beginning of a reference in brackets; empty outside of one."""

    @property
    def is_open(self) -> bool:
        """Whether a reference has begun that has not ended."""
        return bool(self._text)

    def reads(self, char: str) -> bool:
        """Add a character; return whether it belongs to a reference."""
        text = self._text + char
        self._text = text if _NOTE_BEGINNING.fullmatch(text) else ""
        return bool(self._text) or _NOTE.fullmatch(text) is not None


class _EndMarks:
    """End marks of a sentence, perhaps followed by quotation marks, brackets or references to notes."""

    def __init__(self) -> None:
        self.is_open = False
        """Whether they are the last characters."""
        self._is_wide = False
        """Whether the last character is a full-width end mark."""
        self._closes_wide = False
        """Whether the last characters are closing signs behind a full-width end mark."""
        self._note = _NoteMark()

    def end_before(self, char: str) -> bool:
        """Add a character; return whether the marks have ended a sentence before it."""
        was_in_note = self._note.is_open
        if self.is_open and not self._is_wide and self._note.reads(char):
            return False
        self.is_open = self.is_open and not was_in_note
        has_ended = False
        if char in _MARKS or char in _CLOSING:
            self.is_open |= char in _MARKS
        else:
            # a full-width mark ends a sentence even without white space after it
            begins_wide = self._is_wide or (self._closes_wide and char in _WIDE_OPENING)
            has_ended = begins_wide or (self.is_open and char.isspace())
            self.is_open = False
        self._closes_wide = (self._is_wide or self._closes_wide) and char in _CLOSING
        self._is_wide = char in _WIDE
        return has_ended


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
        """Remember the sentence before a picture that has just come."""
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


class _DoubtfulEnd:
    """A mark that may end a sentence: behind an abbreviation, before a small letter or a dash. What follows decides."""

    def __init__(self) -> None:
        self._decide: Callable[[str], bool | None] | None = None
        """Says whether a sentence begins with the next word, None if more must come; None: there is no doubt."""
        self._decide_small: Callable[[str], bool | None] | None = None
        """The same about a mark that is in doubt only if a small letter comes next."""
        self._word = ""
        """The next word as far as it has come."""

    @property
    def is_open(self) -> bool:
        """Whether there is a mark to decide about."""
        return self._decide is not None

    def note(self, decide: Callable[[str], bool | None]) -> None:
        """Remember how to decide about a mark that has just come."""
        self._decide = decide

    def note_small(self, decide: Callable[[str], bool | None] | None) -> None:
        """Remember how to decide about a mark if a small letter comes next; None if a small letter never decides."""
        self._decide_small = decide

    def doubt_small(self) -> None:
        """Doubt the last mark, because a small letter comes next."""
        self._decide = self._decide_small
        self._decide_small = None

    def awaits(self, char: str) -> bool:
        """Whether this character belongs to the word that decides."""
        return self._decide is not None and (bool(self._word) or not char.isspace())

    def decides(self, char: str) -> tuple[str, bool] | None:
        """Add a character to the word; return (the word, whether a sentence begins with it), or None if undecided."""
        assert self._decide is not None
        self._word += char
        begins = self._decide(self._word)
        if begins is None:
            return None
        word = self._word
        self._decide = None
        self._word = ""
        return word, begins


class _ProseLine:
    """One line of prose as far as it has come; finds the beginnings of its sentences."""

    def __init__(self, start: int) -> None:
        self.fence = _Fence()
        """The marker of a code block with which the line may begin."""
        self.has_begun = False
        """Whether any character of the line has been processed."""
        self._number = _ListNumber()
        """The list number with which the line may begin."""
        self._is_row: bool | None = None
        """Whether this is the row of a table, which is not divided; None before its first sign."""
        self._words = _SentenceWords()
        self._tail = _SentenceTail(start)
        self._marks = _EndMarks()
        self._sentence_ended = False
        """Whether a sentence has ended; the next character other than white space decides whether another begins."""
        self._picture = _PictureEnd()
        self._doubt = _DoubtfulEnd()
        self._is_surely_prose = False
        """Whether the line is known to be neither a code block marker nor a list number, whatever follows."""

    @property
    def awaits_mark(self) -> bool:
        """Whether nothing but the number of words matters until the next mark, picture or end of the line."""
        undecided = self._marks.is_open or self._sentence_ended or self._picture.is_open or self._doubt.is_open
        return self._is_surely_prose and not undecided

    def read_plain(self, plain: str, offset: int) -> list[SentenceBoundary]:
        """Process text without marks and pictures in a line that is surely prose; return where it divides sentences."""
        starts: list[SentenceBoundary] = []
        for match in _STRETCH.finditer(plain):
            place = self._add(match.group(), offset + match.start())
            starts += [] if place is None else [place]
        return starts

    def read(self, char: str, offset: int) -> SentenceBoundary | None:
        """Process the next character of the line; return the boundary of sentences that is now certain, if any."""
        if self._sentence_ended and not self._doubt.is_open:
            if char == "-":
                self._doubt.note(sentence_ends.begins_without_comment_end)
            elif char.islower():
                self._doubt.doubt_small()
        if not self._doubt.awaits(char):
            return self._process(char, offset, begins=self._check_beginning(char, offset))
        decided = self._doubt.decides(char)
        if decided is None:
            return None
        word, begins = decided
        word_start = offset + 1 - len(word)
        self._check_beginning(word[0], word_start)
        start = self._process(word[0], word_start, begins=begins)
        for later_offset, later_char in enumerate(word[1:], word_start + 1):
            # no sentence begins within a word
            self._process(later_char, later_offset, begins=self._check_beginning(later_char, later_offset))
        return start

    def _process(self, char: str, offset: int, *, begins: bool) -> SentenceBoundary | None:
        """Record a character, with which a sentence `begins` or not; return the boundary before it, if there is one."""
        start = (self._tail.end, offset) if begins and not self.fence.valid else None
        if start is not None:
            self._tail.begin(offset)
            self._words.begin()
        char_before = self._tail.last_char
        place = self._add(char, offset)
        is_first_picture = _PICTURE.match(char) and not (_PICTURE.match(char_before) or char_before in _JOINERS)
        if is_first_picture and not self._picture.is_open:
            self._picture.note(self._tail.cut_before(offset))
        if not self._is_surely_prose:
            self.fence.read(char)
            self._number.read(char)
            self._is_surely_prose = self.fence.state == "text" and self._number.state == "other"
        self.has_begun = True
        # `place` divides a long sentence; where one begins anyway, that boundary counts
        return start or place

    def _add(self, text: str, offset: int) -> SentenceBoundary | None:
        """Add characters that are all white space or none; return where the sentence is divided before them."""
        boundary = None
        if not text.isspace():
            if self._is_row is None:
                self._is_row = text[0] == "|"
            # neither rows of tables nor lines that open a code block are divided
            may_divide = not (self._is_row or self.fence.valid)
            boundary = self._words.divide(offset) if may_divide else None
            if boundary is not None:
                _, start = boundary
                self._tail.begin(start, first="")
        self._words.add(text, offset)
        self._tail.add(text, offset)
        return boundary

    def _check_beginning(self, char: str, offset: int) -> bool:
        """Note whether a sentence has ended before this character; return whether one begins with it."""
        is_space = char.isspace()
        begins_behind_picture = self._picture.decides(char)
        if (self._marks.is_open or char in _MARKS) and self._marks.end_before(char):
            self._end_sentence(offset)
        begins = begins_behind_picture or (self._sentence_ended and not is_space and not char.islower())
        self._sentence_ended &= is_space
        return begins

    def _end_sentence(self, offset: int) -> None:
        """End the sentence with the marks before `offset`, unless they belong to a number or an abbreviation."""
        if self._number.state == "stop":
            return
        sentence = sentence_ends.NOTES_AT_END.sub("", self._tail.cut_before(offset))
        if is_abbreviated(sentence):
            self._doubt.note(partial(sentence_ends.ends_abbreviated, sentence))
            return
        self._sentence_ended = True
        decide = partial(chat_style.begins_sentence, sentence, begins_small=self._tail.begins_small)
        self._doubt.note_small(decide if sentence.endswith(chat_style.MARKS) else None)


class Splitter:
    """Cuts a growing text into segments. A segment is finished as soon as the next one has begun."""

    def __init__(self) -> None:
        self._line = _ProseLine(0)
        """The present line."""
        self._open_fence: _Fence | None = None
        """The opening marker of the present code block; None outside of code."""
        self._length = 0
        """Number of characters fed."""
        self._start = 0
        """Offset at which the present piece begins; it is a segment or white space."""
        self._body: int | None = None
        """Offset behind the piece's last character other than white space; None if it has none yet."""
        self._waiting: tuple[int, int] | None = None
        """(start, end) of the segment before it, whose white space may not have ended."""
        self._is_first = True
        """Whether the present piece is the first one."""
        self._finished: list[tuple[int, int, int]] = []
        """(start, end, start of the next one) of finished segments."""
        self._texts: list[str] = []
        """The pieces of text from `_texts_start` on."""
        self._texts_start = 0
        """Offset up to which segments have been returned."""

    def feed(self, text: str) -> list[Segment]:
        """Add text and return the segments that it finished."""
        self._texts.append(text)
        position = 0
        while position < len(text):
            # a whole line at once, if possible; then many plain characters; else one by one
            line_end = None if self._line.has_begun else self._read_line(text, position)
            if line_end:
                position = line_end
                continue
            plain = self._match_plain(text, position)
            if plain is not None:
                in_code = self._open_fence is not None
                boundaries = [] if in_code else self._line.read_plain(plain.group(), self._length + position)
                self._extend_piece(plain.group(), self._length + position)
                for boundary in boundaries:
                    self._divide_piece(boundary)
                position = plain.end()
            else:
                self._read_char(text[position], self._length + position)
                position += 1
        self._length += len(text)
        return self._pop_finished()

    def end(self) -> list[Segment]:
        """The remaining segments, once the text has ended."""
        # a text of white space alone is one segment
        if self._body is None and self._is_first:
            self._body = self._length or None
        if self._body is not None:
            self._finished.append((self._start, self._body, self._length))
        elif self._waiting is not None:
            self._finished.append((*self._waiting, self._length))
        return self._pop_finished()

    def _match_plain(self, text: str, start: int) -> re.Match[str] | None:
        """Match the characters from `start` on that neither end nor begin a segment, to skip them at once."""
        if self._open_fence is None:
            return _PLAIN.match(text, start) if self._line.awaits_mark else None
        return _WITHIN_CODE.match(text, start) if self._line.fence.state == "text" else None

    def _read_char(self, char: str, offset: int) -> None:
        """Process one character that may matter."""
        if self._open_fence is not None:
            self._line.fence.read(char)
        elif (start := self._line.read(char, offset)) is not None:
            self._divide_piece(start)
        self._extend_piece(char, offset)
        if char == "\n":
            self._end_line(offset + 1)

    def _read_line(self, text: str, line_start: int) -> int | None:
        """Process the line of prose at `line_start` and return its end; None if it may be code or is incomplete."""
        # a code block is followed character by character, since it may end with any line
        if self._open_fence is not None:
            return None
        end = text.find("\n", line_start) + 1
        line = text[line_start:end]
        if not end or line.lstrip(" \t")[:1] in _FENCE_CHARS:
            return None
        start = 0
        for next_start in (*sentence_starts(line), len(line)):
            self._extend_piece(line[start:next_start], self._length + line_start + start)
            self._begin_piece(self._length + line_start + next_start)
            start = next_start
        self._line = _ProseLine(self._length + end)
        return end

    def _end_line(self, behind: int) -> None:
        """End the line before offset `behind`; in prose, or where it closes a code block, the piece ends with it."""
        fence = self._line.fence
        self._line = _ProseLine(behind)
        if self._open_fence is None and fence.valid:
            self._open_fence = fence
        elif self._open_fence is None or fence.closes(self._open_fence):
            self._open_fence = None
            self._begin_piece(behind)

    def _divide_piece(self, place: SentenceBoundary) -> None:
        """End the present piece and begin the next at a place that may be before the characters read last."""
        end, offset = place
        if self._body is None or self._body <= offset:
            self._begin_piece(offset)
        else:
            # words behind the place are read already, so the segment before it is finished
            self._finished.append((self._start, end, offset))
            self._is_first = False
            self._start = offset

    def _begin_piece(self, offset: int) -> None:
        """End the present piece, and begin the next one at this offset."""
        if self._body is not None:
            self._waiting = (self._start, self._body)
        elif self._is_first and offset:
            self._waiting = (self._start, offset)  # white space before the first segment is a segment of its own
        self._is_first = False
        self._start = offset
        self._body = None

    def _extend_piece(self, text: str, offset: int) -> None:
        """Add text at this offset to the present piece; unless it is white space, the segment before is finished."""
        visible_length = len(text.rstrip())
        if not visible_length:
            return
        self._body = offset + visible_length
        if self._waiting is not None:
            self._finished.append((*self._waiting, self._start))
            self._waiting = None

    def _pop_finished(self) -> list[Segment]:
        """Return the finished segments, and forget their text."""
        if not self._finished:
            return []
        text = "".join(self._texts)
        base = self._texts_start
        segments = [
            Segment(start, text[start - base : end - base], text[end - base : next_start - base])
            for start, end, next_start in self._finished
        ]
        self._texts_start = self._finished[-1][2]
        self._texts = [text[self._texts_start - base :]]
        self._finished = []
        return segments
