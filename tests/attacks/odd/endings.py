"""Answers that end oddly: an error in place of an end, torn frames, nothing at all, pauses too long for a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from tests.attacks.odd.form import (
    BREAK,
    CHAT,
    MESSAGES,
    PAUSE_S,
    RESPONSES,
    TEXT,
    WAIT_S,
    Form,
    Sent,
    answered,
    around,
    block,
    chat_body,
    chunk,
    contents,
    data,
    encoded,
    message,
    message_frames,
    raw,
    response,
    response_frames,
    says,
    text_body,
    text_chunks,
)
from tests.e2e.event_streams import frames

_UP_ERROR = {"error": {"message": "The server had an error.", "type": "server_error", "code": "500"}}
_EVENT_ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
_RESPONSE_ERROR = {"type": "error", "code": "server_error", "message": "no", "param": None, "sequence_number": 99}
Ending = tuple[str, str, Callable[[list[str]], Sent]]


def endings(sentence: str) -> Iterator[Form]:
    """Every one, of each format and of the formats that LiteLLM translates into one another."""
    text = around(sentence)
    yield from _whole_chat(text)
    yield from _whole_others(text)
    yield from _chat_streams(text)
    yield from _text_streams(text)
    yield from _responses_streams(text)
    yield from _messages_streams(text)
    yield from _translated(text)


def _whole_chat(text: str) -> Iterator[Form]:
    for name, why in (("error", "error"), ("unknown", "sang"), ("null", None), ("tools", "tool_calls")):
        body = encoded(chat_body(says(text), why))
        yield Form(f"end-chat-whole-{name}", f"a whole answer that ends with the reason {name}", CHAT, (body,))
    body = chat_body(says(text), "error", {"error": {"message": "Provider failed", "code": 502}})
    yield Form("end-chat-whole-choice-error", "a choice with an error of its own", CHAT, (encoded(body),))
    many = chat_body(says(text))
    many["choices"] = [{**many["choices"][0], "index": number} for number in range(120)]
    yield Form("end-chat-whole-120", "120 equal choices", CHAT, (encoded(many),))


def _whole_others(text: str) -> Iterator[Form]:
    for name, why in (("error", "error"), ("null", None)):
        body = encoded(text_body(text, why))
        yield Form(f"end-text-whole-{name}", f"a whole completion that ends with the reason {name}", TEXT, (body,))
    for status in ("failed", "cancelled", "incomplete", "in_progress", "queued"):
        error = {"code": "server_error", "message": "no"} if status == "failed" else None
        body = encoded(response([answered(text)], status=status, error=error))
        yield Form(f"end-responses-whole-{status}", f"a response of the status {status}", RESPONSES, (body,))
    body = encoded(response([answered(text)], status=None))
    yield Form("end-responses-whole-null", "a response without a status", RESPONSES, (body,))
    for name, why in (("error", "error"), ("null", None), ("unknown", "sang"), ("pause", "pause_turn")):
        body = encoded(message([block(text)], stop_reason=why))
        yield Form(f"end-messages-whole-{name}", f"a message that stopped for the reason {name}", MESSAGES, (body,))
    whole = message([block(text)])
    del whole["stop_reason"]
    yield Form("end-messages-whole-none", "a message that names no reason", MESSAGES, (encoded(whole),))
    body = encoded({**message([block(text)]), "type": "error", "error": _EVENT_ERROR["error"]})
    yield Form("end-messages-whole-error-type", "a message that says it is an error", MESSAGES, (body,))


def _done(lines: list[str]) -> Sent:
    return raw(lines)


def _torn(last: str, lines: list[str]) -> Sent:
    return raw([*lines, last])


def _broken(lines: list[str]) -> Sent:
    return (*raw(lines), 0.3, BREAK)


def _chat_streams(text: str) -> Iterator[Form]:
    said = data(contents(text), done=False)
    rows: list[tuple[str, str, Sent]] = [
        ("reason-error", "finish reason error", raw([*said, *data([chunk({}, "error")])])),
        ("reason-unknown", "a finish reason that nobody knows", raw([*said, *data([chunk({}, "sang")])])),
        ("reason-length", "cut off by length", raw([*said, *data([chunk({}, "length")])])),
        ("event", "an error event at the end", raw([*said, *data([_UP_ERROR])])),
        ("event-named", "an event that is named error", raw([*said, *frames([_EVENT_ERROR])])),
        ("event-beside", "an error in the last chunk", raw([*said, *data([{**chunk({}, "error"), **_UP_ERROR}])])),
        ("torn", "torn JSON at the end", raw([*said, 'data: {"choices": [{"index": 0, "del'])),
        ("torn-frame", "torn JSON as a whole frame", raw([*said, 'data: {"choices": [{"index": 0, "del\n\n'])),
        ("torn-bytes", "bytes that are no text at the end", (*raw(said), b"data: \xff\xfe\n\n")),
        ("none", "no final event at all", raw(said)),
        ("no-reason", "[DONE] without a finish reason", raw([*said, "data: [DONE]\n\n"])),
        ("no-done", "a finish reason and no [DONE]", raw([*said, *data([chunk({}, "stop")], done=False)])),
        ("break", "the connection breaks", _broken(said)),
        ("late", "text behind the finish reason", raw([*data([chunk({}, "stop")], done=False), *said])),
        ("again", "everything behind [DONE]", raw([*data([chunk({"content": "Well. "})]), *said])),
        (
            "equal",
            "130 equal chunks, at which LiteLLM breaks off",
            raw([*said, *data([chunk({"content": "ha "})] * 130)]),
        ),
        ("null", "a choice that is null", raw([*said, *data([{**chunk({}), "choices": [None]}])])),
    ]
    for name, tried, sent in rows:
        yield Form(f"end-chat-{name}", f"a chat stream: {tried}", CHAT, streamed=sent)
    equal = [chunk({"role": "assistant", "content": text})]
    equal[0]["choices"] *= 120
    sent = raw(data([*equal, chunk({}, "stop")]))
    yield Form("end-chat-120", "a chat stream: 120 equal choices in a chunk", CHAT, streamed=sent)


def _text_streams(text: str) -> Iterator[Form]:
    said = data(text_chunks(text), done=False)
    last = text_body("", "error")
    rows: list[tuple[str, str, Sent]] = [
        ("reason-error", "finish reason error", raw([*said, *data([last])])),
        ("event", "an error event at the end", raw([*said, *data([_UP_ERROR])])),
        ("torn", "torn JSON at the end", raw([*said, 'data: {"choices": [{"index": 0, "te'])),
        ("none", "no final event at all", raw(said)),
        ("break", "the connection breaks", _broken(said)),
        ("equal", "130 equal chunks", raw([*said, *data([text_body("ha ", None)] * 130)])),
    ]
    for name, tried, sent in rows:
        yield Form(f"end-text-{name}", f"a stream of text completions: {tried}", TEXT, streamed=sent)


def _responses_streams(text: str) -> Iterator[Form]:
    lines = response_frames(response([answered(text)]))
    said = lines[:-4]
    failed = response([answered(text)], status="failed", error={"code": "server_error", "message": "no"})
    rows: list[tuple[str, str, Sent]] = [
        ("failed", "response.failed", raw(response_frames(failed))),
        ("cancelled", "response.cancelled", raw(response_frames(response([answered(text)], status="cancelled")))),
        ("incomplete", "response.incomplete", raw(response_frames(response([answered(text)], status="incomplete")))),
        ("failed-alone", "response.failed behind the deltas", raw([*said, *response_frames(failed)[-1:]])),
        ("event", "an error event at the end", raw([*said, *frames([_RESPONSE_ERROR])])),
        ("torn", "torn JSON at the end", raw([*said, 'event: response.completed\ndata: {"type": "resp'])),
        ("torn-frame", "torn JSON as a whole frame", raw([*said, 'data: {"type": "resp\n\n'])),
        ("none", "no final event at all", raw(said)),
        ("none-completed", "no response.completed", raw(lines[:-1])),
        ("break", "the connection breaks", _broken(said)),
    ]
    for name, tried, sent in rows:
        yield Form(f"end-responses-{name}", f"a stream of Responses: {tried}", RESPONSES, streamed=sent)


def _messages_streams(text: str) -> Iterator[Form]:
    lines = message_frames(message([block(text)]))
    said = lines[:-3]
    rows: list[tuple[str, str, Sent]] = [
        ("event", "an error event at the end", raw([*said, *frames([_EVENT_ERROR])])),
        ("reason-error", "stop reason error", raw(message_frames(message([block(text)], stop_reason="error")))),
        ("reason-null", "stop reason null", raw(message_frames(message([block(text)], stop_reason=None)))),
        ("torn", "torn JSON at the end", raw([*said, 'event: message_delta\ndata: {"type": "mess'])),
        ("torn-frame", "torn JSON as a whole frame", raw([*said, 'event: message_delta\ndata: {"type": "mess\n\n'])),
        ("torn-bytes", "bytes that are no text at the end", (*raw(said), b"data: \xff\xfe\n\n")),
        ("none", "no final event at all", raw(said)),
        ("no-delta", "no message_delta", raw([*lines[:-2], lines[-1]])),
        ("break", "the connection breaks", _broken(said)),
        ("event-first", "an error event before the text", raw([lines[0], *frames([_EVENT_ERROR]), *lines[1:]])),
    ]
    for name, tried, sent in rows:
        yield Form(f"end-messages-{name}", f"a Messages stream: {tried}", MESSAGES, streamed=sent)


def _translated(text: str) -> Iterator[Form]:
    """The same where LiteLLM puts an upstream's stream into another format."""
    ways = (("chat-of-messages", CHAT, "claude"), ("responses-of-messages", RESPONSES, "claude"))
    said = message_frames(message([block(text)]))[:-3]
    yield from _each(ways, said, frames([_EVENT_ERROR]), "an Anthropic upstream")
    ways = (("responses-of-chat", RESPONSES, "chatonly"), ("messages-of-chat", MESSAGES, "vllm"))
    yield from _each(ways, data(contents(text), done=False), data([chunk({}, "error")]), "an upstream of chat")
    ways = (("messages-of-responses", MESSAGES, "gpt"),)
    said = response_frames(response([answered(text)]))[:-4]
    yield from _each(ways, said, frames([_RESPONSE_ERROR]), "an upstream of Responses")


def _each(ways: tuple[tuple[str, str, str], ...], said: list[str], error: list[str], what: str) -> Iterator[Form]:
    kinds: tuple[Ending, ...] = (
        ("event", "an error at the end", lambda lines: raw([*lines, *error])),
        ("none", "no final event at all", _done),
        ("torn", "torn JSON at the end", partial(_torn, 'data: {"type": "mess')),
        ("break", "the connection breaks", _broken),
    )
    for way, endpoint, model in ways:
        for name, tried, send in kinds:
            yield Form(
                f"end-{way}-{name}", f"{what}, for {endpoint}: {tried}", endpoint, streamed=send(said), model=model
            )


def timeouts(sentence: str) -> Iterator[Form]:
    """Streams that pause longer than the client lets LiteLLM wait."""
    text = around(sentence)
    streams: tuple[tuple[str, str, list[str], list[str], str], ...] = (
        ("chat", CHAT, data(contents(text), done=False), data([chunk({}, "stop")]), ""),
        ("text", TEXT, data(text_chunks(text), done=False), data([text_body("", "stop")]), ""),
        ("responses", RESPONSES, *_halves(response_frames(response([answered(text)]))), ""),
        ("messages", MESSAGES, *_halves(message_frames(message([block(text)]))), ""),
        ("chat-of-messages", CHAT, *_halves(message_frames(message([block(text)]))), "claude"),
    )
    asked: tuple[tuple[str, str, Mapping[str, Any], Mapping[str, str]], ...] = (
        ("body", "`timeout` in the body", {"timeout": WAIT_S}, {}),
        ("stream", "`stream_timeout` in the body", {"stream_timeout": WAIT_S}, {}),
        ("header", "x-litellm-timeout", {}, {"x-litellm-timeout": str(WAIT_S)}),
        ("stream-header", "x-litellm-stream-timeout", {}, {"x-litellm-stream-timeout": str(WAIT_S)}),
    )
    for name, endpoint, said, rest, model in streams:
        sent = (*raw(said), PAUSE_S, *raw(rest))
        for way, tried, ask, headers in asked if name == "chat" else asked[:1]:
            what = f"{tried}, and an upstream that pauses behind the text of {name}"
            yield Form(f"wait-{name}-{way}", what, endpoint, None, sent, model, ask, headers)


def _halves(lines: list[str]) -> tuple[list[str], list[str]]:
    return lines[:-4], lines[-4:]
