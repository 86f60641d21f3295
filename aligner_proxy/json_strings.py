"""Which texts stand inside a JSON answer, and how are others put in their places?

Literals are found and replaced in the answer as it is written, so that order, spacing, numbers and every other string
stay byte for byte. Keys are never touched, nor are short strings (names, dates, choices) and words without a space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

FEWEST_CHARS = 40
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')
_KEY = re.compile(r"\s*:")
_PROSE = re.compile(r"\s|[\u3002\uff01\uff1f]")


@dataclass(frozen=True, slots=True)
class Literal:
    """One string value: where it is written, quotation marks included, and what it says."""

    start: int
    end: int
    text: str


def is_json(answer: str) -> bool:
    """Whether a whole answer is a JSON object or array; one that is nested too deep to be read counts as such."""
    if not answer.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(answer, parse_int=str, parse_float=str)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def texts(answer: str) -> list[Literal]:
    """The values of a JSON answer that are texts."""
    found = []
    for match in _LITERAL.finditer(answer):
        if len(match.group()) < FEWEST_CHARS or _KEY.match(answer, match.end()):
            continue
        text = json.loads(match.group(), strict=False)
        if len(text) >= FEWEST_CHARS and _PROSE.search(text) and _whole(text):
            found.append(Literal(*match.span(), text))
    return found


def _whole(text: str) -> bool:
    """Half a surrogate pair can be written in JSON, but not be sent to anybody."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def put_back(answer: str, new: Mapping[Literal, str]) -> str:
    """The answer with these texts in it. An answer that was ASCII stays so."""
    pieces, at = [], 0
    for literal in sorted(new, key=lambda one: one.start):
        pieces += [answer[at : literal.start], json.dumps(new[literal], ensure_ascii=answer.isascii())]
        at = literal.end
    return "".join(pieces) + answer[at:]


def same_shape(answer: str, edited: str) -> bool:
    """Whether two JSON answers differ in string values alone: same keys, types, lengths and order."""
    try:
        one, other = (_read(text) for text in (answer, edited))
        return _same(one, other)
    except (ValueError, RecursionError):
        return False


def _read(text: str) -> object:
    return json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_Number)


class _Number(str):
    """A number as it is written."""


def _same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is str or one == other
