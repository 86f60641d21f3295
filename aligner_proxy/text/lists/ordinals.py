"""Ordinals of sentences: "First, ... Second, ... Third, ..." and "1) ... 2) ... 3) ..." within a line.

A series begins with its first ordinal, and each further one continues it. If a sentence of a series is removed, the
later ones move up. An ordinal that may name a thing, such as "The second floor", belongs to no series.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from aligner_proxy.text.structure import Segment

_SERIES = (
    "first second third fourth fifth sixth seventh eighth ninth tenth",
    "firstly secondly thirdly fourthly fifthly sixthly seventhly eighthly ninthly tenthly",
    "erstens zweitens drittens viertens f\u00fcnftens sechstens siebtens achtens",
    "premi\u00e8rement deuxi\u00e8mement troisi\u00e8mement quatri\u00e8mement cinqui\u00e8mement",
    "primero segundo tercero cuarto quinto",
    "en_primer_lugar en_segundo_lugar en_tercer_lugar en_cuarto_lugar en_quinto_lugar",
    "en_premier_lieu en_deuxi\u00e8me_lieu en_troisi\u00e8me_lieu en_quatri\u00e8me_lieu en_cinqui\u00e8me_lieu",
    "en_premier_lieu en_second_lieu",
)
_WORDS = tuple(tuple(words.replace("_", " ") for words in series.split()) for series in _SERIES)
_ANY = "|".join(word for words in _WORDS for word in words)
_SAME = {"en second lieu": "en deuxi\u00e8me lieu"}
"""Ordinals of one series that say the same."""
_ADVERBS = "|".join(word for words in _WORDS for word in words if word.endswith(("tens", "ment")))
"""Ordinals that name no thing, so that no sign needs to follow them."""
_THINGS = (
    "reason|way|thing|tip|benefit|advantage|drawback|idea|symptom|sign|cause|factor|risk|danger|problem|mistake|argument|"
    "point|method|step|task|rule|habit|trick"
)
ENGLISH_ORDINALS = _WORDS[0]
"""The ordinals from the first to the tenth."""
_ONE_OF_THEM = "|".join(ENGLISH_ORDINALS)
_LEAD = r"[\s>*_\"'(\u201c]{0,8}"
_ORDINAL = re.compile(
    rf"{_LEAD}(?:and )?(?:(?P<word>{_ANY})[*_]{{0,3}}[,:](?! (?:and |or )?(?:{_ONE_OF_THEM})\b)"
    rf"|(?P<adverb>{_ADVERBS})(?= )|the (?P<thing>{_ONE_OF_THEM})(?= (?:is|was|{_THINGS})\b))",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[\s>]*(?P<open>\(?)(?P<number>\d{1,2}|[a-h])(?P<close>[.)])(?=\s|$)")
_INNER_NUMBER = re.compile(r"(?<=[\s:])(?P<open>\(?)(?P<number>\d{1,2}|[a-h])(?P<close>[.)])(?=\s)")
"""Matches a number before a sentence within a segment."""
_COLON = re.compile(r":(?=\s)")
_LONE_NUMBER = re.compile(r"\(?(?:\d{1,2}|[a-h])[.)]")
_LETTERS = "abcdefgh"


@dataclass(frozen=True, slots=True)
class _Ordinal:
    """The ordinal of a sentence; `start` and `end` bound what says it."""

    family: tuple[str, ...]
    """What the ordinals of one series have in common."""
    value: int
    start: int
    end: int

    def write(self, value: int, text: str) -> str:
        """The sentence `text` with another value."""
        old = text[self.start : self.end]
        if self.family[0] == "words":
            new = _WORDS[int(self.family[1])][value - 1]
            new = new.capitalize() if old[0].isupper() else new
        else:
            new = _LETTERS[value - 1] if old.isalpha() else str(value)
        return text[: self.start] + new + text[self.end :]


@dataclass(slots=True)
class _Series:
    """A series as far as it has come."""

    lead: int
    """The number of the segment before its first ordinal, which may be in the middle of that segment."""
    last: int
    """The value of its last sentence."""
    remaining: int = 0
    """The number of its sentences that remain."""


class Ordinals:
    """The series of an answer, which may be read piece by piece."""

    def __init__(self) -> None:
        self.changed = 0
        """Number of ordinals that have another value now."""
        self._series: dict[tuple[str, ...], _Series] = {}
        """The latest series of each family."""
        self._all: list[_Series] = []
        """All series, in the order in which they began."""
        self._begins_line = True
        """Whether the next segment begins a line."""

    def renumber(self, pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
        """Give the sentences in `text`, the output for these pieces, new ordinals where earlier ones are `removed`."""
        sentences = list(self._read(pieces, removed))
        if all(ordinal is None or ordinal.value == value for _, ordinal, value in sentences):
            return text
        position = 0
        for piece, ordinal, value in sentences:
            at = text.find(piece.text, position)
            # a sentence that is no longer as it was written keeps its ordinal
            if at < 0:
                continue
            new = piece.text if ordinal is None else ordinal.write(value, piece.text)
            self.changed += new != piece.text
            text = text[:at] + new + text[at + len(piece.text) :]
            position = at + len(new)
        return text

    def count(self, pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[tuple[int, int, int]]:
        """Yield (segment, sentence count before, sentence count after) of what may announce a series that lost any."""
        for _ in self._read(pieces, removed):
            pass
        for series in self._all:
            if series.lead >= 0 and series.lead not in removed and series.remaining < series.last:
                yield series.lead, series.last, series.remaining

    def _read(
        self, pieces: Sequence[Segment], removed: Collection[int]
    ) -> Iterator[tuple[Segment, _Ordinal | None, int]]:
        """Yield each remaining piece with its ordinal, if it belongs to a series, and the new value."""
        for number, piece in enumerate(pieces):
            ordinal = _read_ordinal(piece.text)
            # other numbers at the beginning of a line are those of items
            begins_item = self._begins_line and not (ordinal and ordinal.value == 1 and "\n" not in piece.gap)
            ordinal = None if ordinal and ordinal.family[0] != "words" and begins_item else ordinal
            self._begins_line = "\n" in piece.gap or not piece.text.strip()
            series = None if ordinal is None else self._continue_series(ordinal, number - 1)
            self._read_inner_ordinals(piece.text, ordinal.end if ordinal else 0, number, remains=number not in removed)
            if number in removed:
                continue
            if ordinal is None or series is None:
                yield piece, None, 0
                continue
            series.remaining += 1
            yield piece, ordinal, series.remaining

    def _read_inner_ordinals(self, text: str, start: int, number: int, *, remains: bool) -> None:
        """Count the ordinals within segment `number` from `start` on: "Do this: (1) Eat.", "Do this: first, eat."."""
        inner = [_number_of(match) for match in _INNER_NUMBER.finditer(text, start)]
        words = (_read_word(text, colon.end()) for colon in _COLON.finditer(text, start))
        for ordinal in (*inner, *(word for word in words if word is not None and word.value == 1)):
            series = self._continue_series(ordinal, number)
            if series is not None:
                series.remaining += remains

    def _continue_series(self, ordinal: _Ordinal, lead: int) -> _Series | None:
        """The series that an ordinal behind segment `lead` begins or continues; None if it does neither."""
        series = self._series.get(ordinal.family)
        if ordinal.value == 1:
            series = self._series[ordinal.family] = _Series(lead, 1)
            self._all.append(series)
            return series
        if series is None or ordinal.value != series.last + 1:
            return None
        series.last = ordinal.value
        return series


def find_numbered_sentences(pieces: Sequence[Segment]) -> Iterator[tuple[int, range]]:
    """Yield each number that is a segment of its own within a line ("1. Eat. 2. Sleep."), with its sentences."""
    for number in range(1, len(pieces)):
        if is_inline_number(pieces, number):
            later = range(number + 1, len(pieces))
            rest = takewhile(lambda i: _goes_on(pieces, i) and not is_inline_number(pieces, i), later)
            yield number, range(number + 1, max(rest, default=number) + 1)


def is_inline_number(pieces: Sequence[Segment], number: int) -> bool:
    """Whether a segment within a line is a number or letter before its sentence, and nothing more."""
    return _goes_on(pieces, number) and _LONE_NUMBER.fullmatch(pieces[number].text) is not None


def begins_with_number(pieces: Sequence[Segment], number: int) -> bool:
    """Whether a segment within a line begins with a number or letter before its sentence."""
    return _goes_on(pieces, number) and _NUMBER.match(pieces[number].text) is not None


def names_ordinal(text: str) -> bool:
    """Whether a text begins with an ordinal such as "Second:"."""
    return _ORDINAL.match(text) is not None


def _goes_on(pieces: Sequence[Segment], number: int) -> bool:
    """Whether a segment stands in the line of the segment before it."""
    return number > 0 and "\n" not in pieces[number - 1].gap


def _read_ordinal(text: str) -> _Ordinal | None:
    """The ordinal at the beginning of a sentence; None if there is none."""
    word = _read_word(text)
    if word is not None:
        return word
    match = _NUMBER.match(text)
    return None if match is None else _number_of(match)


def _read_word(text: str, start: int = 0) -> _Ordinal | None:
    """The ordinal in words at `start`; None if there is none."""
    match = _ORDINAL.match(text, start)
    if match is None:
        return None
    name = "thing" if match["thing"] else "word"
    group = "word" if match["word"] else "adverb" if match["adverb"] else "thing"
    word = _SAME.get(match[group].lower(), match[group].lower())
    kind, words = next((kind, words) for kind, words in enumerate(_WORDS) if word in words)
    return _Ordinal(("words", str(kind), name), words.index(word) + 1, *match.span(group))


def _number_of(match: re.Match[str]) -> _Ordinal:
    """The ordinal of a number or letter."""
    number = match["number"]
    value = int(number) if number.isdecimal() else _LETTERS.index(number) + 1
    kind = "digit" if number.isdecimal() else "letter"
    return _Ordinal((kind, match["open"], match["close"]), value, *match.span("number"))
