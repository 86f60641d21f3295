"""One line of prose of a growing text, as far as it has come: finds the beginnings of its sentences.

An end mark, a picture or an abbreviation may or may not end a sentence. The characters behind it decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from aligner_proxy.text import chat_style, sentence_ends
from aligner_proxy.text.abbreviations import LONGEST_ABBREVIATION
from aligner_proxy.text.sentence_ends import PICTURE, PICTURE_BEHIND, PICTURE_PART, RunOn
from aligner_proxy.text.structure import is_abbreviated

_WIDE = frozenset(sentence_ends.WIDE)
_WIDE_OPENING = frozenset(sentence_ends.WIDE_OPENING)
_MARKS = frozenset(sentence_ends.MARKS)
_CLOSING = frozenset(sentence_ends.CLOSING)
_GERMAN_CLOSING = frozenset(sentence_ends.GERMAN_CLOSING)
_NOTE_REFERENCE = re.compile(sentence_ends.NOTES)
_NOTE_REFERENCE_SO_FAR = re.compile(r"\[(?:\^[\w-]{0,24}|\w{0,8})")
_BULLETS = frozenset("-*+")
_SPACE_OR_WORD = re.compile(r"\s+|\S+")
FENCE_CHARS = frozenset("`~")
_MIN_FENCE_LENGTH = 3
_RECENT_CHARS = LONGEST_ABBREVIATION + 1
_MAX_WORD_CHARS = 32
"""Most characters of a word that are kept: its beginning and its last character."""
SentenceBoundary = tuple[int, int]
"""(offset behind a sentence, offset of the next sentence)."""


class _ListNumber:
    """The number of a list item at the beginning of a line: white space, perhaps a bullet, digits, a full stop."""

    def __init__(self) -> None:
        self.state = "indent"
        """What the line ended with so far: its "indent", the "bullet", "space" behind the bullet, "digits" or the full
        "stop"; "other" if the line is more than a list number."""

    def read(self, char: str) -> None:
        """Process the next character of the line."""
        if self.state == "other":
            return
        old_state = self.state
        self.state = "other"
        if char.isspace():
            # white space is allowed before the bullet and between bullet and number, but not inside the number
            self.state = {"indent": "indent", "bullet": "space", "space": "space"}.get(old_state, "other")
        elif char in _BULLETS and old_state == "indent":
            self.state = "bullet"
        elif char.isdecimal() and old_state in ("indent", "space", "digits"):
            self.state = "digits"
        elif char == "." and old_state == "digits":
            self.state = "stop"


class Fence:
    """The code fence (such as "```") at the beginning of a line, as far as the line has come."""

    def __init__(self) -> None:
        self.char = ""
        """The character that the fence repeats; empty before the fence."""
        self.length = 0
        """Number of characters in the fence."""
        self.state = "indent"
        """Where the line ends so far: in its "indent", the "fence", "space" behind the fence, or in other "text"."""

    def read(self, char: str) -> None:
        """Process the next character of the line."""
        if self.state == "text":
            return
        if self.state == "indent" and char in FENCE_CHARS:
            self.state = "fence"
            self.char = char
        if self.state == "fence" and char == self.char:
            self.length += 1
        elif self.state == "indent" and char in " \t":
            pass
        elif self.state in ("fence", "space") and char.isspace():
            self.state = "space"
        else:
            self.state = "text"

    @property
    def is_valid(self) -> bool:
        """Whether the line begins with a code fence, which has at least three characters."""
        return self.length >= _MIN_FENCE_LENGTH

    def closes(self, opening: Fence) -> bool:
        """Whether the line has nothing but a fence, and one that ends the code block that `opening` began."""
        # a line such as "```python" opens a block, but closes none
        is_alone = self.is_valid and self.state != "text"
        return is_alone and self.char == opening.char and self.length >= opening.length


class _SentenceWords:
    """The words of the present sentence of a line. A sentence of too many words is divided."""

    def __init__(self) -> None:
        self._run_on = RunOn()
        """The complete words of the sentence."""
        self._word = ""
        """The present word as far as it has come, of a long word only its beginning and last character; empty between
        words."""
        self._start = 0
        """Offset of the present word."""
        self._end = 0
        """Offset behind the present word."""

    def begin(self) -> None:
        """Begin a new sentence."""
        self._run_on = RunOn()
        self._word = ""

    def divide(self, offset: int) -> SentenceBoundary | None:
        """Divide the sentence if it has too many words and a new word begins at `offset`; None if it is not divided."""
        return None if self._word else self._run_on.divide(offset)

    def add(self, text: str, offset: int) -> None:
        """Add characters from `offset` on, either all white space or none."""
        if not text.isspace():
            if not self._word:
                self._start = offset
            self._end = offset + len(text)
            self._word += text
            # a word's beginning and last character suffice to decide where the sentence is divided
            if len(self._word) > _MAX_WORD_CHARS:
                self._word = self._word[: _MAX_WORD_CHARS - 1] + self._word[-1]
        elif self._word:
            self._run_on.add(self._start, self._end, self._word)
            self._word = ""


class _SentenceTail:
    """Where the present sentence of a line begins and ends, and its last characters, as many as abbreviations have."""

    def __init__(self, start: int) -> None:
        self._first: str | None = None
        """First visible character of the present sentence; None before it has come, empty in a divided sentence."""
        self._recent = ""
        """The last characters of the line, at most `_RECENT_CHARS`."""
        self._start = start
        """Offset at which the present sentence begins."""
        self._line_end = start
        """Offset behind the last character of the line so far."""
        self.end = start
        """Offset behind the last visible character of the line so far."""

    @property
    def last_char(self) -> str:
        """The last character of the line; empty before the first one."""
        return self._recent[-1:]

    @property
    def begins_small(self) -> bool:
        """Whether the present sentence begins with a small letter; False for a part of a divided sentence."""
        return self._first is not None and self._first.islower()

    def begin(self, offset: int, first: str | None = None) -> None:
        """Begin a sentence at this offset.

        `first` is "" for a part of a divided sentence; None takes the next visible character as the first one.
        """
        self._start = offset
        self._first = first

    def add(self, text: str, offset: int) -> None:
        """Add characters from `offset` on, either all white space or none."""
        self._line_end = offset + len(text)
        if not text.isspace():
            self.end = self._line_end
            self._first = text[0] if self._first is None else self._first
        self._recent = (self._recent + text[-_RECENT_CHARS:])[-_RECENT_CHARS:]

    def read_before(self, offset: int) -> str:
        """The last characters of the present sentence before `offset`, as many as abbreviations have."""
        chars_behind = self._line_end - offset
        recent = self._recent[: len(self._recent) - chars_behind]
        count = min(LONGEST_ABBREVIATION, offset - self._start)
        return recent[-count:] if count else ""


class _NoteReference:
    """A reference to a note, such as "[3]", behind the end mark of a sentence, as far as it has come."""

    def __init__(self) -> None:
        self._text = ""
        """The reference in brackets so far; empty outside of one."""

    @property
    def is_open(self) -> bool:
        """Whether a reference in brackets has begun that has not ended."""
        return bool(self._text)

    def add(self, char: str) -> bool:
        """Add the next character of the text; return whether it belongs to a reference."""
        text = self._text + char
        self._text = text if _NOTE_REFERENCE_SO_FAR.fullmatch(text) else ""
        return bool(self._text) or _NOTE_REFERENCE.fullmatch(text) is not None


class _EndMarks:
    """The end marks at the end of the text so far, with closing signs and references to notes behind them.

    Closing signs are quotation marks and brackets. The next character decides whether the marks end a sentence.
    """

    def __init__(self) -> None:
        self.is_open = False
        """Whether the text so far ends in end marks."""
        self._is_wide = False
        """Whether the last character is a full-width end mark."""
        self._closes_wide = False
        """Whether the last characters are closing signs behind a full-width end mark."""
        self._note_reference = _NoteReference()
        """The reference to a note that the last characters may be."""

    def ends_before(self, char: str) -> bool:
        """Add the next character of the text; return whether the marks end a sentence before it."""
        was_in_note_reference = self._note_reference.is_open
        if self.is_open and not self._is_wide and self._note_reference.add(char):
            self._closes_wide = False
            return False
        # what looked like the beginning of a reference was other text, so the marks are no longer at the end
        self.is_open = self.is_open and not was_in_note_reference
        has_ended = False
        closes_german = self.is_open and char in _GERMAN_CLOSING and not (self._is_wide or self._closes_wide)
        if char in _MARKS or char in _CLOSING or closes_german:
            self.is_open |= char in _MARKS
        else:
            # a full-width mark ends a sentence even without white space after it
            ends_wide = self._is_wide or (self._closes_wide and char in _WIDE_OPENING)
            has_ended = ends_wide or (self.is_open and char.isspace())
            self.is_open = False
        self._closes_wide = (self._is_wide or self._closes_wide) and char in _CLOSING
        self._is_wide = char in _WIDE
        return has_ended


class _PictureEnd:
    """A picture (emoji) that may end a sentence; the next visible character decides."""

    def __init__(self) -> None:
        self._sentence: str | None = None
        """The sentence before the picture; None if no picture waits for a decision."""
        self._is_spaced = False
        """Whether white space follows the picture."""

    @property
    def is_open(self) -> bool:
        """Whether a picture waits for a decision."""
        return self._sentence is not None

    def note(self, sentence: str) -> None:
        """Remember that a picture has come behind this sentence."""
        self._sentence = sentence
        self._is_spaced = False

    def ends_before(self, char: str) -> bool:
        """Add the next character of the text; return whether it begins a sentence because the picture ended one."""
        if self._sentence is None:
            return False
        if char.isspace():
            self._is_spaced = True
            return False
        if not self._is_spaced and PICTURE_PART.match(char):
            return False
        begins = sentence_ends.ends_with_picture(self._sentence, char, spaced=self._is_spaced)
        self._sentence = None
        return begins


class _LinePictures:
    """Whether the pictures of a line stand before its sentences, as `pictures_stand_before` says of a whole line."""

    def __init__(self) -> None:
        self._has_picture = False
        self._has_words = False
        """Whether the line has more so far than the signs with which a line may begin."""
        self._stand_before = True
        """Whether pictures stand before the sentences if the first one comes next; certain once it has come."""

    def note(self, text: str) -> None:
        """Note the next characters of the line, either all white space or none."""
        if self._has_picture or text.isspace():
            return
        self._has_picture = PICTURE.match(text) is not None
        if not self._has_picture:
            self._has_words = self._has_words or not sentence_ends.SIGNS_BEFORE_WORDS.issuperset(text)
            self._stand_before = text[-1] == ":" or not self._has_words

    def belongs_to_sentence(self, char: str) -> bool:
        """Whether the next character is a picture that belongs to the sentence before it, if one has ended there."""
        return PICTURE_BEHIND.match(char) is not None and not self._stand_before


class _DoubtfulEnd:
    """An end mark that does not end a sentence for certain: behind an abbreviation, before a small letter or a dash.

    The word behind the mark decides. A test is called with that word as far as it has come, and returns whether a
    sentence begins with the word; None if more of the word is needed.
    """

    def __init__(self) -> None:
        self._test_word: Callable[[str], bool | None] | None = None
        """The test for the word behind the last mark; None if there is no doubt about the mark."""
        self._test_small_word: Callable[[str], bool | None] | None = None
        """The test to be used if the word behind the last mark begins with a small letter; None if there is none."""
        self._word = ""
        """The word behind the mark as far as it has come."""

    @property
    def is_open(self) -> bool:
        """Whether a mark waits for a decision."""
        return self._test_word is not None

    def note(self, test_word: Callable[[str], bool | None]) -> None:
        """Remember the test for the word behind a mark that has just come."""
        self._test_word = test_word

    def note_small(self, test_word: Callable[[str], bool | None] | None) -> None:
        """Remember the test for a word with a small letter at its beginning; None if such a word begins no sentence."""
        self._test_small_word = test_word

    def doubt_small(self) -> None:
        """Use the test for words with a small letter, because a small letter comes next."""
        self._test_word = self._test_small_word
        self._test_small_word = None

    def settle(self) -> None:
        """Forget the test if the word behind the mark has not begun: a picture comes there."""
        if not self._word:
            self._test_word = None

    def awaits(self, char: str) -> bool:
        """Whether this character belongs to the word that decides."""
        return self._test_word is not None and (bool(self._word) or not char.isspace())

    def decide(self, char: str) -> tuple[str, bool] | None:
        """Add a character to the word; return (the word, whether a sentence begins with it), None if undecided."""
        assert self._test_word is not None
        self._word += char
        begins_sentence = self._test_word(self._word)
        if begins_sentence is None:
            return None
        word = self._word
        self._test_word = None
        self._word = ""
        return word, begins_sentence


class ProseLine:
    """One line of prose as far as it has come; finds the beginnings of its sentences.

    A mark, a picture or an abbreviation may end a sentence. Each has an object that waits for the characters behind it.
    """

    def __init__(self, start: int) -> None:
        self.fence = Fence()
        """The code fence with which the line may begin."""
        self.has_begun = False
        """Whether any character of the line has been processed."""
        self._number = _ListNumber()
        """The list number with which the line may begin."""
        self._is_row: bool | None = None
        """Whether this is the row of a table, which is not divided; None before the first visible character."""
        self._words = _SentenceWords()
        self._tail = _SentenceTail(start)
        self._marks = _EndMarks()
        self._sentence_ended = False
        """Whether a sentence has ended; the next visible character decides whether another begins."""
        self._picture = _PictureEnd()
        self._pictures = _LinePictures()
        self._doubt = _DoubtfulEnd()
        self._is_surely_prose = False
        """Whether the line is known to begin neither with a code fence nor with a list number, whatever follows."""

    @property
    def awaits_mark(self) -> bool:
        """Whether nothing but the number of words matters until the next mark, picture or end of the line."""
        is_undecided = self._marks.is_open or self._sentence_ended or self._picture.is_open or self._doubt.is_open
        return self._is_surely_prose and not is_undecided

    def read_plain(self, plain: str, offset: int) -> list[SentenceBoundary]:
        """Process text from `offset` on that has no marks and pictures, while `awaits_mark`.

        Returns the boundaries where a sentence of too many words is divided.
        """
        boundaries: list[SentenceBoundary] = []
        for match in _SPACE_OR_WORD.finditer(plain):
            boundary = self._add(match.group(), offset + match.start())
            if boundary is not None:
                boundaries.append(boundary)
        return boundaries

    def read(self, char: str, offset: int) -> SentenceBoundary | None:
        """Process the next character of the line; return the boundary that has become certain, None if none has.

        The boundary may be before earlier characters, which waited for a decision.
        """
        if self._pictures.belongs_to_sentence(char):
            self._doubt.settle()
        elif self._sentence_ended and not self._doubt.is_open:
            if char == "-":
                self._doubt.note(sentence_ends.begins_without_comment_end)
            elif char.islower():
                self._doubt.doubt_small()
        if not self._doubt.awaits(char):
            return self._process(char, offset, begins=self._check_beginning(char, offset))
        decision = self._doubt.decide(char)
        if decision is None:
            return None
        word, begins_sentence = decision
        # the characters of the word were not processed while the decision was open
        word_start = offset + 1 - len(word)
        self._check_beginning(word[0], word_start)
        boundary = self._process(word[0], word_start, begins=begins_sentence)
        for later_offset, later_char in enumerate(word[1:], word_start + 1):
            # no sentence begins within a word
            self._process(later_char, later_offset, begins=self._check_beginning(later_char, later_offset))
        return boundary

    def _process(self, char: str, offset: int, *, begins: bool) -> SentenceBoundary | None:
        """Record a character; return the boundary before it, None if there is none.

        `begins` says whether a sentence begins with it.
        """
        boundary = (self._tail.end, offset) if begins and not self.fence.is_valid else None
        if boundary is not None:
            self._tail.begin(offset)
            self._words.begin()
        char_before = self._tail.last_char
        division = self._add(char, offset)
        is_first_picture = PICTURE.match(char) and not PICTURE_PART.match(char_before)
        if is_first_picture and not self._picture.is_open:
            self._picture.note(self._tail.read_before(offset))
        if not self._is_surely_prose:
            self.fence.read(char)
            self._number.read(char)
            self._is_surely_prose = self.fence.state == "text" and self._number.state == "other"
        self.has_begun = True
        # where a sentence begins, it need not be divided
        return boundary or division

    def _add(self, text: str, offset: int) -> SentenceBoundary | None:
        """Add characters, all white space or none; return where a long sentence is divided, None if it is not."""
        boundary = None
        if not text.isspace():
            if self._is_row is None:
                self._is_row = text[0] == "|"
            # neither rows of tables nor lines that open a code block are divided
            may_divide = not (self._is_row or self.fence.is_valid)
            boundary = self._words.divide(offset) if may_divide else None
            if boundary is not None:
                _, next_start = boundary
                self._tail.begin(next_start, first="")
        self._words.add(text, offset)
        self._tail.add(text, offset)
        self._pictures.note(text)
        return boundary

    def _check_beginning(self, char: str, offset: int) -> bool:
        """Record whether a sentence has ended before this character; return whether a sentence begins with it."""
        is_space = char.isspace()
        begins_behind_picture = self._picture.ends_before(char)
        if (self._marks.is_open or char in _MARKS) and self._marks.ends_before(char):
            self._end_sentence(offset)
        begins_behind_mark = self._sentence_ended and not is_space and not char.islower()
        begins = begins_behind_picture or (begins_behind_mark and not self._pictures.belongs_to_sentence(char))
        self._sentence_ended &= is_space
        return begins

    def _end_sentence(self, offset: int) -> None:
        """End the sentence with the marks before `offset`, unless they belong to a number or an abbreviation."""
        if self._number.state == "stop":
            return
        sentence = sentence_ends.NOTES_AT_END.sub("", self._tail.read_before(offset))
        if is_abbreviated(sentence):
            self._doubt.note(partial(sentence_ends.ends_abbreviated, sentence))
            return
        self._sentence_ended = True
        test_small_word = partial(chat_style.begins_sentence, sentence, begins_small=self._tail.begins_small)
        self._doubt.note_small(test_small_word if sentence.endswith(chat_style.MARKS) else None)
