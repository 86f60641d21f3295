"""The hooks as LiteLLM calls them, without LiteLLM's server: policy, ledger, refusals, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import EmbeddingResponse, ModelResponse, ModelResponseStream

from aligner_proxy import guardrail as module
from aligner_proxy.engine.scripted import ScriptedEngine
from aligner_proxy.errors import EngineFault
from aligner_proxy.guardrail import AlignerGuardrail, Blocked
from aligner_proxy.ledger import Ledger
from aligner_proxy.pipeline import Pipeline

POLICIES = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        {"match": {"model": "off"}, "mode": "off", "objectives": ["kind"]},
        {"match": {"model": "strict"}, "on_error": "block", "objectives": ["kind"]},
        {"match": {"tag": "support"}, "name": "support", "objectives": ["kind", "concise"]},
        {"match": {"model": "*"}, "name": "all", "objectives": ["kind"]},
    ],
    "tenants": [{"match": {"team": "acme"}, "allow": ["concise", "humour"], "allow_bypass": True}],
}
CHAT, ACME = "/v1/chat/completions", {"team_id": "acme"}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    return build(tmp_path, monkeypatch)


def build(folder: Path, monkeypatch: pytest.MonkeyPatch, policies: Any = POLICIES, **settings: Any) -> AlignerGuardrail:
    monkeypatch.setattr(module, "_config_folder", lambda: folder)
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
    (folder / "policies.yaml").write_text(yaml.safe_dump(policies))
    made = AlignerGuardrail(guardrail_name="aligner", default_on=True, **({"event_hook": "post_call"} | settings))
    made.pipeline = Pipeline(ScriptedEngine(lambda request: request.answer.replace(" You fool.", "")))
    return made


def user(route: str = CHAT, **fields: Any) -> UserAPIKeyAuth:
    return UserAPIKeyAuth(api_key="a" * 64, request_route=route, **fields)


def data(model: str = "gpt", headers: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "model": model,
        "litellm_call_id": "call-1",
        "messages": [{"role": "user", "content": "What?"}],
        "proxy_server_request": {"headers": headers or {}},
        "metadata": {"user_api_key_hash": "a" * 64, **metadata},
    }


def answer(*texts: str) -> ModelResponse:
    choices = [{"index": i, "finish_reason": "stop", "message": {"content": text}} for i, text in enumerate(texts)]
    return ModelResponse(id="1", created=1, model="m", choices=choices)


def ledger_of(request: dict[str, Any]) -> Ledger:
    found = module._find(request)
    assert found is not None
    return found


async def opened(guard: AlignerGuardrail, request: dict[str, Any], who: UserAPIKeyAuth | None = None) -> Ledger:
    await guard.async_pre_call_hook(who or user(), None, request, "acompletion")
    return ledger_of(request)


def test_litellm_finds_our_hooks_on_the_class_itself() -> None:
    assert issubclass(AlignerGuardrail, CustomGuardrail)
    assert AlignerGuardrail.use_native_lifecycle_hooks is True
    own = vars(AlignerGuardrail)
    for hook in ("pre_call_hook", "post_call_success_hook", "post_call_streaming_iterator_hook"):
        assert f"async_{hook}" in own
    assert "async_post_call_response_headers_hook" in own
    assert "apply_guardrail" not in own


def test_mode_post_call_runs_the_pre_call_hook_too(guard: AlignerGuardrail) -> None:
    for event in (GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call):
        assert guard.should_run_guardrail({"metadata": {}}, event) is True
    assert guard.should_run_guardrail({"metadata": {}}, GuardrailEventHooks.during_call) is False


def test_settings_that_litellm_adds_by_itself_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"mask_response_content": False, "unreachable_fallback": "fail_open", "version": "1", "api_base": "x"}
    assert build(tmp_path, monkeypatch, **extra).mask_response_content is True


@pytest.mark.parametrize(
    "policies", [{"rutes": []}, {"routes": [{"match": {}, "objectives": ["nope"]}]}, {"keys": "missing.yaml"}]
)
def test_a_bad_configuration_stops_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policies: Any) -> None:
    with pytest.raises(RuntimeError, match="aligner-proxy cannot start"):
        build(tmp_path, monkeypatch, policies)


def test_a_missing_policies_file_stops_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_config_folder", lambda: tmp_path)
    with pytest.raises(RuntimeError, match="policies"):
        AlignerGuardrail(guardrail_name="aligner", event_hook="post_call")


async def test_a_correction(guard: AlignerGuardrail) -> None:
    request, response = data(), answer("It is so. You fool.")
    ledger = await opened(guard, request)
    before = response.model_dump_json()
    edited = await guard.async_post_call_success_hook(request, user(), response)
    assert edited.choices[0].message.content == "It is so."
    assert response.model_dump_json() == before
    assert ledger.headers()["x-aligner-status"] == "corrected"
    (info,) = request["metadata"]["standard_logging_guardrail_information"]
    assert (info["guardrail_status"], info["guardrail_response"]["status"]) == ("guardrail_intervened", "corrected")
    assert "fool" not in json.dumps(info, default=str)


async def test_a_second_run_for_the_same_call_does_nothing(guard: AlignerGuardrail) -> None:
    request = data()
    edited = await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))
    assert await guard.async_post_call_success_hook(request, user(), edited) is None
    assert len(request["metadata"]["standard_logging_guardrail_information"]) == 1


async def test_the_deployment_hook_never_corrects(guard: AlignerGuardrail) -> None:
    request = {**data(), "guardrails": ["aligner"]}
    assert await guard.async_post_call_success_deployment_hook(request, answer("A. You fool."), None) is None


@pytest.mark.parametrize(
    ("model", "script", "status"),
    [
        ("gpt", lambda request: request.answer, "success"),
        ("gpt", lambda _: EngineFault("x"), "guardrail_failed_to_respond"),
        ("off", lambda _: "never", "not_run"),
    ],
)
async def test_what_litellm_is_told(guard: AlignerGuardrail, model: str, script: Any, status: str) -> None:
    guard.pipeline = Pipeline(ScriptedEngine(script))
    request, response = data(model), answer("It is so.")
    result = await guard.async_post_call_success_hook(request, user(), response)
    assert result is None or result is response
    assert request["metadata"]["standard_logging_guardrail_information"][0]["guardrail_status"] == status


async def test_on_error_block(guard: AlignerGuardrail) -> None:
    guard.pipeline = Pipeline(ScriptedEngine(lambda _: EngineFault("x")))
    request = data("strict")
    with pytest.raises(Blocked) as caught:
        await guard.async_post_call_success_hook(request, user(), answer("It is so."))
    assert (caught.value.code, caught.value.status_code) == ("503", 503)
    assert ledger_of(request).headers()["x-aligner-status"] == "failed"


async def test_wishes_of_header_and_body_count_and_are_forgotten(guard: AlignerGuardrail) -> None:
    wishes = {"objectives": ["concise"], "preference": "private words"}
    request = data(
        headers={"X-Aligner-Objectives": " humour , concise"},
        aligner=wishes,
        requester_metadata={"aligner": wishes, "a": 1},
    )
    ledger = await opened(guard, request, user(**ACME))
    assert [objective.name for objective in ledger.policy.objectives] == ["kind", "humour", "concise"]
    assert "private words" not in json.dumps(request, default=str)
    assert request["metadata"]["requester_metadata"] == {"a": 1}


@pytest.mark.parametrize("headers", [{"x-aligner-objectives": "concise"}, {"x-aligner-bypass": "1"}])
async def test_what_a_tenant_may_not_ask_is_a_403(guard: AlignerGuardrail, headers: dict[str, str]) -> None:
    with pytest.raises(ProxyException) as caught:
        await guard.async_pre_call_hook(user(), None, data(headers=headers), "acompletion")
    assert (caught.value.code, caught.value.type) == ("403", "permission_error")


async def test_bypass_where_it_is_allowed(guard: AlignerGuardrail) -> None:
    ledger = await opened(guard, data(headers={"x-aligner-bypass": "1"}), user(**ACME))
    assert ledger.headers()["x-aligner-reason"] == "bypass"


async def test_tags_and_settings_of_key_and_team(guard: AlignerGuardrail) -> None:
    assert (await opened(guard, data(tags=["support"]))).policy.name == "support"
    who = user(metadata={"aligner": {"enforce": ["harmless"]}}, team_metadata={"aligner": {"deadline_s": 3.0}})
    policy = (await opened(guard, data(), who)).policy
    assert (policy.objectives[0].name, policy.deadline_s) == ("harmless", 3.0)


async def test_a_body_cannot_settle_its_own_ledger(guard: AlignerGuardrail) -> None:
    request = data(aligner_proxy_ledger={"settled": True}, user_api_key_team_id="acme")
    assert await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))


@pytest.mark.parametrize("route", ["/v1/responses", "/v1/messages", "/v1/embeddings", None])
async def test_other_endpoints_are_left_alone(guard: AlignerGuardrail, route: Any) -> None:
    request: dict[str, Any] = {**data(headers={"x-aligner-objectives": "nonsense"}), "litellm_metadata": {}}
    response = EmbeddingResponse()
    assert await guard.async_post_call_success_hook(request, user(route), response) is None
    told = ledger_of(request).headers()
    assert (told["x-aligner-status"], told["x-aligner-reason"]) == ("skipped", "endpoint")
    assert b"raw" in [item async for item in _stream(guard, request | {"metadata": {}}, user(route), [b"raw"])]


def chunk(content: str) -> ModelResponseStream:
    return ModelResponseStream(id="1", created=1, choices=[{"index": 0, "delta": {"content": content}}])


async def _stream(
    guard: AlignerGuardrail, request: dict[str, Any], who: UserAPIKeyAuth, items: Sequence[Any]
) -> AsyncIterator[Any]:
    async for item in guard.async_post_call_streaming_iterator_hook(who, _flow(items), request):
        yield item


async def _flow(items: Sequence[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def test_a_stream_is_corrected_and_says_so_at_its_end(guard: AlignerGuardrail) -> None:
    request = data()
    ledger = await opened(guard, request)
    headers = await guard.async_post_call_response_headers_hook(request, user(), object())
    assert headers is not None
    assert headers["x-aligner-status"] == "pending"
    got = [item async for item in _stream(guard, request, user(), [chunk("It is so."), chunk(" You fool.")])]
    assert "".join(item.choices[0].delta.content for item in got[:2]) == "It is so."
    assert got[2] == b": aligner status=corrected\n\n"
    assert ledger.settled


async def test_litellm_logs_what_was_served(guard: AlignerGuardrail) -> None:
    class Logging:
        model_call_details: dict[str, Any]

    logged = Logging()
    logged.model_call_details = {}
    request = {**data(), "litellm_logging_obj": logged}
    async for _ in _stream(guard, request, user(), [chunk("It is so."), chunk(" You fool.")]):
        pass
    assert logged.model_call_details["served_output_texts"] == ("It is so.",)


async def test_a_stream_that_is_skipped_beforehand_is_not_withheld(guard: AlignerGuardrail) -> None:
    request, items = data("off"), [chunk("a"), chunk("b")]
    ledger = await opened(guard, request)
    assert ledger.headers()["x-aligner-status"] == "skipped"
    stream = _stream(guard, request, user(), items)
    assert await anext(stream) is items[0]
    assert not ledger.settled
    assert [item async for item in stream] == [items[1], b": aligner status=skipped reason=mode_off\n\n"]


async def test_headers_of_a_failed_request(guard: AlignerGuardrail) -> None:
    request = data()
    assert await guard.async_post_call_response_headers_hook(request, user(), None) is None
    await opened(guard, request)
    headers = await guard.async_post_call_response_headers_hook(request, user(), None)
    assert headers is not None
    assert (headers["x-aligner-status"], headers["x-aligner-reason"]) == ("skipped", "upstream_error")


async def test_a_client_that_leaves_a_passing_stream_is_recorded(guard: AlignerGuardrail) -> None:
    request = data("off")
    stream = guard.async_post_call_streaming_iterator_hook(user(), _flow([chunk("a"), chunk("b")]), request)
    await anext(stream)
    await stream.aclose()
    assert ledger_of(request).settled


async def test_shadow_never_blocks(guard: AlignerGuardrail) -> None:
    guard.pipeline = Pipeline(ScriptedEngine(lambda _: EngineFault("x")))
    request = data("strict")
    who = user(metadata={"aligner": {"mode": "shadow"}})
    response = answer("It is so.")
    assert await guard.async_post_call_success_hook(request, who, response) is response
    assert ledger_of(request).headers()["x-aligner-status"] == "failed"
