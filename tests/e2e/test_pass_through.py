"""Pass-through routes that name our guardrail: whole JSON answers of every form are corrected there."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
FORMS = {
    "chat": "/v1/chat/completions",
    "text": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
DEPLOYMENT = Deployment().case("gpt").case("strict", on_error="block", on_skip="block")
for name, path in FORMS.items():
    DEPLOYMENT.passed(f"/raw/{name}", path)
DEPLOYMENT.passed("/raw/gemini", "/gemini").passed("/raw/unguarded", "/v1/chat/completions", guarded=False)

INSULT = "You are an idiot for asking. "
RUDE = f"The capital of France is Paris. {INSULT}It lies on the Seine."


def post(gateway: Any, route: str, script: str, model: str = "gpt", **more: Any) -> Any:
    messages = [{"role": "user", "content": script}]
    body = {"model": model, "messages": messages, "prompt": script, "input": script, **more}
    return gateway.http.post(f"/raw/{route}", json=body)


@pytest.mark.parametrize("route", FORMS)
def test_a_whole_answer_is_corrected_and_else_the_same(gateway: Any, upstream: str, route: str) -> None:
    messages = [{"role": "user", "content": "rude"}]
    body = {"model": "gpt", "messages": messages, "prompt": "rude", "input": "rude"}
    original = httpx.post(f"{upstream}{FORMS[route]}", json=body, trust_env=False, verify=False).text
    assert RUDE in original
    assert post(gateway, route, "rude").text == original.replace(INSULT, "")


def test_a_good_answer_and_a_route_without_the_guardrail_are_as_they_were(gateway: Any) -> None:
    assert "Water boils at 100" in post(gateway, "messages", "good").text
    assert RUDE in post(gateway, "unguarded", "rude").text


def test_an_answer_of_another_form_is_withheld_only_by_a_policy_that_blocks(gateway: Any) -> None:
    assert INSULT.strip() in post(gateway, "gemini", "rude").text
    got = post(gateway, "gemini", "rude", "strict")
    assert got.status_code == 422
    assert INSULT.strip() not in got.text


def test_a_stream_is_refused_where_nothing_may_go_out_unjudged(gateway: Any) -> None:
    assert post(gateway, "chat", "rude", stream=True).status_code == 200
    got = post(gateway, "chat", "rude", "strict", stream=True)
    assert got.status_code == 400
    assert "pass-through" in got.text
