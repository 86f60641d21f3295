"""What a person can read in the bytes of a response: every string, and the pieces of a stream put together by place."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

_FRAME = re.compile(r"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(r"\r\n|\n|\r")
_FIELD = re.compile(r"\s*(?:data|event|id|retry)?\s*:", re.IGNORECASE)
_MARKS = ("index", "output_index", "content_index", "summary_index", "item_id")
"""What tells the texts of a response apart, where it says so."""
Place = tuple[object, ...]


def reads(raw: bytes, insults: Callable[[str], bool]) -> bool:
    """Whether a reader of a response comes upon the insult."""
    return any(insults(text) for text in readable(raw))


def readable(raw: bytes) -> Iterator[str]:
    """Every text of a response, and the texts that its pieces make up."""
    text = raw.decode(errors="replace")
    yield text
    yield unescaped(text)
    joined: dict[Place, list[str]] = {}
    for event in _events(text):
        for place, string in strings(event):
            yield string
            joined.setdefault(place, []).append(string)
            joined.setdefault(tuple(step for step in place if isinstance(step, str)), []).append(string)
    yield from map("".join, joined.values())


def unescaped(text: str) -> str:
    """The letters that stand in JSON as \\u."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)


def _events(text: str) -> Iterator[Any]:
    """The JSON of a body, or of a stream: of each frame and of each line, however it begins."""
    frames = [[_bare(line) for line in _LINE.split(frame)] for frame in _FRAME.split(text)]
    data = ["\n".join(line for line in frame if line) for frame in frames]
    several = [line for frame in frames if len(frame) > 1 for line in frame]
    for piece in (text, *data, *several):
        with contextlib.suppress(ValueError):
            yield json.loads(piece)


def _bare(line: str) -> str:
    """What a line says, without the name of its field; nothing for the name of an event."""
    line = line.lstrip("\ufeff")
    return (
        ""
        if line.lstrip().lower().startswith("event")
        else _FIELD.sub("", line, count=1)
        if _FIELD.match(line)
        else line
    )


def strings(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every string in a value, names and lists of letters included, by its place.

    A place is made of names and of the numbers that a response gives; entries of a list that have none are one place,
    so that tokens one by one make up their text.
    """
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        marks = tuple((name, value[name]) for name in _MARKS if isinstance(value.get(name), int | str))
        for name, inner in value.items():
            yield (*place, *marks, "names"), str(name)
            yield from strings(inner, (*place, *marks, str(name)))
    elif isinstance(value, list):
        letters = [entry for entry in value if isinstance(entry, int) and 0 < entry < 0x110000]
        if letters and len(letters) == len(value):
            yield place, "".join(map(chr, letters))
        for inner in value:
            yield from strings(inner, place)
