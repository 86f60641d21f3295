"""Answers whose text stands in another shape than the format says, where a lenient client still reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.attacks.odd.form import (
    CHAT,
    MESSAGES,
    RESPONSES,
    TEXT,
    USAGE,
    Form,
    Sent,
    answered,
    around,
    block,
    chat_body,
    chunk,
    contents,
    cut,
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
from tests.e2e.event_streams import Event, frames, message_events, response_events

Row = tuple[str, str, Any]


def shapes(sentence: str) -> Iterator[Form]:
    """Every one, of each format, whole and streamed."""
    text = around(sentence)
    bodies = (
        ("messages", "a whole message", MESSAGES, _messages_bodies),
        ("responses", "a whole response", RESPONSES, _responses_bodies),
        ("chat", "a whole chat answer", CHAT, _chat_bodies),
        ("text", "a whole text completion", TEXT, _text_bodies),
    )
    for way, what, endpoint, rows in bodies:
        for name, tried, body in rows(text):
            yield Form(f"shape-{way}-{name}", f"{what}: {tried}", endpoint, (encoded(body),))
    streams = (
        ("messages", "a Messages stream", MESSAGES, _messages_streams),
        ("responses", "a stream of Responses", RESPONSES, _responses_streams),
        ("chat", "a chat stream", CHAT, _chat_streams),
        ("text", "a stream of text completions", TEXT, _text_streams),
    )
    for way, what, endpoint, rows in streams:
        for name, tried, sent in rows(text):
            yield Form(f"shape-{way}-stream-{name}", f"{what}: {tried}", endpoint, streamed=sent)


def _messages_bodies(text: str) -> Iterator[Row]:
    yield "content-string", "content is a string", message(text)
    yield "content-block", "content is one block", message(block(text))
    yield "content-strings", "content is a list of strings", message([text])
    yield "content-nested", "content is a list in a list", message([[block(text)]])
    yield "text-list", "the text of a block is a list of strings", message([block([text])])
    yield "text-parts", "the text of a block is a list of blocks", message([block([block(text)])])
    yield "text-object", "the text of a block is an object", message([block({"value": text})])
    yield "no-type", "a block without type", message([{"text": text}])
    yield "type-output", "a block of type output_text", message([{"type": "output_text", "text": text}])
    yield "type-capital", "a block of type TEXT", message([{"type": "TEXT", "text": text}])
    yield "type-null", "a block of type null", message([{"type": None, "text": text}])
    yield "block-content", "a block with `content` for `text`", message([{"type": "text", "content": text}])
    yield "inner-message", "the message in a field `message`", {**message([]), "message": message([block(text)])}
    yield "choices", "choices as in chat", {**message([]), "choices": chat_body(says(text))["choices"]}
    yield "completion", "a field `completion`, as it was once", {**message([]), "completion": text}
    yield "text-beside", "a field `text` beside an empty content", {**message([]), "text": text}
    yield "content-null", "content null, and a field `output_text`", {**message(None), "output_text": text}


def _block_stream(*events: Event, whole: bool = True) -> Sent:
    """A Messages stream with one block, of which these are the events between start and stop."""
    first, ping, start, *_, stop, ending, last = message_events(message([block("")]), cut)
    middle = [{"index": 0, **event} for event in events]
    return raw(frames([first, ping, start, *middle, stop, ending, last] if whole else [first, *middle, ending, last]))


def _deltas(text: str, make: Callable[[str], Any]) -> list[Event]:
    return [{"type": "content_block_delta", "delta": make(piece)} for piece in cut(text)]


def _messages_streams(text: str) -> Iterator[Row]:
    def said(make: Callable[[str], Any]) -> Sent:
        return _block_stream(*_deltas(text, make))

    sound = message_frames(message([block(text)]))
    yield "delta-no-type", "deltas without type", said(lambda piece: {"text": piece})
    yield "delta-text", "deltas of type text", said(lambda piece: {"type": "text", "text": piece})
    yield (
        "delta-json",
        "input_json_delta in a text block",
        said(lambda piece: {"type": "input_json_delta", "partial_json": piece}),
    )
    yield "delta-thinking", "thinking_delta in a text block", said(lambda p: {"type": "thinking_delta", "thinking": p})
    yield "delta-string", "deltas that are strings", said(lambda piece: piece)
    yield "delta-list", "the text of a delta is a list", said(lambda piece: {"type": "text_delta", "text": [piece]})
    yield "delta-content", "deltas with `content`", said(lambda piece: {"type": "text_delta", "content": piece})
    yield "delta-unknown", "deltas of a type that nobody knows", said(lambda p: {"type": "sung_delta", "text": p})
    whole = {"type": "content_block_start", "content_block": block([block(text)])}
    yield "start-list", "a block that begins with a list of blocks", _block_stream(whole, whole=False)
    whole = {"type": "content_block_start", "content_block": {"text": text}}
    yield "start-no-type", "a block that begins without type", _block_stream(whole, whole=False)
    whole = {"type": "content_block_start", "content_block": text}
    yield "start-string", "a block that is a string", _block_stream(whole, whole=False)
    whole = {"type": "content_block_stop", "content_block": block(text)}
    yield "stop-block", "a block that comes when it ends", _block_stream(whole)
    first, *rest = message_events(message([]), cut)
    first["message"]["content"] = text
    yield "start-content", "the text as content of message_start", raw(frames([first, *rest]))
    *most, ending, last = message_events(message([]), cut)
    delta = {**ending, "delta": {**ending["delta"], "text": text}}
    yield "message-delta", "the text in message_delta", raw(frames([*most, delta, last]))
    delta = {**last, "message": message([block(text)])}
    yield "message-stop", "the message in message_stop", raw(frames([*most, ending, delta]))
    yield from _messages_frames(text, sound)


def _messages_frames(text: str, sound: list[str]) -> Iterator[Row]:
    """Frames that are told in another way than the standard's."""

    def again(old: str, new: str) -> Sent:
        return raw([line.replace(old, new) for line in sound])

    yield "space", "a space before `data:`", again("\ndata:", "\n data:")
    yield "capitals", "`DATA:` in capitals", again("\ndata:", "\nDATA:")
    yield "space-before-colon", "`data :`", again("\ndata:", "\ndata :")
    yield "tab", "a tab before `data:`", again("\ndata:", "\n\tdata:")
    yield "no-space", "`data:` without a space", again("data: ", "data:")
    yield "byte-order", "a byte order mark in front of each frame", raw(["\ufeff" + line for line in sound])
    yield "json-lines", "JSON lines without `data:`", raw([line.split("data: ")[1] for line in sound])
    yield "lines", "data over several lines", again(', "', ',\ndata: "')
    yield "unnamed", "events without a name in `event:`", raw([line[line.index("data:") :] for line in sound])
    named = [line.replace('{"type": "' + line[7 : line.index("\n")] + '", ', "{") for line in sound]
    yield "named-alone", "events whose type is in `event:` alone", raw(named)
    yield "chunks", "the chunks of a chat stream", raw(data([*contents(text), chunk({}, "stop")]))
    old = [{"type": "completion", "completion": piece, "stop_reason": None} for piece in cut(text)]
    yield "completion", "the events of the old text completions", raw(frames(old))
    body = encoded(message([block(text)]))
    yield "body", "a whole message in place of a stream", (body,)
    yield "text", "the text without any frame", (text.encode(),)
    yield "data-text", "the text in data that are no JSON", raw([*sound[:2], f"data: {text}\n\n", *sound[-2:]])
    yield "data-string", "the text in data that are a string", raw([f"data: {json.dumps(text)}\n\n", *sound[-2:]])
    yield "data-list", "events in a list", raw([f"data: [{line.split('data: ')[1].strip()}]\n\n" for line in sound])
    yield "comment", "the text as a comment", raw([*sound[:2], f": {text}\n\n", *sound[-2:]])
    yield "event-name", "the text as the name of an event", raw([*sound[:2], f"event: {text}\n\n", *sound[-2:]])
    yield "event-id", "the text as the id of an event", raw([*sound[:2], f"id: {text}\n\n", *sound[-2:]])
    yield "utf-16", "the letters of a text written as \\u", raw([_escaped(line, text) for line in sound])


def _escaped(line: str, text: str) -> str:
    for piece in cut(text):
        line = line.replace(json.dumps(piece)[1:-1], "".join(f"\\u{ord(letter):04x}" for letter in piece))
    return line


def _responses_bodies(text: str) -> Iterator[Row]:
    item = answered("")

    def holding(content: Any, **more: Any) -> Event:
        return response([{**item, "content": content, **more}])

    part = {"type": "output_text", "text": text, "annotations": []}
    yield "content-string", "content of a message is a string", holding(text)
    yield "content-part", "content of a message is one part", holding(part)
    yield "content-strings", "content is a list of strings", holding([text])
    yield "part-text", "a part of type text", holding([{"type": "text", "text": text, "annotations": []}])
    yield "part-input", "a part of type input_text", holding([{"type": "input_text", "text": text}])
    yield "part-no-type", "a part without type", holding([{"text": text}])
    yield "part-summary", "a part of type summary_text", holding([{"type": "summary_text", "text": text}])
    yield "text-list", "the text of a part is a list", holding([{**part, "text": [text]}])
    yield "text-object", "the text of a part is an object", holding([{**part, "text": {"value": text}}])
    yield "item-no-type", "an item without type", response([{"role": "assistant", "content": [part]}])
    yield "item-text", "an item of type output_text", response([part])
    yield "item-string", "output is a list of strings", response([text])
    yield "item-text-field", "a message with `text`", holding([], text=text)
    yield "item-user", "a message of the user's", holding([part], role="user")
    yield "output-string", "output is a string", response(text)
    yield "output-object", "output is one item", response({**item, "content": [part]})
    yield "output-text", "a field `output_text` alone", response([], output_text=text)
    yield "choices", "choices as in chat", response([], choices=chat_body(says(text))["choices"])
    yield "content-beside", "a field `content` as in Messages", response([], content=[block(text)])


def _responses_streams(text: str) -> Iterator[Row]:
    events = response_events(response([answered(text)]), cut)

    def other(make: Callable[[Event], Event | None], of: str = "response.output_text.delta") -> Sent:
        told = [make(event) if event["type"] == of else event for event in _without_wholes(events, text)]
        return raw(frames([event for event in told if event is not None]))

    yield "delta-object", "deltas that are objects", other(lambda event: {**event, "delta": {"text": event["delta"]}})
    yield "delta-old", "deltas of type response.text.delta", other(lambda e: {**e, "type": "response.text.delta"})
    yield "delta-unknown", "deltas of a type that nobody knows", other(lambda e: {**e, "type": "response.sung.delta"})
    yield "delta-text", "deltas with `text`", other(lambda event: {**event, "delta": "", "text": event["delta"]})
    yield (
        "delta-no-index",
        "deltas without a place",
        other(
            lambda event: {
                name: value for name, value in event.items() if name not in ("output_index", "content_index")
            }
        ),
    )
    yield "delta-other-item", "deltas of an item that was not begun", other(lambda event: {**event, "output_index": 7})
    text_done = "response.output_text.done"
    yield "done-alone", "the text when it is done", _silent(events, text, text_done, ("text",), text)
    yield "done-list", "the text when it is done, as a list", _silent(events, text, text_done, ("text",), [text])
    item_done = "response.output_item.done"
    yield (
        "item-string",
        "an item whose content is a string",
        _silent(events, text, item_done, ("item", "content"), text),
    )
    end = "response.completed"
    output = [{**answered(""), "content": text}]
    yield "completed-string", "the same at the end", _silent(events, text, end, ("response", "output"), output)
    yield "completed-text", "`output_text` at the end", _silent(events, text, end, ("response", "output_text"), text)
    sound = response_frames(response([answered(text)]))
    yield "space", "a space before `data:`", raw([line.replace("\ndata:", "\n data:") for line in sound])
    yield "capitals", "`DATA:` in capitals", raw([line.replace("\ndata:", "\nDATA:") for line in sound])
    yield "chunks", "the chunks of a chat stream", raw(data([*contents(text), chunk({}, "stop")]))
    yield (
        "no-type",
        "events whose type is in `event:` alone",
        raw(
            [
                f"event: {event['type']}\ndata: {json.dumps({k: v for k, v in event.items() if k != 'type'})}\n\n"
                for event in events
            ]
        ),
    )
    yield "body", "a whole response in place of a stream", (encoded(response([answered(text)])),)


def _without_wholes(events: list[Event], text: str) -> list[Event]:
    """The events without those that repeat the text as a whole."""
    return [event for event in events if json.dumps(text)[1:-1] not in json.dumps(event)]


def _silent(events: list[Event], text: str, kind: str, path: tuple[str, ...], value: Any) -> Sent:
    """The stream of an empty answer, in which one event holds this value at this path."""
    told = json.loads(json.dumps(response_events(response([answered("")]), cut)))
    place = next(event for event in told if event["type"] == kind)
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return raw(frames(told))


def _chat_bodies(text: str) -> Iterator[Row]:
    part = {"type": "text", "text": text}
    whole = chat_body(says(None))

    def chosen(**choice: Any) -> Event:
        return {**whole, "choices": [{"index": 0, "finish_reason": "stop", **choice}]}

    yield "text", "a choice with `text` where a message belongs", chosen(text=text)
    yield "text-beside", "a choice with `text` beside an empty message", chosen(message=says(None), text=text)
    yield "delta", "a choice with `delta`", chosen(delta=says(text))
    yield "message-string", "a message that is a string", chosen(message=text)
    yield "content-parts", "content in parts", chosen(message=says([part]))
    yield "content-part", "content that is one part", chosen(message=says(part))
    yield "content-strings", "content in strings", chosen(message=says([text]))
    yield (
        "content-output",
        "content in parts of type output_text",
        chosen(message=says([{**part, "type": "output_text"}])),
    )
    yield "content-nested", "content in parts whose text is an object", chosen(message=says([{**part, "text": part}]))
    yield "message-text", "a message with `text`", chosen(message=says(None, text=text))
    yield "message-parts", "a message with `parts`", chosen(message=says(None, parts=[{"text": text}]))
    yield "messages", "a choice with `messages`", chosen(message=says(None), messages=[says(text)])
    yield "choice-content", "a choice with `content`", chosen(message=says(None), content=text)
    yield "output", "output as in Responses", {**whole, "output": [answered(text)]}
    yield "content-beside", "content as in Messages", {**whole, "content": [block(text)]}
    yield "no-role", "a message without role", chosen(message={"content": text})
    yield "role-tool", "a message of a tool", chosen(message={"role": "tool", "content": text})


def _chat_streams(text: str) -> Iterator[Row]:
    end = [chunk({}, "stop")]

    def said(make: Callable[[str], Event]) -> Sent:
        return raw(data([chunk({"role": "assistant", "content": ""}), *map(make, cut(text)), *end]))

    sound = data([*contents(text), *end])
    yield "text", "choices with `text`", said(lambda piece: {**chunk({}), "choices": [{"index": 0, "text": piece}]})
    yield "text-beside", "choices with `text` beside an empty delta", said(lambda p: chunk({}, None, {"text": p}))
    yield (
        "message",
        "choices with `message`",
        said(lambda piece: {**chunk({}), "choices": [{"index": 0, "message": says(piece)}]}),
    )
    yield "content-parts", "content in parts", said(lambda p: chunk({"content": [{"type": "text", "text": p}]}))
    yield "content-object", "content that is an object", said(lambda piece: chunk({"content": {"text": piece}}))
    yield "delta-string", "deltas that are strings", said(lambda piece: chunk(piece))
    yield "delta-text", "deltas with `text`", said(lambda piece: chunk({"text": piece}))
    yield "delta-none", "a whole message in one chunk", raw(data([chunk({}, "stop", {"message": says(text)})]))
    yield "no-index", "choices without index", said(lambda p: {**chunk({}), "choices": [{"delta": {"content": p}}]})
    yield "index-text", "choices with a name for an index", said(lambda p: chunk({"content": p}, None, {"index": "a"}))
    yield "space", "a space before `data:`", raw([f" {line}" for line in sound])
    yield "capitals", "`DATA:` in capitals", raw([line.replace("data:", "DATA:") for line in sound])
    yield "no-space", "`data:` without a space", raw([line.replace("data: ", "data:") for line in sound])
    yield "json-lines", "JSON lines without `data:`", raw([line.removeprefix("data: ") for line in sound])
    yield "delta-events", "the events of Responses", raw(response_frames(response([answered(text)])))
    yield "message-events", "the events of Messages", raw(message_frames(message([block(text)])))
    yield "body", "a whole answer in place of a stream", (encoded(chat_body(says(text))),)
    yield "comment", "the text as a comment", raw([sound[0], f": {text}\n\n", *sound[-2:]])
    yield "data-text", "the text in data that are no JSON", raw([sound[0], f"data: {text}\n\n", *sound[-2:]])


def _text_bodies(text: str) -> Iterator[Row]:
    whole = text_body("")

    def chosen(**choice: Any) -> Event:
        return {**whole, "choices": [{"index": 0, "finish_reason": "stop", **choice}]}

    yield "message", "a choice with `message` where a text belongs", chosen(message=says(text))
    yield "message-beside", "a choice with `message` beside an empty text", chosen(text="", message=says(text))
    yield "text-list", "a text that is a list", chosen(text=[text])
    yield "text-object", "a text that is an object", chosen(text={"content": text})
    yield "content", "a choice with `content`", chosen(text="", content=text)
    yield "completion", "a field `completion`", {**whole, "completion": text}


def _text_streams(text: str) -> Iterator[Row]:
    end = [text_body("", "stop")]

    def said(make: Callable[[str], Event]) -> Sent:
        told = [{**text_body(""), "usage": None, "choices": [{"index": 0, **make(piece)}]} for piece in cut(text)]
        return raw(data([*told, *end]))

    sound = data([*text_chunks(text), *end])
    yield "delta", "choices with `delta`", said(lambda piece: {"delta": {"content": piece}})
    yield "delta-beside", "choices with `delta` beside an empty text", said(lambda p: {"text": "", "delta": says(p)})
    yield "message", "choices with `message`", said(lambda piece: {"text": "", "message": says(piece)})
    yield "text-list", "texts that are lists", said(lambda piece: {"text": [piece]})
    yield "capitals", "`DATA:` in capitals", raw([line.replace("data:", "DATA:") for line in sound])
    yield "body", "a whole completion in place of a stream", (encoded({**text_body(text), "usage": USAGE}),)
