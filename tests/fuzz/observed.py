"""Was anything touched? Objects as values that can be compared, and the places in which two of them differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

Path = tuple[object, ...]
TEXTS = {"content", "text", "delta"}
"""Under these names texts of answers stand, in every wire format."""
POINTERS = {"annotations"}
"""Under these names stands what points into texts."""
_FRAME = re.compile(rb"(?s).*?(?:\r\n\r\n|\n\n|\r\r|$)")
_LINE = re.compile(rb"\r\n|\r|\n")


def frozen(thing: Any) -> Any:
    """A value that says all of a thing: types, order, extra and private attributes."""
    if isinstance(thing, BaseModel):
        parts = {**thing.__dict__, **(thing.__pydantic_extra__ or {}), **(thing.__pydantic_private__ or {})}
        return type(thing).__name__, tuple((name, frozen(value)) for name, value in parts.items())
    if isinstance(thing, dict):
        return "dict", tuple((key, frozen(value)) for key, value in thing.items())
    if isinstance(thing, list | tuple):
        return "list", tuple((number, frozen(value)) for number, value in enumerate(thing))
    return type(thing).__name__, repr(thing)


def differences(ours: Any, theirs: Any, path: Path = ()) -> Iterator[Path]:
    """The places in which two frozen things differ; two different texts count as one place, by the path to them."""
    if ours == theirs:
        return
    same = ours[0] == theirs[0] and isinstance(ours[1], tuple) and isinstance(theirs[1], tuple)
    if not same or [key for key, _ in ours[1]] != [key for key, _ in theirs[1]]:
        yield path if ours[0] == theirs[0] == "str" else (*path, "!")
        return
    for (key, mine), (_, other) in zip(ours[1], theirs[1], strict=True):
        yield from differences(mine, other, (*path, key))


def only_texts_differ(ours: Any, theirs: Any) -> None:
    """Two frozen things are one and the same but for texts of answers, which may be lists of pieces, too.

    After an edit, a stream may lose what points into the text.
    """
    named = ((path, [name for name in path if isinstance(name, str)]) for path in differences(ours, theirs))
    wrong = [
        path
        for path, names in named
        if not names or (POINTERS.isdisjoint(names[-2:]) if path[-1] == "!" else names[-1] not in TEXTS)
    ]
    assert not wrong, f"differs at {wrong[:3]}"


def events(items: Sequence[Any]) -> list[Any]:
    """What a stream of server-sent events says, frame by frame: its lines and its JSON; as bytes where it is none.

    Dicts that stand between the bytes are events, too, and end the one before them.
    """
    told: list[Any] = []
    raw = b""
    for item in [*items, None]:
        if isinstance(item, str):
            item = item.encode(errors="surrogatepass")
        if isinstance(item, bytes):
            raw += item
            continue
        told += [_event(frame) for frame in _FRAME.findall(raw) if frame]
        told.append(item)
        raw = b""
    return told


def _event(frame: bytes) -> Any:
    lines = _LINE.split(frame)
    data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    try:
        event = json.loads(b"\n".join(data).decode())
    except ValueError:
        return frame
    return [[line for line in lines if not line.startswith(b"data:")], event]
