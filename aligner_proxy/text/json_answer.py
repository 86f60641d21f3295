"""Texts inside a JSON answer: finding and replacing them, and validating the answer against the request's schema.

Literals are found and replaced in the answer as written, so that order, spacing, numbers and every other string stay
byte for byte. For correction, keys, short strings (names, dates, choices) and words without a space are never touched.

A schema comes from outside, so checking it must be cheap and local: no remote reference is fetched, no regular
expression of a client is run, and the time is limited. A schema that cannot be checked within these limits counts as
not met; the caller then keeps the original.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import UnknownType
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from aligner_proxy.text.disguises import undisguise

LONGEST_SCHEMA = 32_000
"""Longest schema that is checked, in characters."""
MAX_SECONDS = 0.1
"""CPU time, so that load on the machine does not affect the result."""
# Keywords that would run a client's regular expression, or walk the schema without our time limit.
_UNCHECKED = frozenset({"patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef"})
_NO_SCHEMA = (ValueError, TypeError, AttributeError, LookupError)
"""Exceptions of the library on input that is not a valid schema."""
_CHECK: ContextVar[_Check] = ContextVar("json_schema_check")
_Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]
"""Checks one keyword: is given validator, value of the keyword, instance and schema; yields what is wrong."""
MIN_CHARS = 40
"""Fewest characters of a string that is a text; shorter ones may be names, dates or choices."""
_LONGEST_WORD = 32
"""Maximum length of a number or `false` in which a text may have been cut off."""
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')
_KEY = re.compile(r"\s*:")
_PROSE = re.compile(r"\s|[\u3002\uff01\uff1f]")


class _CannotCheck(Exception):
    """The check ran out of time, or the schema uses keywords that must not be run."""


@dataclass(frozen=True, slots=True)
class _Check:
    """One running check: the edited strings, and its deadline in CPU time."""

    edited: frozenset[str]
    """The string values that are not the upstream's."""
    until: float
    """When the check must end, in seconds of CPU time of the thread."""


def meets_schema(answer: str, schema: str, edited: frozenset[str]) -> bool:
    """Whether `answer` meets `schema`; also False if that cannot be checked within the limits.

    `edited` are the answer's string values that are not the upstream's.
    """
    if len(schema) > LONGEST_SCHEMA:
        return False
    token = _CHECK.set(_Check(edited, time.thread_time() + MAX_SECONDS))
    try:
        rules = _drop_dialect(json.loads(schema))
        return bool(_Validator(rules, registry=Registry()).is_valid(json.loads(answer)))
    except (_CannotCheck, Unresolvable, UnknownType, RecursionError, ArithmeticError, *_NO_SCHEMA):
        return False
    finally:
        _CHECK.reset(token)


def _drop_dialect(value: Any) -> Any:
    """The schema without "$schema", which would make the library choose other validators; raises `_CannotCheck`."""
    if isinstance(value, dict):
        if not _UNCHECKED.isdisjoint(value):
            raise _CannotCheck
        return {key: _drop_dialect(inner) for key, inner in value.items() if key != "$schema"}
    return [_drop_dialect(inner) for inner in value] if isinstance(value, list) else value


def _limit_time(keyword: _Keyword) -> _Keyword:
    """The validator of a keyword, which raises `_CannotCheck` when the time is up."""

    def check_in_time(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if time.thread_time() > _CHECK.get().until:
            raise _CannotCheck
        yield from keyword(validator, value, instance, schema) or ()

    return check_in_time


def _check_form(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Validate a keyword about string format: the upstream's own strings pass, edited ones fail."""
    if isinstance(instance, str) and instance in _CHECK.get().edited:
        yield ValidationError("an edited text in a form that is not checked")


def _check_unique(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Validate uniqueItems in linear time, as the library compares every pair."""
    if value and isinstance(instance, list):
        serialized = {json.dumps(item, sort_keys=True) for item in instance}
        if len(serialized) < len(instance):
            yield ValidationError("items are not unique")


_OURS: dict[str, _Keyword] = {
    "pattern": _check_form,
    "format": _check_form,
    "contentEncoding": _check_form,
    "contentMediaType": _check_form,
    "uniqueItems": _check_unique,
}
_RULES = {name: _limit_time(rule) for name, rule in {**Draft202012Validator.VALIDATORS, **_OURS}.items()}
_Validator = extend(Draft202012Validator, _RULES)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class JsonString:
    """One string value: its position, quotation marks included, and its text."""

    start: int
    end: int
    text: str


def text_literals(answer: str) -> list[JsonString]:
    """The string values of a JSON answer that are texts: long enough, with several words, and no keys."""
    literals = []
    for match in _LITERAL.finditer(answer):
        # a quick test first: with its escapes, a literal is longer than its text
        if len(match.group()) < MIN_CHARS or _KEY.match(answer, match.end()):
            continue
        text = json.loads(match.group(), strict=False)
        if len(text) >= MIN_CHARS and _PROSE.search(undisguise(text).text) and _is_encodable(text):
            literals.append(JsonString(*match.span(), text))
    return literals


def string_literals(answer: str) -> list[JsonString]:
    """Every string of a JSON answer with a letter in it, keys included; lone surrogates are replaced."""
    literals = (JsonString(*match.span(), _decode_literal(match.group())) for match in _LITERAL.finditer(answer))
    return [literal for literal in literals if any(map(str.isalpha, literal.text))]


def _decode_literal(literal: str) -> str:
    """The text of a JSON string, with lone surrogates replaced."""
    text = str(json.loads(literal, strict=False))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def begins_json(text: str) -> bool:
    """Whether a text, as far as it goes, is the beginning of a JSON object or array."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except RecursionError:
        return True
    except json.JSONDecodeError as error:
        # If a text was cut off, the error is at its end, or where its last string or word begins.
        return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()) - _LONGEST_WORD
    return True


def _is_encodable(text: str) -> bool:
    """Whether a text can be encoded: JSON can contain lone surrogates, UTF-8 cannot."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def replace_literals(answer: str, new_texts: Mapping[JsonString, str]) -> str:
    """The answer with new texts in place of these literals. If the answer was ASCII, it stays ASCII."""
    pieces = []
    position = 0
    for literal in sorted(new_texts, key=lambda literal: literal.start):
        pieces += [answer[position : literal.start], json.dumps(new_texts[literal], ensure_ascii=answer.isascii())]
        position = literal.end
    return "".join(pieces) + answer[position:]


def has_same_shape(answer: str, edited: str) -> bool:
    """Whether two JSON answers differ only in string values: same keys, types, lengths and order."""
    try:
        return _have_same_shape(_parse_exactly(answer), _parse_exactly(edited))
    except (ValueError, RecursionError):
        return False


def _parse_exactly(text: str) -> object:
    """The parsed JSON, with each number in its original notation."""
    return json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_Number)


class _Number(str):
    """A number in its original notation."""


def _have_same_shape(value: object, other: object) -> bool:
    """Whether two values differ only in their strings; numbers count as written."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict) and isinstance(other, dict):
        # compared as lists, because the order of the keys counts, too
        return list(value) == list(other) and all(_have_same_shape(value[key], other[key]) for key in value)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_have_same_shape, value, other))
    # plain strings may differ; numbers are `_Number`, so they must be equal
    return type(value) is str or value == other
