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
"""Most CPU time of a check; CPU time, so that load on the machine does not affect the result."""
# Keywords that would run a client's regular expression, or walk the schema without our time limit.
_REFUSED_KEYWORDS = frozenset({"patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef"})
_INVALID_SCHEMA_ERRORS = (ValueError, TypeError, AttributeError, LookupError)
"""Exceptions of the library on input that is not a valid schema."""
_CURRENT_CHECK: ContextVar[_Check] = ContextVar("json_schema_check")
_KeywordCheck = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]
"""Checks one keyword of a schema. Called with the validator, the keyword's value, the instance and the schema; yields
what is wrong."""
MIN_CHARS = 40
"""Fewest characters of a string that counts as a text; a shorter string may be a name, a date or a choice."""
_LONGEST_CUT_VALUE = 32
"""Most characters of a number or a word such as `false` within which a text may have been cut off."""
_STRING_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')
_COLON_AFTER_KEY = re.compile(r"\s*:")
_SEVERAL_WORDS = re.compile(r"\s|[\u3002\uff01\uff1f]")


class _CannotCheck(Exception):
    """The check ran out of time, or the schema uses keywords that must not be run."""


@dataclass(frozen=True, slots=True)
class _Check:
    """One running check: the edited strings, and its deadline in CPU time."""

    edited: frozenset[str]
    """The string values that are not the upstream's."""
    end_s: float
    """When the check must end, in seconds of the thread's CPU time."""


def meets_schema(answer: str, schema: str, edited: frozenset[str]) -> bool:
    """Whether `answer` meets `schema`; also False if that cannot be checked within the limits.

    `edited` are the answer's string values that are not the upstream's.
    """
    if len(schema) > LONGEST_SCHEMA:
        return False
    token = _CURRENT_CHECK.set(_Check(edited, time.thread_time() + MAX_SECONDS))
    try:
        # an empty registry, so that no remote reference is fetched
        validator = _Validator(_drop_dialect(json.loads(schema)), registry=Registry())
        return bool(validator.is_valid(json.loads(answer)))
    except (_CannotCheck, Unresolvable, UnknownType, RecursionError, ArithmeticError, *_INVALID_SCHEMA_ERRORS):
        return False
    finally:
        _CURRENT_CHECK.reset(token)


def _drop_dialect(value: Any) -> Any:
    """The schema, or a part of it, without "$schema", which would make the library choose other validators.

    Raises `_CannotCheck` if the schema uses keywords that must not be run.
    """
    if isinstance(value, dict):
        if not _REFUSED_KEYWORDS.isdisjoint(value):
            raise _CannotCheck
        return {key: _drop_dialect(inner) for key, inner in value.items() if key != "$schema"}
    return [_drop_dialect(inner) for inner in value] if isinstance(value, list) else value


def _limit_time(check_keyword: _KeywordCheck) -> _KeywordCheck:
    """Return a check that does the same as `check_keyword`, but raises `_CannotCheck` when the time is up."""

    def check_in_time(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if time.thread_time() > _CURRENT_CHECK.get().end_s:
            raise _CannotCheck
        yield from check_keyword(validator, value, instance, schema) or ()

    return check_in_time


def _check_string_format(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Check a keyword about a string's format: the upstream's own strings pass unchecked, edited ones fail.

    The keyword's regular expression or format comes from a client and is not run, so an edited string cannot pass.
    """
    if isinstance(instance, str) and instance in _CURRENT_CHECK.get().edited:
        yield ValidationError("an edited text in a form that is not checked")


def _check_unique(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Check `uniqueItems` in linear time; the library would compare every pair of items."""
    if value and isinstance(instance, list):
        serialized = {json.dumps(item, sort_keys=True) for item in instance}
        if len(serialized) < len(instance):
            yield ValidationError("items are not unique")


_OWN_KEYWORDS: dict[str, _KeywordCheck] = {
    "pattern": _check_string_format,
    "format": _check_string_format,
    "contentEncoding": _check_string_format,
    "contentMediaType": _check_string_format,
    "uniqueItems": _check_unique,
}
_TIMED_KEYWORDS = {
    name: _limit_time(rule) for name, rule in {**Draft202012Validator.VALIDATORS, **_OWN_KEYWORDS}.items()
}
_Validator = extend(Draft202012Validator, _TIMED_KEYWORDS)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class JsonString:
    """One string value: its position, quotation marks included, and its text."""

    start: int
    end: int
    text: str


def text_literals(answer: str) -> list[JsonString]:
    """The string values of a JSON answer that count as texts: at least `MIN_CHARS` long, several words, no keys."""
    literals = []
    for match in _STRING_LITERAL.finditer(answer):
        # a quick test first: with its escapes, a literal is longer than its text
        if len(match.group()) < MIN_CHARS or _COLON_AFTER_KEY.match(answer, match.end()):
            continue
        text = json.loads(match.group(), strict=False)
        # JSON can contain lone surrogates, UTF-8 cannot
        is_encodable = not any("\ud800" <= char <= "\udfff" for char in text)
        if len(text) >= MIN_CHARS and _SEVERAL_WORDS.search(undisguise(text).text) and is_encodable:
            literals.append(JsonString(*match.span(), text))
    return literals


def string_literals(answer: str) -> list[JsonString]:
    """Every string of a JSON answer with a letter in it, keys included; lone surrogates are replaced."""
    literals = (JsonString(*match.span(), _decode_literal(match.group())) for match in _STRING_LITERAL.finditer(answer))
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
        return True  # no prose has so many brackets
    except json.JSONDecodeError as error:
        # If the text was cut off, the error is in an unterminated string, or near the end of the text.
        return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()) - _LONGEST_CUT_VALUE
    return True


def replace_literals(answer: str, new_texts: Mapping[JsonString, str]) -> str:
    """The answer with the literals replaced by their `new_texts`. If the answer was ASCII, it stays ASCII."""
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
    """Whether two parsed values differ only in their strings; numbers must be equal as written."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict) and isinstance(other, dict):
        # compared as lists, because the order of the keys counts, too
        return list(value) == list(other) and all(_have_same_shape(value[key], other[key]) for key in value)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_have_same_shape, value, other))
    # plain strings may differ; numbers are of the type `_Number`, so they must be equal
    return type(value) is str or value == other
