"""Sentences of one line of prose, which may still be growing.

A boundary depends only on the text before it and on the word after it, so it stays where it is when the line grows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from aligner_proxy.text import chat_style, sentence_ends
from aligner_proxy.text.abbreviations import ABBREVIATIONS, LONGEST_ABBREVIATION, ends_in_abbreviation
from aligner_proxy.text.sentence_ends import (
    CLOSING,
    GERMAN_CLOSING,
    JOINERS,
    MARKS,
    NOTES,
    PICTURES,
    WIDE,
    WIDE_OPENING,
)

_CLOSING_CLASS = re.escape(CLOSING)
_MARK_CLASS = re.escape(MARKS)
_NARROW = "".join(mark for mark in MARKS if mark not in WIDE)
_NOTE_SO_FAR = r"\[(?:\^[\w-]{0,24}|\w{0,8})"
# A run of marks or pictures is examined only from its first one; starting at each of twenty thousand took minutes. One
# class stands at the beginning, because the search for it is ten times as fast as one for several.
_SENTENCE_END = re.compile(
    rf"[{_MARK_CLASS}{PICTURES}](?:(?<=[{_MARK_CLASS}])(?<![{_MARK_CLASS}]{{2}})[{_MARK_CLASS}]*"
    rf"(?:(?<=[{WIDE}])[{_CLOSING_CLASS}]*|(?<![{WIDE}])[{_CLOSING_CLASS}{GERMAN_CLOSING}]*)"
    rf"(?:(?<![{WIDE}])(?:{NOTES}[{_CLOSING_CLASS}]*)+)?(?:(?=\s)|(?:(?<![{WIDE}]){_NOTE_SO_FAR})?\Z)"
    rf"|(?<=[{WIDE}])(?<![{WIDE}]{{2}})[{WIDE}]*(?:(?=[^\s{_MARK_CLASS}{_CLOSING_CLASS}])|[{_CLOSING_CLASS}]+(?=[{WIDE_OPENING}]))"
    rf"|(?P<picture>(?<=[{PICTURES}])(?<![{PICTURES}{JOINERS}][{PICTURES}])[{PICTURES}{JOINERS}]*))"
)
"""Matches what may end a sentence. A match at the end of a growing line may become another one."""
_UNDECIDED = re.compile(
    rf"[{_MARK_CLASS}{_CLOSING_CLASS}]+|[{PICTURES}{JOINERS}]+|[^\s{WIDE}{WIDE_OPENING}{PICTURES}{JOINERS}]+|\s+"
)
"""Matches text none of whose characters, but the first, can decide where a sentence or a word ends or begins."""
_UNDECIDED_BEHIND_NARROW = re.compile(rf"[{re.escape(_NARROW)}{_CLOSING_CLASS}{GERMAN_CLOSING}]+")
"""Matches text that may go on with a sentence's end whose marks are not full-width."""
_LIST_NUMBER = re.compile(r"\s*(?:[-*+]\s+)?\d+\.")
_WIDE_MARK = re.compile(f"[{WIDE}]")
_WORD = re.compile(r"\S+")
_SPACE = re.compile(r"\s")


class LineSentences:
    """The sentences of a line, which are found from left to right.

    Every character is examined once or twice, however small the pieces are in which the line comes.
    """

    def __init__(self) -> None:
        self.text = ""
        """The line as far as it has come."""
        self._read_length = 0
        """Number of characters that were read."""
        self._searched_length = 0
        """Offset up to which ends of sentences were found."""
        self._end: re.Match[str] | None = None
        """The last match of `_SENTENCE_END`, if the text behind it has yet to decide whether a sentence ends there."""
        self._may_end_narrow = False
        """Whether the line ends with what may become an end of a sentence and has no full-width mark."""
        self._following = 0
        """Offset of the first visible character behind that match, as far as the line has come."""
        self._start = 0
        """Offset at which the present sentence begins."""
        self._continues = False
        """Whether the present sentence is a further part of a divided one."""
        self._run_on: sentence_ends.RunOn | None = None
        """The words of the present sentence, if it is long; None as long as it is short."""
        self._counted_length = 0
        """Offset up to which words were added to `_run_on`."""
        self._unfinished_length = 0
        """Offset up to which the unfinished word behind them was examined; 0 if there is none."""

    @cached_property
    def _has_pictures_before(self) -> bool:
        """Whether the pictures of the line stand before its sentences."""
        return sentence_ends.pictures_stand_before(self.text)

    def find_starts(self) -> Iterator[int]:
        """Yield the offsets at which sentences begin in the text that was added, except the first of the line.

        A very long sentence is divided, and its further parts count as sentences, too.
        """
        last_char = max(0, self._read_length - 1)
        self._read_length = len(self.text)
        was_undecided = self._end is not None
        if last_char and not was_undecided and self._decides_nothing(last_char):
            return
        while (end := self._end or self._find_end()) is not None:
            yield from self._divide(end.end())
            while self._following < len(self.text) and self.text[self._following].isspace():
                self._following += 1
            ends_sentence = self._ends_sentence(end)
            if ends_sentence is None:
                self._end = end
                return
            self._end = None
            if ends_sentence:
                self._start = self._counted_length = self._following
                self._continues = False
                self._run_on = None
                self._unfinished_length = 0
                yield self._start
        # no word begins or ends in text without white space
        if was_undecided or _SPACE.search(self.text, last_char):
            yield from self._divide(len(self.text))

    def _decides_nothing(self, last_char: int) -> bool:
        """Whether the text behind the last character that was read cannot decide where a sentence or a word ends."""
        if self._may_end_narrow and _UNDECIDED_BEHIND_NARROW.fullmatch(self.text, last_char):
            return True
        return _UNDECIDED.fullmatch(self.text, last_char) is not None

    def _find_end(self) -> re.Match[str] | None:
        """Find the next place where a sentence may end; None if there is none so far."""
        self._may_end_narrow = False
        end = _SENTENCE_END.search(self.text, self._searched_length)
        if end is None:
            self._searched_length = len(self.text)
            return None
        # further characters may belong to it
        if end.end() == len(self.text):
            self._searched_length = end.start()
            self._may_end_narrow = not _WIDE_MARK.search(end.group())
            return None
        is_first = not self._following
        self._searched_length = self._following = end.end()
        # the full stop of a list number ends no sentence
        if is_first and _LIST_NUMBER.fullmatch(self.text, 0, end.end()):
            return self._find_end()
        return end

    def _divide(self, stop: int) -> Iterator[int]:
        """Read the words of the sentence before offset `stop`; yield where it is divided because it has too many.

        Each offset that is yielded begins a further part, which is the present sentence from then on.
        """
        # the row of a table is not divided
        if stop - self._start <= sentence_ends.MAX_CHARS or self.text.lstrip()[:1] == "|":
            return
        if self._run_on is None:
            self._run_on = sentence_ends.RunOn()
        # a very long word may have many places where a sentence could end; it is examined once
        if self._unfinished_length and not _SPACE.search(self.text, self._unfinished_length):
            self._unfinished_length = len(self.text)
            return
        self._unfinished_length = 0
        for word in _WORD.finditer(self.text, self._counted_length):
            if word.start() >= stop:
                return
            part_start = self._run_on.divide(word.start())
            if part_start is not None:
                self._start = part_start
                self._continues = True
                yield self._start
            if word.end() == len(self.text):
                self._unfinished_length = word.end()
                return
            self._run_on.add(word.start(), word.group())
            self._counted_length = word.end()

    def _ends_sentence(self, end: re.Match[str]) -> bool | None:
        """Whether a sentence ends with this match of `_SENTENCE_END`; None if the line is too short so far to know."""
        following = self._following
        if following == len(self.text):
            return None
        next_char = self.text[following]
        is_spaced = following > end.end()
        if end["picture"] is not None:
            return sentence_ends.ends_with_picture(self._read_back(end.start()), next_char, spaced=is_spaced)
        if sentence_ends.PICTURE_BEHIND.match(next_char) and not self._has_pictures_before:
            return False
        before = sentence_ends.NOTES_AT_END.sub("", self._read_back(end.end()))
        if is_abbreviated(before):
            next_chars = self.text[following : following + sentence_ends.LONGEST_WORD + 1]
            return sentence_ends.ends_abbreviated(before, next_chars)
        # a dash may also begin "-->", which ends a comment
        if next_char == "-" and is_spaced:
            return sentence_ends.begins_without_comment_end(self.text[following : following + 3])
        if not next_char.islower():
            return True
        # before a small letter a sentence ends only as people write in chats ("hi! how are you")
        if not is_spaced or not before.endswith(chat_style.MARKS):
            return False
        return self._begins_in_chat_style(before)

    def _begins_in_chat_style(self, before: str) -> bool | None:
        """Whether the next small letter begins a sentence; None if the line is too short so far to know."""
        next_chars = self.text[self._following : self._following + chat_style.LONGEST_WORD + 1]
        first_char = self.text[self._start] if self._start else self.text.lstrip()[:1]
        begins_small = first_char.islower() and not self._continues
        return chat_style.begins_sentence(before, next_chars, begins_small=begins_small)

    def _read_back(self, end: int) -> str:
        """The last characters of the present sentence before `end`, as many as abbreviations have."""
        return self.text[max(self._start, end - LONGEST_ABBREVIATION) : end]


def is_abbreviated(sentence: str) -> bool:
    """Whether the full stop at the end of `sentence` may belong to an abbreviation, an initial or a number."""
    if sentence[-1:] != ".":
        return False
    word = sentence[:-1].rpartition(" ")[2]
    # nearly always the last word is an ordinary one, and the longer test is saved
    is_ordinary = word.isalpha() and len(word) > 1 and word not in ABBREVIATIONS
    return not is_ordinary and ends_in_abbreviation(sentence)
