"""Ordinals of sentences: "First, ... Second, ... Third, ..." and "1) ... 2) ... 3) ..." within a line.

A series is a sequence of such sentences with consecutive ordinals. If a sentence of a series is removed, the later ones
get lower ordinals. An ordinal that may name a thing, such as "The second floor", belongs to no series.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from aligner_proxy.text.structure import Segment, replace_segments

_ORDINAL_WORDS: list[str] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_WORDS_BY_SERIES = tuple(tuple(words.replace("_", " ") for words in series.split()) for series in _ORDINAL_WORDS)
"""The ordinals in words: each series is "first", "second", "third" and so on in one language and one form."""
_IDEOGRAPHIC = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
_ANY_ORDINAL = "|".join(word for words in _WORDS_BY_SERIES for word in words if not _IDEOGRAPHIC.search(word))
_IDEOGRAPHIC_ORDINAL = "|".join(word for words in _WORDS_BY_SERIES for word in words if _IDEOGRAPHIC.search(word))
_SYNONYMS = {"en second lieu": "en deuxi\u00e8me lieu"}
"""Ordinals with the meaning of another ordinal, by which they are replaced when they are read."""
_ADVERB_FORM = re.compile(r".*(?:tens|ment)$|(?:in .* luogo|ten |po |\u0432\u043e?-)")
_ADVERBS = "|".join(word for words in _WORDS_BY_SERIES for word in words if _ADVERB_FORM.match(word))
"""Ordinals that never name a thing, so that no comma or colon needs to follow them."""
_THINGS = (
    "reason|way|thing|tip|benefit|advantage|drawback|idea|symptom|sign|cause|factor|risk|danger|problem|mistake|argument|"
    "point|method|step|task|rule|habit|trick"
)
_LAST = re.compile(
    r"[\s>*_]{0,4}(?:(?:finally|lastly|schlie\u00dflich|zuletzt|zu guter Letzt|enfin|finalement|por \u00faltimo|"
    r"finalmente|infine|por fim|ten slotte|tot slot|wreszcie|na koniec|\u043d\u0430\u043a\u043e\u043d\u0435\u0446)\b"
    r"|\u6700\u540e|\u6700\u5f8c)",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence that may end a series."""
ENGLISH_ORDINALS = _WORDS_BY_SERIES[0]
"""The English ordinals from the first to the tenth."""
_ENGLISH_ORDINAL = "|".join(ENGLISH_ORDINALS)
_SIGNS_BEFORE = r"[\s>*_\"'(\u201c]{0,8}"
_ORDINAL_AT_START = re.compile(
    rf"{_SIGNS_BEFORE}(?:and )?(?:(?P<word>{_ANY_ORDINAL})[*_]{{0,3}}[,:](?! (?:and |or )?(?:{_ENGLISH_ORDINAL})\b)"
    rf"|(?P<adverb>{_ADVERBS})(?=,? )|(?P<ideographic>{_IDEOGRAPHIC_ORDINAL})"
    r"(?:(?<=[\u306b\u306f\u662f\u5148\u6b21])|(?=[\uff0c\u3001,\uff1a:]))"
    rf"|the (?P<noun_phrase>{_ENGLISH_ORDINAL})(?= (?:is|was|{_THINGS})\b))",
    re.IGNORECASE,
)
"""Matches an ordinal in words as a "word" ("First, ..."), an "adverb" ("Erstens ist ...") or in a "noun_phrase" ("The
first reason ...")."""
_NUMBER_AT_START = re.compile(r"[\s>]*(?P<open>\(?)(?P<number>\d{1,2}|[a-h])(?P<close>[.)])(?=\s|$)")
_INNER_NUMBER = re.compile(r"(?<=[\s:])(?P<open>\(?)(?P<number>\d{1,2}|[a-h])(?P<close>[.)])(?=\s)")
"""Matches a number before a sentence within a segment."""
_COLON = re.compile(r":(?=\s)")
_LONE_NUMBER = re.compile(r"\(?(?:\d{1,2}|[a-h])[.)]")
_NUMBERING_LETTERS = "abcdefgh"


@dataclass(frozen=True, slots=True)
class _Ordinal:
    """The ordinal of a sentence: a word, a number or a letter, which stands in the sentence from `start` to `end`."""

    family: tuple[str, ...]
    """What the ordinals of one series have in common.

    For words ("words", index in `_WORDS_BY_SERIES`, "word" or "noun_phrase"), for others ("digit" or "letter", sign
    before, sign after).
    """
    value: int
    """1 for the first."""
    start: int
    end: int
    other_families: tuple[tuple[str, ...], ...] = ()
    """Further families that have the word with this value: "segundo" is Spanish and Portuguese."""

    def write(self, value: int, text: str) -> str:
        """The sentence `text` with the ordinal of this value instead."""
        old_ordinal = text[self.start : self.end]
        notation, *details = self.family
        if notation == "words":
            new_ordinal = _WORDS_BY_SERIES[int(details[0])][value - 1]
            if old_ordinal[0].isupper():
                new_ordinal = new_ordinal.capitalize()
        else:
            new_ordinal = _NUMBERING_LETTERS[value - 1] if old_ordinal.isalpha() else str(value)
        return text[: self.start] + new_ordinal + text[self.end :]


@dataclass(slots=True)
class _SentenceSeries:
    """A series of sentences with consecutive ordinals, as far as it has come."""

    announcement: int
    """Index of the segment before the first ordinal, or of the segment in which it stands; -1 if there is none."""
    last: int
    """The value of the last ordinal, so the number of sentences."""
    remaining: int = 0
    """How many of the sentences remain."""
    closing_index: int | None = None
    """Index of a later sentence that begins with a word such as "Finally,"; None if there is none."""
    keeps_closing: bool = True
    """Whether that sentence remains."""


class Ordinals:
    """The series of sentences in an answer, which may come piece by piece."""

    def __init__(self) -> None:
        self.changed = 0
        """Number of ordinals that were changed."""
        self._series: dict[tuple[str, ...], _SentenceSeries] = {}
        """The latest series of each family."""
        self._all: list[_SentenceSeries] = []
        """All series, in the order in which they began."""
        self._begins_line = True
        """Whether the next segment begins a line."""

    def renumber(self, pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
        """Write new ordinals into the sentences of `text` where earlier sentences of their series were removed.

        `text` is what is left of the segments `pieces` without those at the indexes `removed`.
        """
        sentences = list(self._read(pieces, removed))
        if all(ordinal is None or ordinal.value == new_value for _, ordinal, new_value in sentences):
            return text
        text, changed_count = replace_segments(
            text,
            (
                (segment.text, segment.text if ordinal is None else ordinal.write(new_value, segment.text))
                for segment, ordinal, new_value in sentences
            ),
        )
        self.changed += changed_count
        return text

    def count(self, pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[tuple[int, int, int]]:
        """Yield (index, old count, new count) for each series that lost sentences.

        The index is that of the segment before the series, which may announce how many sentences it has.
        """
        for _ in self._read(pieces, removed):
            pass
        for series in self._all:
            has_announcement = series.announcement >= 0 and series.announcement not in removed
            if not has_announcement:
                continue
            if series.remaining < series.last:
                yield series.announcement, series.last, series.remaining
            # the sentence with "Finally," may be one more of those that were announced
            if series.closing_index is not None:
                old_count = series.last + 1
                new_count = series.remaining + series.keeps_closing
                if new_count < old_count:
                    yield series.announcement, old_count, new_count

    def _read(
        self, pieces: Sequence[Segment], removed: Collection[int]
    ) -> Iterator[tuple[Segment, _Ordinal | None, int]]:
        """Yield (segment, ordinal, new value) for each segment that remains.

        (segment, None, 0) if it belongs to no series.
        """
        for index, segment in enumerate(pieces):
            ordinal = _read_ordinal(segment.text)
            # a number at the beginning of a line is that of an item, except a 1 before further sentences of the line
            begins_inline_series = ordinal is not None and ordinal.value == 1 and "\n" not in segment.gap
            if self._begins_line and not begins_inline_series and ordinal and ordinal.family[0] != "words":
                ordinal = None
            self._begins_line = "\n" in segment.gap or not segment.text.strip()
            if ordinal is not None:
                ordinal = self._choose_family(ordinal)
            series = None if ordinal is None else self._continue_series(ordinal, index - 1)
            self._close_series(segment.text, index, removed)
            remains = index not in removed
            self._read_inner_ordinals(segment.text, ordinal.end if ordinal else 0, index, remains=remains)
            if not remains:
                continue
            if ordinal is None or series is None:
                yield segment, None, 0
                continue
            series.remaining += 1
            yield segment, ordinal, series.remaining

    def _read_inner_ordinals(self, text: str, start: int, index: int, *, remains: bool) -> None:
        """Count the ordinals inside segment `index`, as in "Do this: (1) Eat." and "Do this: first, eat.".

        `text` is the text of the segment, which is read from offset `start` on.
        """
        ordinals = [_to_ordinal(match) for match in _INNER_NUMBER.finditer(text, start)]
        for colon in _COLON.finditer(text, start):
            word = _read_ordinal_word(text, colon.end())
            if word is not None and word.value == 1:
                ordinals.append(word)
        for ordinal in ordinals:
            series = self._continue_series(ordinal, index)
            if series is not None:
                series.remaining += remains

    def _choose_family(self, ordinal: _Ordinal) -> _Ordinal:
        """The ordinal with the family whose latest series it continues, if its word belongs to several families."""
        for family in ordinal.other_families:
            series = self._series.get(family)
            if series is not None and series.last + 1 == ordinal.value and ordinal.family not in self._series:
                return replace(ordinal, family=family)
        return ordinal

    def _close_series(self, text: str, index: int, removed: Collection[int]) -> None:
        """Note that segment `index` ends the latest series, if its text begins with a word such as "Finally,"."""
        if self._all and self._all[-1].closing_index is None and _LAST.match(text):
            self._all[-1].closing_index = index
            self._all[-1].keeps_closing = index not in removed

    def _continue_series(self, ordinal: _Ordinal, announcement: int) -> _SentenceSeries | None:
        """The series that an ordinal begins or continues; None if it does neither.

        `announcement` is the index of the segment before the ordinal.
        """
        series = self._series.get(ordinal.family)
        if ordinal.value == 1:
            series = _SentenceSeries(announcement, last=1)
            self._series[ordinal.family] = series
            self._all.append(series)
            return series
        if series is None or ordinal.value != series.last + 1:
            return None
        series.last = ordinal.value
        return series


def find_numbered_sentences(pieces: Sequence[Segment]) -> Iterator[tuple[int, range]]:
    """Yield (index of a segment, indexes of the sentences behind it) for each inline number.

    An inline number is a segment within a line that is only a number: the "2." of "1. Eat. 2. Sleep.".
    """
    for index in range(1, len(pieces)):
        if not is_inline_number(pieces, index):
            continue
        end = index + 1
        while end < len(pieces) and _is_within_line(pieces, end) and not is_inline_number(pieces, end):
            end += 1
        yield index, range(index + 1, end)


def is_inline_number(pieces: Sequence[Segment], index: int) -> bool:
    """Whether segment `index` is within a line and only a number or letter before a sentence."""
    return _is_within_line(pieces, index) and _LONE_NUMBER.fullmatch(pieces[index].text) is not None


def begins_with_number(pieces: Sequence[Segment], index: int) -> bool:
    """Whether segment `index` is within a line and begins with a number or letter before a sentence."""
    return _is_within_line(pieces, index) and _NUMBER_AT_START.match(pieces[index].text) is not None


def names_ordinal(text: str) -> bool:
    """Whether a text begins with an ordinal such as "Second:"."""
    return _ORDINAL_AT_START.match(text) is not None


def _is_within_line(pieces: Sequence[Segment], index: int) -> bool:
    """Whether segment `index` is in the same line as the segment before it."""
    return index > 0 and "\n" not in pieces[index - 1].gap


def _read_ordinal(text: str) -> _Ordinal | None:
    """The ordinal at the beginning of a sentence; None if there is none."""
    word = _read_ordinal_word(text)
    if word is not None:
        return word
    match = _NUMBER_AT_START.match(text)
    return None if match is None else _to_ordinal(match)


def _read_ordinal_word(text: str, start: int = 0) -> _Ordinal | None:
    """The ordinal in words at offset `start`; None if there is none."""
    match = _ORDINAL_AT_START.match(text, start)
    if match is None:
        return None
    group = next(name for name in ("word", "adverb", "ideographic", "noun_phrase") if match[name])
    word = match[group].lower()
    word = _SYNONYMS.get(word, word)
    use = "noun_phrase" if group == "noun_phrase" else "word"
    all_series = [(index, words) for index, words in enumerate(_WORDS_BY_SERIES) if word in words]
    families = [("words", str(index), use) for index, _ in all_series]
    _, words = all_series[0]
    ordinal_start, ordinal_end = match.span(group)
    return _Ordinal(families[0], words.index(word) + 1, ordinal_start, ordinal_end, tuple(families[1:]))


def _to_ordinal(match: re.Match[str]) -> _Ordinal:
    """Make an ordinal of a match with a number or letter."""
    number = match["number"]
    value = int(number) if number.isdecimal() else _NUMBERING_LETTERS.index(number) + 1
    notation = "digit" if number.isdecimal() else "letter"
    start, end = match.span("number")
    return _Ordinal((notation, match["open"], match["close"]), value, start, end)
