"""Markers of list items: bullets, numbers, letters, Roman numerals, "Step 3:", "## 3.", "3.1", circled digits, keycaps.

A marker is at the beginning of a line, after white space, quotation signs or heading signs. Only the list shows whether
"i." is the ninth letter or a Roman numeral, so a marker keeps all its readings.
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
    r"passos?|pontos?|passi|punti|stap(?:pen)?|krok(?:i|u|ach)?"
)
"""Words that come before the number of an item, and before a reference to it."""
# One character class, because two that both match a space would try forty quotation signs in a million ways.
_LEAD = r"(?P<lead>[ \t>]*+(?P<heading>#{1,6}[ \t]+)?)"
_CIRCLED = "\u2460-\u2473"
_NUMBERED = re.compile(
    rf"{_LEAD}(?P<bullet>[-*+\u2022][ \t]+)?(?P<emphasis>\*{{1,3}}|_{{1,2}})?"
    rf"(?P<word>(?:{WORDS})[ \t]+(?:no\.?[ \t]*)?)?(?P<open>[(#])?"
    rf"(?P<number>\d{{1,3}}(?:\.\d{{1,2}}){{0,3}}|[ivxlIVXL]{{1,6}}|[a-zA-Z]|[{_CIRCLED}])"
    r"(?P<close>\ufe0f?\u20e3|\.\)|[.):\u3001\uff0e\uff1a](?!\d)|[ \t][-\u2013\u2014](?=[ \t])|[ \u00a0\u202f]:|)"
    r"(?P<shut>\*{1,3}|_{1,2})?(?=[ \t\n]|$|(?<=[\u3001\uff0e\uff1a\u20e3]))[ \t]*",
    re.IGNORECASE,
)
_BULLET = re.compile(rf"{_LEAD}(?P<number>[-*+\u2022\u25e6\u25aa\u2013])(?=[ \t]+\S|[ \t]*$)[ \t]*")
_ROW = re.compile(r"(?P<lead>[ \t]*)\|[ \t]*(?P<number>\d{1,3})[ \t]*(?=\|)")
PICTURE_BULLET = "[\u2611\u2705\u2713\u2714\u2716-\u2718\u274c\u274e\u27a1\U0001f449\U0001f538\U0001f539]\ufe0f?"
"""Matches a picture that often begins the lines of a list."""
QUESTION_NAMES = ("Q", "Question", "Frage", "F", "Pregunta", "Domanda")
QUESTION = rf"(?:{'|'.join(QUESTION_NAMES)})[ \t]?\d{{0,2}}[*_]{{0,3}}[:.)]"
"""Matches the label of a question before its words, which the answer in the next lines follows."""
LINE_FORMS = (
    re.compile(f"^(?:{_NUMBERED.pattern})", re.IGNORECASE | re.MULTILINE),
    re.compile(f"^(?:{_BULLET.pattern})", re.MULTILINE),
    re.compile(
        r"^[ \t>]*(?:\||:?-+:?[ \t]*\||#{1,6}[ \t]|\*\*|__|<[!a-zA-Z]|[*-]{3}|(?:P\. ?)+S|N\. ?B)"
        rf"|^[ \t]*(?:>|=+[ \t\r]*$|={{2,6}}[ \t]*\S)|:\W*$"
        rf"|^(?:[ \t]+\S|:[ \t]|\\[a-z]|{QUESTION}|\[|{PICTURE_BULLET}|\d{{1,2}}:\d\d)"
        r"|^[ \t]*(?::::|!!!|\?\?\?|\u00a7"
        r"|[^\W\d_]{3,9}[ \t](?:\d{1,3}|[IVX]{1,5}|[A-Z])(?:[ \t]*[:.\u2013\u2014-]|$))",
        re.MULTILINE,
    ),
    re.compile(r"[\s:]\(?[2b][.)]\s|\b(?:second(?:ly)?|zweitens|deuxi\u00e8me(?:ment)?|segundo)\b", re.IGNORECASE),
)
"""At least one of these matches in a text with items, headings, titles, tables, frames (frames.py), ordinals or
indentation."""
_PLAIN_CLOSE = (".", ")", ".)", "\u3001", "\uff0e", " -", " \u2013", " \u2014", "\t-")
"""Signs that make a marker of a bare number or letter before them."""
_ROMAN = ((50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))
_A_BEFORE = {"digit": 0, "letter": ord("a") - 1, "capital": ord("A") - 1, "circled": 0x245F}
"""The code point before the first number of each kind."""
_HIGHEST_CIRCLED = 20
_LETTERS = 26
_TAB = 4
"""Columns of a tab."""
_KNOWN_CHARS = 200
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
    """Level of the headings they are in; 0 in lines of text."""
    depth: int
    """Indentation in steps of two columns: eight and nine columns are the same depth."""
    style: tuple[str, str]
    """The signs before and after the number."""
    parents: tuple[int, ...]
    """The parts of a compound number before the last: (2,) of "2.1"."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A marker at the beginning of a line; `start` and `end` bound its number, `stop` is where the content begins."""

    start: int
    end: int
    stop: int
    number: str
    readings: tuple[tuple[MarkKind, int], ...]
    """Possible values of the number; for a compound one ("2.1"), of its last part."""
    parents: tuple[int, ...]
    """The parts of a compound number before the last."""
    indent: int
    """Columns of white space before it; a quotation sign counts as one."""
    level: int
    """Level of the heading it is in; 0 in a line of text."""
    style: tuple[str, str]
    """The signs before and after the number, ignoring white space and case."""
    emphasis: str
    """Emphasis that begins in the marker and does not end there."""

    @property
    def is_bullet(self) -> bool:
        return self.readings[0][0] is MarkKind.BULLET

    @property
    def has_word(self) -> bool:
        """Whether a word precedes the number, as in "Step 3:"."""
        return any(char.isalpha() for char in self.style[0])

    @property
    def family(self) -> Family:
        """What it has in common with the other markers of its list."""
        return Family(self.level, self.indent // 2, self.style, self.parents)


def read(line: str) -> Mark | None:
    """The marker at the beginning of a line; None if there is none."""
    return _read_known(line) if len(line) <= _KNOWN_CHARS else _read(line)


def _read(line: str) -> Mark | None:
    """`read`, not cached; of "- 1." the number counts, not the bullet."""
    match = _NUMBERED.match(line)
    if match is not None and (mark := _numbered_mark(match)) is not None:
        return mark
    match = _BULLET.match(line)
    if match is None:
        return None
    readings = ((MarkKind.BULLET, 0),)
    return _build_mark(match, readings, (), (match["number"], ""), "")


_read_known = lru_cache(maxsize=8192)(_read)
"""Cached, because the gate reads each line several times: before and after an edit, and for list numbers."""


def row_number(line: str) -> Mark | None:
    """The number in the first cell of a row; None if there is none."""
    match = _ROW.match(line)
    return match and _build_mark(match, ((MarkKind.DIGIT, int(match["number"])),), (), ("|", "|"), "")


def _numbered_mark(match: re.Match[str]) -> Mark | None:
    """The marker of a match; None if it is no marker after all."""
    if not _is_marker(match):
        return None
    number = match["number"]
    # only numbers are compound, never letters
    parts = number.split(".") if number[0].isdecimal() else [number]
    parents = tuple(int(part) for part in parts[:-1])
    before = "".join((match[name] or "").strip().lower() for name in ("bullet", "word", "open", "emphasis"))
    # emphasis that the marker closes itself is part of its style alone
    emphasis = "" if match["shut"] else match["emphasis"] or ""
    readings = _possible_values(parts[-1])
    return _build_mark(match, readings, parents, (before, match["close"].strip()), emphasis) if readings else None


def _is_marker(match: re.Match[str]) -> bool:
    """Whether a match of `_NUMBERED` is a marker: a bare number or letter needs a sign after it."""
    number = match["number"]
    close = match["close"]
    is_set_off = bool(match["heading"] or match["emphasis"])
    # a circled number or a keycap is nothing else, and so needs no sign after it
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


def _possible_values(number: str) -> tuple[tuple[MarkKind, int], ...]:
    """All values that the number may have; none for letters that are neither one letter nor a Roman numeral."""
    if number.isdecimal():
        return ((MarkKind.DIGIT, int(number)),)
    if "\u2460" <= number <= "\u2473":
        return ((MarkKind.CIRCLED, ord(number) - _A_BEFORE["circled"]),)
    values = []
    if number.islower() or number.isupper():
        value = _roman_value(number.lower())
        if value:
            values.append((MarkKind.ROMAN if number.islower() else MarkKind.CAPITAL_ROMAN, value))
    if len(number) == 1:
        kind = MarkKind.LETTER if number.islower() else MarkKind.CAPITAL
        values.append((kind, ord(number) - _A_BEFORE[kind.value]))
    return tuple(values)


def _build_mark(
    match: re.Match[str],
    readings: tuple[tuple[MarkKind, int], ...],
    parents: tuple[int, ...],
    style: tuple[str, str],
    emphasis: str,
) -> Mark:
    """The marker of a match, with what was read of its number and the signs around it."""
    lead = match["lead"]
    start, end = match.span("number")
    return Mark(
        start=start,
        end=end,
        stop=match.end(),
        number=match["number"],
        readings=readings,
        parents=parents,
        indent=indent_of(lead.partition("#")[0]),
        level=lead.count("#"),
        style=style,
        emphasis=emphasis,
    )


def indent_of(lead: str) -> int:
    """Number of columns of white space at the beginning of a line; a quotation sign counts as one."""
    return len(lead.replace("\t", " " * _TAB))


def _roman_value(number: str) -> int:
    """The value of a Roman numeral; 0 if it is not one."""
    value = 0
    unread = number
    for worth, sign in _ROMAN:
        while unread.startswith(sign):
            value += worth
            unread = unread[len(sign) :]
    # written back, so that only the usual notation counts: not "iiii"
    return value if not unread and to_roman(value) == number else 0


def to_roman(value: int) -> str:
    """A Roman numeral in small letters."""
    text = ""
    for worth, sign in _ROMAN:
        text += sign * (value // worth)
        value %= worth
    return text


def value_of(kind: MarkKind, number: str) -> int:
    """The value of a number, letter or Roman numeral in the notation of a list; 0 if it is none in that notation."""
    if kind in (MarkKind.ROMAN, MarkKind.CAPITAL_ROMAN):
        return _roman_value(number.lower())
    return int(number) if number.isdecimal() else ord(number.lower()) - _A_BEFORE["letter"]


def format_number(kind: MarkKind, value: int, like: str) -> str:
    """A number in the notation of a list.

    `like` is one of its numbers: it shows the script of digits, and is returned if the value is out of range.
    """
    if kind in (MarkKind.ROMAN, MarkKind.CAPITAL_ROMAN):
        return to_roman(value).upper() if kind is MarkKind.CAPITAL_ROMAN else to_roman(value)
    if kind in (MarkKind.LETTER, MarkKind.CAPITAL):
        return chr(_A_BEFORE[kind.value] + value) if 1 <= value <= _LETTERS else like
    if kind is MarkKind.CIRCLED:
        return chr(_A_BEFORE["circled"] + value) if 1 <= value <= _HIGHEST_CIRCLED else like
    # the digit zero in the script of `like`
    zero = ord(like[0]) - int(like[0])
    return "".join(chr(zero + int(digit)) for digit in str(value))
