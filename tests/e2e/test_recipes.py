"""What the clients of docs/guides/recipes.md send, through the real proxy: whole and as a stream, in every mode.

Each request has the form that its client's documentation and source show: fields, tools and headers.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.clients import Gateway, Streamed
from tests.e2e.deployment import CLAUDE, Deployment
from tests.e2e.scripted_answers import INSULT, RUDE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PAGE = Path(__file__).parents[2] / "docs" / "guides" / "recipes.md"
ADDRESS = "http://127.0.0.1:4000"
DEPLOYMENT = (
    Deployment()
    .route("sentence*", stream="sentence")
    .route("live*", stream="passthrough")
    .route("shadow*", mode="shadow")
)
MODES = ("hold", "sentence", "live", "shadow")
for mode in MODES:
    DEPLOYMENT.model(mode).model(f"{mode}-claude", CLAUDE)
KIND = "The capital of France is Paris. It lies on the Seine."
ARGUMENTS = {"place": "Paris"}
PARAMETERS = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
SYSTEM = "You are an assistant in an editor. Be brief."

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages?beta=true"
CHAT_TOOLS = [
    {"type": "function", "function": {"name": "look_up", "description": "Finds it.", "parameters": PARAMETERS}}
]
RESPONSES_TOOLS = [
    {"type": "function", "name": "look_up", "description": "Finds it.", "parameters": PARAMETERS, "strict": False}
]
OPENAI_PYTHON = {
    "user-agent": "AsyncOpenAI/Python 2.20.0",
    "x-stainless-lang": "python",
    "x-stainless-package-version": "2.20.0",
    "x-stainless-async": "async:asyncio",
    "x-stainless-retry-count": "0",
}
OPENAI_JS = {"user-agent": "OpenAI/JS 6.10.0", "x-stainless-lang": "js", "x-stainless-runtime": "node"}


@dataclass(frozen=True)
class Recipe:
    """How one client asks: what it sends beside model and question, and how it writes the question."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    before: tuple[Mapping[str, Any], ...] = ()
    in_parts: bool = False
    streams: tuple[bool, ...] = (False, True)
    scripts: tuple[str, ...] = ("rude", "tools")

    def send(self, gateway: Gateway, model: str, script: str, *, is_stream: bool) -> httpx.Response:
        """Ask as this client does."""
        kind = "input_text" if self.path == RESPONSES else "text"
        text = f"{script} of a client"
        question = {"role": "user", "content": [{"type": kind, "text": text}] if self.in_parts else text}
        listed = "input" if self.path == RESPONSES else "messages"
        name = f"{model}-claude" if self.path == MESSAGES else model
        options = {"stream_options": {"include_usage": True}} if is_stream and self.path == CHAT else {}
        body = {"model": name, **self.body, **options, "stream": is_stream, listed: [*self.before, question]}
        return gateway.http.post(self.path, json=body, headers=dict(self.headers))


CHAT_LOOP = (
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "Look it up."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_0", "type": "function", "function": {"name": "look_up", "arguments": json.dumps(ARGUMENTS)}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_0", "content": "It lies on the Seine."},
)
RESPONSES_LOOP = (
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look it up."}]},
    {"type": "function_call", "call_id": "call_0", "name": "look_up", "arguments": json.dumps(ARGUMENTS)},
    {"type": "function_call_output", "call_id": "call_0", "output": "It lies on the Seine."},
)
MESSAGES_LOOP = (
    {"role": "user", "content": [{"type": "text", "text": "Look it up.", "cache_control": {"type": "ephemeral"}}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_0", "name": "look_up", "input": ARGUMENTS}]},
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_0", "content": "It lies on the Seine."}],
    },
)
RECIPES = {
    "OpenAI SDK": Recipe(CHAT, {"tools": CHAT_TOOLS}, OPENAI_PYTHON, CHAT_LOOP),
    "Anthropic SDK": Recipe(
        MESSAGES,
        {"max_tokens": 1000, "tools": [{"name": "look_up", "input_schema": PARAMETERS}]},
        {
            "user-agent": "Anthropic/Python 0.75.0",
            "anthropic-version": "2023-06-01",
            "x-stainless-lang": "python",
            "x-stainless-helper-method": "stream",
        },
        MESSAGES_LOOP,
    ),
    "Vercel AI SDK": Recipe(
        CHAT, {"tools": CHAT_TOOLS, "tool_choice": "auto"}, {"user-agent": "ai/5.0.0 ai-sdk/openai/2.0.0"}, CHAT_LOOP
    ),
    "LangChain": Recipe(
        CHAT, {"tools": CHAT_TOOLS, "tool_choice": "auto", "temperature": 0.7, "n": 1}, OPENAI_PYTHON, CHAT_LOOP
    ),
    "LlamaIndex": Recipe(
        CHAT, {"tools": CHAT_TOOLS, "temperature": 0.1, "parallel_tool_calls": False}, OPENAI_PYTHON, CHAT_LOOP[:1]
    ),
    "OpenAI Agents SDK": Recipe(
        RESPONSES,
        {"instructions": SYSTEM, "tools": RESPONSES_TOOLS, "include": [], "parallel_tool_calls": False, "store": True},
        {**OPENAI_PYTHON, "user-agent": "Agents/Python 0.6.0"},
        RESPONSES_LOOP,
    ),
    "Open WebUI": Recipe(
        CHAT,
        {"temperature": 0.8, "max_tokens": 400},
        {"user-agent": "Python/3.11 aiohttp/3.13.0", "x-openwebui-user-name": "Ada", "x-openwebui-chat-id": "c1"},
        scripts=("rude", "reasoning"),
    ),
    "LibreChat": Recipe(
        CHAT, {"user": "6653f1", "top_p": 1, "presence_penalty": 0}, OPENAI_JS, CHAT_LOOP[:1], streams=(True,)
    ),
    "Continue": Recipe(
        CHAT,
        {"tools": CHAT_TOOLS, "max_tokens": 4096, "parallel_tool_calls": False},
        OPENAI_JS,
        CHAT_LOOP,
        streams=(True,),
    ),
    "Cline": Recipe(
        CHAT,
        {"temperature": 0, "tools": CHAT_TOOLS},
        {**OPENAI_JS, "http-referer": "https://cline.bot", "x-title": "Cline"},
        CHAT_LOOP,
        in_parts=True,
        streams=(True,),
        scripts=("rude", "tools", "reasoning"),
    ),
    "Claude Code": Recipe(
        MESSAGES,
        {
            "max_tokens": 32000,
            "system": [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": "look_up", "description": "Finds it.", "input_schema": PARAMETERS}],
            "thinking": {"type": "enabled", "budget_tokens": 10000},
            "metadata": {"user_id": "user_0_account__session_0"},
        },
        {
            "user-agent": "claude-cli/2.0.0 (external, cli)",
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
            "x-app": "cli",
        },
        MESSAGES_LOOP,
        in_parts=True,
        scripts=("rude", "tools", "reasoning"),
    ),
    "Codex": Recipe(
        RESPONSES,
        {
            "instructions": SYSTEM,
            "tools": [*RESPONSES_TOOLS, {"type": "custom", "name": "apply_patch", "description": "Changes files."}],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "store": False,
            "prompt_cache_key": "0193",
        },
        {
            "originator": "codex_cli_rs",
            "user-agent": "codex_cli_rs/0.60.0",
            "session_id": "0193",
            "accept": "text/event-stream",
        },
        RESPONSES_LOOP,
        in_parts=True,
        streams=(True,),
        scripts=("rude", "tools", "reasoning"),
    ),
    "n8n and other programs that send HTTP": Recipe(
        CHAT, {}, {"user-agent": "n8n", "accept": "application/json,text/html"}, streams=(False,), scripts=("rude",)
    ),
}


@dataclass
class Reading:
    """What a client reads of a response: the text, and the tool that is called with these arguments."""

    text: str
    tool: str
    arguments: object


def read(path: str, got: httpx.Response, *, is_stream: bool) -> Reading:
    """Read a response as the client of this endpoint does."""
    if path == CHAT:
        return _read_chat(got, is_stream=is_stream)
    reader = _read_responses if path == RESPONSES else _read_messages
    return reader(got, is_stream=is_stream)


def _streamed(got: httpx.Response) -> Streamed:
    return Streamed(got.status_code, got.headers, got.text)


def _arguments(text: str) -> object:
    return json.loads(text) if text else None


def _read_chat(got: httpx.Response, *, is_stream: bool) -> Reading:
    if is_stream:
        choices = [choice for chunk in _streamed(got).chunks for choice in chunk["choices"]]
        messages = [choice["delta"] for choice in choices]
    else:
        messages = [got.json()["choices"][0]["message"]]
    functions = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    return Reading(
        "".join(message.get("content") or "" for message in messages),
        "".join(function.get("name") or "" for function in functions),
        _arguments("".join(function.get("arguments") or "" for function in functions)),
    )


def _read_responses(got: httpx.Response, *, is_stream: bool) -> Reading:
    if is_stream:
        events = _streamed(got).chunks
        response = events[-1]["response"]
        deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    else:
        response = got.json()
    items = response["output"]
    texts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
    [call] = [item for item in items if item["type"] == "function_call"] or [{"name": "", "arguments": ""}]
    if is_stream:
        assert deltas == "".join(texts)
    return Reading("".join(texts), call["name"], _arguments(call["arguments"]))


def _read_messages(got: httpx.Response, *, is_stream: bool) -> Reading:
    if not is_stream:
        blocks = got.json()["content"]
        [call] = [block for block in blocks if block["type"] == "tool_use"] or [{"name": "", "input": None}]
        return Reading(
            "".join(block["text"] for block in blocks if block["type"] == "text"), call["name"], call["input"]
        )
    events = _streamed(got).chunks
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    begun = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    return Reading(
        "".join(delta.get("text", "") for delta in deltas),
        "".join(block["name"] for block in begun if block["type"] == "tool_use"),
        _arguments("".join(delta.get("partial_json", "") for delta in deltas)),
    )


ASKED = [
    (client, is_stream, script)
    for client, recipe in RECIPES.items()
    for is_stream in recipe.streams
    for script in recipe.scripts
]


@pytest.mark.covering("client is_stream script", "mode is_stream script")
@pytest.mark.parametrize(
    ("client", "is_stream", "script", "mode"),
    # What is asked first is asked in a mode after the other, so that the sample has all.
    [(*asked, MODES[(number + at) % len(MODES)]) for number, asked in enumerate(ASKED) for at in range(len(MODES))],
)
def test_each_client_gets_the_corrected_text_and_its_tool_call(
    gateway: Gateway, client: str, is_stream: bool, script: str, mode: str
) -> None:
    recipe = RECIPES[client]
    got = recipe.send(gateway, mode, script, is_stream=is_stream)
    as_written = mode == "shadow" or (mode == "live" and is_stream)
    called = ("look_up", ARGUMENTS) if script == "tools" else ("", None)
    assert got.status_code == httpx.codes.OK, got.text
    assert read(recipe.path, got, is_stream=is_stream) == Reading(RUDE if as_written else KIND, *called)
    assert as_written or INSULT not in got.text


def test_clients_that_list_models_find_them(gateway: Gateway) -> None:
    listed = {model["id"] for model in gateway.http.get("/v1/models").json()["data"]}
    assert set(MODES) <= listed


def test_the_page_has_a_recipe_for_each_client_and_its_blocks_are_whole() -> None:
    page = PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", page, flags=re.MULTILINE))
    assert set(sections) == set(RECIPES)
    for name, text in sections.items():
        assert ADDRESS in text, name
        is_messages = RECIPES[name].path == MESSAGES
        assert is_messages != (f"{ADDRESS}/v1" in text), name
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            assert "ALIGNER_KEY" in block, name
            if language == "python":
                compile(block, name, "exec")
            if language == "toml":
                tomllib.loads(block)
            if language == "yaml":
                yaml.safe_load(block)
