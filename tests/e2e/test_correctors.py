"""Correctors of plugins through the real proxy, stream and not: Self-Refinement, and one of a stranger."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.scripted_answers import GOOD, RUDE
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

KIND = "The capital of France is Paris. It lies on the Seine."


def told(got: Any) -> tuple[str, str | None, str | None]:
    names = ("x-aligner-status", "x-aligner-reason", "x-aligner-model")
    return tuple(got.headers.get(name) for name in names)  # type: ignore[return-value]


def text(got: httpx.Response) -> str:
    return str(got.json()["choices"][0]["message"]["content"])


def refiner_calls(upstream: str) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()
    return [body for body in seen if body["model"] == "refiner"]


def test_a_rude_answer_is_reviewed_and_revised(gateway: Any, upstream: str) -> None:
    before = len(refiner_calls(upstream))
    got = gateway.chat("rude refined once", model="refined")
    assert told(got) == ("corrected", None, "self_refine")
    assert text(got) == KIND
    calls = refiner_calls(upstream)[before:]
    # Review, revision, and a second review that finds nothing: the guardrail that stands on the refining model itself
    # and the one that is on by default have added nothing.
    assert len(calls) == 3
    assert all(call["max_tokens"] <= 4096 and call["temperature"] == 0 for call in calls)
    assert "stream" not in calls[0] or not calls[0]["stream"]


def test_a_stream_gets_the_same(gateway: Any) -> None:
    stream = gateway.chat_stream("rude refined stream", model="refined")
    assert stream.text() == KIND
    assert stream.comments == [": aligner status=corrected"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_good_answer_stays_byte_for_byte(gateway: Any, plain: Any, streamed: bool) -> None:
    asked = {"script": "good refined", "model": "refined"}
    if streamed:
        got = gateway.chat_stream(**asked)
        bare = plain.chat_stream(**asked)
        assert got.untouched() == bare.untouched()
        assert got.comments == [": aligner status=unchanged"]
    else:
        got = gateway.chat(**asked)
        bare = plain.chat(**asked)
        assert got.content == bare.content
        assert text(got) == GOOD
        assert told(got)[0] == "unchanged"


def test_every_choice_is_refined_by_itself(gateway: Any) -> None:
    got = gateway.chat("rude refined twice", model="refined", n=2).json()
    assert [choice["message"]["content"] for choice in got["choices"]] == [KIND, GOOD]


def test_the_second_time_the_cache_knows_it(gateway: Any, upstream: str) -> None:
    first = gateway.chat("rude refined and kept", model="refined")
    before = len(refiner_calls(upstream))
    again = gateway.chat("rude refined and kept", model="refined")
    assert (first.headers["x-aligner-cache"], again.headers["x-aligner-cache"]) == ("miss", "hit")
    assert text(again) == KIND
    assert len(refiner_calls(upstream)) == before


@pytest.mark.parametrize(
    ("script", "reason"),
    [("refine_garbage", "invalid_output"), ("refine_slow", "timeout"), ("refine_down", None)],
)
def test_a_refinement_that_fails_is_what_the_policy_says(gateway: Any, plain: Any, script: str, reason: str) -> None:
    got = gateway.chat(f"{script} one", model="refined")
    assert told(got)[0] == "failed"
    assert reason in (None, told(got)[1])
    assert got.content == plain.chat(f"{script} one", model="refined").content
    stream = gateway.chat_stream(f"{script} two", model="refined")
    assert stream.text() == RUDE
    blocked = gateway.chat(f"{script} three", model="refined-or-nothing")
    # what may pass is worth another request
    status = 503 if reason == "timeout" else 422
    assert (blocked.status_code, blocked.json()["error"]["type"]) == (status, "aligner_error")
    assert "idiot" not in blocked.text


def test_the_gate_holds_for_a_refinement_too(gateway: Any) -> None:
    got = gateway.chat("refine_harm one", model="refined")
    assert "ann@example.org" not in got.text
    assert told(got)[1] in ("gate_new_personal_data", "gate_partly:new_personal_data")


def test_a_tenant_without_quota_is_not_refined(tenants: dict[str, Any], upstream: str) -> None:
    before = len(refiner_calls(upstream))
    got = tenants["metered"].chat("rude refined and metered", model="refined")
    assert told(got)[:2] == ("skipped", "quota")
    assert text(got) == RUDE
    assert len(refiner_calls(upstream)) == before


def test_a_tenant_may_not_ask_for_more_here_either(tenants: dict[str, Any], upstream: str) -> None:
    before = len(refiner_calls(upstream))
    asked = {"x-aligner-objectives": "concise"}
    assert tenants["other"].chat("rude refined", model="refined", headers=asked).status_code == 403
    assert len(refiner_calls(upstream)) == before


def test_a_strangers_corrector_corrects(gateway: Any) -> None:
    got = gateway.chat("rude foreign", model="foreign")
    assert told(got) == ("corrected", None, "unreliable")
    assert text(got) == KIND
    assert gateway.chat_stream("rude foreign stream", model="foreign").text() == KIND


@pytest.mark.parametrize(
    ("script", "reason"), [("refine_raises", "plugin_error"), ("refine_nonsense", "invalid_output")]
)
def test_a_stranger_that_misbehaves_costs_nothing_but_the_correction(
    gateway: Any, plain: Any, script: str, reason: str
) -> None:
    got = gateway.chat(f"{script} one", model="foreign")
    assert told(got)[:2] == ("failed", reason)
    assert got.content == plain.chat(f"{script} one", model="foreign").content


def test_a_stranger_that_blocks_blocks_nobody_else(gateway: Any) -> None:
    got = gateway.chat("refine_blocks one", model="foreign")
    assert told(got)[:2] == ("failed", "timeout")
    assert text(got) == RUDE
    # Its thread still sleeps; the gateway, and every other corrector in it, does not.
    assert told(gateway.chat("rude beside a blocked one", model="gpt"))[0] == "corrected"
    assert told(gateway.chat("rude after a blocked one", model="foreign"))[1] in ("plugin_stuck", "timeout")


def test_the_example_and_its_rule_work_in_the_gateway(gateway: Any) -> None:
    got = gateway.chat("good calm", model="calm")
    assert told(got) == ("corrected", None, "plain_words")
    assert text(got) == GOOD.replace("lower", "sooner")
    shouted = gateway.chat("rude calm", model="calm")
    assert told(shouted) == ("unchanged", "gate_calm", "plain_words")
    assert text(shouted) == RUDE


def test_no_text_of_anybody_is_in_the_log(gateway: Any) -> None:
    gateway.chat("refine_raises and logs", model="foreign")
    log = gateway.log.read_text()
    assert "aligner_outcome" in log or "plugin_error" in log
    assert "the answer was" not in log
