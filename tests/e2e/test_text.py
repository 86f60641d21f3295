"""Text completions, and an endpoint that is left alone."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

KIND = "The capital of France is Paris. It lies on the Seine."


def test_a_stream_says_what_a_whole_response_says(gateway: Any, plain: Any) -> None:
    whole = gateway.complete("rude")
    stream = gateway.complete_stream("rude")
    assert whole.json()["choices"][0]["text"] == stream.text() == KIND
    assert whole.headers["x-aligner-status"] == "corrected"
    assert stream.comments == [": aligner status=corrected"]
    assert _shapes(stream.chunks) == _shapes(plain.complete_stream("rude").chunks)


def _shapes(chunks: list[dict[str, Any]]) -> list[Any]:
    for chunk in chunks:
        chunk["created"] = 0
        for choice in chunk["choices"]:
            choice["text"] = choice.get("text") and "..."
    return chunks


@pytest.mark.parametrize(
    ("script", "status", "more"),
    [
        ("good", "unchanged", {}),
        ("rude", "skipped", {"echo": True}),
        ("rude", "skipped", {"suffix": "and more"}),
        ("length", "skipped", {}),
        ("rude", "skipped", {"guided_json": {"type": "object"}}),
    ],
)
def test_what_is_not_corrected_is_untouched_to_the_byte(
    gateway: Any, plain: Any, script: str, status: str, more: dict[str, Any]
) -> None:
    got = gateway.complete(script, **more)
    assert got.headers["x-aligner-status"] == status
    assert got.content == plain.complete(script, **more).content
    stream = gateway.complete_stream(script, **more)
    assert stream.comments[0].startswith(f": aligner status={status}")
    assert stream.untouched() == plain.complete_stream(script, **more).untouched()


def test_several_prompts_with_several_choices(gateway: Any, plain: Any) -> None:
    got = gateway.complete(["rude one", "rude two"], n=2)
    original = plain.complete(["rude one", "rude two"], n=2).json()["choices"]
    texts = [choice["text"] for choice in got.json()["choices"]]
    assert texts == [KIND, original[1]["text"], KIND, original[3]["text"]]


def test_the_usage_chunk_comes_when_asked_for(gateway: Any, plain: Any) -> None:
    more = {"stream_options": {"include_usage": True}}
    ours = gateway.complete_stream("rude", **more).chunks
    theirs = plain.complete_stream("rude", **more).chunks
    assert [chunk.get("usage") for chunk in ours] == [chunk.get("usage") for chunk in theirs]


@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_text_completions_of_a_chat_model(gateway: Any, plain: Any, model: str) -> None:
    got = gateway.http.post("/v1/completions", json={"model": model, "prompt": "rude"})
    assert got.json()["choices"][0]["text"] == KIND
    body = {"model": model, "prompt": "rude", "stream": True}
    ours, theirs = (proxy.http.post("/v1/completions", json=body).text for proxy in (gateway, plain))
    stream = type(gateway.complete_stream("good"))(200, got.headers, ours)
    assert stream.text() == KIND
    assert stream.comments == [": aligner status=corrected"]
    assert ours.count("data: ") == theirs.count("data: ")


def test_other_endpoints_are_left_alone(gateway: Any, plain: Any) -> None:
    body = {"model": "gpt", "input": "rude"}
    ours, theirs = (proxy.http.post("/v1/embeddings", json=body) for proxy in (gateway, plain))
    assert ours.status_code == theirs.status_code == 200
    assert (ours.headers["x-aligner-status"], ours.headers["x-aligner-reason"]) == ("skipped", "endpoint")
    assert ours.content == theirs.content


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages"])
def test_litellm_asks_no_guardrail_for_the_headers_of_these_failures(gateway: Any, plain: Any, path: str) -> None:
    """OpenAI's client knows no response_format for text, so the call fails before there is an answer."""
    body: dict[str, Any] = {"model": "instruct", "prompt": "rude", "response_format": {"type": "json_object"}}
    if path == "/v1/messages":
        body = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "fail"}]}
    ours, theirs = (proxy.http.post(path, json=body) for proxy in (gateway, plain))
    assert ours.status_code == theirs.status_code == 500
    assert ours.content == theirs.content
    assert "x-aligner-status" not in ours.headers


@pytest.mark.parametrize("stream", [False, True])
def test_what_litellms_own_cache_returns_is_corrected(tenants: Any, plain: Any, upstream: str, stream: bool) -> None:
    """Streams of text completions come out of it as chunks of chat."""
    script = f"rude and cached text {stream}"
    cached = {"cache": {"use-cache": True}}

    def complete(who: Any) -> str:
        if not stream:
            return str(who.complete(script, **cached).json()["choices"][0]["text"])
        chunks = who.complete_stream(script, **cached).chunks
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        return "".join(one.get("text") or one.get("delta", {}).get("content") or "" for one in choices)

    assert complete(tenants["other"]) == KIND
    time.sleep(0.5)  # LiteLLM stores behind the response
    before = len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json())
    assert [complete(tenants[who]) for who in ("other", "vip", "acme")] == [KIND] * 3
    assert len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()) == before
