"""Markers of list items: bullets, numbers, letters, Roman numerals, "Step 3:", "## 3.", "3.1", circled digits, keycaps.

A marker is at the beginning of a line, after white space, quotation signs or heading signs. Its kind is the numbering
system. Only the list shows whether "i." is the ninth letter or a Roman numeral, so a marker keeps all its readings,
each with a kind and a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

WORDS = (
    r"steps?|items?|points?|tips?|tasks?|reasons?|options?|questions?|rules?|methods?|instructions?|stages?|phases?|"
    r"ideas?|schritte?n?|punkte?n?|tipps?|fragen?|regeln?|grund|\u00e9tapes?|etapes?|conseils?|pasos?|puntos?|consejos?|"
    r"passos?|pontos?|passi|punti|stap(?:pen)?|krok(?:i|u|ach|ami|\u00f3w)?|pass(?:aggio|aggi)|etap(?:y|u|ie|ach)?|"
    r"punkt(?:u|y|cie|ach)|(?:\u0448\u0430\u0433|\u043f\u0443\u043d\u043a\u0442)(?:\u0430|\u0443|\u043e\u043c|\u0435|\u0438|\u044b|\u043e\u0432|\u0430\u043c|\u0430\u0445)?"
)
"""Words that come before the number of an item, and before a reference to it."""
# One character class, because two that both match a space would try forty quotation signs in a million ways.
_INDENTATION = r"(?P<indentation>[ \t>]*+(?P<heading>#{1,6}[ \t]+)?)"
_CIRCLED = "\u2460-\u2473"
_NUMBERED_MARK = re.compile(
    rf"{_INDENTATION}(?P<bullet>[-*+\u2022][ \t]+)?(?P<emphasis>\*{{1,3}}|_{{1,2}})?"
    rf"(?P<word>(?:{WORDS})[ \t]+(?:no\.?[ \t]*)?)?(?P<open>[(#])?"
    rf"(?P<number>\d{{1,3}}(?:\.\d{{1,2}}){{0,3}}|[ivxlIVXL]{{1,6}}|[a-zA-Z]|[{_CIRCLED}])"
    r"(?P<close>\ufe0f?\u20e3|\.\)|[.):\u3001\uff0e\uff1a](?!\d)|[ \t][-\u2013\u2014](?=[ \t])|[ \u00a0\u202f]:|)"
    r"(?P<end_emphasis>\*{1,3}|_{1,2})?(?=[ \t\n]|$|(?<=[\u3001\uff0e\uff1a\u20e3]))[ \t]*",
    re.IGNORECASE,
)
_BULLET_MARK = re.compile(rf"{_INDENTATION}(?P<number>[-*+\u2022\u25e6\u25aa\u2013])(?=[ \t]+\S|[ \t]*$)[ \t]*")
_NUMBERED_ROW = re.compile(r"(?P<indentation>[ \t]*)\|[ \t]*(?P<number>\d{1,3})[ \t]*(?=\|)")
PICTURE_BULLET = "[\u2611\u2705\u2713\u2714\u2716-\u2718\u274c\u274e\u27a1\U0001f449\U0001f538\U0001f539]\ufe0f?"
"""Matches a picture that often begins the lines of a list."""
QUESTION_NAMES = ("Q", "Question", "Frage", "F", "Pregunta", "Domanda")
QUESTION = rf"(?:{'|'.join(QUESTION_NAMES)})[ \t]?\d{{0,2}}[*_]{{0,3}}[:.)]"
"""Matches the label of a question before its words, which the answer in the next lines follows."""
LINE_FORMS = (
    re.compile(f"^(?:{_NUMBERED_MARK.pattern})", re.IGNORECASE | re.MULTILINE),
    re.compile(f"^(?:{_BULLET_MARK.pattern})", re.MULTILINE),
    re.compile(
        r"^[ \t>]*(?:\||:?-+:?[ \t]*\||#{1,6}[ \t]|\*\*|__|<[!a-zA-Z]|[*-]{3}|(?:P\. ?)+S|N\. ?B)"
        rf"|^[ \t]*(?:>|=+[ \t\r]*$|={{2,6}}[ \t]*\S)|:\W*$"
        rf"|^(?:[ \t]+\S|:[ \t]|\\[a-z]|{QUESTION}|\[|{PICTURE_BULLET}|\d{{1,2}}:\d\d)"
        r"|^[ \t]*(?::::|!!!|\?\?\?|\u00a7"
        r"|[^\W\d_]{3,9}[ \t](?:\d{1,3}|[IVX]{1,5}|[A-Z])(?:[ \t]*[:.\u2013\u2014-]|$))",
        re.MULTILINE,
    ),
    re.compile(
        r"[\s:]\(?[2b][.)]\s|\b(?:second(?:ly)?|zweitens|deuxi\u00e8me(?:ment)?|segundo|secondo|tweede|drugie"
        r"|\u0432\u0442\u043e\u0440\u044b\u0445)\b|(?:\u7b2c|\u6b65\u9aa4|\u6b65\u9a5f|\u624b\u9806|\u30b9\u30c6\u30c3\u30d7)[2\u4e8c]|\u5176\u6b21|[\u4e8c2]\u3064\u76ee|\u4e8c\u662f",
        re.IGNORECASE,
    ),
)
"""At least one of these matches in a text with items, headings, titles, tables, frames (frames.py), ordinals or
indentation."""
_PLAIN_CLOSE = (".", ")", ".)", "\u3001", "\uff0e", " -", " \u2013", " \u2014", "\t-")
"""Signs behind a bare number or letter that make it a marker."""
_ROMAN_VALUES = ((50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))
_CODE_POINT_BEFORE_FIRST = {"digit": 0, "letter": ord("a") - 1, "capital": ord("A") - 1, "circled": 0x245F}
"""For each kind, the code point before that of its first number, so that number n has the code point n higher."""
_HIGHEST_CIRCLED = 20
_LETTER_COUNT = 26
_TAB_COLUMNS = 4
"""Columns of a tab."""
_MAX_CACHED_CHARS = 200
"""Longest line that is cached, in characters."""


class MarkKind(StrEnum):
    """The numbering system of a marker."""

    BULLET = "bullet"
    DIGIT = "digit"
    LETTER = "letter"
    CAPITAL = "capital"
    ROMAN = "roman"
    CAPITAL_ROMAN = "capital_roman"
    CIRCLED = "circled"


class Family(NamedTuple):
    """What the markers of one list have in common, besides the kind."""

    level: int
    """Level of the headings that the markers are in; 0 in lines of text."""
    depth: int
    """Indentation in steps of two columns: eight and nine columns are the same depth."""
    style: tuple[str, str]
    """(signs before the number, signs after it), without white space and in lower case."""
    parents: tuple[int, ...]
    """The parts of a compound number before the last: (2,) of "2.1"."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A marker at the beginning of a line. All offsets count from the beginning of the line."""

    start: int
    """Where the number begins."""
    end: int
    """Where the number ends."""
    stop: int
    """Where the marker ends and the content of the line begins."""
    number: str
    """The number as written; the sign of a bullet."""
    readings: tuple[tuple[MarkKind, int], ...]
    """(kind, value) for each possible meaning of the number; of a compound number ("2.1") of its last part."""
    parents: tuple[int, ...]
    """The parts of a compound number before the last: (2,) of "2.1"."""
    indent: int
    """Columns of white space before the marker; a quotation sign counts as one."""
    level: int
    """Level of the heading that the marker is in; 0 in a line of text."""
    style: tuple[str, str]
    """(signs before the number, signs after it), without white space and in lower case."""
    emphasis: str
    """Emphasis signs that the marker opens and does not close, as in "**1. Eat**"; empty if there are none."""

    @property
    def is_bullet(self) -> bool:
        """Whether the marker is a bullet rather than a number."""
        return self.readings[0][0] is MarkKind.BULLET

    @property
    def has_word(self) -> bool:
        """Whether a word precedes the number, as in "Step 3:"."""
        return any(char.isalpha() for char in self.style[0])

    @property
    def family(self) -> Family:
        """What the marker has in common with the other markers of its list, besides the kind."""
        return Family(self.level, self.indent // 2, self.style, self.parents)


def read(line: str) -> Mark | None:
    """The marker at the beginning of a line; None if there is none."""
    return _read_cached(line) if len(line) <= _MAX_CACHED_CHARS else _read(line)


def _read(line: str) -> Mark | None:
    """Do the work of `read`, not cached; of "- 1." the number counts, not the bullet."""
    match = _NUMBERED_MARK.match(line)
    numbered_mark = None if match is None else _numbered_mark(match)
    if numbered_mark is not None:
        return numbered_mark
    match = _BULLET_MARK.match(line)
    if match is None:
        return None
    return _build_mark(match, readings=((MarkKind.BULLET, 0),), style=(match["number"], ""))


_read_cached = lru_cache(maxsize=8192)(_read)
"""Cached, because the gate reads each line several times: before and after an edit, and for list numbers."""


def row_number(line: str) -> Mark | None:
    """The number in the first cell of a table row, as a marker; None if there is none."""
    match = _NUMBERED_ROW.match(line)
    if match is None:
        return None
    return _build_mark(match, readings=((MarkKind.DIGIT, int(match["number"])),), style=("|", "|"))


def _numbered_mark(match: re.Match[str]) -> Mark | None:
    """The marker that a match of `_NUMBERED_MARK` is; None if it is no marker after all."""
    if not _is_marker(match):
        return None
    number = match["number"]
    # only numbers are compound, never letters
    *parents, last_part = number.split(".") if number[0].isdecimal() else [number]
    readings = _possible_readings(last_part)
    if not readings:
        return None
    signs_before = "".join((match[group] or "").strip().lower() for group in ("bullet", "word", "open", "emphasis"))
    opens_emphasis = match["emphasis"] and not match["end_emphasis"]
    return _build_mark(
        match,
        readings=readings,
        parents=tuple(map(int, parents)),
        style=(signs_before, match["close"].strip()),
        emphasis=match["emphasis"] if opens_emphasis else "",
    )


def _is_marker(match: re.Match[str]) -> bool:
    """Whether a match of `_NUMBERED_MARK` is a marker: a bare number or letter needs a sign behind it."""
    number = match["number"]
    close = match["close"]
    # a heading or emphasis sets the number off from the text
    is_set_off = bool(match["heading"] or match["emphasis"])
    # a circled number or a keycap is always a marker, so it needs no sign behind it
    if "\u2460" <= number <= "\u2473" or close.endswith("\u20e3"):
        return True
    if match["word"]:
        return bool(close) or is_set_off
    if number[0].isdecimal() and "." in number and not close:
        # "3.1" may also be an amount; it is a marker before a capital letter or emphasis
        following = match.string[match.end() : match.end() + 1]
        return is_set_off or following.isupper() or following in ("*", "_")
    if match["open"] == "#" or is_set_off:
        return bool(close or match["open"])
    if match["open"] == "(":
        return close == ")"
    # a letter before a dash ("a - b") is text, a number is a marker
    return close in _PLAIN_CLOSE and (number[0].isdecimal() or close[0] != " ")


def _possible_readings(number: str) -> tuple[tuple[MarkKind, int], ...]:
    """(kind, value) for each meaning that a number, letter or Roman numeral may have.

    Empty for several letters that are no Roman numeral.
    """
    if number.isdecimal():
        return ((MarkKind.DIGIT, int(number)),)
    if "\u2460" <= number <= "\u2473":
        return ((MarkKind.CIRCLED, ord(number) - _CODE_POINT_BEFORE_FIRST["circled"]),)
    readings = []
    if number.islower() or number.isupper():
        roman_value = _roman_value(number.lower())
        if roman_value:
            readings.append((MarkKind.ROMAN if number.islower() else MarkKind.CAPITAL_ROMAN, roman_value))
    if len(number) == 1:
        kind = MarkKind.LETTER if number.islower() else MarkKind.CAPITAL
        readings.append((kind, ord(number) - _CODE_POINT_BEFORE_FIRST[kind.value]))
    return tuple(readings)


def _build_mark(
    match: re.Match[str],
    *,
    readings: tuple[tuple[MarkKind, int], ...],
    style: tuple[str, str],
    parents: tuple[int, ...] = (),
    emphasis: str = "",
) -> Mark:
    """Make a marker of a match and of what was read of its number and the signs around the number."""
    # white space and quotation signs, then the signs of a heading
    indentation = match["indentation"]
    start, end = match.span("number")
    return Mark(
        start=start,
        end=end,
        stop=match.end(),
        number=match["number"],
        readings=readings,
        parents=parents,
        indent=indent_of(indentation.partition("#")[0]),
        level=indentation.count("#"),
        style=style,
        emphasis=emphasis,
    )


def indent_of(indentation: str) -> int:
    """Number of columns of the white space at the beginning of a line; a quotation sign counts as one."""
    return len(indentation.replace("\t", " " * _TAB_COLUMNS))


def _roman_value(number: str) -> int:
    """The value of a Roman numeral in lower case; 0 if `number` is no Roman numeral."""
    value = 0
    unread = number
    for sign_value, sign in _ROMAN_VALUES:
        while unread.startswith(sign):
            value += sign_value
            unread = unread[len(sign) :]
    # the value is written again, so that only the usual notation counts: not "iiii"
    return value if not unread and to_roman(value) == number else 0


def to_roman(value: int) -> str:
    """A Roman numeral in lower case."""
    text = ""
    for sign_value, sign in _ROMAN_VALUES:
        text += sign * (value // sign_value)
        value %= sign_value
    return text


def value_of(kind: MarkKind, number: str) -> int:
    """The value of a number, letter or Roman numeral, read as the list's `kind` shows; 0 if it is no Roman numeral."""
    if kind in (MarkKind.ROMAN, MarkKind.CAPITAL_ROMAN):
        return _roman_value(number.lower())
    return int(number) if number.isdecimal() else ord(number.lower()) - _CODE_POINT_BEFORE_FIRST["letter"]


def format_number(kind: MarkKind, value: int, like: str) -> str:
    """The number with this value in the notation of a list of this kind.

    `like` is another number of the list. It shows the script of digits, and is returned if the notation has no such
    value, such as a 27th letter.
    """
    if kind in (MarkKind.ROMAN, MarkKind.CAPITAL_ROMAN):
        return to_roman(value).upper() if kind is MarkKind.CAPITAL_ROMAN else to_roman(value)
    if kind in (MarkKind.LETTER, MarkKind.CAPITAL):
        return chr(_CODE_POINT_BEFORE_FIRST[kind.value] + value) if 1 <= value <= _LETTER_COUNT else like
    if kind is MarkKind.CIRCLED:
        return chr(_CODE_POINT_BEFORE_FIRST["circled"] + value) if 1 <= value <= _HIGHEST_CIRCLED else like
    # code point of the digit zero in the script of `like`
    zero = ord(like[0]) - int(like[0])
    return "".join(chr(zero + int(digit)) for digit in str(value))
