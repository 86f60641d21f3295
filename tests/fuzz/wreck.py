"""How can what an upstream sends be wrong? Values swapped for odd ones, keys and events lost, doubled, out of order.

Everything is drawn from one `random.Random`, so that a seed says the whole of it.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

LONG = "All is well. " * 300
ODD_TEXTS = [
    *("", " ", "\n", "\x00", "\u2028", "\ufeff", "\ud800", "e\u0301", "👩‍👩‍👧", "你好。", "عربي. نعم.", "[DONE]"),
    *("data: x\n\n", '{"a": 1}', "```\nx\n```", "Yes. You fool. No.", "I'm sorry, but I can't help with that.", LONG),
]
ODD_VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        7,
        10**30,
        1.5,
        float("nan"),
        [],
        {},
        [None],
        {"": None},
        [[[]]],
        ["x"],
        {"type": "text"},
    ),
    *ODD_TEXTS,
]
TYPES = ["text", "output_text", "message", "text_delta", "content_block_start", "message_start", "refusal", "error"]
Path = list[Any]


def wrecked(rng: random.Random, tree: Any, most: int = 4) -> Any:
    """A copy of some JSON with up to `most` things wrong in it."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([0, *range(1, most + 1)])):
        places = list(_places(tree))
        if places:
            _wreck(rng, *rng.choice(places))
    return tree


def reordered(rng: random.Random, events: list[Any], most: int = 3) -> list[Any]:
    """Events lost, doubled, exchanged, cut off, or in reverse."""
    events = list(events)
    for _ in range(rng.choice([0, 0, *range(1, most + 1)])):
        if events:
            rng.choice(_ORDERS)(rng, events)
    return events


def disturbed(rng: random.Random, raw: bytes) -> bytes:
    """Bytes with some of them changed, lost or put in, and line ends of another kind."""
    raw = rng.choice([raw, raw, raw, raw.replace(b"\n", b"\r\n"), raw.replace(b"\n", b"\r")])
    for _ in range(rng.choice([0, 0, 0, 1, 2, 4])):
        at = rng.randrange(len(raw) + 1)
        junk = rng.choice(
            [b"", b"\xff", b"\n\n", b"\r", b"\xe2\x82", b": ping\n\n", b"data: [DONE]\n\n", b"data: {\n\n"]
        )
        raw = raw[:at] + junk + raw[at + rng.choice([0, 0, 1, 5, 40]) :]
    return raw


def pieces(rng: random.Random, raw: bytes) -> list[bytes]:
    """Bytes as a socket may hand them over: whole, in equal parts, or cut anywhere, empty reads included."""
    if rng.random() < 0.3:
        size = rng.choice([1, 7, 100, 4096]) if len(raw) < 3000 else 4096
        return [raw[i : i + size] for i in range(0, len(raw), size)]
    edges = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.randrange(12)))
    return [raw[a:b] for a, b in zip([0, *edges], [*edges, len(raw)], strict=True)]


def event_pieces(rng: random.Random, raw: bytes) -> list[bytes]:
    """One event an item, as LiteLLM's own translations make them."""
    return re.findall(rb"(?s).+?(?:\r\n\r\n|\n\n|\r\r|$)", raw)


def mistreated(rng: random.Random, thing: Any) -> Any:
    """An object of LiteLLM's in which an attribute holds what its type does not allow: not all are always checked."""
    things = [thing]
    for one in things:
        things.extend(_inner(one))
    holder = rng.choice(things)
    if isinstance(holder, BaseModel) and holder.__dict__:
        name = rng.choice(sorted(holder.__dict__))
        holder.__dict__[name] = copy.deepcopy(rng.choice(ODD_VALUES))
    return thing


def _inner(thing: Any) -> list[Any]:
    found = list(thing.__dict__.values()) if isinstance(thing, BaseModel) else thing if isinstance(thing, list) else []
    return [one for one in found if isinstance(one, BaseModel | list)]


def _places(tree: Any) -> Any:
    """Every (container, key) of a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _wreck(rng: random.Random, holder: Any, key: Any) -> None:
    way = rng.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[rng.choice(["text", "content", "delta", "type", "index", "x", "Text"])] = holder.pop(key)
    elif way == 2 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    elif way == 3 and key == "type":
        holder[key] = rng.choice(TYPES)
    elif way == 4:
        holder[key] = [holder[key]]
    elif way == 5 and isinstance(holder[key], str):
        holder[key] += rng.choice(ODD_TEXTS)
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))


def _lose(rng: random.Random, events: list[Any]) -> None:
    del events[rng.randrange(len(events))]


def _double(rng: random.Random, events: list[Any]) -> None:
    events.insert(rng.randrange(len(events) + 1), copy.deepcopy(rng.choice(events)))


def _exchange(rng: random.Random, events: list[Any]) -> None:
    a = rng.randrange(len(events))
    b = rng.randrange(len(events))
    events[a], events[b] = events[b], events[a]


def _cut_off(rng: random.Random, events: list[Any]) -> None:
    del events[rng.randrange(len(events)) :]


def _turn_round(rng: random.Random, events: list[Any]) -> None:
    a = rng.randrange(len(events))
    events[a : a + 5] = events[a : a + 5][::-1]


_ORDERS: list[Callable[[random.Random, list[Any]], None]] = [_lose, _double, _exchange, _cut_off, _turn_round]
