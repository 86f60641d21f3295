"""Answers with text beside the text: in reasoning, in tools' arguments and results, in fields that describe the answer.

Most of them are had whole and as a stream, which says the same piece by piece.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.attacks.odd.form import (
    CALL,
    CHAT,
    CLEAN,
    MESSAGES,
    RESPONSES,
    TEXT,
    Form,
    Sent,
    answered,
    block,
    chat_body,
    chat_stream,
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
    text_stream,
)
from tests.e2e.event_streams import Event, frames, message_events, response_events

Row = tuple[str, str, Any]


def beside(sentence: str) -> Iterator[Form]:
    """Every one, of each format."""
    for name, tried, body in _chat_bodies(sentence):
        what = f"a chat answer: {tried}"
        yield Form(f"beside-chat-{name}", what, CHAT, (encoded(body),), chat_stream(body))
    for name, tried, body in _text_bodies(sentence):
        what = f"a text completion: {tried}"
        yield Form(f"beside-text-{name}", what, TEXT, (encoded(body),), text_stream(body))
    for name, tried, body in _responses_bodies(sentence):
        what = f"a response: {tried}"
        yield Form(f"beside-responses-{name}", what, RESPONSES, (encoded(body),), raw(response_frames(body)))
    for name, tried, sent in _responses_streams(sentence):
        yield Form(f"beside-responses-stream-{name}", f"a stream of Responses: {tried}", RESPONSES, streamed=sent)
    for name, tried, body in _messages_bodies(sentence):
        what = f"a message: {tried}"
        yield Form(f"beside-messages-{name}", what, MESSAGES, (encoded(body),), raw(message_frames(body)))
    for name, tried, sent in _messages_streams(sentence):
        yield Form(f"beside-messages-stream-{name}", f"a Messages stream: {tried}", MESSAGES, streamed=sent)
    yield from _translated(sentence)
    yield from _errors(sentence)


def _arguments(sentence: str) -> str:
    return json.dumps({"note": sentence})


def _tokens(sentence: str) -> list[dict[str, Any]]:
    """Probabilities that spell a sentence word by word."""
    words = [f" {word}" for word in sentence.split()]
    return [{"token": word, "logprob": -0.1, "bytes": list(word.encode()), "top_logprobs": []} for word in words]


def _chat_bodies(s: str) -> Iterator[Row]:
    def beside_text(**fields: Any) -> Event:
        return chat_body(says(CLEAN, **fields))

    call = {**CALL, "function": {"name": "note", "arguments": _arguments(s)}}
    note = {
        "type": "url_citation",
        "url_citation": {"start_index": 0, "end_index": 3, "url": "https://a.example", "title": s},
    }
    thought = {"type": "thinking", "thinking": s, "signature": "c2ln"}
    detail = {"type": "reasoning.text", "text": s, "format": "x"}
    sound = {"id": "audio_1", "data": "aGk=", "expires_at": 1700000000, "transcript": s}
    image = {"type": "image_url", "index": 0, "image_url": {"url": "data:image/png;base64,aGk="}, "alt": s}
    yield "reasoning-alone", "reasoning_content alone", chat_body(says(None, reasoning_content=s))
    yield "reasoning", "reasoning_content beside the text", beside_text(reasoning_content=s)
    yield "reasoning-short", "`reasoning` beside the text", beside_text(reasoning=s)
    yield "reasoning-details", "reasoning_details beside the text", beside_text(reasoning_details=[detail])
    yield "thinking", "thinking_blocks beside the text", beside_text(thinking_blocks=[thought])
    for name, tried, text in _tagged(s):
        yield name, tried, chat_body(says(text))
    yield "call-alone", "the arguments of a tool call alone", chat_body(says(None, tool_calls=[call]), "tool_calls")
    yield "call", "the arguments of a tool call beside the text", beside_text(tool_calls=[call])
    named = {**CALL, "function": {"name": s, "arguments": "{}"}}
    yield "call-name", "the name of a tool", beside_text(tool_calls=[named])
    custom = {"id": "call_1", "type": "custom", "custom": {"name": "note", "input": s}}
    yield "call-custom", "the input of a custom tool", beside_text(tool_calls=[custom])
    function = {"name": "note", "arguments": _arguments(s)}
    yield "function-alone", "function_call alone", chat_body(says(None, function_call=function), "function_call")
    yield "function", "function_call beside the text", beside_text(function_call=function)
    yield "audio-alone", "the transcript of audio alone", chat_body(says(None, audio=sound))
    yield "audio", "the transcript of audio beside the text", beside_text(audio=sound)
    yield "image", "the alt text of an image", beside_text(images=[image])
    yield "annotation", "the title of a citation", beside_text(annotations=[note])
    yield "refusal", "a refusal beside the text", beside_text(refusal=s)
    yield "refusal-alone", "a refusal alone", chat_body(says(None, refusal=s))
    yield from _chat_extras(s)


def _tagged(s: str) -> Iterator[tuple[str, str, str]]:
    """Texts with tags of reasoning in them."""
    yield "tags", "reasoning between tags before the text", f"<think>{s}</think>{CLEAN}"
    yield "tags-open", "reasoning behind a tag that nothing closes", f"<think>{s}"
    yield "tags-empty", "a text behind tags with nothing in them", f"<think></think>{s}"
    yield "tags-closed", "a text before a closing tag", f"{s}</think>{CLEAN}"


def _chat_extras(s: str) -> Iterator[Row]:
    """Fields that describe the answer, or that nobody knows."""

    def beside_text(**fields: Any) -> Event:
        return chat_body(says(CLEAN, **fields))

    yield (
        "citations",
        "provider fields with citations",
        beside_text(provider_specific_fields={"citations": [[{"cited_text": s}]]}),
    )
    yield "message-extra", "a field of the message that nobody knows", beside_text(aside=s)
    yield "message-extra-deep", "the same, deep in it", beside_text(aside={"a": [{"b": s}]})
    yield "message-name", "the name of a field of the message", beside_text(**{s: "yes"})
    yield "choice-extra", "a field of the choice that nobody knows", chat_body(says(CLEAN), "stop", {"aside": s})
    filtered = {"content_filter_results": {"hate": {"filtered": False, "reason": s}}}
    yield "filter", "results of a content filter", chat_body(says(CLEAN), "stop", filtered)
    yield "finish", "the finish reason", chat_body(says(CLEAN), s)
    yield "choice-error", "the error of a choice", chat_body(says(CLEAN), "stop", {"error": {"message": s}})
    spelt = {"logprobs": {"content": _tokens(s), "refusal": None}}
    yield "logprobs", "probabilities that spell it", chat_body(says(CLEAN), "stop", spelt)
    spelt = {"logprobs": {"content": [{**_tokens("Well")[0], "top_logprobs": _tokens(s)}], "refusal": None}}
    yield "logprobs-top", "likelier tokens that spell it", chat_body(says(CLEAN), "stop", spelt)
    yield "extra", "a field of the response that nobody knows", chat_body(says(CLEAN), aside=s)
    yield "fingerprint", "system_fingerprint", chat_body(says(CLEAN), system_fingerprint=s)
    yield "tier", "service_tier", chat_body(says(CLEAN), service_tier=s)
    yield "id", "the id", chat_body(says(CLEAN), id=s)
    yield "model", "the name of the model", chat_body(says(CLEAN), model=s)
    yield (
        "search",
        "search results beside it",
        chat_body(says(CLEAN), search_results=[{"title": s, "url": "https://a.example"}]),
    )
    yield "error", "an error beside the choices", chat_body(says(CLEAN), error={"message": s, "code": 500})
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18, "remark": s}
    yield "usage", "a remark in the usage", chat_body(says(CLEAN), usage=usage)


def _text_bodies(s: str) -> Iterator[Row]:
    for name, tried, text in _tagged(s):
        yield name, tried, text_body(text)
    words = [f" {word}" for word in s.split()]
    odds = {
        "tokens": words,
        "token_logprobs": [-0.1] * len(words),
        "top_logprobs": None,
        "text_offset": [0] * len(words),
    }
    yield "logprobs", "probabilities that spell it", text_body(CLEAN, "stop", {"logprobs": odds})
    likely = {**odds, "tokens": ["The"], "token_logprobs": [-0.1], "text_offset": [0], "top_logprobs": [{s: -0.1}]}
    yield "logprobs-top", "a likelier token", text_body(CLEAN, "stop", {"logprobs": likely})
    yield "reasoning", "reasoning_content of the choice", text_body(CLEAN, "stop", {"reasoning_content": s})
    yield "choice-extra", "a field of the choice that nobody knows", text_body(CLEAN, "stop", {"aside": s})
    yield "finish", "the finish reason", text_body(CLEAN, s)
    yield "extra", "a field of the response that nobody knows", text_body(CLEAN, aside=s)
    yield "fingerprint", "system_fingerprint", text_body(CLEAN, system_fingerprint=s)


def _item(kind: str, **more: Any) -> dict[str, Any]:
    return {"id": f"{kind[:2]}_1", "type": kind, "status": "completed", **more}


def _items(s: str) -> Iterator[Row]:
    """Items of a response's output beside its message."""
    yield "reasoning", "a summary of reasoning", _item("reasoning", summary=[{"type": "summary_text", "text": s}])
    inner = [{"type": "reasoning_text", "text": s}]
    yield "reasoning-content", "the content of reasoning", _item("reasoning", summary=[], content=inner)
    yield "reasoning-secret", "encrypted_content that is none", _item("reasoning", summary=[], encrypted_content=s)
    yield (
        "call",
        "the arguments of a function call",
        _item("function_call", call_id="c", name="note", arguments=_arguments(s)),
    )
    yield "call-custom", "the input of a custom tool", _item("custom_tool_call", call_id="c", name="note", input=s)
    output = {"name": "note", "server_label": "notes", "arguments": "{}", "output": s}
    yield "mcp-output", "the output of an MCP call", _item("mcp_call", **output)
    yield "mcp-error", "the error of an MCP call", _item("mcp_call", **{**output, "output": None, "error": s})
    tool = {"name": "note", "description": s, "input_schema": {}}
    yield "mcp-tools", "the description of an MCP tool", _item("mcp_list_tools", server_label="notes", tools=[tool])
    approval = {"name": "note", "server_label": "notes", "arguments": _arguments(s)}
    yield "mcp-approval", "arguments that are to be approved", _item("mcp_approval_request", **approval)
    logs = [{"type": "logs", "logs": s}]
    yield (
        "code-logs",
        "logs of a code interpreter",
        _item("code_interpreter_call", code="1", container_id="c", outputs=logs),
    )
    yield "code", "code with a comment", _item("code_interpreter_call", code=f"# {s}", container_id="c", outputs=None)
    found = [{"file_id": "f", "filename": "a", "score": 0.9, "text": s, "attributes": {}}]
    yield "file-search", "a result of a file search", _item("file_search_call", queries=["x"], results=found)
    yield "file-query", "the query of a file search", _item("file_search_call", queries=[s], results=None)
    action = {"type": "search", "query": s, "sources": []}
    yield "web-query", "the query of a web search", _item("web_search_call", action=action)
    action = {"type": "type", "text": s}
    yield (
        "computer",
        "what a computer is to type",
        _item("computer_call", call_id="c", action=action, pending_safety_checks=[]),
    )
    action = {"type": "exec", "command": ["echo", s], "env": {}}
    yield "shell", "a command of a shell", _item("local_shell_call", call_id="c", action=action)
    yield "shell-output", "the output of a shell", _item("local_shell_call_output", output=s)
    yield "image", "the revised prompt of an image", _item("image_generation_call", result="aGk=", revised_prompt=s)
    yield (
        "compaction",
        "a compaction",
        _item("compaction", encrypted_content=s, summary=[{"type": "summary_text", "text": s}]),
    )
    yield "unknown", "an item that nobody knows", _item("hologram_call", caption=s)
    yield "refusal", "a refusal", {**answered(""), "id": "msg_2", "content": [{"type": "refusal", "refusal": s}]}


def _responses_bodies(s: str) -> Iterator[Row]:
    for name, tried, item in _items(s):
        yield name, f"{tried} beside the text", response([item, answered(CLEAN)])
    for name, tried, item in _items(s):
        if name in ("reasoning", "call", "mcp-output", "code-logs", "refusal"):
            yield f"{name}-alone", f"{tried} alone", response([item])
    for name, tried, text in _tagged(s):
        yield name, tried, response([answered(text)])
    cited = {"type": "url_citation", "start_index": 0, "end_index": 3, "url": "https://a.example", "title": s}
    yield "annotation", "the title of a citation", response([answered(CLEAN, annotations=[cited])])
    yield "logprobs", "probabilities that spell it", response([answered(CLEAN, logprobs=_tokens(s))])
    yield "part-extra", "a field of a part that nobody knows", response([answered(CLEAN, aside=s)])
    yield "item-extra", "a field of an item that nobody knows", response([{**answered(CLEAN), "aside": s}])
    said = answered(CLEAN)
    yield "instructions", "instructions that nobody gave", response([said], instructions=s)
    yield "metadata", "metadata that nobody gave", response([said], metadata={"remark": s})
    yield "error", "the message of an error", response([said], error={"code": "server_error", "message": s})
    yield "incomplete", "why it is incomplete", response([said], status="incomplete", incomplete_details={"reason": s})
    tool = {"type": "function", "name": "f", "description": s, "parameters": {}, "strict": False}
    yield "tools", "the description of a tool that nobody gave", response([said], tools=[tool])
    form = {"format": {"type": "json_schema", "name": "n", "description": s, "schema": {}}}
    yield "format", "the description of a form that nobody asked for", response([said], text=form)
    yield "prompt", "variables of a prompt", response([said], prompt={"id": "p", "variables": {"a": s}})
    yield "user", "the user", response([said], user=s)
    yield "summary", "the setting of reasoning", response([said], reasoning={"effort": None, "summary": s})
    yield "extra", "a field of the response that nobody knows", response([said], aside=s)


def _responses_streams(s: str) -> Iterator[Row]:
    """Events beside those of the text."""
    events = response_events(response([answered(CLEAN)]), cut)
    place = {"output_index": 1, "item_id": "x_1"}

    def beside_text(*more: Event) -> Sent:
        return raw(frames([*events[:-1], *more, events[-1]]))

    kinds = {
        "transcript": "response.audio.transcript.delta",
        "mcp": "response.mcp_call_arguments.delta",
        "custom": "response.custom_tool_call_input.delta",
        "code": "response.code_interpreter_call_code.delta",
        "summary": "response.reasoning_summary_text.delta",
        "thought": "response.reasoning_text.delta",
        "refusal": "response.refusal.delta",
        "unknown": "response.hologram.delta",
    }
    for name, kind in kinds.items():
        deltas = [{"type": kind, "delta": piece, "content_index": 0, "summary_index": 0, **place} for piece in cut(s)]
        yield f"delta-{name}", f"deltas of {kind}", beside_text(*deltas)
    image = {"type": "response.image_generation_call.partial_image", "partial_image_b64": s, "partial_image_index": 0}
    yield "image", "a partial image that is none", beside_text({**image, **place})
    hidden = [{**event, "obfuscation": s} if "obfuscation" in event else event for event in events]
    yield "obfuscation", "what obfuscates the deltas", raw(frames(hidden))
    extra = [{**event, "aside": s} if event["type"] == "response.output_text.delta" else event for event in events]
    yield "event-extra", "a field of an event that nobody knows", raw(frames(extra))
    yield "event-unknown", "an event that nobody knows", beside_text({"type": "response.remark", "text": s})
    spelt = {
        "type": "response.output_text.delta",
        "delta": "",
        "output_index": 0,
        "content_index": 0,
        "item_id": "msg_1",
    }
    yield "logprobs", "probabilities of a delta", beside_text({**spelt, "logprobs": _tokens(s)})


def _blocks(s: str) -> Iterator[Row]:
    """Blocks of a message beside its text."""
    yield "thinking", "thinking", {"type": "thinking", "thinking": s, "signature": "c2ln"}
    yield "thinking-signature", "the signature of thinking", {"type": "thinking", "thinking": "", "signature": s}
    yield "thinking-redacted", "redacted thinking that is none", {"type": "redacted_thinking", "data": s}
    yield "call", "the input of a tool", {"type": "tool_use", "id": "t", "name": "note", "input": {"note": s}}
    server = {"type": "server_tool_use", "id": "t", "name": "web_search", "input": {"query": s}}
    yield "call-server", "the input of a server's tool", server
    used = {"type": "mcp_tool_use", "id": "t", "name": "note", "server_name": "notes", "input": {"note": s}}
    yield "call-mcp", "the input of an MCP tool", used
    result = {"type": "mcp_tool_result", "tool_use_id": "t", "is_error": False, "content": [block(s)]}
    yield "mcp-output", "the output of an MCP tool", result
    page = {
        "type": "web_search_result",
        "title": s,
        "url": "https://a.example",
        "encrypted_content": "x",
        "page_age": None,
    }
    yield "web-title", "the title of a page", {"type": "web_search_tool_result", "tool_use_id": "t", "content": [page]}
    ran = {"type": "code_execution_result", "stdout": s, "stderr": "", "return_code": 0, "content": []}
    yield "code-output", "what code printed", {"type": "code_execution_tool_result", "tool_use_id": "t", "content": ran}
    fetched = {
        "type": "web_fetch_result",
        "url": "https://a.example",
        "content": {"type": "document", "title": s, "source": {}},
    }
    yield "web-fetch", "a fetched document", {"type": "web_fetch_tool_result", "tool_use_id": "t", "content": fetched}
    yield "compaction", "a compaction", {"type": "compaction", "content": s}
    yield "unknown", "a block that nobody knows", {"type": "hologram", "caption": s}
    yield "container", "the upload into a container", {"type": "container_upload", "file_id": s}


def _messages_bodies(s: str) -> Iterator[Row]:
    for name, tried, beside_text in _blocks(s):
        yield name, f"{tried} beside the text", message([beside_text, block(CLEAN)])
    for name, tried, alone in _blocks(s):
        if name in ("thinking", "call", "mcp-output", "code-output"):
            yield (
                f"{name}-alone",
                f"{tried} alone",
                message([alone], stop_reason="tool_use" if name == "call" else "end_turn"),
            )
    for name, tried, text in _tagged(s):
        yield name, tried, message([block(text)])
    cited = {"type": "char_location", "cited_text": s, "document_index": 0, "document_title": "A"}
    yield "citation", "what a citation quotes", message([block(CLEAN, citations=[cited])])
    yield (
        "citation-title",
        "the title of a citation",
        message([block(CLEAN, citations=[{**cited, "document_title": s, "cited_text": "The"}])]),
    )
    yield "block-extra", "a field of a block that nobody knows", message([block(CLEAN, aside=s)])
    said = [block(CLEAN)]
    yield "stop-sequence", "the stop sequence", message(said, stop_reason="stop_sequence", stop_sequence=s)
    yield "stop-details", "details of a refusal", message(said, stop_details={"type": "refusal", "explanation": s})
    yield "extra", "a field of the message that nobody knows", message(said, aside=s)
    yield "container-id", "the container", message(said, container={"id": s, "expires_at": "x"})
    edits = {"applied_edits": [{"type": "clear", "remark": s}]}
    yield "context", "edits of the context", message(said, context_management=edits)
    yield "id", "the id", message(said, id=s)
    yield "model", "the name of the model", message(said, model=s)
    yield "usage", "a remark in the usage", message(said, usage={"input_tokens": 9, "output_tokens": 9, "remark": s})
    yield "error", "an error beside the content", message(said, error={"type": "api_error", "message": s})


def _messages_streams(s: str) -> Iterator[Row]:
    events = message_events(message([block(CLEAN)]), cut)

    def beside_text(*more: Event) -> Sent:
        return raw(frames([*events[:-2], *more, *events[-2:]]))

    yield "ping", "a ping that says more", beside_text({"type": "ping", "remark": s})
    yield "unknown", "an event that nobody knows", beside_text({"type": "remark", "text": s})
    deltas = [
        {"type": "content_block_delta", "index": 5, "delta": {"type": "thinking_delta", "thinking": p}} for p in cut(s)
    ]
    yield "thinking", "thinking without a block", beside_text(*deltas)
    deltas = [
        {"type": "content_block_delta", "index": 5, "delta": {"type": "compaction_delta", "content": p}} for p in cut(s)
    ]
    yield "compaction", "a compaction without a block", beside_text(*deltas)
    note = {"type": "char_location", "cited_text": s, "document_index": 0, "document_title": "A"}
    cited = {"type": "content_block_delta", "index": 5, "delta": {"type": "citations_delta", "citation": note}}
    yield "citation", "a citation without a block", beside_text(cited)
    extra = [{**event, "aside": s} if event["type"] == "content_block_delta" else event for event in events]
    yield "event-extra", "a field of an event that nobody knows", raw(frames(extra))
    error = {"type": "error", "error": {"type": "overloaded_error", "message": s}}
    yield "error", "the message of an error event", raw(frames([*events[:-2], error]))
    lines = message_frames(message([block(CLEAN)]))
    yield "comment", "a comment", raw([*lines[:-2], f": {s}\n\n", *lines[-2:]])
    yield "event-name", "the name of an event", raw([*lines[:-2], f"event: {s}\ndata: {{}}\n\n", *lines[-2:]])
    yield "field", "a field of a frame that nobody knows", raw([*lines[:-2], f"remark: {s}\n\n", *lines[-2:]])


def _translated(s: str) -> Iterator[Form]:
    """The same where LiteLLM puts an upstream's answer into another format."""
    thinking = message([{"type": "thinking", "thinking": s, "signature": "c2ln"}, block(CLEAN)])
    call = message(
        [block(CLEAN), {"type": "tool_use", "id": "t", "name": "note", "input": {"note": s}}], stop_reason="tool_use"
    )
    for name, tried, body in (("thinking", "thinking", thinking), ("call", "the input of a tool", call)):
        both: tuple[Sent, Sent] = ((encoded(body),), raw(message_frames(body)))
        for endpoint, way in ((CHAT, "chat"), (RESPONSES, "responses")):
            what = f"{tried} of an Anthropic upstream, for {endpoint}"
            yield Form(f"beside-{way}-of-messages-{name}", what, endpoint, *both, "claude")
    reasoning = chat_body(says(CLEAN, reasoning_content=s))
    arguments = {**CALL, "function": {"name": "note", "arguments": _arguments(s)}}
    call = chat_body(says(CLEAN, tool_calls=[arguments]), "tool_calls")
    for name, tried, body in (("reasoning", "reasoning", reasoning), ("call", "the arguments of a tool call", call)):
        both = ((encoded(body),), chat_stream(body))
        for endpoint, way, model in ((RESPONSES, "responses", "chatonly"), (MESSAGES, "messages", "vllm")):
            what = f"{tried} of an upstream of chat, for {endpoint}"
            yield Form(f"beside-{way}-of-chat-{name}", what, endpoint, *both, model)
    summary = response([_item("reasoning", summary=[{"type": "summary_text", "text": s}]), answered(CLEAN)])
    function = _item("function_call", call_id="c", name="note", arguments=_arguments(s))
    for name, tried, body in (
        ("reasoning", "a summary of reasoning", summary),
        ("call", "the arguments of a function call", response([answered(CLEAN), function])),
    ):
        both = ((encoded(body),), raw(response_frames(body)))
        what = f"{tried} of an upstream of Responses, for {MESSAGES}"
        yield Form(f"beside-messages-of-responses-{name}", what, MESSAGES, *both, "gpt")


def _errors(s: str) -> Iterator[Form]:
    """Errors whose message is the text."""
    openai = {"error": {"message": s, "type": "server_error", "code": "500", "param": None}}
    anthropic: Mapping[str, Any] = {"type": "error", "error": {"type": "api_error", "message": s}}
    for endpoint, way, body in (
        (CHAT, "chat", openai),
        (TEXT, "text", openai),
        (RESPONSES, "responses", openai),
        (MESSAGES, "messages", anthropic),
    ):
        for status in (400, 500):
            sent = (encoded(body),)
            what = f"an answer of the status {status} whose message it is, for {endpoint}"
            yield Form(f"beside-{way}-error-{status}", what, endpoint, sent, sent, status=status)
    said = data(contents(CLEAN), done=False)
    sent = raw([*said, *data([openai])])
    yield Form("beside-chat-stream-error", "a chat stream: the message of an error at the end", CHAT, streamed=sent)
    sent = raw([*said, *data([{**chunk({}, "stop"), "aside": s}])])
    yield Form("beside-chat-stream-extra", "a chat stream: a field of a chunk that nobody knows", CHAT, streamed=sent)
