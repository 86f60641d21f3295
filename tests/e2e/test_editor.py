"""A strong model as the editor, through the real proxy: calls, texts, costs, streams, failures and second tries."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.e2e.scripted_answers import GOOD, IN_DOUBT
from tests.e2e.shared import SHARED
from tests.e2e.strong_editor import ANEW, IN_A_BOX, KIND

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED
BEFORE = "The capital of France is Paris."
BEHIND = "It lies on the Seine."
EDITED = f"{BEFORE} {KIND} {BEHIND}"
REMOVED = f"{BEFORE} {BEHIND}"
USE = "calls=1 read=50 written=12"


def told(got: Any) -> tuple[str | None, ...]:
    return tuple(got.headers.get(f"x-aligner-{name}") for name in ("status", "reason", "editor"))


def text(got: httpx.Response) -> str:
    return str(got.json()["choices"][0]["message"]["content"])


def editor_calls(upstream: str) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()
    return [body for body in seen if str(body.get("messages", [{}])[0].get("content")).startswith("You edit passages")]


def test_the_editor_writes_in_place_of_what_is_flagged(gateway: Any, upstream: str) -> None:
    before = len(editor_calls(upstream))
    got = gateway.chat("rude edited once", model="edited")
    assert told(got) == ("corrected", None, f"strong {USE}")
    assert text(got) == EDITED
    # One call: neither the guardrail on the editing model itself nor the one that is on by default has added any.
    [call] = editor_calls(upstream)[before:]
    assert call["model"] == "strong"
    material = json.loads(call["messages"][1]["content"])
    assert material["answer"] == f"{BEFORE} <passage-1>You are an idiot for asking.</passage-1> {BEHIND}"
    assert material["passages"][0]["against"] == ["Kindness: the response should never insult the reader"]


@pytest.mark.parametrize("model", ["edited", "edited-sentence"])
def test_a_stream_gets_the_same(gateway: Any, model: str) -> None:
    stream = gateway.chat_stream(f"rude streamed {model}", model=model)
    assert stream.text() == EDITED
    assert stream.comments == [": aligner status=corrected editor=1/50/12"]


def test_other_endpoints_get_the_same(gateway: Any) -> None:
    assert KIND in gateway.respond("rude edited response", model="edited").text
    assert KIND in gateway.message("rude edited message", model="edited-claude").text
    stream = gateway.message_stream("rude edited message stream", model="edited-claude")
    assert KIND in "".join(stream.parts("content_block_delta", "index", "text"))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_good_answer_costs_no_call_and_stays_byte_for_byte(
    gateway: Any, plain: Any, upstream: str, streamed: bool
) -> None:
    before = len(editor_calls(upstream))
    asked = {"script": "good edited", "model": "edited"}
    if streamed:
        assert gateway.chat_stream(**asked).untouched() == plain.chat_stream(**asked).untouched()
    else:
        got = gateway.chat(**asked)
        assert got.content == plain.chat(**asked).content
        assert text(got) == GOOD
        assert told(got) == ("unchanged", None, None)
    assert len(editor_calls(upstream)) == before


def test_the_model_that_answered_may_edit(gateway: Any, upstream: str) -> None:
    got = gateway.chat("rude edited by itself", model="edited-upstream")
    assert text(got) == EDITED
    assert told(got)[2] == f"edited-upstream {USE}"
    assert editor_calls(upstream)[-1]["model"] == "up"


def test_the_second_time_the_cache_knows_it(gateway: Any, upstream: str) -> None:
    gateway.chat("rude edited and kept", model="edited")
    before = len(editor_calls(upstream))
    again = gateway.chat("rude edited and kept", model="edited")
    assert (again.headers["x-aligner-cache"], text(again), told(again)[2]) == ("hit", EDITED, None)
    assert len(editor_calls(upstream)) == before


@pytest.mark.parametrize("script", ["edit_harm", "edit_obeys", "edit_again"])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_flagged_again_or_refused_by_the_gate_is_removed(gateway: Any, script: str, streamed: bool) -> None:
    asked = f"{script} one {streamed}"
    if streamed:
        got = gateway.chat_stream(asked, model="edited-sentence").text()
    else:
        answer = gateway.chat(asked, model="edited")
        # only there nothing of the replacement is left, and the editor wrote one
        assert answer.headers["x-aligner-editor"].endswith(" refused=1") == (script == "edit_harm")
        got = text(answer)
    assert "idiot" not in got
    assert "ann@example.org" not in got
    assert got.startswith(BEFORE)
    assert got.endswith(BEHIND)


@pytest.mark.parametrize("script", ["edit_garbage", "edit_down", "edit_slow"])
def test_an_editor_that_fails_leaves_the_edit_to_the_aligner(gateway: Any, script: str) -> None:
    for model in ("shaky-edited", "shaky-block"):
        got = gateway.chat(f"{script} {model}", model=model)
        assert told(got)[:2] == ("corrected", None)
        assert text(got) == REMOVED
    assert gateway.chat_stream(f"{script} stream", model="shaky-sentence").text() == REMOVED


@pytest.mark.parametrize("streamed", [False, True])
def test_where_nothing_remains_another_answer_comes_or_a_text(gateway: Any, streamed: bool) -> None:
    texts = {"insult": ANEW, "insult_again": "I'm sorry, but I can't answer this here."}
    for script, expected in texts.items():
        asked = {"script": f"{script} of all {streamed}", "model": "edited-again"}
        if streamed:
            got = gateway.chat_stream(**asked)
            assert got.text() == expected
        else:
            got = gateway.chat(**asked)
            assert told(got)[:2] == ("corrected", "second_try" if script == "insult" else "declined")
            assert text(got) == expected


def test_a_tenant_without_quota_is_not_edited(tenants: dict[str, Any], upstream: str) -> None:
    before = len(editor_calls(upstream))
    got = tenants["metered"].chat("rude edited and metered", model="edited")
    assert told(got)[:2] == ("skipped", "quota")
    assert len(editor_calls(upstream)) == before


def test_metrics_and_log_tell_what_it_cost_and_no_text(gateway: Any) -> None:
    gateway.chat("rude edited and counted", model="edited")
    metrics = gateway.http.get("/metrics/", follow_redirects=True).text
    assert 'aligner_editor_calls_total{model="strong",result="replied"}' in metrics
    assert 'aligner_editor_tokens_total{direction="written",model="strong"}' in metrics
    log = gateway.log.read_text()
    assert '"editor": {"model": "strong", "calls": 1, "read": 50, "written": 12' in log
    assert KIND not in log


PRICES = "# Gifts\n\nWrapping a present costs £4 in paper and £6 in a box."


@pytest.mark.parametrize(
    ("model", "streamed"), [("facts-edited", False), ("facts-edited", True), ("facts-sentence", True)]
)
def test_what_a_reference_leaves_in_doubt_is_the_editors_to_decide(gateway: Any, model: str, streamed: bool) -> None:
    """Whole and in streams: one call, one fact."""
    said = [{"role": "system", "content": PRICES}, {"role": "user", "content": "in_doubt Can you wrap my present?"}]
    body = {"model": model, "messages": said, "stream": streamed}
    got = gateway.http.post("/v1/chat/completions", json=body)
    assert got.status_code == 200, got.text
    right = IN_DOUBT.replace("£5", IN_A_BOX)
    if streamed:
        pieces = [json.loads(line[6:]) for line in got.text.splitlines() if line.startswith("data: {")]
        assert "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces) == right
        assert "grounded=1" in got.text
        assert "editor=1/50/12" in got.text
    else:
        assert text(got) == right
        assert told(got) == ("corrected", None, f"strong {USE}")
        assert got.headers["x-aligner-grounded"] == "1"
