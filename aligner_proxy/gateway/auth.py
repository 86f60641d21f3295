"""Authentication for LiteLLM (`custom_auth`) without a database, by a file of key hashes and the master key.

`serve` uses it where LiteLLM's file names neither a database nor another check. Elsewhere register it as
`general_settings: {custom_auth: aligner_proxy.auth.user_api_key_auth}`. A key from the file may use the
endpoints whose answers are corrected, the endpoints that return no model text, and any that its entry adds. LiteLLM
itself enforces the limits that the entry sets.
"""

from __future__ import annotations

from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from fastapi import Request
from litellm.proxy._types import LitellmUserRoles, ProxyErrorTypes, ProxyException, UserAPIKeyAuth
from litellm.proxy.auth.auth_utils import get_request_route, normalize_request_route
from litellm.proxy.auth.route_checks import RouteChecks

from aligner_proxy import formats
from aligner_proxy.gateway import body_limits, client_keys, litellm_internals
from aligner_proxy.gateway.endpoints.routes import find_endpoint
from aligner_proxy.policy.keys_file import KeyEntry, Role

_PATHS_WITHOUT_TEXT = frozenset(
    prefix + path
    for path, prefixes in {
        "/models": ("", "/v1"),
        "/models/{model_id}": ("", "/v1"),
        "/embeddings": ("", "/v1", "/engines/{model:path}", "/openai/deployments/{model:path}"),
        "/moderations": ("", "/v1"),
        "/rerank": ("", "/v1", "/v2"),
        "/responses/input_tokens": ("", "/v1", "/openai/v1"),
        "/messages/count_tokens": ("/v1",),
        "/utils/token_counter": ("",),
    }.items()
    for prefix in prefixes
)
"""Endpoints that return no model text, as FastAPI path templates."""


async def user_api_key_auth(request: Request, api_key: str | None) -> UserAPIKeyAuth:
    """The caller of this request, found by the key; LiteLLM calls this as its `custom_auth`.

    Raises HTTP 401 for a missing, unknown or expired key, 403 for an endpoint or model that the key may not use, and
    503 if the keys file cannot be read.
    """
    body_limits.install()  # for a proxy that uses this function without our guardrail; later calls do nothing
    if not api_key:
        raise _make_refusal("no key was sent; send it as Authorization: Bearer KEY", 401)
    digest = client_keys.key_digest(api_key)
    if client_keys.is_master(digest):
        return UserAPIKeyAuth(
            api_key=digest,
            key_alias="master",
            user_id="master",
            user_role=LitellmUserRoles.PROXY_ADMIN,
            parent_otel_span=_parent_span(request),
        )
    key_entry = _find_entry(digest)
    if key_entry.is_expired(datetime.now(UTC)):
        raise _make_refusal("this key has expired; ask the gateway's operator for another", 401)
    if not _may_call_endpoint(key_entry, request):
        raise _make_refusal(
            "this key may not call this endpoint; `routes` in its entry of the keys file can allow it", 403
        )
    caller = _make_caller(key_entry, digest, request)
    if key_entry.models:  # after a `custom_auth`, LiteLLM does not check the model by itself
        await litellm_internals.refuse_other_models(caller, request)
    if key_entry.has_limits:
        # LiteLLM's cache, if it is full, drops counters and so forgets requests that a limit must count
        litellm_internals.make_room_for_counters(len(client_keys.active_keys()))
    return caller


def _find_entry(digest: str) -> KeyEntry:
    """The entry of the keys file for this digest; raises HTTP 401 if there is none, and 503 for an unreadable file."""
    try:
        entry = client_keys.active_keys().get(digest)
    except client_keys.KeysUnreadable:
        raise _make_refusal("the gateway's keys file cannot be read; ask its operator", 503) from None
    if entry is None:
        reason = "this key is not known to the gateway; ask its operator, who can add it to the keys file"
        raise _make_refusal(reason, 401)
    return entry


def _may_call_endpoint(key_entry: KeyEntry, request: Request) -> bool:
    """Whether the key may use this endpoint.

    Endpoints whose answers are corrected, endpoints without text and our own are allowed; a reviewer's key may use only
    our own for reviewers. FastAPI's path template decides this, so that no spelling of a path can pass for another; the
    guardrail sees only the path, so the path must match, too. Others must match a pattern in `routes` of the entry.
    """
    route = request.scope.get("route")
    template = getattr(route, "path", None)
    endpoint = find_endpoint(route)
    if key_entry.role is Role.REVIEWER:
        return endpoint is not None and endpoint.for_reviewers
    path = get_request_route(request)
    is_corrected = formats.wire(template) is not None and formats.wire(normalize_request_route(path)) is not None
    if is_corrected or template in _PATHS_WITHOUT_TEXT or endpoint is not None:
        return True
    return RouteChecks.is_llm_api_route(path) and any(fnmatchcase(path, pattern) for pattern in key_entry.routes)


def _make_caller(entry: KeyEntry, digest: str, request: Request) -> UserAPIKeyAuth:
    """What LiteLLM knows of the caller with this key: its team, models and limits."""
    return UserAPIKeyAuth(
        api_key=digest,
        key_alias=entry.alias,
        team_id=entry.team,
        team_alias=entry.team,
        # LiteLLM lets anyone fetch a stored response that has neither a team nor a user.
        user_id=None if entry.team else f"key:{digest}",
        user_role=LitellmUserRoles.INTERNAL_USER,
        models=list(entry.models or ()),
        rpm_limit=entry.rpm,
        max_parallel_requests=entry.max_parallel,
        expires=entry.expires,
        parent_otel_span=_parent_span(request),
    )


def _parent_span(request: Request) -> Any:
    """LiteLLM's span of this request, which a custom_auth must pass on; None without LiteLLM's otel callback."""
    return getattr(request.state, "parent_otel_span", None)


def _make_refusal(message: str, code: int) -> ProxyException:
    return ProxyException(message, ProxyErrorTypes.auth_error.value, "key", code)
