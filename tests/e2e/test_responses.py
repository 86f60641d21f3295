"""Responses through the real proxy: natively and translated, whole and streamed, and every event tells the same."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.clients import Streamed, made_up
from tests.e2e.deployment import RESPONSES_MODELS
from tests.e2e.shared import SHARED
from tests.support.comments import without_id

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

KIND = "The capital of France is Paris. It lies on the Seine."
RUDE = "The capital of France is Paris. You are an idiot for asking. It lies on the Seine."
JSON_MODE = {"text": {"format": {"type": "json_object"}}}

SKIPPED: list[tuple[str, str, dict[str, Any]]] = [
    ("call", "tool_calls", {}),
    ("json", "structured_output", JSON_MODE),
    ("cited", "annotations", {}),
    ("logprobs", "logprobs", {"include": ["message.output_text.logprobs"]}),
    ("image", "non_text", {}),
    ("novel", "non_text", {}),
    ("refusal_field", "refusal", {}),
    ("refuse", "refusal", {}),
    ("length", "truncated", {}),
    ("filter", "filtered", {}),
    ("empty", "empty", {}),
    ("huge", "too_long", {"model": "brief"}),
    ("rude", "mode_off", {"model": "off"}),
    ("rude", "no_objectives", {"model": "bare"}),
    ("rude", "not_sampled", {"model": "unsampled"}),
    ("cited", "annotations", {"model": "claude"}),
    ("length", "truncated", {"model": "claude"}),
    ("refuse", "filtered", {"model": "claude"}),
    ("cited", "annotations", {"model": "chatonly"}),
    ("filter", "filtered", {"model": "chatonly"}),
]


def texts(body: dict[str, Any]) -> list[str]:
    """The text parts of the messages of a response."""
    messages = [item for item in body["output"] if item["type"] == "message"]
    return [part["text"] for item in messages for part in item["content"] if part["type"] == "output_text"]


def told(stream: Streamed) -> list[str]:
    """The text parts of a stream, after checking that every event that tells a text tells the same."""
    joined = stream.parts("response.output_text.delta", "output_index", "delta")
    events = stream.chunks
    assert [e["text"] for e in events if e["type"] == "response.output_text.done"] == joined
    parts = [e["part"] for e in events if e["type"] == "response.content_part.done"]
    assert [part["text"] for part in parts if part["type"] == "output_text"] == joined
    items = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert sorted(texts({"output": items})) == sorted(joined)
    assert texts(events[-1]["response"]) == joined
    return joined


def shapes(stream: Streamed) -> Any:
    """The stream as LiteLLM alone would have sent it, texts blanked."""
    events = made_up(json.dumps(stream.chunks))
    for text in sorted(
        {*told(stream), *(e["delta"] for e in stream.chunks if "delta" in e), ""}, key=len, reverse=True
    ):
        events = events.replace(f": {json.dumps(text)}", ': ""')
    return json.loads(events)


@pytest.mark.parametrize("model", RESPONSES_MODELS)
def test_a_stream_says_what_a_whole_response_says(gateway: Any, plain: Any, model: str) -> None:
    whole = gateway.respond("rude", model=model)
    stream = gateway.respond_stream("rude", model=model)
    assert texts(whole.json()) == told(stream) == [KIND]
    assert (whole.headers["x-aligner-status"], stream.headers["x-aligner-status"]) == ("corrected", "pending")
    assert stream.comments == [": aligner status=corrected"]
    assert without_id(stream.raw).endswith("data: [DONE]\n\n")
    *_, last, _done, _end = stream.raw.split("\n\n")
    assert re.match(r": aligner status=corrected .*\n(event: response.completed\n)?data: .*response.completed", last)
    assert "idiot" not in stream.raw
    original = plain.respond_stream("rude", model=model)
    assert told(original) == [RUDE]
    assert shapes(stream) == shapes(original)
    theirs = json.dumps(plain.respond("rude", model=model).json()).replace(RUDE, KIND)
    assert made_up(json.dumps(whole.json())) == made_up(theirs)


@pytest.mark.parametrize("path", ["/responses", "/openai/v1/responses"])
def test_other_names_of_the_endpoint(gateway: Any, path: str) -> None:
    assert texts(gateway.http.post(path, json={"model": "gpt", "input": "rude"}).json()) == [KIND]


def test_the_official_client_needs_nothing_but_a_base_url(gateway: Any) -> None:
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="key-acme-1") as client:
        assert client.responses.create(model="gpt", input="rude").output_text == KIND
        with client.responses.stream(model="gpt", input="rude") as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            assert stream.get_final_response().output_text == "".join(deltas) == KIND


@pytest.mark.parametrize("model", RESPONSES_MODELS)
def test_a_good_answer_is_unchanged_to_the_byte(gateway: Any, plain: Any, model: str) -> None:
    got = gateway.respond("good", model=model)
    assert (got.headers["x-aligner-status"], "x-aligner-reason" in got.headers) == ("unchanged", False)
    assert made_up(got.text) == made_up(plain.respond("good", model=model).text)
    stream = gateway.respond_stream("good", model=model)
    assert stream.comments == [": aligner status=unchanged"]
    assert stream.untouched() == plain.respond_stream("good", model=model).untouched()


@pytest.mark.some(4)  # conformance/test_cells.py tries each on the real proxy
@pytest.mark.parametrize(("script", "reason", "more"), SKIPPED)
def test_a_skipped_answer_is_untouched_to_the_byte(
    gateway: Any, plain: Any, script: str, reason: str, more: dict[str, Any]
) -> None:
    got = gateway.respond(script, **more)
    assert (got.status_code, got.headers["x-aligner-status"]) == (200, "skipped")
    assert got.headers["x-aligner-reason"] == reason
    assert made_up(got.text) == made_up(plain.respond(script, **more).text)
    stream = gateway.respond_stream(script, **more)
    # A stream goes on part by part where a whole answer is too long.
    became = "unchanged" if reason == "too_long" else f"skipped reason={reason}"
    assert [comment[: len(became) + 17] for comment in stream.comments] == (
        [] if reason == "mode_off" else [f": aligner status={became}"]
    )
    assert stream.untouched() == plain.respond_stream(script, **more).untouched()


def test_an_answer_in_the_background_is_corrected_when_it_is_fetched(gateway: Any, plain: Any) -> None:
    got = gateway.respond("background", background=True)
    assert (got.json()["status"], got.headers["x-aligner-reason"]) == ("queued", "background")
    fetched = gateway.http.get(f"/v1/responses/{got.json()['id']}")
    assert texts(fetched.json()) == [KIND]
    assert (fetched.headers["x-aligner-status"], fetched.headers["x-aligner-policy"]) == ("corrected", "all")
    off = gateway.respond("rude", model="off").json()["id"]
    fetched = gateway.http.get(f"/v1/responses/{off}")
    assert (fetched.headers["x-aligner-reason"], texts(fetched.json())) == ("mode_off", [RUDE])
    assert texts(plain.http.get(f"/v1/responses/{off}").json()) == [RUDE]


@pytest.mark.parametrize("script", ["parts", "messages"])
def test_each_text_part_is_an_answer(gateway: Any, plain: Any, script: str) -> None:
    got = gateway.respond(script)
    stream = gateway.respond_stream(script)
    original = texts(plain.respond(script).json())
    expected = [KIND if text == RUDE else text for text in original]
    assert texts(got.json()) == told(stream) == expected
    assert got.headers["x-aligner-status"] == "corrected"
    outcomes = ",".join("corrected" if text == RUDE else "unchanged" for text in original)
    assert stream.comments == [f": aligner status=corrected choices={outcomes}"]
    assert shapes(stream) == shapes(plain.respond_stream(script))


@pytest.mark.parametrize(("model", "script"), [("gpt", "reasoning"), ("gpt", "search"), ("claude", "reasoning")])
def test_what_stands_beside_a_corrected_answer_is_kept(gateway: Any, plain: Any, model: str, script: str) -> None:
    ours, theirs = (made_up(proxy.respond(script, model=model).text) for proxy in (gateway, plain))
    assert ours == theirs.replace(RUDE, KIND)
    stream, original = (proxy.respond_stream(script, model=model) for proxy in (gateway, plain))
    assert told(stream) == [KIND]
    assert shapes(stream) == shapes(original)


def test_shadow_delivers_the_original(gateway: Any, plain: Any) -> None:
    got = gateway.respond("rude", model="shadowed")
    assert got.headers["x-aligner-status"] == "shadow"
    assert made_up(got.text) == made_up(plain.respond("rude", model="shadowed").text)
    stream = gateway.respond_stream("rude", model="shadowed")
    assert stream.comments == [": aligner status=shadow"]
    assert stream.untouched() == plain.respond_stream("rude", model="shadowed").untouched()


def test_a_deadline_costs_no_answer(gateway: Any, plain: Any) -> None:
    got = gateway.respond("slow", model="hasty")
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("failed", "timeout")
    assert made_up(got.text) == made_up(plain.respond("slow", model="hasty").text)


def test_on_error_block_is_an_openai_error(gateway: Any) -> None:
    got = gateway.respond("slow", model="strict")
    assert got.status_code == 503
    assert "could not be aligned (timeout)" in got.json()["error"]["message"]
    assert RUDE not in got.text


def test_on_error_block_fails_a_stream_in_the_words_of_the_api(gateway: Any) -> None:
    """LiteLLM tells every failure of such a stream as its last event, under HTTP 200; ours begins the stream."""
    stream = gateway.respond_stream("slow", model="strict")
    beginning, event = stream.chunks
    assert (beginning["type"], beginning["response"]["output"]) == ("response.created", [])
    assert (stream.status_code, event["type"]) == (200, "response.failed")
    assert "could not be aligned (timeout)" in event["response"]["error"]["message"]
    assert "idiot" not in stream.raw


def test_an_upstream_error_is_litellms_own(gateway: Any, plain: Any) -> None:
    ours = gateway.respond("fail")
    theirs = plain.respond("fail")
    assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())
    assert ours.headers["x-aligner-reason"] == "upstream_error"


@pytest.mark.parametrize(
    ("model", "script"), [("gpt", "break"), ("gpt", "error"), ("gpt", "failed"), ("claude", "break")]
)
def test_a_stream_that_breaks_is_delivered_as_far_as_it_came(gateway: Any, plain: Any, model: str, script: str) -> None:
    ours, theirs = (proxy.respond_stream(script, model=model) for proxy in (gateway, plain))
    assert ours.comments == [": aligner status=skipped reason=upstream_error"]
    assert ours.untouched() == theirs.untouched()


def test_an_earlier_response_is_not_visible_and_no_obstacle(tenants: Any, upstream: str) -> None:
    before = tenants["acme"].respond("good")
    got = tenants["acme"].respond("rude", previous_response_id=before.json()["id"], metadata={"aligner": {}})
    assert texts(got.json()) == [KIND]
    seen = tenants["acme"].http.get(f"{upstream}/seen").json()[0]
    assert seen["previous_response_id"] == "resp_1"
    assert "aligner" not in json.dumps(seen)
    outputs = [{"type": "function_call_output", "call_id": "c", "output": "42"}]
    assert tenants["acme"].respond(outputs).headers["x-aligner-status"] == "unchanged"


def test_wishes_and_refusals(tenants: Any) -> None:
    wish = {"x-aligner-objectives": "concise"}
    assert tenants["acme"].respond("good", headers=wish).headers["x-aligner-objectives"] == "harmless,kind,concise"
    assert tenants["other"].respond("good", headers=wish).status_code == 403
    assert tenants["vip"].respond("rude", headers={"x-aligner-bypass": "1"}).headers["x-aligner-reason"] == "bypass"


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_may_forbid_storing(tenants: Any, engine: Any, stream: bool) -> None:
    before = len(engine.calls())
    for _ in range(2):
        tenants["other"].respond(f"unstored responses {stream}", stream=stream)
    assert len(engine.calls()) == before + 2


@pytest.mark.parametrize("stream", [False, True])
def test_litellms_own_cache_holds_originals_and_every_hit_is_corrected(
    tenants: Any, upstream: str, stream: bool
) -> None:
    script = f"rude and cached responses {stream}"
    cached = {"cache": {"use-cache": True}}

    def say(who: Any) -> list[str]:
        return told(who.respond_stream(script, **cached)) if stream else texts(who.respond(script, **cached).json())

    assert say(tenants["other"]) == [KIND]
    time.sleep(0.5)  # LiteLLM stores behind the response
    before = len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json())
    assert [say(tenants[who]) for who in ("other", "vip", "acme")] == [[KIND]] * 3
    assert len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()) == before
