"""One odd answer of an upstream: to which request it is given, and the very bytes that are sent, whole or as a stream.

Every form is made for a sentence, so that the same form can be had with one that nobody minds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.event_streams import Event, frames, message_events, response_events
from tests.e2e.upstream_messages import body_of as message_body
from tests.e2e.upstream_responses import body_of as response_body
from tests.e2e.upstream_responses import message as response_message
from tests.e2e.upstream_responses import text as response_text

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
MODELS = {CHAT: "gpt", TEXT: "instruct", RESPONSES: "gpt", MESSAGES: "claude"}
"""The model whose upstream speaks the format that the client speaks."""
BEFORE = "The capital of France is Paris."
AFTER = "It lies on the Seine."
CLEAN = f"{BEFORE} {AFTER}"
WAIT_S = 2.0
PAUSE_S = 20.0
"""What a client waits, and how long an upstream pauses: longer, however busy the machine is."""
BREAK = None
"""In what is sent: the connection ends here, in the middle of the answer."""
Sent = tuple[bytes | float | None, ...]
USAGE = {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}
CALL = {"id": "call_1", "type": "function"}


@dataclass(frozen=True)
class Form:
    """An odd answer. A number in what is sent is a pause in seconds, `BREAK` the end of the connection."""

    id: str
    tried: str
    endpoint: str
    whole: Sent | None = None
    streamed: Sent | None = None
    model: str = ""
    ask: Mapping[str, Any] = field(default_factory=dict)
    """What the client's body holds beside the usual."""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200

    @property
    def ways(self) -> tuple[bool, ...]:
        """Whether it can be had as a stream, and otherwise."""
        return tuple(way for way, sent in ((False, self.whole), (True, self.streamed)) if sent is not None)


def around(sentence: str) -> str:
    """The sentence among harmless ones."""
    return f"{BEFORE} {sentence} {AFTER}"


def cut(text: str) -> list[str]:
    """A text in pieces, of which no two are equal in a row."""
    return [text[at : at + 9] for at in range(0, len(text), 9)]


def encoded(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(value).encode()


def raw(pieces: Sequence[str]) -> Sent:
    """What a stream sends, from its frames."""
    return tuple(piece.encode() for piece in pieces)


# chat completions ------------------------------------------------------------------------------------------------


def chat_body(message: Any, finish: str | None = "stop", choice: Mapping[str, Any] | None = None, **top: Any) -> Event:
    """A whole chat response with one choice."""
    made = {"index": 0, "message": message, "finish_reason": finish, **(choice or {})}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "up"}
    return {**head, "choices": [made], "usage": USAGE, **top}


def says(content: Any, **more: Any) -> dict[str, Any]:
    """A message of the assistant's."""
    return {"role": "assistant", "content": content, **more}


def chunk(delta: Any, finish: str | None = None, choice: Mapping[str, Any] | None = None, **top: Any) -> Event:
    """One chunk of a chat stream."""
    made = {"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "up"}
    return {**head, "choices": [made], **top}


def data(events: Sequence[Any], done: bool = True) -> list[str]:
    """Events as frames without a name."""
    return [f"data: {json.dumps(event)}\n\n" for event in events] + (["data: [DONE]\n\n"] if done else [])


def contents(text: str) -> list[Event]:
    """The chunks that say a text, the first with the role."""
    return [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in cut(text))]


def chat_stream(body: Event) -> Sent:
    """The chunks that say what a whole chat response says: first the content, then what stands beside it."""
    (choice,) = body["choices"]
    message = choice["message"]
    events = contents(message["content"] or "")
    beside = {name: value for name, value in message.items() if name not in ("role", "content")}
    for name, value in beside.items():
        events += [chunk({name: piece}) for piece in _deltas(value)]
    extra = {name: value for name, value in choice.items() if name not in ("index", "message", "finish_reason")}
    if extra:
        events.append(chunk({"content": " "}, None, extra))
    known = ("id", "object", "created", "model", "choices", "usage")
    events.append(chunk({}, choice["finish_reason"], None, **{k: v for k, v in body.items() if k not in known}))
    return raw(data(events))


def _deltas(value: Any) -> Iterator[Any]:
    """What a field says piece by piece: a text in pieces, entries of a list with their index."""
    if isinstance(value, str):
        yield from cut(value)
    elif isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        yield [{"index": number, **entry} for number, entry in enumerate(value)]
    else:
        yield value


# text completions ------------------------------------------------------------------------------------------------


def text_body(text: Any, finish: str | None = "stop", choice: Mapping[str, Any] | None = None, **top: Any) -> Event:
    """A whole text completion with one choice."""
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": "up"}
    made = {"index": 0, "text": text, "finish_reason": finish, **(choice or {})}
    return {**head, "choices": [made], "usage": USAGE, **top}


def text_chunks(text: str) -> list[Event]:
    """The chunks that say a text."""
    return [{**text_body(piece, None), "usage": None} for piece in cut(text)]


def text_stream(body: Event) -> Sent:
    """The chunks that say what a whole text completion says; what stands beside the text comes with the last one."""
    (choice,) = body["choices"]
    rest = {**body, "usage": None, "choices": [{**choice, "text": ""}]}
    return raw(data([*text_chunks(choice["text"] or ""), rest]))


# responses -------------------------------------------------------------------------------------------------------


def response(output: Any, **top: Any) -> Event:
    """A whole response with this output."""
    return {**response_body("good", "up"), "output": output, **top}


def answered(text: str, **more: Any) -> Event:
    """The message of a response, with one text."""
    return response_message(response_text(text, **more))


def response_frames(body: Event) -> list[str]:
    """The events of a response as frames."""
    return frames(response_events(body, cut))


# messages --------------------------------------------------------------------------------------------------------


def message(content: Any, **top: Any) -> Event:
    """A whole message with this content."""
    return {**message_body("good", "up"), "content": content, **top}


def block(text: Any, **more: Any) -> Event:
    """A text block."""
    return {"type": "text", "text": text, **more}


def message_frames(body: Event) -> list[str]:
    """The events of a message as frames."""
    return frames(message_events(body, cut))
