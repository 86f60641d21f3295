"""Messages through the real proxy: natively and translated, whole and streamed, down to the byte."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from tests.e2e.clients import Streamed, made_up
from tests.e2e.deployment import MESSAGES_MODELS
from tests.e2e.shared import SHARED
from tests.support.comments import without_id

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

KIND = "The capital of France is Paris. It lies on the Seine."
RUDE = "The capital of France is Paris. You are an idiot for asking. It lies on the Seine."
JSON_MODE = {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}

SKIPPED: list[tuple[str, str, dict[str, Any]]] = [
    ("call", "tool_calls", {}),
    ("json", "structured_output", JSON_MODE),
    ("cited", "annotations", {}),
    ("novel", "non_text", {}),
    ("refuse", "refusal", {}),
    ("length", "truncated", {}),
    ("pause", "truncated", {}),
    ("empty", "empty", {}),
    ("none", "empty", {}),
    ("huge", "too_long", {"model": "brief"}),
    ("rude", "mode_off", {"model": "off"}),
    ("rude", "no_objectives", {"model": "bare"}),
    ("rude", "not_sampled", {"model": "unsampled"}),
    ("refusal_field", "refusal", {"model": "gpt"}),
    ("length", "truncated", {"model": "gpt"}),
    ("filter", "refusal", {"model": "vllm"}),
]


def texts(body: dict[str, Any]) -> list[str]:
    """The text blocks of a message."""
    return [block["text"] for block in body["content"] if block["type"] == "text"]


def told(stream: Streamed) -> list[str]:
    """The text blocks of a stream."""
    return stream.parts("content_block_delta", "index", "text")


def shapes(stream: Streamed) -> Any:
    """The stream as LiteLLM alone would have sent it, texts blanked: usage, stop reasons, thinking, order."""
    events = json.loads(made_up(json.dumps(stream.chunks)))
    for event in events:
        if event.get("delta", {}).get("type") == "text_delta":
            event["delta"]["text"] = ""
    return events


@pytest.mark.parametrize("model", MESSAGES_MODELS)
def test_text_beside_a_tool_call_is_corrected(gateway: Any, plain: Any, model: str) -> None:
    ours, theirs = (proxy.message("tools", model=model).json() for proxy in (gateway, plain))
    assert (texts(ours), texts(theirs)) == ([KIND], [RUDE])
    assert [block["type"] for block in ours["content"]] == [block["type"] for block in theirs["content"]]
    assert told(gateway.message_stream("tools", model=model)) == [KIND]


@pytest.mark.parametrize("model", MESSAGES_MODELS)
def test_a_stream_says_what_a_whole_message_says(gateway: Any, plain: Any, model: str) -> None:
    whole = gateway.message("rude", model=model)
    stream = gateway.message_stream("rude", model=model)
    assert texts(whole.json()) == told(stream) == [KIND]
    assert (whole.headers["x-aligner-status"], stream.headers["x-aligner-status"]) == ("corrected", "pending")
    assert without_id(stream.raw).endswith(
        ': aligner status=corrected\nevent: message_stop\ndata: {"type": "message_stop"}\n\n'
    )
    assert "idiot" not in stream.raw
    original = plain.message_stream("rude", model=model)
    assert told(original) == [RUDE]
    assert shapes(stream) == shapes(original)
    assert made_up(whole.text) == made_up(plain.message("rude", model=model).text).replace(RUDE, KIND)


@pytest.mark.parametrize("script", ["torn", "stop"])
def test_however_the_upstream_cuts_and_stops(gateway: Any, plain: Any, script: str) -> None:
    stream = gateway.message_stream(script)
    assert told(stream) == [KIND]
    assert shapes(stream) == shapes(plain.message_stream(script))


@pytest.mark.parametrize("model", MESSAGES_MODELS)
def test_a_good_answer_is_unchanged_to_the_byte(gateway: Any, plain: Any, model: str) -> None:
    got = gateway.message("good", model=model)
    assert (got.headers["x-aligner-status"], "x-aligner-reason" in got.headers) == ("unchanged", False)
    assert made_up(got.text) == made_up(plain.message("good", model=model).text)
    stream = gateway.message_stream("good", model=model)
    assert stream.comments == [": aligner status=unchanged"]
    assert stream.untouched() == plain.message_stream("good", model=model).untouched()


@pytest.mark.some(4)  # conformance/test_cells.py tries each on the real proxy
@pytest.mark.parametrize(("script", "reason", "more"), SKIPPED)
def test_a_skipped_answer_is_untouched_to_the_byte(
    gateway: Any, plain: Any, script: str, reason: str, more: dict[str, Any]
) -> None:
    got = gateway.message(script, **more)
    assert (got.status_code, got.headers["x-aligner-status"]) == (200, "skipped")
    assert got.headers["x-aligner-reason"] == reason
    assert made_up(got.text) == made_up(plain.message(script, **more).text)
    stream = gateway.message_stream(script, **more)
    # A stream goes on part by part where a whole answer is too long.
    became = "unchanged" if reason == "too_long" else f"skipped reason={reason}"
    assert [comment[: len(became) + 17] for comment in stream.comments] == (
        [] if reason == "mode_off" else [f": aligner status={became}"]
    )
    assert stream.untouched() == plain.message_stream(script, **more).untouched()


@pytest.mark.parametrize(("model", "script"), [("claude", "parts"), ("gpt", "messages")])
def test_each_text_block_is_an_answer(gateway: Any, plain: Any, model: str, script: str) -> None:
    got = gateway.message(script, model=model)
    stream = gateway.message_stream(script, model=model)
    original = texts(plain.message(script, model=model).json())
    assert texts(got.json()) == told(stream) == [KIND if text == RUDE else text for text in original]
    outcomes = ",".join("corrected" if text == RUDE else "unchanged" for text in original)
    assert stream.comments == [f": aligner status=corrected choices={outcomes}"]
    assert shapes(stream) == shapes(plain.message_stream(script, model=model))


@pytest.mark.parametrize(("model", "script"), [("claude", "reasoning"), ("claude", "search"), ("vllm", "reasoning")])
def test_what_stands_beside_a_corrected_answer_is_kept(gateway: Any, plain: Any, model: str, script: str) -> None:
    ours, theirs = (made_up(proxy.message(script, model=model).text) for proxy in (gateway, plain))
    assert ours == theirs.replace(RUDE, KIND)
    stream, original = (proxy.message_stream(script, model=model) for proxy in (gateway, plain))
    assert told(stream) == [KIND]
    assert shapes(stream) == shapes(original)


def test_shadow_delivers_the_original(gateway: Any, plain: Any) -> None:
    got = gateway.message("rude", model="shadowed")
    assert got.headers["x-aligner-status"] == "shadow"
    assert made_up(got.text) == made_up(plain.message("rude", model="shadowed").text)
    stream = gateway.message_stream("rude", model="shadowed")
    assert stream.comments == [": aligner status=shadow"]
    assert stream.untouched() == plain.message_stream("rude", model="shadowed").untouched()


def test_a_deadline_costs_no_answer(gateway: Any, plain: Any) -> None:
    got = gateway.message("slow", model="hasty")
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("failed", "timeout")
    assert made_up(got.text) == made_up(plain.message("slow", model="hasty").text)


@pytest.mark.parametrize("stream", [False, True])
def test_on_error_block_is_an_anthropic_error(gateway: Any, stream: bool) -> None:
    got = gateway.message("slow", model="strict", stream=stream)
    assert (got.status_code, got.json()["type"]) == (503, "error")
    assert "could not be aligned (timeout)" in got.json()["error"]["message"]
    assert RUDE not in got.text


@pytest.mark.parametrize(
    ("model", "script"), [("claude", "error"), ("claude", "break"), ("gpt", "break"), ("vllm", "break")]
)
def test_a_stream_that_breaks_is_delivered_as_far_as_it_came(gateway: Any, plain: Any, model: str, script: str) -> None:
    ours, theirs = (proxy.message_stream(script, model=model) for proxy in (gateway, plain))
    assert ours.comments == [": aligner status=skipped reason=upstream_error"]
    assert ours.untouched() == theirs.untouched()
    assert "content_block_delta" in ours.raw


def test_wishes_and_refusals(tenants: Any, upstream: str) -> None:
    wish = {"x-aligner-objectives": "concise"}
    got = tenants["acme"].message("good", headers=wish, metadata={"user_id": "u", "aligner": {}})
    assert got.headers["x-aligner-objectives"] == "harmless,kind,concise"
    assert "aligner" not in tenants["acme"].http.get(f"{upstream}/seen").text
    assert tenants["other"].message("good", headers=wish).status_code == 403
    assert tenants["vip"].message("rude", headers={"x-aligner-bypass": "1"}).headers["x-aligner-reason"] == "bypass"


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_may_forbid_storing(tenants: Any, engine: Any, stream: bool) -> None:
    before = len(engine.calls())
    for _ in range(2):
        tenants["other"].message(f"unstored messages {stream}", stream=stream)
    assert len(engine.calls()) == before + 2


@pytest.mark.parametrize("stream", [False, True])
def test_litellms_own_cache_holds_originals_and_every_hit_is_corrected(
    tenants: Any, upstream: str, stream: bool
) -> None:
    script = f"rude and cached messages {stream}"
    cached = {"cache": {"use-cache": True}}

    def say(who: Any) -> list[str]:
        return told(who.message_stream(script, **cached)) if stream else texts(who.message(script, **cached).json())

    assert say(tenants["other"]) == [KIND]
    time.sleep(0.5)  # LiteLLM stores behind the response
    before = len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json())
    assert [say(tenants[who]) for who in ("other", "vip", "acme")] == [[KIND]] * 3
    assert len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()) == before
