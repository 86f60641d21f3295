"""How does each client read an answer? One function per client and endpoint, told a base URL and a key."""

from __future__ import annotations

import functools
import http.client
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from tests.conformance.features import CHAT, MESSAGES, RESPONSES, TEXT, TOOLS
from tests.e2e.warm_litellm import warm_context

Read = tuple[str, tuple[str, Any] | None]
"""The text, and the name and arguments of the tool call."""
Client = Callable[[str, str, bool, bool], Read]
"""Told the gateway's address, the key, whether to stream, whether to offer a tool; says what it read."""


def _script(tools: bool) -> str:
    return "tools" if tools else "rude"


def asked(endpoint: str, stream: bool, tools: bool) -> dict[str, Any]:
    """The body of a request, for clients that send it as it is."""
    said = [{"role": "user", "content": _script(tools)}]
    bodies: dict[str, dict[str, Any]] = {
        CHAT: {"model": "gpt", "messages": said},
        TEXT: {"model": "instruct", "prompt": _script(tools)},
        RESPONSES: {"model": "gpt", "input": _script(tools)},
        MESSAGES: {"model": "claude", "max_tokens": 99, "messages": said},
    }
    return {**bodies[endpoint], **(TOOLS[endpoint] if tools else {}), **({"stream": True} if stream else {})}


def openai_chat(base: str, key: str, stream: bool, tools: bool) -> Read:
    """The official client, chat."""
    import openai

    with openai.OpenAI(base_url=f"{base}/v1", api_key=key) as client:
        got: Any = client.chat.completions.create(**asked(CHAT, stream, tools))
        return chat_chunks(got) if stream else chat_message(got.choices[0].message)


def openai_text(base: str, key: str, stream: bool, tools: bool) -> Read:
    """The official client, text completions."""
    import openai

    with openai.OpenAI(base_url=f"{base}/v1", api_key=key) as client:
        got: Any = client.completions.create(**asked(TEXT, stream, tools))
        return "".join(chunk.choices[0].text or "" for chunk in (got if stream else [got])), None


def openai_responses(base: str, key: str, stream: bool, tools: bool) -> Read:
    """The official client, Responses."""
    import openai

    with openai.OpenAI(base_url=f"{base}/v1", api_key=key) as client:
        if not stream:
            return response(client.responses.create(**asked(RESPONSES, stream, tools)))
        with client.responses.stream(**asked(RESPONSES, False, tools)) as events:
            said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            told = response(events.get_final_response())
    assert said == told[0]
    return told


def anthropic_messages(base: str, key: str, stream: bool, tools: bool) -> Read:
    """Anthropic's client."""
    import anthropic

    body = asked(MESSAGES, False, tools)
    with anthropic.Anthropic(base_url=base, api_key=key) as client:
        if not stream:
            return _message(client.messages.create(**body))
        with client.messages.stream(**body) as events:
            said = "".join(events.text_stream)
            told = _message(events.get_final_message())
    assert said == told[0]
    return told


def litellm_sdk(endpoint: str) -> Client:
    """LiteLLM's SDK, in a process of its own: it keeps sessions and an event loop for the life of a process."""

    def read(base: str, key: str, stream: bool, tools: bool) -> Read:
        return _litellm_reads(base, key)[f"{endpoint} {stream} {tools}"]

    return read


@functools.cache
def _litellm_reads(base: str, key: str) -> dict[str, Read]:
    from tests.conformance.litellm_sdk import read_all

    with ProcessPoolExecutor(1, warm_context()) as pool:
        return pool.submit(read_all, base, key).result(120)


def langchain_chat(base: str, key: str, stream: bool, tools: bool) -> Read:
    """LangChain's ChatOpenAI."""
    return _langchain(base, key, stream, tools)


def langchain_responses(base: str, key: str, stream: bool, tools: bool) -> Read:
    """LangChain's ChatOpenAI by way of Responses."""
    return _langchain(base, key, stream, tools, use_responses_api=True)


def _langchain(base: str, key: str, stream: bool, tools: bool, **more: Any) -> Read:
    from langchain_openai import ChatOpenAI

    model: Any = ChatOpenAI(model="gpt", base_url=f"{base}/v1", api_key=key, max_retries=0, **more)
    bound = model.bind_tools(TOOLS[CHAT]["tools"]) if tools else model
    if stream:
        pieces = list(bound.stream(_script(tools)))
        got = pieces[0]
        for piece in pieces[1:]:
            got += piece
    else:
        got = bound.invoke(_script(tools))
    calls = [(call["name"], call["args"]) for call in got.tool_calls]
    return got.text if isinstance(got.text, str) else got.text(), calls[0] if calls else None


def curl(endpoint: str) -> Client:
    """curl, with the key where each API wants it."""

    def read(base: str, key: str, stream: bool, tools: bool) -> Read:
        who = f"x-api-key: {key}" if endpoint == MESSAGES else f"authorization: Bearer {key}"
        body = json.dumps(asked(endpoint, stream, tools))
        command = ["curl", "-sSN", "--fail", "--noproxy", "*", "-H", who, "-H", "content-type: application/json"]
        got = subprocess.run([*command, "-d", body, base + endpoint], capture_output=True, text=True, check=True)
        return _raw_stream(got.stdout.splitlines(), endpoint) if stream else _raw(json.loads(got.stdout), endpoint)

    return read


def plain(endpoint: str) -> Client:
    """The standard library and a reader of server-sent events that knows nothing but their specification."""

    def read(base: str, key: str, stream: bool, tools: bool) -> Read:
        connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=60)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", endpoint, json.dumps(asked(endpoint, stream, tools)), headers)
        got = connection.getresponse()
        lines = (line.decode() for line in got)
        told = _raw_stream(lines, endpoint) if stream else _raw(json.loads("".join(lines)), endpoint)
        connection.close()
        return told

    return read


CLIENTS: dict[tuple[str, str], tuple[Client, str]] = {
    ("openai", CHAT): (openai_chat, "openai"),
    ("openai", TEXT): (openai_text, "openai"),
    ("openai", RESPONSES): (openai_responses, "openai"),
    ("anthropic", MESSAGES): (anthropic_messages, "anthropic"),
    ("litellm SDK", CHAT): (litellm_sdk(CHAT), "litellm"),
    ("litellm SDK", RESPONSES): (litellm_sdk(RESPONSES), "litellm"),
    ("langchain-openai", CHAT): (langchain_chat, "langchain_openai"),
    ("langchain-openai", RESPONSES): (langchain_responses, "langchain_openai"),
    **{("curl", endpoint): (curl(endpoint), "") for endpoint in (CHAT, TEXT, RESPONSES, MESSAGES)},
    **{("plain SSE reader", endpoint): (plain(endpoint), "") for endpoint in (CHAT, TEXT, RESPONSES, MESSAGES)},
}
"""By name and endpoint: the client, and the package that it needs."""


def sse_events(lines: Iterable[str]) -> Iterator[str]:
    """The data of each event, by the specification: comments and other fields are ignored, data lines joined."""
    data: list[str] = []
    for line in (line.rstrip("\r\n") for line in lines):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []


def _raw_stream(lines: Iterable[str], endpoint: str) -> Read:
    """What deltas of any endpoint add up to."""
    text = ""
    name = None
    arguments = ""
    for event in (json.loads(data) for data in sse_events(lines) if data != "[DONE]"):
        piece, called, more = _raw_delta(event)
        text = text + piece
        name = name or called
        arguments = arguments + more
    return text, (name, json.loads(arguments)) if name else None


def _raw_delta(event: dict[str, Any]) -> tuple[str, str | None, str]:
    """Text, name of a tool and arguments that an event adds."""
    for choice in event.get("choices", ()):
        delta = choice.get("delta", {})
        for call in delta.get("tool_calls") or ():
            return "", call["function"].get("name"), call["function"].get("arguments") or ""
        return choice.get("text") or delta.get("content") or "", None, ""
    kind = event.get("type")
    delta = event.get("delta")
    if kind == "response.output_text.delta":
        return event["delta"], None, ""
    if kind == "response.output_item.done" and event["item"]["type"] == "function_call":
        return "", event["item"]["name"], event["item"]["arguments"]
    if kind == "content_block_start":
        return "", event["content_block"].get("name"), ""
    if kind == "content_block_delta":
        return delta.get("text", ""), None, delta.get("partial_json", "")
    return "", None, ""


def _raw(body: dict[str, Any], endpoint: str) -> Read:
    """A whole body of any endpoint."""
    if endpoint == CHAT:
        message = body["choices"][0]["message"]
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        return message["content"], (calls[0]["name"], json.loads(calls[0]["arguments"])) if calls else None
    if endpoint == TEXT:
        return body["choices"][0]["text"], None
    parts = body["content"] if endpoint == MESSAGES else [p for i in body["output"] for p in i.get("content") or [i]]
    text = "".join(part.get("text", "") for part in parts)
    calls = [part for part in parts if part["type"] in ("tool_use", "function_call")]
    told = [(call["name"], call.get("input") or json.loads(call.get("arguments", "{}"))) for call in calls]
    return text, told[0] if told else None


def chat_message(message: Any) -> Read:
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    return message.content, calls[0] if calls else None


def chat_chunks(chunks: Iterable[Any]) -> Read:
    text = ""
    name = None
    arguments = ""
    for delta in (choice.delta for chunk in chunks for choice in chunk.choices):
        text += delta.content or ""
        for call in delta.tool_calls or ():
            name = name or call.function.name
            arguments = arguments + (call.function.arguments or "")
    return text, (name, json.loads(arguments)) if name else None


def response(response: Any) -> Read:
    calls = [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]
    return response.output_text, calls[0] if calls else None


def _message(message: Any) -> Read:
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    return "".join(block.text for block in message.content if block.type == "text"), calls[0] if calls else None
