"""Keys from a file of hashes: who gets in, as whom, where, and how much."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import HTTPException
from litellm import DualCache, Router
from litellm.proxy import _types
from litellm.proxy.hooks.responses_id_security import ResponsesIDSecurity
from litellm.types.llms.openai import ResponsesAPIResponse
from starlette.requests import Request
from starlette.routing import BaseRoute

from aligner_proxy.gateway import auth, client_keys, litellm_internals, reload
from tests.gateway.endpoints.plugin_endpoints import OPEN_WORD, WORD, route_of

MASTER = "sk-master-very-long-and-random"
CHAT = "/v1/chat/completions"


def request(path: str = CHAT, template: str | None = None, route: BaseRoute | None = None, **body: Any) -> Request:
    """A request that FastAPI dispatched to this route, or one with this template; by default the path is its own."""
    route = route or types.SimpleNamespace(path=path if template is None else template)
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "route": route}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    return Request(scope, receive)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def write(path: Path, **settings: Any) -> None:
    """One entry, for the key `k1`."""
    path.write_text(yaml.safe_dump([{"sha256": digest("k1"), "alias": "one", **settings}]))


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.yaml"
    write(path, team="acme")
    monkeypatch.setenv("ALIGNER_PROXY_KEYS", str(path))
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    client_keys.policies_path.cache_clear()
    serve(monkeypatch)
    return path


def serve(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Stand in for LiteLLM's module, which takes seconds to import, by the globals that are asked of it."""
    server = types.SimpleNamespace(**{"master_key": MASTER, "user_config_file_path": None, **settings})
    monkeypatch.setattr(litellm_internals, "proxy_module", lambda: server)


async def refused(asked: Request, key: Any = "k1") -> tuple[str, str]:
    """The code and the message of a refusal."""
    with pytest.raises(_types.ProxyException) as caught:
        await auth.user_api_key_auth(asked, key)
    return caught.value.code, caught.value.message


async def test_a_key_of_the_file() -> None:
    user = await auth.user_api_key_auth(request(), "k1")
    assert (user.key_alias, user.team_id, user.team_alias) == ("one", "acme", "acme")
    assert user.user_role is _types.LitellmUserRoles.INTERNAL_USER
    assert (user.models, user.rpm_limit, user.max_parallel_requests, user.expires) == ([], None, None, None)
    assert "k1" not in user.model_dump_json().split('"')


async def test_the_master_key() -> None:
    user = await auth.user_api_key_auth(request("/model/info"), MASTER)
    assert user.user_role is _types.LitellmUserRoles.PROXY_ADMIN


@pytest.mark.parametrize("key", ["", None, "k2", "K1", digest("k1")])
async def test_everybody_else_is_refused(key: Any) -> None:
    with pytest.raises(_types.ProxyException) as caught:
        await auth.user_api_key_auth(request(), key)
    assert (caught.value.code, caught.value.type) == ("401", "auth_error")


# where


@pytest.mark.parametrize(
    "template",
    [
        "/chat/completions",
        "/engines/{model:path}/chat/completions",
        "/openai/deployments/{model:path}/completions",
        "/openai/v1/responses",
        "/v1/responses/{response_id}",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/v1/models/{model_id}",
        "/v1/embeddings",
        "/engines/{model:path}/embeddings",
        "/v2/rerank",
        "/utils/token_counter",
    ],
)
async def test_a_key_may_call_what_is_corrected_and_what_answers_no_text(template: str) -> None:
    path = re.sub(r"\{.*?\}", "any", template)
    assert (await auth.user_api_key_auth(request(path, template), "k1")).key_alias == "one"


ELSEWHERE = [
    ("/key/generate", "/key/generate"),
    ("/v1/files", "/v1/files"),
    ("/v1/batches", "/v1/batches"),
    ("/v1/realtime/client_secrets", "/v1/realtime/client_secrets"),
    ("/v1/audio/transcriptions", "/v1/audio/transcriptions"),
    ("/v1/images/generations", "/v1/images/generations"),
    ("/v1/threads/t/runs", "/v1/threads/{thread_id}/runs"),
    ("/v1/responses/r/input_items", "/v1/responses/{response_id}/input_items"),
    ("/v1/responses/r/cancel", "/v1/responses/{response_id}/cancel"),
    ("/cursor/chat/completions", "/cursor/chat/completions"),
    ("/v1beta/models/m:generateContent", "/v1beta/models/{model_name:path}:generateContent"),
    ("/anthropic/v1/messages", "/anthropic/{endpoint:path}"),
    ("/openai/deployments/m/chat/completions", "/openai/{endpoint:path}"),
    ("/claude_code_gateway/v1/messages", "/v1/messages"),  # if a router of LiteLLM's stood under a prefix
    ("/mcp/tools/call", ""),
    ("/v1/responses", ""),  # a WebSocket, whose request has no template
]


@pytest.mark.parametrize(("path", "template"), ELSEWHERE)
async def test_a_key_may_call_nothing_else(path: str, template: str) -> None:
    code, message = await refused(request(path, template or None) if template else without_template(path))
    assert code == "403"
    assert "routes" in message


def without_template(path: str) -> Request:
    asked = request(path)
    del asked.scope["route"]
    return asked


@pytest.mark.parametrize(("path", "template"), ELSEWHERE[1:])
@pytest.mark.parametrize("everything", [True, False])
async def test_an_entry_allows_more(keys: Path, path: str, template: str, everything: bool) -> None:
    write(keys, routes=["*"] if everything else ["/nowhere", f"{path[:9]}*"])
    asked = request(path, template) if template else without_template(path)
    assert (await auth.user_api_key_auth(asked, "k1")).key_alias == "one"


@pytest.mark.parametrize("template", [CHAT, "/v1/align", "/v1/messages", "/v1/responses", "/v1/models", "/metrics"])
async def test_a_reviewers_key_gets_no_answer_of_a_model(keys: Path, template: str) -> None:
    write(keys, team="acme", role="reviewer", routes=["*"])
    assert (await refused(request(template)))[0] == "403"


@pytest.mark.parametrize("role", ["client", "reviewer"])
async def test_a_plugins_endpoint_says_whether_reviewers_may_call_it(keys: Path, role: str) -> None:
    write(keys, team="acme", role=role)
    open_to_both = request(OPEN_WORD.path, route=await route_of(OPEN_WORD))
    assert (await auth.user_api_key_auth(open_to_both, "k1")).team_id == "acme"
    for_clients = request(WORD.path, route=await route_of(WORD))
    if role == "client":
        assert (await auth.user_api_key_auth(for_clients, "k1")).team_id == "acme"
    else:
        assert (await refused(for_clients))[0] == "403"
    assert (await refused(request(OPEN_WORD.path)))[0] == "403", "another application's route at the same path"


async def test_no_entry_allows_what_is_no_model_endpoint(keys: Path) -> None:
    write(keys, routes=["*", "/key/*"])
    assert (await refused(request("/key/generate")))[0] == "403"


# how much


async def test_what_litellm_counts_and_checks_is_handed_to_it(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = types.SimpleNamespace(dual_cache=DualCache())
    proxy = types.SimpleNamespace(internal_usage_cache=counters)
    serve(monkeypatch, llm_router=None, llm_model_list=[], proxy_logging_obj=proxy)
    write(keys, models=["gpt"], rpm=7, max_parallel=2, expires="2999-01-01")
    user = await auth.user_api_key_auth(request(model="gpt"), "k1")
    assert (user.models, user.rpm_limit, user.max_parallel_requests) == (["gpt"], 7, 2)
    assert user.expires == datetime(2999, 1, 1, tzinfo=UTC)


async def test_a_key_ends(keys: Path) -> None:
    write(keys, expires=datetime.now(UTC) - timedelta(seconds=1))
    assert await refused(request()) == ("401", "this key has expired; ask the gateway's operator for another")


ROUTER = Router(
    [
        {
            "model_name": name,
            "litellm_params": {"model": "openai/up", "api_key": "none"},
            "model_info": {"id": f"id-{name}"},
        }
        for name in ("gpt", "claude")
    ],
    model_group_alias={"alias": "claude"},
)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "claude"},
        {"model": "alias"},
        {"model": "id-claude"},
        {"model": "gpt,claude"},
        {"model": "gpt", "fallbacks": ["claude"]},
        {"model": "gpt", "fallbacks": [{"gpt": ["claude"]}]},
        {"model": "gpt", "fallbacks": [{"model": "claude"}]},
        {"model": "gpt", "context_window_fallbacks": [{"gpt": ["claude"]}]},
        {"model": "gpt", "router_settings_override": {"fallbacks": [{"gpt": ["claude"]}]}},
    ],
)
async def test_a_key_for_some_models_reaches_no_other(
    keys: Path, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, llm_router=ROUTER, llm_model_list=ROUTER.model_list)
    write(keys, models=["gpt"])
    code, message = await refused(request(**body))
    assert code in ("401", "403")
    assert "not allowed to access model" in message.lower() or "model" in message
    assert (await auth.user_api_key_auth(request(model="gpt"), "k1")).models == ["gpt"]


@pytest.mark.parametrize("body", [{"model": "gpt"}, {}])
@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {"query_string": b"model=claude"}),
        (CHAT, {"query_string": b"model=gpt&model=claude"}),
        ("/engines/claude/chat/completions", {"path_params": {"model": "claude"}}),
        ("/openai/deployments/claude/completions", {"path_params": {"model": "claude"}}),
    ],
)
async def test_nor_by_its_address_by_which_litellm_routes(
    keys: Path, path: str, more: dict[str, Any], body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, llm_router=ROUTER, llm_model_list=ROUTER.model_list)
    write(keys, models=["gpt"])
    asked = request(path, **body)
    asked.scope["route"].path = re.sub("/claude/", "/{model:path}/", path)
    asked.scope.update(more)
    assert (await refused(asked))[0] in ("401", "403")


async def test_fallbacks_are_counted_before_they_are_checked(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, llm_router=ROUTER, llm_model_list=ROUTER.model_list)
    write(keys, models=["*"])
    assert (await refused(request(model="gpt", fallbacks=["gpt"] * 50_000)))[0] == "400"


# stored responses


def stored_by(user: _types.UserAPIKeyAuth) -> str:
    """The id that LiteLLM gives a response of this caller."""
    response = ResponsesAPIResponse(id="resp_1", created_at=0, output=[])
    return str(SECURITY._encrypt_response_id(response, user).id)


SECURITY = ResponsesIDSecurity(dict, lambda: MASTER)


async def reads(reader: _types.UserAPIKeyAuth, identity: str) -> bool:
    try:
        await SECURITY.async_pre_call_hook(reader, DualCache(), {"response_id": identity}, "aget_responses")
    except HTTPException:
        return False
    return True


async def test_a_stored_response_is_its_keys_or_its_teams_alone(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_SALT_KEY", MASTER)
    teams = {"a": "acme", "b": "acme", "c": None, "d": None, "e": "other"}
    entries = [{"sha256": digest(key), "alias": "same", "team": team} for key, team in teams.items()]
    keys.write_text(yaml.safe_dump(entries))
    callers = {key: await auth.user_api_key_auth(request(), key) for key in teams}
    callers["master"] = await auth.user_api_key_auth(request(), MASTER)
    readers = {
        owner: {name for name, reader in callers.items() if await reads(reader, stored_by(caller))}
        for owner, caller in callers.items()
    }
    assert readers == {
        "a": {"a", "b", "master"},
        "b": {"a", "b", "master"},
        "c": {"c", "master"},
        "d": {"d", "master"},
        "e": {"e", "master"},
        "master": {"master"},
    }


# the file


def changed(keys: Path, text: str) -> None:
    """Write the keys file, and let the change settle."""
    keys.write_text(text)
    for _ in range(2):
        client_keys.keys_watcher(keys).check_files()


async def test_a_changed_file_counts_without_a_restart(keys: Path) -> None:
    await auth.user_api_key_auth(request(), "k1")
    changed(keys, yaml.safe_dump([{"sha256": digest("k2"), "alias": "two"}]))
    assert (await auth.user_api_key_auth(request(), "k2")).key_alias == "two"
    with pytest.raises(_types.ProxyException):
        await auth.user_api_key_auth(request(), "k1")


async def test_a_file_that_breaks_later_leaves_the_old_keys_in_force(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await auth.user_api_key_auth(request(), "k1")
    with caplog.at_level(logging.DEBUG):
        changed(keys, "- {sha256: sk-secret, alias: x}\n")
    assert (await auth.user_api_key_auth(request(), "k1")).key_alias == "one"
    assert "keys.yaml:1: invalid keys file" in caplog.text
    assert "secret" not in caplog.text


async def test_a_file_that_is_broken_from_the_start_lets_nobody_in_and_quotes_nothing(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys.write_text("- sha256: k1\n  alias: x\n")
    assert (await refused(request()))[0] == "503"
    assert str(keys) not in caplog.text


async def test_a_file_that_is_missing_has_no_keys(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = keys.read_text()
    keys.unlink()
    assert (await refused(request()))[0] == "401"
    assert "keys.yaml does not exist, so none of its keys is accepted" in caplog.text
    changed(keys, text)
    assert (await auth.user_api_key_auth(request(), "k1")).key_alias == "one"
    keys.unlink()
    for _ in range(2):
        client_keys.keys_watcher(keys).check_files()
    assert (await refused(request()))[0] == "401"


async def test_without_any_file_there_is_only_the_master_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGNER_PROXY_KEYS")
    with pytest.raises(_types.ProxyException):
        await auth.user_api_key_auth(request(), "k1")
    assert await auth.user_api_key_auth(request(), MASTER)


async def test_the_keys_file_that_the_registered_policies_name(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALIGNER_PROXY_KEYS")
    params = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "policies": "p.yaml"}
    litellm_file = tmp_path / "litellm.yaml"
    litellm_file.write_text(yaml.safe_dump({"guardrails": [{"guardrail_name": "a", "litellm_params": params}]}))
    (tmp_path / "p.yaml").write_text("defaults: {mode: off}\nkeys: keys.yaml\n")
    client_keys.policies_path.cache_clear()
    serve(monkeypatch, user_config_file_path=str(litellm_file))
    assert (await auth.user_api_key_auth(request(), "k1")).key_alias == "one"
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump([{"sha256": digest("k3"), "alias": "three"}]))
    (tmp_path / "p.yaml").write_text("defaults: {mode: off}\nkeys: other.yaml\n")
    for _ in range(2):
        reload.watched_policies(tmp_path / "p.yaml").check_files()
    assert (await auth.user_api_key_auth(request(), "k3")).key_alias == "three"


async def test_a_litellm_file_without_our_guardrail_needs_the_keys_in_the_environment(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "litellm.yaml").write_text("model_list: []\n")
    serve(monkeypatch, user_config_file_path=str(tmp_path / "litellm.yaml"))
    assert (await auth.user_api_key_auth(request(), "k1")).key_alias == "one"
    client_keys.policies_path.cache_clear()
    monkeypatch.delenv("ALIGNER_PROXY_KEYS")
    with pytest.raises(_types.ProxyException) as caught:
        await auth.user_api_key_auth(request(), "k1")
    assert caught.value.code == "503"
