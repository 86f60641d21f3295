"""Answers that other gateways hand to the webhooks, with the text where the adapters' forms do not expect it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.attacks.odd.form import (
    CALL,
    CLEAN,
    Form,
    answered,
    around,
    block,
    chat_body,
    message,
    response,
    says,
    text_body,
)

WEBHOOK = "/v1/align/webhook"
GENERIC = "/beta/litellm_basic_guardrail_api"


@dataclass(frozen=True)
class Handed(Form):
    """What another gateway sends, and what it delivers if it is told so."""

    sent: Any = None


def handed(sentence: str) -> Iterator[Handed]:
    """Every one, by gateway."""
    for name, tried, body in _answers(sentence):
        sent = {"eventType": "afterRequestHook", "request": {"json": {"model": "gpt"}}, "response": {"json": body}}
        yield Handed(f"webhook-portkey-{name}", f"Portkey's webhook: {tried}", WEBHOOK, sent=sent)
    text = around(sentence)
    sent = {"eventType": "afterRequestHook", "request": {"json": {"model": "gpt"}}, "response": {"text": text}}
    yield Handed("webhook-portkey-text", "Portkey's webhook: a response as text alone", WEBHOOK, sent=sent)
    arguments = {**CALL, "function": {"name": "note", "arguments": json.dumps({"note": sentence})}}
    for name, tried, said in (
        ("parts", "content in parts", says([{"type": "text", "text": text}])),
        ("reasoning", "reasoning beside the text", says(CLEAN, reasoning_content=sentence)),
        ("call", "the arguments of a tool call beside the text", says(CLEAN, tool_calls=[arguments])),
    ):
        sent = {"body": {"choices": [{"message": said}]}}
        yield Handed(f"webhook-agentgateway-{name}", f"agentgateway's webhook: {tried}", WEBHOOK, sent=sent)
    for name, texts in (("alone", []), ("beside", [CLEAN])):
        sent = {"input_type": "response", "texts": texts, "tool_calls": [arguments], "model": "gpt"}
        what = f"LiteLLM's guardrail API: the arguments of a tool call, with {len(texts)} texts"
        yield Handed(f"webhook-litellm-call-{name}", what, GENERIC, sent=sent)


def _answers(s: str) -> Iterator[tuple[str, str, Any]]:
    text = around(s)
    part = {"type": "text", "text": text}
    whole = chat_body(says(None))
    yield "chat-parts", "content in parts", chat_body(says([part]))
    yield "chat-part", "content that is one part", chat_body(says(part))
    yield "chat-strings", "content in strings", chat_body(says([text]))
    yield "chat-text", "a choice with `text` beside an empty message", chat_body(says(None), "stop", {"text": text})
    yield "chat-message", "a message that is a string", chat_body(text)
    yield "chat-choice", "one choice in place of a list", {**whole, "choices": chat_body(says(text))["choices"][0]}
    yield "chat-error", "a finish reason error", chat_body(says(text), "error")
    yield "chat-delta", "a choice with `delta`", {**whole, "choices": [{"index": 0, "delta": says(text)}]}
    yield "chat-reasoning", "reasoning beside the text", chat_body(says(CLEAN, reasoning_content=s))
    call = {**CALL, "function": {"name": "note", "arguments": json.dumps({"note": s})}}
    yield "chat-call", "the arguments of a tool call alone", chat_body(says(None, tool_calls=[call]), "tool_calls")
    yield "text-message", "a completion with `message`", text_body("", "stop", {"message": says(text)})
    yield "text-list", "a completion whose text is a list", text_body([text])
    yield "messages-string", "Messages content as a string", message(text)
    yield "messages-block", "Messages content as one block", message(block(text))
    yield "messages-text", "a block whose text is a list", message([block([text])])
    yield "messages-no-type", "a block without type", message([{"text": text}])
    yield "messages-thinking", "thinking beside the text", message([{"type": "thinking", "thinking": s}, block(CLEAN)])
    yield "responses-string", "Responses content as a string", response([{**answered(""), "content": text}])
    yield "responses-part", "a part of type text in a string", response([{**answered(""), "content": [text]}])
    yield "responses-output", "output that is a string", response(text)
    yield "responses-text", "`output_text` alone", response([], output_text=text)
    summary = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": s}]}
    yield "responses-reasoning", "a summary of reasoning", response([summary, answered(CLEAN)])
    yield "string", "a response that is a string", text
    yield "unknown", "a response of a form that nobody knows", {"answer": text}
