"""Ends of sentences that an end mark alone does not decide: after abbreviations, after emoji, and in run-on text.

A picture such as an emoji ends a sentence that has some words. One behind an end mark belongs to the sentence with the
mark, unless pictures stand before the sentences of its line. A run-on, a text of more than `MAX_WORDS` words without an
end mark, is divided at the best place: before a word that often begins sentences, else behind a comma, else before a
conjunction. Every decision needs no more than the word behind the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner_proxy.text.abbreviations import ends_sentence, word_set

CLOSING = "\"'\u201d\u2019)]*_~\u00bb\u00ab\u300d\u300f\u300b\uff09"
"""Signs that may follow the mark of a sentence and belong to it."""
GERMAN_CLOSING = "\u201c\u2018"
"""Quotation marks that close in German and Czech and open in other languages. They close directly behind an end mark
that is not full-width, before white space."""
WIDE_OPENING = "\u201c\u2018\u300c\u300e\u300a\uff08"
"""Signs that begin a sentence without white space, if the one before ends with a full-width mark and such signs."""
NOTE_DIGITS = "\u00b9\u00b2\u00b3\u2070\u2074-\u2079\u2020\u2021"
"""Superscript digits and daggers as the inside of a class of characters; behind the mark of a sentence they refer to a
note."""
NOTE_LABEL = r"\[\^[\w-]{1,24}\]"
"""A reference by label, as Markdown has it, such as "[^first-note]"."""
NOTES = rf"(?:{NOTE_LABEL}|\[\w{{1,8}}\]|[{NOTE_DIGITS}])"
"""A reference to a note, which may follow the mark of a sentence and belong to it."""
NOTES_AT_END = re.compile(rf"{NOTES}+$")
"""Matches the references to notes behind the mark of a sentence."""
WIDE = "\u3002\uff01\uff1f"
"""Full-width marks, which end a sentence also without white space behind them."""
MARKS = f".!?\u2026\uff0e\u061f\u06d4\u0964\u0965\u0589\u1362\u17d4\u104b{WIDE}"
"""Marks of sentences, also those of Arabic, Urdu, Hindi, Armenian, Amharic, Khmer and Burmese."""
_ALL_MARKS = tuple(MARKS)
PICTURES = "\U0001f000-\U0001f1e5\U0001f200-\U0001faff\u2600-\u2793\u2795-\u2797\u231a\u231b\u23f0-\u23f3\u2b50\u2b55"
"""Emoji and the like as the inside of a class of characters; without arrows, and without flags, which stand before
names."""
JOINERS = "\ufe0f\u200d\U000e0020-\U000e007f"
"""Characters within one picture of several, as the inside of a class of characters; the last ones are the letters in
the flag of England."""
PICTURES_BEHIND = rf"[\s{PICTURES}{JOINERS}]*"
"""Matches the pictures behind an end mark, which belong to its sentence, and the space around them."""
PICTURE = re.compile(f"[{PICTURES}]")
"""Matches a picture, or the first character of one."""
PICTURE_BEHIND = re.compile(rf"(?![\u26a0\U0001f449\U0001f4a1\U0001f4cc\U0001f4cd\U0001f536-\U0001f539])[{PICTURES}]")
"""Matches a picture that may belong to the sentence before it: not a warning sign, a light bulb, a pin or a hand or
rhombus that points to what follows."""
MAX_WORDS = 40
"""Most words of a sentence, beyond which it is divided."""
_MIN_PART_WORDS = 12
"""Fewest words of a divided piece."""
_WORDS_BEFORE_PICTURE = 3
_WORDS_BEFORE_PICTURE_INSIDE = 4
"""Fewest words that a picture ends; more are needed if a small letter follows, as in "I love \u2764 you"."""
MAX_CHARS = 2 * MAX_WORDS
"""A shorter sentence cannot have too many words."""
SIGNS_BEFORE_WORDS = frozenset("#>*_-+\u2022|0123456789.)[](")
"""Signs of Markdown with which a line may begin."""
_PICTURES_AT_END = re.compile(f"{PICTURES_BEHIND}$")
_NEXT_WORD = re.compile(r"(?P<opening>[\"'\u201c\u2018\u201e\u00ab(*_\[]{0,4})(?P<word>[\w'\u2019-]*)")
LONGEST_WORD = 48
"""Characters of a word that suffice to decide whether it begins a sentence."""
_DIVIDING_SIGNS = frozenset(",;:\u2013\u2014-")
_SENTENCE_STARTERS = word_set(
    "I You He She It We They This That These There Nobody Everybody People Your My His Her Our Their The If When While "
    "Then Also Many Most Some Only Even Please Never Always But And So Now Here What Why How "
    "Du Sie Er Es Wir Ihr Ich Das Die Der Wenn Dann Vous Tu Il Elle Nous Je Les Usted T\u00fa \u00c9l Yo"
)
_COMMENT_END = "-->"
_CLAUSE_STARTERS = word_set(
    "and but because since while whereas although though so or yet if unless which who when then i you he she we they "
    "nobody everybody people und aber oder weil wenn denn dass du sie er wir ich et mais ou donc car si vous tu nous y "
    "pero o porque e ma perch\u00e9 maar en of want"
)
_LONGEST_CLAUSE_STARTER = 32


class RunOn:
    """The words of a sentence without an end so far, and the best place to divide it."""

    def __init__(self) -> None:
        self.count = 0
        """Number of words; single letters do not count."""
        self._last_sign = ""
        """Last character of the last word, such as a comma."""
        self._places: list[tuple[int, int, int]] = []
        """Places where the sentence may be divided: (rank, words before, start of the next word)."""

    def add(self, start: int, word: str) -> None:
        """Add a complete word that begins at offset `start` of the line."""
        rank = self._rank_place_before(word)
        if rank and self.count >= _MIN_PART_WORDS:
            # of several places before single letters, which are not counted, only the last one is kept
            if self._places and self._places[-1][1] == self.count:
                self._places.pop()
            self._places.append((rank, self.count, start))
        # single letters are no words
        self.count += len(word) > 1
        self._last_sign = word[-1]

    def divide(self, start: int) -> int | None:
        """Divide the sentence if it is full and one more word begins at `start`; None if it is not full.

        Returns the offset of the second part, which the object then describes.
        """
        if self.count < MAX_WORDS:
            return None
        place_here = (0, self.count, start)
        _, words_of_part, part_start = max(self._places, default=place_here)
        self.count -= words_of_part
        self._places = [
            (rank, words_before - words_of_part, word_start)
            for rank, words_before, word_start in self._places
            if words_before - words_of_part >= _MIN_PART_WORDS
        ]
        return part_start

    def _rank_place_before(self, word: str) -> int:
        """How good it is to divide the sentence before this word, from 1 to 3; 0 if it must not be divided here."""
        if self._last_sign in _DIVIDING_SIGNS:
            return 2
        if word in _SENTENCE_STARTERS:
            return 3
        # the length is compared first, because that is fast and every word comes here
        begins_clause = len(word) < _LONGEST_CLAUSE_STARTER and word.strip("\"'(").lower() in _CLAUSE_STARTERS
        return 1 if begins_clause else 0


def pictures_stand_before(line: str) -> bool:
    """Whether the pictures of this line stand before its sentences, as in "Sizes: \u2705 Small. \u2705 Large."

    The first one tells: it begins the line, or stands behind a colon.
    """
    match = PICTURE.search(line)
    before = line[: match.start()].rstrip() if match else ""
    return before.endswith(":") or SIGNS_BEFORE_WORDS.issuperset("".join(before.split()))


def ends_with_picture(before: str, behind: str, *, spaced: bool) -> bool:
    """Whether a picture ends the sentence `before` it; `behind` is the next character other than white space.

    `spaced` says whether white space follows the picture. In "Hi! \U0001f44b Come in." the picture ends a sentence of
    one word, since a mark stands before it.
    """
    if PICTURE_BEHIND.match(behind):
        return False
    word_count = len(before.split())
    if behind.islower():
        return word_count >= _WORDS_BEFORE_PICTURE_INSIDE
    sentence = NOTES_AT_END.sub("", _PICTURES_AT_END.sub("", before)).rstrip(CLOSING + GERMAN_CLOSING)
    # the full stop of a list number ends no sentence
    if sentence.endswith(_ALL_MARKS) and any(map(str.isalpha, sentence)):
        return spaced or behind.isalnum()
    may_begin_sentence = behind.isalnum() or (spaced and behind in "\"'\u201c\u2018\u201e(*_[#")
    return may_begin_sentence and word_count >= _WORDS_BEFORE_PICTURE


def begins_without_comment_end(following: str) -> bool | None:
    """Whether text that begins with a dash may begin a sentence, because the dash is not that of "-->".

    None if more text must come first. The sign "-->" ends a comment of HTML.
    """
    if len(following) < len(_COMMENT_END) and _COMMENT_END.startswith(following):
        return None
    return not following.startswith(_COMMENT_END)


def ends_abbreviated(before: str, following: str) -> bool | None:
    """Whether the sentence `before` ends with the abbreviation at its end; None if more text must come first.

    `following` is the text behind it, without white space at its beginning.
    """
    match = _NEXT_WORD.match(following, 0, LONGEST_WORD)
    if match is None:
        return False
    # the word may be unfinished
    if match.end() == len(following) and len(following) < LONGEST_WORD:
        return None
    return ends_sentence(before, match["word"], following[match.end() : match.end() + 1])


def find_beginnings(text: str) -> Iterator[int]:
    """Yield the offsets of words inside a text that often begin sentences, whatever precedes them."""
    for match in re.finditer(r"(?<=[^\W_]\s)\w+(?=\s)", text):
        if match.group() in _SENTENCE_STARTERS:
            yield match.start()
