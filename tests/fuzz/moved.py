"""Does text that stands where nobody expects it get out unjudged? Every answer, with its text moved, copied or renamed.

`python -m tests.fuzz.moved --cases 20000 --seed 1` puts the defect of tests/fuzz/hostile.py into every string place of
the published schemas (places.py) and into names that nobody knows, in every order and ending of a stream. Under a
policy that enforces and blocks it never reaches the client; under one that does neither, with an engine that flags
nothing, the client gets what the upstream sent. A case that fails is named by its seed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import httpx
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse, ModelResponseStream, TextCompletionResponse
from pydantic import BaseModel

from aligner_proxy.formats.side_text import SHORTEST_PROSE
from tests.attacks.odd.reading import readable, strings
from tests.e2e import upstream_messages, upstream_responses, upstreams
from tests.e2e.event_streams import frames, message_events, response_events
from tests.fuzz import wreck
from tests.fuzz.enforced import Delivered, Enforced, acceptable, enforcing
from tests.fuzz.hostile import AFTER, BEFORE, ENDPOINTS, INSULT, Case, Draft, letters, request_of
from tests.fuzz.observed import frozen
from tests.fuzz.places import Place, places
from tests.support.scripted import SegmentEngine

CLEAN = f"{BEFORE} {AFTER}"
WAYS = ("move", "move", "copy", "rename", "name", "extra")
ENDINGS = ("good", "good", "none", "error", "torn", "raise", "raise with text")
POLICIES = ("hold", "sentence", "skip judged")
NAMES = ("aside", "text", "content", "message", "delta", "output", "completion", "value", "parts", "response", "Text")
SCRIPTS = ("good", "good", "tools", "call", "reasoning", "cited", "length", "filter", "parts", "messages", "search")
_COMMENT = b": aligner status="
Events = list[dict[str, Any]]


@dataclass
class Moved:
    """What is done to an answer."""

    rng: random.Random
    endpoint: str
    stream: bool
    way: str
    ending: str
    place: Place

    @property
    def tricks(self) -> tuple[str, ...]:
        """In words."""
        where = " ".join(self.place.path) if self.way in ("move", "copy") else ""
        return tuple(filter(None, (self.way, self.ending if self.stream else "", where)))


def case(seed: int) -> Case | None:
    """The case of a seed; None where LiteLLM itself refuses the answer. Endpoint, stream and field go round."""
    rng = random.Random(seed)
    endpoint = ENDPOINTS[seed % 4]
    stream = bool(seed // 4 % 2)
    fields = places(endpoint, stream)
    place = rng.choice(fields[seed // 8 % len(fields)])
    moved = Moved(rng, endpoint, stream, rng.choice(WAYS), rng.choice(ENDINGS), place)
    draft = Draft(rng, endpoint, stream)
    policy = rng.choice(POLICIES)
    made = Case(seed, endpoint, policy, moved.tricks, draft, request_of(draft, policy))
    try:
        if stream:
            made.items = _items(moved)
        else:
            made.response = _WHOLES[endpoint](_changed(moved, _body(moved)))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return made


# the answer as JSON ----------------------------------------------------------------------------------------------


def _body(moved: Moved) -> dict[str, Any]:
    """A recorded answer, which says what is clean."""
    name = moved.rng.choice(SCRIPTS)
    head = {"id": "c", "created": 1, "model": "up", "usage": upstreams.USAGE}
    if moved.endpoint == "/v1/chat/completions":
        body = {**head, "object": "chat.completion", "choices": [upstreams.choice(name, 0, {})]}
    elif moved.endpoint == "/v1/completions":
        choice = {"index": 0, "text": CLEAN, "finish_reason": "stop"}
        body = {**head, "object": "text_completion", "choices": [choice]}
    elif moved.endpoint == "/v1/responses":
        body = upstream_responses.body_of(name, "up")
    else:
        body = upstream_messages.body_of(name, "up")
    clean: dict[str, Any] = json.loads(_without_insults(json.dumps(body)))
    return clean


def _without_insults(text: str) -> str:
    return text.replace("idiot", "traveller")


def _changed(moved: Moved, body: dict[str, Any]) -> dict[str, Any]:
    """The answer with the text in another place."""
    body = copy.deepcopy(body)
    rng = moved.rng
    if moved.way in ("move", "copy"):
        if moved.way == "move" and rng.random() < 0.5:
            _silence(body)
        return cast("dict[str, Any]", _merged(body, moved.place.make(INSULT)))
    holders = [holder for holder in _holders(body) if moved.way != "rename" or "text" in holder or "content" in holder]
    holder = rng.choice(holders or list(_holders(body)))
    if moved.way == "rename":
        key = next((name for name in ("text", "content") if name in holder), None)
        if key is not None:
            del holder[key]
        holder[rng.choice(NAMES)] = rng.choice(SHAPES)(f"{BEFORE} {INSULT}")
    elif moved.way == "name":
        holder[INSULT] = rng.choice([True, "x", 1, None])
    else:
        holder[rng.choice(NAMES)] = rng.choice(SHAPES)(INSULT)
    return body


SHAPES: tuple[Callable[[str], Any], ...] = (
    lambda text: text,
    lambda text: [text],
    lambda text: {"value": text},
    lambda text: {"type": "text", "text": text},
    lambda text: [{"type": "text", "text": text}],
    lambda text: text.split(" "),
    lambda text: [{"token": f" {word}"} for word in text.split()],
)
"""In which a text may stand under a name."""


def _holders(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _holders(inner)


def _silence(tree: Any) -> None:
    """No text any more where it is expected."""
    for holder in _holders(tree):
        for name in ("text", "content"):
            if isinstance(holder.get(name), str):
                holder[name] = ""


def _merged(old: Any, new: Any) -> Any:
    """One JSON in another: objects field by field, first entries of lists where they are of one kind."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {name: _merged(old[name], value) if name in old else value for name, value in new.items()}
    if isinstance(old, list) and isinstance(new, list) and new:
        same = [n for n, entry in enumerate(old) if isinstance(entry, dict) and _kind(entry) == _kind(new[0])]
        if not same:
            return [*old, *new]
        return [_merged(entry, new[0]) if n == same[0] else entry for n, entry in enumerate(old)]
    return new if not isinstance(new, int | float | type(None)) and new != "x" else old


def _kind(entry: Any) -> Any:
    return entry.get("type") if isinstance(entry, dict) else None


# streams ---------------------------------------------------------------------------------------------------------


def _items(moved: Moved) -> list[Any]:
    """The stream of an answer, with the text in an event of its own or in one that was there, and its ending."""
    rng = moved.rng
    events = _EVENTS[moved.endpoint](_body(replace(moved, stream=False)))
    if moved.way in ("move", "copy"):
        events = _with_place(moved, events)
    else:
        at = rng.randrange(len(events))
        events[at] = _changed(moved, events[at])
    if rng.random() < 0.3:
        events = wreck.reordered(rng, events)
    if moved.ending != "good" and rng.random() < 0.8:
        events = events[: -rng.choice([1, 1, 2])]
    if moved.ending == "error":
        events.append(_error(moved))
    return [*_sent(moved, events), *_ends(moved)]


def _with_place(moved: Moved, events: Events) -> Events:
    """The text in an event of the place's own, whole or piece by piece, or merged into one of its kind."""
    rng = moved.rng
    if moved.way == "move" and rng.random() < 0.3:
        _silence(events)
    size = rng.choice([len(INSULT), 5, 11])
    told = [moved.place.make(INSULT[at : at + size]) for at in range(0, len(INSULT), size)]
    alike = [n for n, event in enumerate(events) if _kind(event) == _kind(told[0])]
    if len(told) == 1 and alike and rng.random() < 0.6:
        at = rng.choice(alike)
        events[at] = _merged(events[at], told[0])
        return events
    at = rng.randrange(1, len(events) + 1)
    return [*events[:at], *told, *events[at:]]


def _error(moved: Moved) -> dict[str, Any]:
    said = moved.rng.choice(["no", INSULT])
    if moved.endpoint == "/v1/messages":
        return {"type": "error", "error": {"type": "api_error", "message": said}}
    return {"type": "error", "code": "server_error", "message": said, "param": None, "sequence_number": 99}


def _ends(moved: Moved) -> list[Any]:
    if moved.ending == "raise":
        return [httpx.ReadError("gone")]
    if moved.ending == "raise with text":
        return [RuntimeError(INSULT)]
    if moved.ending == "torn" and moved.endpoint == "/v1/messages":
        return [b'data: {"type": "content_blo']
    return [ValueError("not JSON")] if moved.ending == "torn" else []


def _sent(moved: Moved, events: Events) -> list[Any]:
    """The items that LiteLLM makes of them; what its types refuse is no part of the stream."""
    rng = moved.rng
    if moved.endpoint == "/v1/messages":
        if rng.random() < 0.2:
            return list(events)
        raw = "".join(frames([event for event in events if isinstance(event.get("type"), str)])).encode()
        raw = raw.replace(b"\ndata:", rng.choice([b"\ndata:"] * 4 + [b"\n data:", b"\nDATA:", b"\ndata :"]))
        return (wreck.event_pieces if rng.random() < 0.3 else wreck.pieces)(rng, raw)
    items = []
    for event in events:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            items.append(_CHUNKS[moved.endpoint](event))
    return items


def _chat_events(body: dict[str, Any]) -> Events:
    choice = body["choices"][0]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    deltas = [
        {"role": "assistant", "content": ""},
        *({"content": piece} for piece in _cut(choice["message"]["content"])),
    ]
    more = {name: value for name, value in choice["message"].items() if name not in ("role", "content")}
    said = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in [*deltas, more]]
    return [*said, head | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}]


def _text_events(body: dict[str, Any]) -> Events:
    pieces = [*((piece, None) for piece in _cut(CLEAN)), ("", "stop")]
    return [{**body, "choices": [{"index": 0, "text": piece, "finish_reason": why}]} for piece, why in pieces]


def _cut(text: str | None) -> list[str]:
    return [(text or "")[at : at + 30] for at in range(0, len(text or ""), 30)]


def _response_event(event: dict[str, Any]) -> Any:
    return OpenAIResponsesAPIConfig().transform_streaming_response("m", event, cast("Any", None))


_WHOLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "/v1/chat/completions": lambda body: ModelResponse(**body),
    "/v1/completions": lambda body: TextCompletionResponse(**body),
    "/v1/responses": lambda body: ResponsesAPIResponse(**body),
    "/v1/messages": lambda body: body,
}
_EVENTS: dict[str, Callable[[dict[str, Any]], Events]] = {
    "/v1/chat/completions": _chat_events,
    "/v1/completions": _text_events,
    "/v1/responses": lambda body: response_events(body, _cut),
    "/v1/messages": lambda body: message_events(body, _cut),
}
_CHUNKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "/v1/chat/completions": lambda event: ModelResponseStream(**event),
    "/v1/completions": lambda event: TextCompletionResponse(**event),
    "/v1/responses": _response_event,
}


# what reaches the client -----------------------------------------------------------------------------------------


def legible(got: Sequence[Any], error: Exception | None) -> Iterator[str]:
    """Every text that a client can read: each string, the pieces of a place put together, and the error."""
    yield from readable(b"".join(item for item in got if isinstance(item, bytes)))
    joined: dict[tuple[object, ...], list[str]] = {}
    for item in got:
        value = item.model_dump() if isinstance(item, BaseModel) else item
        kind = value.get("type") if isinstance(value, dict) else None
        for place, text in strings(value):
            yield text
            joined.setdefault((str(kind), *place), []).append(text)
            joined.setdefault(tuple(step for step in place if isinstance(step, str)), []).append(text)
    yield from map("".join, joined.values())
    yield str(error) if error else ""


def is_insult(text: str) -> bool:
    """Whether a text is long enough to have to be judged, and says what makes it an insult.

    The noun alone does not count: in the letters of raw JSON, `"idio"` and `"type"` make it, too.
    """
    return len(text) >= SHORTEST_PROSE and "anidiot" in letters(text)


def check(rig: Enforced, one: Case) -> None:
    """Raises `Delivered` if the defect reaches the client of a policy that enforces and blocks."""
    got, error = rig.play(one)
    leaked = next(filter(is_insult, legible(got, error)), None)
    if leaked is not None:
        raise Delivered(rig.outcomes, leaked)
    if not (error is None or acceptable(error) or error in (one.items or ())):
        raise error


def check_untouched(rig: Enforced, one: Case) -> None:
    """Raises if a client without enforcement gets anything but what the upstream sent."""
    sent = one.items if one.items is not None else [one.response]
    try:
        before = copy.deepcopy([item for item in sent if not isinstance(item, Exception)])
    except TypeError:  # an iterator of pydantic's, which can be read once
        return
    got, error = rig.play(one)
    ours = [item for item in got if not (isinstance(item, bytes) and item.startswith(_COMMENT))]
    assert len(got) - len(ours) <= 1, "more than one comment"
    assert frozen(_joined(ours)) == frozen(_joined(before)), "the client gets something else"
    broken = next((item for item in sent if isinstance(item, Exception)), None)
    assert error is broken, f"another error: {error!r}"


def _joined(items: Sequence[Any]) -> list[Any]:
    """Items, of which bytes in a row count as one."""
    made: list[Any] = []
    for item in items:
        if isinstance(item, bytes) and made and isinstance(made[-1], bytes):
            made[-1] += item
        else:
            made.append(item)
    return made


Check = Callable[[Enforced, Case], None]


def run(rig: Enforced, check_one: Check, seeds: Iterable[int], tried: Counter[str], failed: dict[int, str]) -> None:
    """The cases of these seeds, counted by what is done; failures by seed."""
    for seed in seeds:
        one = case(seed)
        if one is None:
            tried["refused by LiteLLM"] += 1
            continue
        tried.update([one.endpoint, *one.tricks[:2]])
        try:
            check_one(rig, one)
        except Exception:  # noqa: BLE001 - what is looked for
            failed[seed] = f"{one.title}\n{traceback.format_exc(limit=-3)}"


@contextlib.contextmanager
def passing(folder: Path) -> Iterator[Enforced]:
    """The guardrail without a tenant that enforces, and an engine that flags nothing."""
    with enforcing(folder, SegmentEngine(lambda _: -5.0), None) as rig:
        yield rig


RIGS: tuple[tuple[str, Callable[[Path], Any], Check], ...] = (
    ("enforce", enforcing, check),
    ("passthrough", passing, check_untouched),
)
"""By name: the guardrail under a policy, and what must hold there."""


def main() -> int:
    """Many cases under both policies, with a line of progress a thousand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first case; case n has seed + n")
    parser.add_argument("--show", type=int, default=20, help="how many failures are shown in full")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    last = args.seed + args.cases
    bad = 0
    for name, rigged, check_one in RIGS:
        tried = Counter[str]()
        failed = dict[int, str]()
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, rigged(Path(folder)) as rig:
            for first in range(args.seed, last, 1000):
                run(rig, check_one, range(first, min(first + 1000, last)), tried, failed)
                took = time.monotonic() - started
                sys.stderr.write(f"{name}: to seed {min(first + 1000, last) - 1}, {len(failed)} failed, {took:.0f} s\n")
            seen = rig.seen
        for why in list(failed.items())[: args.show]:
            sys.stdout.write("--- seed {}\n{}\n".format(*why))
        for title, counts in (("tried", tried), ("outcome", seen)):
            sys.stdout.writelines(f"{title:12} {count:8} {what}\n" for what, count in counts.most_common(40))
        sys.stdout.write(
            f"{name}: {args.cases} cases from seed {args.seed}: {len(failed)} failed {sorted(failed)[:50]}\n"
        )
        bad += len(failed)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
