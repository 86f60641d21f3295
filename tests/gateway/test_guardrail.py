"""The hooks as LiteLLM calls them, without LiteLLM's server: policy, ledger, refusals, and what is left alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import EmbeddingResponse, ModelResponse, ModelResponseStream
from prometheus_client import REGISTRY

from aligner_proxy.audit import recorder, writer
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineFault
from aligner_proxy.gateway import build as module
from aligner_proxy.gateway import guardrail, litellm_internals, reload, request_state
from aligner_proxy.gateway.guardrail import AlignerGuardrail, Blocked
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy import config
from tests.e2e.event_streams import frames, message_events, response_events
from tests.support.background import wait_for_shadows
from tests.support.comments import take_comment, without_id
from tests.support.installed import pretend_installed
from tests.support.scripted import ScriptedEngine, SegmentEngine
from tests.support.stream_fixtures import broken_flow, chat_items, chat_text, read_into

POLICIES = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        {"match": {"model": "off"}, "mode": "off", "objectives": ["kind"]},
        {"match": {"model": "strict"}, "on_error": "block", "objectives": ["kind"]},
        {"match": {"tag": "support"}, "name": "support", "objectives": ["kind", "concise"]},
        {"match": {"model": "*"}, "name": "all", "objectives": ["kind"]},
    ],
    "tenants": [{"match": {"team": "acme"}, "allow": ["concise", "humour"], "allow_bypass": True}],
    "trust": {"team_metadata": True, "key_metadata": True},
}
CHAT = "/v1/chat/completions"
ACME = {"team_id": "acme"}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    return build(tmp_path, monkeypatch)


def build(folder: Path, monkeypatch: pytest.MonkeyPatch, policies: Any = POLICIES, **settings: Any) -> AlignerGuardrail:
    monkeypatch.setattr(litellm_internals, "config_folder", lambda: folder)
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
    reload._watch_policies.cache_clear()
    (folder / "policies.yaml").write_text(yaml.safe_dump(policies))
    made = AlignerGuardrail(guardrail_name="aligner", default_on=True, **({"event_hook": "post_call"} | settings))
    engine = ScriptedEngine(lambda request: request.answer.replace(" You fool.", ""))
    made.pipeline = Pipeline(engine, extensions=made.pipeline.extensions)
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


def ledger_of(request: dict[str, Any]) -> RequestState:
    found = request_state.find_state(request)
    assert found is not None
    return found


async def opened(guard: AlignerGuardrail, request: dict[str, Any], who: UserAPIKeyAuth | None = None) -> RequestState:
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
    "policies", [{"rutes": []}, {"routes": [{"match": {}, "objectives": ["nope"]}]}, {"keys": "policies.yaml"}]
)
def test_a_bad_configuration_stops_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policies: Any) -> None:
    with pytest.raises(RuntimeError, match="aligner-proxy cannot start"):
        build(tmp_path, monkeypatch, policies)


def test_a_missing_policies_file_stops_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_internals, "config_folder", lambda: tmp_path)
    with pytest.raises(RuntimeError, match="policies"):
        AlignerGuardrail(guardrail_name="aligner", event_hook="post_call")


async def test_a_route_whose_reload_failed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"routes": [{"match": {"model": "old"}, "objectives": ["harmless"]}]}
    guard = build(tmp_path, monkeypatch, old)
    path = tmp_path / "policies.yaml"
    policies = reload.watched_policies(path)

    async def reasons() -> list[str | None]:
        whole, streamed = data("new"), data("new")
        await guard.async_post_call_success_hook(whole, user(), answer("You fool."))
        stream = guard.async_post_call_streaming_iterator_hook(user(), flow(chat_items(["You fool."])), streamed)
        items = [item async for item in stream]
        assert chat_text(items) == "You fool."
        return [ledger_of(request).headers().get("x-aligner-reason") for request in (whole, streamed)]

    assert await reasons() == ["no_objectives"] * 2
    new = [*old["routes"], {"match": {"model": "new"}, "objectives": ["harmles"]}]
    for routes, expected in ((new, "reload_failed"), (old["routes"], "no_objectives")):
        path.write_text(yaml.safe_dump({"routes": routes}))
        for _ in range(3):
            policies.check_files()
        assert await reasons() == [expected] * 2
    request = data("old")
    await guard.async_post_call_success_hook(request, user(), answer("It is so."))
    assert ledger_of(request).headers()["x-aligner-status"] == "unchanged"


async def test_a_correction(guard: AlignerGuardrail) -> None:
    request = data()
    response = answer("It is so. You fool.")
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
    ],
)
async def test_what_litellm_is_told(guard: AlignerGuardrail, model: str, script: Any, status: str) -> None:
    guard.pipeline = Pipeline(ScriptedEngine(script))
    request, response = data(model), answer("It is so.")
    result = await guard.async_post_call_success_hook(request, user(), response)
    assert result is None or result is response
    assert request["metadata"]["standard_logging_guardrail_information"][0]["guardrail_status"] == status


async def test_litellm_is_told_nothing_of_a_route_that_is_off(guard: AlignerGuardrail) -> None:
    request = data("off")
    ledger = await opened(guard, request)
    assert await guard.async_post_call_success_hook(request, user(), answer("It is so.")) is None
    assert (ledger.is_final, ledger.reason) == (True, "mode_off")
    assert "standard_logging_guardrail_information" not in request["metadata"]


async def test_on_error_block(guard: AlignerGuardrail) -> None:
    guard.pipeline = Pipeline(ScriptedEngine(lambda _: EngineFault("x")))
    request = data("strict")
    with pytest.raises(Blocked) as caught:
        await guard.async_post_call_success_hook(request, user(), answer("It is so."))
    # final: official clients repeat what fails with a 5xx
    assert (caught.value.code, caught.value.status_code, caught.value.headers) == ("422", 422, {})
    assert ledger_of(request).headers()["x-aligner-status"] == "failed"


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No distribution of plugins is installed."""
    pretend_installed(monkeypatch, [])


@pytest.mark.usefixtures("uninstalled")
async def test_without_its_plugins_a_gateway_starts_and_says_which_line_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refined = {"match": {"model": "refined"}, "objectives": ["kind"], "corrector": "self_refine", "on_error": "block"}
    weighed = {"match": {}, "objectives": {"auto": ["kind"], "keep": 1}, "best_of": 3, "preferences": ["request"]}
    policies = {"objectives": POLICIES["objectives"], "routes": [refined, weighed]}
    guard = build(tmp_path, monkeypatch, policies)
    needs = [record.getMessage() for record in caplog.records if "aligner-proxy-systems" in record.getMessage()]
    assert len(needs) == 4
    for what in ("best_of", "preferences", "objectives: auto", "corrector 'self_refine'"):
        assert sum(f": {what} needs the plugin distribution" in text for text in needs) == 1
    assert len(guard.pipeline.correctors) == 1
    request = data(aligner={"preference": "No emoji."})
    edited = await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))
    assert edited.choices[0].message.content == "It is so."
    assert ledger_of(request).headers()["x-aligner-objectives"] == "kind"
    request = data("refined")
    with pytest.raises(Blocked):
        await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))
    assert ledger_of(request).reason == "engine_unavailable"


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
    request = data(aligner_proxy_state={"settled": True}, user_api_key_team_id="acme")
    assert await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))


@pytest.mark.parametrize("route", ["/v1/embeddings", "/v1/responses/compact", "/anthropic/v1/messages", None])
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
    assert without_id(got[2]) == b": aligner status=corrected\n\n"
    assert ledger.is_final


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
    request = data("off")
    items = [chunk("a"), chunk("b")]
    ledger = await opened(guard, request)
    assert ledger.headers()["x-aligner-status"] == "skipped"
    stream = _stream(guard, request, user(), items)
    assert await anext(stream) is items[0]
    assert not ledger.is_final
    # byte for byte what LiteLLM alone would send
    assert [item async for item in stream] == [items[1]]


@pytest.mark.parametrize("metadata", ["a", ["a"], 5, None, {"guardrails": 5}, {"guardrails": "aligner"}])
async def test_a_stream_of_a_pass_through_route_may_have_metadata_of_any_type(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch, metadata: object
) -> None:
    monkeypatch.setattr(litellm_internals, "is_pass_through", lambda _route: True)
    request = {"stream": True, "metadata": metadata}
    assert (await opened(guard, request, user("/raw/chat"))).skip == "endpoint"


async def test_a_connection_that_breaks_after_the_last_event_loses_nothing_of_a_skipped_stream(
    guard: AlignerGuardrail,
) -> None:
    """Some servers close without the last chunk of HTTP; the event that waits for our comment goes out, too."""
    items = [frame.encode() for frame in frames(message_events(said("It is so.")))]

    upstream = broken_flow(items, httpx.RemoteProtocolError("incomplete chunked read"))
    request = data(headers={"x-aligner-bypass": "1"})
    who = user("/v1/messages", **ACME)
    got: list[Any] = []
    with pytest.raises(httpx.RemoteProtocolError):
        await read_into(got, guard.async_post_call_streaming_iterator_hook(who, upstream, request))
    assert got == items
    assert ledger_of(request).reason == "bypass"


MESSAGE = {"type": "message", "role": "assistant", "stop_reason": "end_turn", "stop_sequence": None, "usage": {}}
RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "usage": None}


def said(*texts: str) -> dict[str, Any]:
    """A Messages answer."""
    return {**MESSAGE, "content": [{"type": "text", "text": text} for text in texts]}


def put_out(*texts: str) -> dict[str, Any]:
    """A Responses answer."""
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": parts}
    return {**RESPONSE, "output": [item]}


async def test_every_text_of_a_messages_answer(guard: AlignerGuardrail) -> None:
    request = {**data(), "litellm_metadata": data()["metadata"]}
    response = said("It is so. You fool.", "Good.")
    edited = await guard.async_post_call_success_hook(request, user("/v1/messages"), response)
    assert [block["text"] for block in edited["content"]] == ["It is so.", "Good."]
    assert response == said("It is so. You fool.", "Good.")
    assert [outcome.status.value for outcome in ledger_of(request).outcomes] == ["corrected", "unchanged"]


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_messages_stream_is_corrected_and_logged_once(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    logged: list[int] = []
    monkeypatch.setattr(litellm_internals, "log_served_texts", lambda request, items: logged.append(len(items)))
    raw = "".join(frames(message_events(said("It is so. You fool.")))).encode()
    items = [raw[i : i + size] for i in range(0, len(raw), size)]
    got = [item async for item in _stream(guard, data(), user("/v1/messages"), items)]
    events = [json.loads(line[6:]) for line in b"".join(got).decode().splitlines() if line.startswith("data: ")]
    text = "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")
    assert (text, without_id(take_comment(got)), len(logged)) == ("It is so.", b": aligner status=corrected\n\n", 1)


async def test_a_responses_answer_and_its_stream(guard: AlignerGuardrail) -> None:
    request = {**data(), "input": "What?"}
    edited = await guard.async_post_call_success_hook(
        request, user("/v1/responses"), ResponsesAPIResponse(**put_out("It is so. You fool."))
    )
    assert edited.output[0].content[0].text == "It is so."
    config = OpenAIResponsesAPIConfig()
    logging = cast("Any", None)
    told = response_events(put_out("It is so. You fool."))
    items = [config.transform_streaming_response("m", event, logging) for event in told]
    played = [item async for item in _stream(guard, data(), user("/v1/responses"), items)]
    assert without_id(played.pop(-2)) == b": aligner status=corrected\n\n"
    assert played[-1].response.output[0].content[0].text == "It is so."
    assert "fool" not in json.dumps([item.model_dump(mode="json") for item in played])


async def test_a_stored_answer_gets_the_policy_of_the_model_that_gave_it(guard: AlignerGuardrail) -> None:
    class Deployment:
        model_name = "off"

    who = user("/v1/responses/{response_id}")
    request = {**data(), "model": None, "response_id": "resp_1"}
    await guard.async_pre_call_hook(who, None, request, "aget_responses")
    assert request_state.find_state(request) is None
    stored = ResponsesAPIResponse(**put_out("It is so. You fool."))
    assert await guard.async_post_call_success_hook(request | {"deployment": Deployment()}, who, stored) is None
    assert ledger_of(request).reason == "mode_off"
    forged = {**data(), "model": "off"}
    edited = await guard.async_post_call_success_hook(forged, who, stored)
    assert edited.output[0].content[0].text == "It is so."


async def test_a_passing_stream_that_ends_inside_an_event_gets_no_comment(guard: AlignerGuardrail) -> None:
    items = [b"event: message_st"]
    request = data("off")
    assert [item async for item in _stream(guard, request, user("/v1/messages"), items)] == items
    assert ledger_of(request).reason == "mode_off"


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
    assert ledger_of(request).is_final


async def test_shadow_never_blocks(guard: AlignerGuardrail) -> None:
    guard.pipeline = Pipeline(ScriptedEngine(lambda _: EngineFault("x")))
    request = data("strict")
    who = user(metadata={"aligner": {"mode": "shadow"}})
    response = answer("It is so.")
    assert await guard.async_post_call_success_hook(request, who, response) is response
    assert ledger_of(request).headers()["x-aligner-status"] == "shadow"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_shadow_never_waits_for_the_engine(guard: AlignerGuardrail, stream: bool) -> None:
    engine = ScriptedEngine(delay_s=60)
    guard.pipeline = Pipeline(engine)
    request = data()
    who = user(metadata={"aligner": {"mode": "shadow"}})
    async with asyncio.timeout(30):
        if stream:
            got = [item async for item in _stream(guard, request, who, [chunk("It is so.")])]
            assert without_id(got[-1]) == b": aligner status=shadow\n\n"
        else:
            response = answer("It is so.")
            assert await guard.async_post_call_success_hook(request, who, response) is response
        while not engine.seen:
            await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_what_is_not_drawn_is_left_alone(guard: AlignerGuardrail) -> None:
    request = data()
    response = answer("It is so. You fool.", "It is so.")
    who = user(metadata={"aligner": {"sample": 0.0}})
    assert await guard.async_post_call_success_hook(request, who, response) is None
    assert [(o.status, o.reason) for o in ledger_of(request).outcomes] == [("skipped", "not_sampled")] * 2


async def test_what_a_client_sends_as_call_id_does_not_decide_the_sample(guard: AlignerGuardrail) -> None:
    who = user(metadata={"aligner": {"sample": 0.5}})
    skips = {(await opened(guard, data(), who)).skip for _ in range(100)}
    assert skips == {None, "not_sampled"}


@pytest.mark.parametrize("mode", ["enforce", "shadow", "off"])
async def test_what_was_looked_at_is_kept_in_the_audit_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    audited = {**POLICIES, "audit": {"enabled": True, "file": "audit.db"}}
    guard = build(tmp_path, monkeypatch, audited)
    who = user(metadata={"aligner": {"mode": mode}}, **ACME)
    await guard.async_post_call_success_hook(data(), who, answer("It is so. You fool."))
    await wait_for_shadows(guard._shadows)
    await guard._audit_writers.aclose()
    if mode == "off":
        assert not (tmp_path / "audit.db").exists()
        return
    store = writer.open_for_reading(config.load(tmp_path / "policies.yaml"))
    (kept,) = store.entries()
    store.close()
    assert (kept.mode, kept.reason) == (mode, "would_correct" if mode == "shadow" else None)
    assert (kept.tenant, kept.model, kept.endpoint) == ("team:acme", "gpt", CHAT)
    assert kept.content is not None
    assert (kept.content.exchange.answer, kept.content.edited) == ("It is so. You fool.", "It is so.")


async def test_an_audit_that_cannot_be_written_touches_no_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(recorder, "LAST_TRIES_S", 0.0)
    guard = build(tmp_path, monkeypatch, {**POLICIES, "audit": {"enabled": True, "file": "file/folder/audit.db"}})
    edited = await guard.async_post_call_success_hook(data(), user(), answer("It is so. You fool."))
    assert edited.choices[0].message.content == "It is so."
    await guard._audit_writers.aclose()
    assert "audit: entries cannot be written (NotADirectoryError) and wait; answers are not affected" in caplog.text


def test_an_audit_that_cannot_be_kept_stops_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIT_KEY", raising=False)
    with pytest.raises(RuntimeError, match="AUDIT_KEY must hold"):
        build(tmp_path, monkeypatch, {**POLICIES, "audit": {"enabled": True, "key_env": "AUDIT_KEY"}})


async def test_each_class_of_failure_is_blocked_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    route = {"match": {}, "objectives": ["harmless"], "on_error": {"gate": "block", "bug": "passthrough"}}
    guard = build(tmp_path, monkeypatch, {"routes": [route]})
    for script, blocked in ((lambda _: "", True), (lambda _: EngineFault("x"), False)):
        guard.pipeline = Pipeline(ScriptedEngine(script))
        request = data()
        response = answer("It is so.")
        if blocked:
            with pytest.raises(Blocked, match="gate_empty"):
                await guard.async_post_call_success_hook(request, user(), response)
        else:
            assert await guard.async_post_call_success_hook(request, user(), response) is response
        assert ledger_of(request).headers()["x-aligner-status"] == "failed"


async def test_a_request_keeps_the_policy_it_began_with(guard: AlignerGuardrail, tmp_path: Path) -> None:
    heard: list[AlignRequest] = []
    guard.pipeline = Pipeline(ScriptedEngine(lambda request: heard.append(request) or request.answer))  # type: ignore[func-returns-value]
    before = await opened(guard, old := data())
    new = {"routes": [{"match": {}, "name": "later", "objectives": ["concise", "harmless"], "caution": 2.0}]}
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump(new))
    for _ in range(2):
        reload.watched_policies(tmp_path / "policies.yaml").check_files()
    after = await opened(guard, late := data())
    assert (before.policy.name, after.policy.name) == ("all", "later")
    for request in (late, old):
        await guard.async_post_call_success_hook(request, user(), answer("It is so."))
    assert [(len(one.objectives), one.caution) for one in heard] == [(2, 2.0), (1, 0.0)]
    assert ledger_of(old).headers()["x-aligner-policy"] == "all"


async def test_a_bad_file_leaves_the_policies_as_they_are(guard: AlignerGuardrail, tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text("routes: [\n")
    for _ in range(2):
        reload.watched_policies(tmp_path / "policies.yaml").check_files()
    assert (await opened(guard, data())).policy.name == "all"


async def test_work_for_a_client_that_has_left_is_given_up(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine(delay_s=60)
    guard.pipeline = Pipeline(engine)

    async def left() -> None:
        while not engine.seen:
            await asyncio.sleep(0)

    monkeypatch.setattr(guardrail, "client_gone_waiter", lambda: left)
    request = data()
    assert await guard.async_post_call_success_hook(request, user(), answer("It is so.")) is None
    assert engine.cancelled == ["call-1/0"]
    told = ledger_of(request).headers()
    assert (told["x-aligner-status"], told["x-aligner-reason"]) == ("failed", "cancelled")


async def test_an_engine_that_is_gone_is_not_asked_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = build(tmp_path, monkeypatch)
    monkeypatch.setenv("ALIGNER_PROXY_ENGINE", f"unix:{tmp_path / 'nobody.sock'}")
    guard.pipeline = module.build_pipeline(reload.watched_policies(tmp_path / "policies.yaml").current.file)
    reasons = []
    for _ in range(5):
        request = data()
        await guard.async_post_call_success_hook(request, user(), answer("It is so."))
        reasons.append(ledger_of(request).headers()["x-aligner-reason"])
    assert reasons == ["engine_unavailable"] * 3 + ["breaker_open"] * 2
    assert REGISTRY.get_sample_value("aligner_breaker_state") == 2
    await guard.pipeline.engine.aclose()


async def test_models_under_the_same_policy_may_answer_for_one_another(guard: AlignerGuardrail) -> None:
    for fallbacks in (["gpt-2"], [{"model": "gpt-3"}], [{"gpt": ["gpt-4"]}], [], None):
        ledger = await opened(guard, {**data(), "fallbacks": fallbacks})
        assert (ledger.policy.name, ledger.skip) == ("all", None)


MODES = {
    "objectives": POLICIES["objectives"],
    "routes": [
        {"match": {"model": mode}, "stream": mode, "objectives": ["kind"], "on_error": "block"}
        for mode in ("hold", "sentence", "passthrough")
    ],
}
INSULTED = "It is so. You fool. Go home."


def fooled(text: str) -> float:
    return 2.0 if "fool" in text else -2.0


async def streamed(guard: AlignerGuardrail, mode: str, pieces: list[str]) -> tuple[RequestState, list[Any]]:
    request = data(mode)
    ledger = await opened(guard, request)
    source = flow(chat_items(pieces))
    got = [item async for item in guard.async_post_call_streaming_iterator_hook(user(), source, request)]
    information = request["metadata"]["standard_logging_guardrail_information"]
    assert information[-1]["guardrail_response"]["status"] == ledger.status.value
    return ledger, got


async def flow(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


@pytest.mark.parametrize(
    ("mode", "status", "expected"),
    [
        ("hold", "corrected", "It is so. Go home."),
        ("sentence", "corrected", "It is so. Go home."),
        ("passthrough", "shadow", INSULTED),
    ],
)
async def test_a_stream_is_treated_as_its_route_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, status: str, expected: str
) -> None:
    guard = build(tmp_path, monkeypatch, MODES)
    guard.pipeline = Pipeline(SegmentEngine(fooled))
    count = "aligner_last_token_added_seconds_count"
    before = REGISTRY.get_sample_value(count, {"stream": mode}) or 0.0
    ledger, got = await streamed(guard, mode, ["It is", " so. You", " fool. Go", " home."])
    assert (ledger.status.value, chat_text(got)) == (status, expected)
    assert got[-1].startswith(f": aligner status={status}".encode())
    assert REGISTRY.get_sample_value(count, {"stream": mode}) == before + 1
    whole = await guard.async_post_call_success_hook(data(mode), user(), answer(INSULTED))
    assert whole.choices[0].message.content == "It is so. Go home.", "the modes are about streams alone"


async def test_a_failure_in_mid_stream_is_blocked_where_the_policy_wants_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = build(tmp_path, monkeypatch, MODES)
    guard.pipeline = Pipeline(SegmentEngine(fooled, lambda _: EngineFault("broken")))
    with pytest.raises(Blocked):
        await streamed(guard, "sentence", ["It is so. You fool. ", "Go home."])
    ledger, got = await streamed(guard, "passthrough", ["It is so. You fool. ", "Go home."])
    assert (ledger.status.value, chat_text(got)) == ("shadow", INSULTED)
