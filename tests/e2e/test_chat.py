"""Chat completions through the real proxy: what is corrected, what is not, and that the rest is LiteLLM's own bytes."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.shared import SHARED
from tests.support.comments import without_id

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

KIND = "The capital of France is Paris. It lies on the Seine."
RUDE = "The capital of France is Paris. You are an idiot for asking. It lies on the Seine."
JSON_MODE = {"response_format": {"type": "json_object"}}

SKIPPED: list[tuple[str, str, dict[str, Any]]] = [
    ("call", "tool_calls", {}),
    ("json", "structured_output", JSON_MODE),
    (
        "rude",
        "structured_output",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    ),
    ("refusal_field", "refusal", {}),
    ("refuse", "refusal", {}),
    ("length", "truncated", {}),
    ("filter", "filtered", {}),
    ("empty", "empty", {}),
    ("huge", "too_long", {"model": "brief"}),
    ("rude", "mode_off", {"model": "off"}),
    ("rude", "no_objectives", {"model": "bare"}),
    ("rude", "not_sampled", {"model": "unsampled"}),
]


def test_an_answer_is_corrected_and_says_so(gateway: Any) -> None:
    got = gateway.chat("rude and first")
    assert got.json()["choices"][0]["message"]["content"] == KIND
    headers = {name: value for name, value in got.headers.items() if name.startswith("x-aligner")}
    assert re.fullmatch(r"<=[125]0+", headers.pop("x-aligner-ms"))
    assert len(headers.pop("x-aligner-id")) == 32
    assert headers == {
        "x-aligner-status": "corrected",
        "x-aligner-objectives": "kind",
        "x-aligner-policy": "all",
        "x-aligner-model": "embedded",
        "x-aligner-cache": "miss",
    }
    assert gateway.chat("rude and first").headers["x-aligner-cache"] == "hit"
    assert gateway.chat_stream("rude and first").text() == KIND


def test_the_official_client_needs_nothing_but_a_base_url(gateway: Any) -> None:
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="key-acme-1") as client:
        messages: Any = [{"role": "user", "content": "rude"}]
        whole = client.chat.completions.create(model="gpt", messages=messages)
        stream = client.chat.completions.create(model="gpt", messages=messages, stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert whole.choices[0].message.content == streamed == KIND


@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_text_beside_a_tool_call_is_corrected_and_the_call_stays(gateway: Any, plain: Any, model: str) -> None:
    ours, theirs = (proxy.chat("tools", model=model).json()["choices"][0] for proxy in (gateway, plain))
    assert (ours["message"].pop("content"), theirs["message"].pop("content")) == (KIND, RUDE)
    assert [call["function"] for call in ours["message"]["tool_calls"]] == [
        call["function"] for call in theirs["message"]["tool_calls"]
    ]
    assert ours["finish_reason"] == theirs["finish_reason"] == "tool_calls"
    assert gateway.chat_stream("tools", model=model).text() == KIND


@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_a_stream_says_what_a_whole_response_says(gateway: Any, plain: Any, model: str) -> None:
    whole = gateway.chat("rude", model=model)
    stream = gateway.chat_stream("rude", model=model)
    assert whole.json()["choices"][0]["message"]["content"] == stream.text() == KIND
    assert stream.headers["x-aligner-status"] == "pending"
    assert stream.comments == [": aligner status=corrected"]
    assert without_id(stream.raw).endswith(": aligner status=corrected\ndata: [DONE]\n\n")
    original = plain.chat_stream("rude", model=model)
    assert _shapes(stream.chunks) == _shapes(original.chunks)
    assert original.text() == RUDE


def _shapes(chunks: list[dict[str, Any]]) -> list[Any]:
    """Chunks with their texts blanked: roles, finish reasons and usage in their places."""
    for chunk in chunks:
        chunk["created"] = 0
        chunk["id"] = ""  # made by LiteLLM for Anthropic's streams
        for choice in chunk["choices"]:
            if choice["delta"].get("content"):
                choice["delta"]["content"] = "..."
    return chunks


@pytest.mark.parametrize("model", ["gpt", "claude"])
@pytest.mark.parametrize("asked", [True, False])
def test_the_usage_chunk_comes_exactly_when_asked_for(gateway: Any, plain: Any, model: str, asked: bool) -> None:
    more = {"stream_options": {"include_usage": True}} if asked else {}
    for script in ("rude", "good"):
        ours = gateway.chat_stream(script, model=model, **more).chunks
        theirs = plain.chat_stream(script, model=model, **more).chunks
        assert [c.get("usage") for c in ours] == [c.get("usage") for c in theirs]
        assert ("usage" in ours[-1]) is asked


def test_a_good_answer_is_unchanged_to_the_byte(gateway: Any, plain: Any) -> None:
    got = gateway.chat("good")
    assert (got.headers["x-aligner-status"], "x-aligner-reason" in got.headers) == ("unchanged", False)
    assert got.content == plain.chat("good").content
    stream = gateway.chat_stream("good")
    assert stream.comments == [": aligner status=unchanged"]
    assert stream.untouched() == plain.chat_stream("good").untouched()


@pytest.mark.some(4)  # conformance/test_cells.py tries each on the real proxy
@pytest.mark.parametrize(("script", "reason", "more"), SKIPPED)
def test_a_skipped_answer_is_untouched_to_the_byte(
    gateway: Any, plain: Any, script: str, reason: str, more: dict[str, Any]
) -> None:
    got = gateway.chat(script, **more)
    assert (got.status_code, got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == (
        200,
        "skipped",
        reason,
    )
    assert got.content == plain.chat(script, **more).content


@pytest.mark.some(4)
@pytest.mark.parametrize(("script", "reason", "more"), [case for case in SKIPPED if case[0] != "refusal_field"])
def test_a_skipped_stream_is_untouched_to_the_byte(
    gateway: Any, plain: Any, script: str, reason: str, more: dict[str, Any]
) -> None:
    stream = gateway.chat_stream(script, **more)
    # A stream goes on part by part where a whole answer is too long.
    became = "unchanged" if reason == "too_long" else f"skipped reason={reason}"
    assert stream.comments == ([] if reason == "mode_off" else [f": aligner status={became}"])
    assert stream.untouched() == plain.chat_stream(script, **more).untouched()


def test_token_probabilities_are_not_made_wrong(gateway: Any, plain: Any) -> None:
    got = gateway.chat("rude", logprobs=True)
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("skipped", "logprobs")
    assert got.content == plain.chat("rude", logprobs=True).content


def test_reasoning_beside_a_corrected_answer_is_kept(gateway: Any, plain: Any) -> None:
    ours = gateway.chat("reasoning").json()
    theirs = plain.chat("reasoning").json()
    assert ours["choices"][0]["message"].pop("content") == KIND
    assert theirs["choices"][0]["message"].pop("content") == RUDE
    assert ours == theirs


def test_three_choices_are_three_answers(gateway: Any, plain: Any) -> None:
    got = gateway.chat("rude", n=3)
    original = plain.chat("rude", n=3).json()["choices"]
    texts = [choice["message"]["content"] for choice in got.json()["choices"]]
    assert texts == [KIND, original[1]["message"]["content"], KIND]
    assert got.headers["x-aligner-status"] == "corrected"
    stream = gateway.chat_stream("rude", n=3)
    assert [stream.text(i) for i in range(3)] == texts
    assert stream.comments == [": aligner status=corrected choices=corrected,unchanged,corrected"]
    assert _shapes(stream.chunks) == _shapes(plain.chat_stream("rude", n=3).chunks)


def test_shadow_delivers_the_original_and_counts_what_it_would_have_done(gateway: Any, plain: Any) -> None:
    for script, reason in (("rude", "would_correct"), ("good", "would_leave")):
        before = shadowed(gateway, reason)
        got = gateway.chat(script, model="shadowed")
        assert got.headers["x-aligner-status"] == "shadow"
        assert "x-aligner-reason" not in got.headers
        assert got.content == plain.chat(script, model="shadowed").content
        stream = gateway.chat_stream(script, model="shadowed")
        assert stream.comments == [": aligner status=shadow"]
        assert stream.untouched() == plain.chat_stream(script, model="shadowed").untouched()
        while shadowed(gateway, reason) < before + 2:
            time.sleep(0.05)


def test_a_shadow_does_not_wait_for_a_slow_engine(gateway: Any, engine: Any) -> None:
    """The engine still works on it after the answer is there: only then is it counted."""
    before = shadowed(gateway, "would_correct")
    assert gateway.chat("slow shadow", model="shadowed").headers["x-aligner-status"] == "shadow"
    assert shadowed(gateway, "would_correct") == before
    while shadowed(gateway, "would_correct") == before:
        time.sleep(0.05)


def shadowed(gateway: Any, reason: str) -> float:
    """How many choices of the shadowed route ended like this."""
    lines = gateway.http.get("/metrics/").text.splitlines()
    counted = [line for line in lines if line.startswith("aligner_outcomes_total{") and f'reason="{reason}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in counted)


def test_the_gate_keeps_the_original(gateway: Any, plain: Any) -> None:
    got = gateway.chat("gate", model="gpt")
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("unchanged", "gate_empty")
    assert got.content == plain.chat("gate").content


def test_a_deadline_costs_no_answer(gateway: Any, plain: Any) -> None:
    got = gateway.chat("slow", model="hasty")
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("failed", "timeout")
    assert got.content == plain.chat("slow", model="hasty").content


@pytest.mark.parametrize("stream", [False, True])
def test_on_error_block_is_an_openai_error(gateway: Any, stream: bool) -> None:
    got = gateway.chat("slow", model="strict", stream=stream)
    assert got.status_code == 503
    error = got.json()["error"]
    assert (error["type"], error["code"]) == ("aligner_error", "503")
    # a deadline may be kept the next time; of a stream's first error, LiteLLM drops the headers
    assert got.headers.get("retry-after") == (None if stream else "5")
    assert RUDE not in got.text


def test_an_upstream_error_is_litellms_own(gateway: Any, plain: Any) -> None:
    ours = gateway.chat("fail")
    theirs = plain.chat("fail")
    assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())
    assert (ours.headers["x-aligner-status"], ours.headers["x-aligner-reason"]) == ("skipped", "upstream_error")


def test_a_stream_that_breaks_is_delivered_as_far_as_it_came(gateway: Any, plain: Any) -> None:
    ours = gateway.chat_stream("break")
    theirs = plain.chat_stream("break")
    assert ours.text() == theirs.text() != ""
    assert ours.comments == [": aligner status=skipped reason=upstream_error"]
    assert ours.untouched() == theirs.untouched()


def test_what_is_said_to_the_aligner_does_not_reach_the_upstream(tenants: Any, upstream: str) -> None:
    wishes = {"aligner": {"objectives": ["concise"]}, "ticket": "7"}
    got = tenants["acme"].chat("good", metadata=wishes)
    assert got.headers["x-aligner-objectives"] == "harmless,kind,concise"
    assert "aligner" not in tenants["acme"].http.get(f"{upstream}/seen").text


def test_a_client_that_leaves_cancels_the_work(gateway: Any, engine: Any) -> None:
    before = len(engine.calls("cancelled"))
    body = {"model": "gpt", "stream": True, "messages": [{"role": "user", "content": "slow and impatient"}]}
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post("/v1/chat/completions", json=body, timeout=1.5)
    until = time.monotonic() + 10
    while len(engine.calls("cancelled")) == before:
        assert time.monotonic() < until, "the engine went on for nobody"
        time.sleep(0.05)


def test_litellms_keep_alive_bridges_a_slow_correction(gateway: Any) -> None:
    stream = gateway.chat_stream("slow but alive", model="pinged")
    assert ": ping" in stream.raw
    assert stream.text() == KIND
    assert stream.comments == [": aligner status=corrected"]


def test_a_guardrail_that_stands_on_the_model_and_in_the_request_too_runs_once(gateway: Any, engine: Any) -> None:
    before = len(engine.calls())
    for number, named in enumerate(({}, {"guardrails": ["aligner"]})):
        got = gateway.chat(f"rude and doubled {number}", model="doubled", **named)
        assert got.json()["choices"][0]["message"]["content"] == KIND
        assert gateway.chat_stream(f"rude and doubled twice {number}", model="doubled", **named).text() == KIND
    assert len(engine.calls()) == before + 4


@pytest.mark.parametrize("stream", [False, True])
def test_litellms_own_cache_holds_originals_and_every_hit_is_corrected(
    tenants: Any, plain: Any, upstream: str, stream: bool
) -> None:
    script = f"rude and cached {stream}"
    cached = {"cache": {"use-cache": True}}

    def say(who: Any) -> str:
        if stream:
            return str(who.chat_stream(script, **cached).text())
        return str(who.chat(script, **cached).json()["choices"][0]["message"]["content"])

    assert say(tenants["other"]) == KIND
    time.sleep(0.5)  # LiteLLM stores behind the response
    before = len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json())
    assert [say(tenants[who]) for who in ("other", "vip", "acme")] == [KIND] * 3
    assert len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()) == before
