"""Does an edited JSON answer still meet the schema that its request asked for, whatever schema a client sends?

A schema comes from outside, so nothing in it may cost much or reach out: no remote reference is fetched, no regular
expression of a client is run, and the time is bounded. What cannot be checked within these bounds counts as not met;
the caller then keeps the original.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import UnknownType
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

LONGEST_SCHEMA = 32_000
MAX_SECONDS = 0.1
"""Of computing time, so that a busy machine does not decide."""
# What would run a client's regular expression, or walk the schema past our clock.
_UNCHECKED = frozenset({"patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef"})
_NO_SCHEMA = (ValueError, TypeError, AttributeError, LookupError)
"""What the library raises over something that only looks like a schema."""


class _CannotCheck(Exception):
    """The check has taken all of its time, or would go where it must not."""


@dataclass(frozen=True, slots=True)
class _Check:
    """The strings that were edited, and when time is up."""

    edited: frozenset[str]
    until: float


_CHECK: ContextVar[_Check] = ContextVar("json_schema_check")


def meets(answer: str, schema: str, edited: frozenset[str]) -> bool:
    """Whether `answer` meets `schema`; `edited` are the string values in it that are not the upstream's."""
    if len(schema) > LONGEST_SCHEMA:
        return False
    token = _CHECK.set(_Check(edited, time.thread_time() + MAX_SECONDS))
    try:
        rules = _in_one_dialect(json.loads(schema))
        return bool(_Validator(rules, registry=Registry()).is_valid(json.loads(answer)))
    except (_CannotCheck, Unresolvable, UnknownType, RecursionError, ArithmeticError, *_NO_SCHEMA):
        return False
    finally:
        _CHECK.reset(token)


def _in_one_dialect(value: Any) -> Any:
    """The schema without "$schema", by which the library would go over to validators that are not ours."""
    if isinstance(value, dict):
        if not _UNCHECKED.isdisjoint(value):
            raise _CannotCheck
        return {key: _in_one_dialect(inner) for key, inner in value.items() if key != "$schema"}
    return [_in_one_dialect(inner) for inner in value] if isinstance(value, list) else value


_Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def _timed(keyword: _Keyword) -> _Keyword:
    def checked(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if time.thread_time() > _CHECK.get().until:
            raise _CannotCheck
        yield from keyword(validator, value, instance, schema) or ()

    return checked


def _not_edited(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Stands for what a string must look like: the upstream's own are taken to be right, edited ones are not."""
    if isinstance(instance, str) and instance in _CHECK.get().edited:
        yield ValidationError("an edited text in a form that is not checked")


def _unique(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """The library compares every item with every other one."""
    if value and isinstance(instance, list):
        written = {json.dumps(item, sort_keys=True) for item in instance}
        if len(written) < len(instance):
            yield ValidationError("items are not unique")


_OURS: dict[str, _Keyword] = {
    "pattern": _not_edited,
    "format": _not_edited,
    "contentEncoding": _not_edited,
    "contentMediaType": _not_edited,
    "uniqueItems": _unique,
}
_RULES = {name: _timed(rule) for name, rule in {**Draft202012Validator.VALIDATORS, **_OURS}.items()}
_Validator = extend(Draft202012Validator, _RULES)  # type: ignore[no-untyped-call]
