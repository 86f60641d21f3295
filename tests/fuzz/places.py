"""Where can a string stand in an answer? Every string place of the published types of OpenAI and Anthropic.

A place makes JSON of its type with a text in it, and nothing else but what the type requires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

ROOTS: dict[tuple[str, bool], Any] = {
    ("/v1/chat/completions", False): ChatCompletion,
    ("/v1/chat/completions", True): ChatCompletionChunk,
    ("/v1/completions", False): Completion,
    ("/v1/completions", True): Completion,
    ("/v1/responses", False): Response,
    ("/v1/responses", True): ResponseStreamEvent,
    ("/v1/messages", False): BetaMessage,
    ("/v1/messages", True): BetaRawMessageStreamEvent,
}
"""What is sent on each endpoint: a whole answer, or one event of a stream."""
_PLAIN = {str: "x", int: 0, float: 0.0, bool: False}
Make = Callable[[str], Any]


@dataclass(frozen=True)
class Place:
    """A place for a text."""

    path: tuple[str, ...]
    make: Make


@cache
def places(endpoint: str, stream: bool) -> tuple[tuple[Place, ...], ...]:
    """Every place of an answer, or of an event, by the field that it is: many fields are reached by many paths."""
    fields: dict[str, list[Place]] = {}
    for path, make in _places(ROOTS[endpoint, stream], ()):
        name = next(step for step in reversed(path) if "." in step)
        fields.setdefault(name, []).append(Place(path, make))
    return tuple(map(tuple, fields.values()))


def _places(kind: Any, inside: tuple[Any, ...]) -> Iterator[tuple[tuple[str, ...], Make]]:
    origin = get_origin(kind)
    if kind in (str, object, Any):
        yield (), str
    elif origin in (Annotated, Union, UnionType):
        for member in get_args(kind)[: 1 if origin is Annotated else None]:
            yield from _places(member, inside)
    elif origin in (list, dict):
        yield from _of_many(origin, get_args(kind)[-1], inside)
    elif isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in inside:
        yield from _of_model(kind, (*inside, kind))


def _of_many(origin: Any, entry: Any, inside: tuple[Any, ...]) -> Iterator[tuple[tuple[str, ...], Make]]:
    """Places in a list, or in an object with names of any kind, which are places themselves."""
    if origin is dict:
        yield ("{}",), lambda text: {text: "x"}
    for path, make in _places(entry, inside):
        yield ("[]", *path), lambda text, make=make: [make(text)] if origin is list else {"a": make(text)}


def _of_model(kind: type[BaseModel], inside: tuple[Any, ...]) -> Iterator[tuple[tuple[str, ...], Make]]:
    for name, field in kind.model_fields.items():
        key = field.alias or name
        for path, make in _places(field.annotation, inside):
            yield (
                (f"{kind.__name__}.{key}", *path),
                lambda text, key=key, make=make: {**least(kind), key: make(text)},
            )


def least(kind: Any) -> Any:
    """The smallest value of a type."""
    origin = get_origin(kind)
    args = get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin is Literal:
        return args[0]
    if origin is Annotated:
        return least(args[0])
    if origin in (Union, UnionType):
        return None if type(None) in args else least(args[0])
    if origin in (list, dict):
        return origin()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        required = {n: field for n, field in kind.model_fields.items() if field.is_required()}
        return {field.alias or name: least(field.annotation) for name, field in required.items()}
    return None
