"""Resolves the policy of one request from its facts, and again if another model answers.

The caller's identity comes only from LiteLLM's authentication (`UserAPIKeyAuth`). Metadata in the body comes from the
client and can only request settings. If a client requests something it is not allowed, an HTTP error is raised here,
before any tokens are spent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import Any

from litellm.constants import LITELLM_PROXY_MASTER_KEY_ALIAS
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

from aligner_proxy.concurrency import ErrorTranslation
from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.formats import is_stored_answer, wire
from aligner_proxy.formats.base import make_system_turn, metadata_buckets, read_turns, request_headers
from aligner_proxy.formats.tool_results import tool_results
from aligner_proxy.gateway import litellm_internals, routing
from aligner_proxy.gateway.reload import PolicySource
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy import shares
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver, resolve_for_models
from aligner_proxy.policy.schema import Trust
from aligner_proxy.policy.strictness import stricter_policy
from aligner_proxy.types import LOCAL_EDITOR, Policy

log = logging.getLogger(__name__)
OBJECTIVES_HEADER = "x-aligner-objectives"
BYPASS_HEADER = "x-aligner-bypass"
_OUR_FIELD = "aligner"
"""Name of our field in metadata, by which clients, keys and teams set things."""
_SYSTEM_ROLES = frozenset({"system", "developer"})
"""Roles of turns with more authority than the user's."""
BODY_REQUEST = "aligner_proxy_objectives"
"""Field of a request's data that holds the `BodyRequest` of `POST /v1/align`."""
_BASE64 = "base64:"
"""Prefix of a header value in base64, for text with line breaks or characters that headers cannot contain."""
_MASTER_HASH = hashlib.sha256(LITELLM_PROXY_MASTER_KEY_ALIAS.encode()).hexdigest()
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BodyRequest:
    """Objectives and plugin fields in the body of `POST /v1/align`; client JSON can never be an instance."""

    names: tuple[str, ...] = ()
    """Names of requested objectives."""
    texts: tuple[str, ...] = ()
    """Objectives that the request itself words ("Name: description")."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Values of the fields that plugins declare, by name."""


def check_body(data: Mapping[str, Any], trust: Trust) -> None:
    """Refuse a body (HTTP 400) with router settings that clients may not use."""
    with _AS_HTTP_ERRORS:
        routing.check_router_fields(data, trust.router_fields)


async def resolve_request(
    policies: PolicySource, extensions: Extensions, data: dict[str, Any], user: UserAPIKeyAuth
) -> tuple[RequestFacts, Policy]:
    """The facts of a request and its policy; raises LiteLLM's error if it requests something it is not allowed.

    Also removes our fields from the request's metadata.
    """
    current = policies.current
    fields = [field.name for field in extensions.request_fields]
    try:
        with _AS_HTTP_ERRORS:
            request = request_facts(data, user, fields, policies.keys, current.resolver)
            if current.resolver.splits_traffic:
                request = _add_traffic_percentile(request, data, user)
            targets = [routing.resolve_name(model, user.team_id) for model in routing.list_fallback_models(data)]
            other_requests = [replace(request, model=model, groups=groups) for model, groups in targets]
            policy = resolve_for_models(current.resolver, request, other_requests)
            if policy.aligner_shares:  # shares set by metadata
                request = _add_traffic_percentile(request, data, user)
                if request.traffic_percentile is not None:
                    policy = shares.pick_aligner(policy, request.traffic_percentile)
            policy = await extensions.resolve_async(policy, request)
            if current.asks_models or policy.editor != LOCAL_EDITOR or policy.judges:
                policy = _add_payer(policy, request, user)
            return request, policy
    finally:
        remove_client_settings(data)


def _add_traffic_percentile(request: RequestFacts, data: Mapping[str, Any], user: UserAPIKeyAuth) -> RequestFacts:
    """The facts with the conversation's fixed number (0 to 99), which picks one of several aligners.

    The facts are unchanged on endpoints whose answers are not corrected.
    """
    wire_format = wire(user.request_route)
    if wire_format is None:
        return request
    conversation = wire_format.first_exchange(data).turns
    return replace(request, traffic_percentile=shares.traffic_percentile(request.namespace, conversation))


def resolve_answer(
    policies: PolicySource, extensions: Extensions, request: RequestFacts, policy: Policy, group: str
) -> Policy | None:
    """The policy if this model group answered, at least as strict as `policy`; None if the policy stays the same."""
    if routing.is_same_group(request.names, group):
        return None
    answer_request = replace(request, model=group, groups=())
    try:
        answer_policy = extensions.resolve(policies.current.resolver.resolve(answer_request), answer_request)
    except ForbiddenError:
        # It requested something that only its own route allows; `policy` contains that already.
        answer_request = replace(answer_request, asked=(), own=(), fields={})
        answer_policy = extensions.resolve(policies.current.resolver.resolve(answer_request), answer_request)
    return replace(stricter_policy(answer_policy, policy), upstream=group, payer=policy.payer)


def _add_payer(policy: Policy, request: RequestFacts, user: UserAPIKeyAuth) -> Policy:
    """The policy with the answering model group and the metadata by which LiteLLM charges editor and judge calls."""
    payer = tuple(litellm_internals.payer_metadata(user).items())
    # If the requested name is an alias, the group behind it answers.
    return replace(policy, upstream=next(iter(request.groups), request.model), payer=payer)


def trusted_metadata(data: Mapping[str, Any], trust: Trust) -> dict[str, Any]:
    """The metadata of team and key that the policies file trusts, merged; the key's overrides the team's.

    Logs once for each source if untrusted metadata tries to switch the guardrail off.
    """
    merged: dict[str, Any] = {}
    for bucket in metadata_buckets(data):
        team = bucket.get("user_api_key_team_metadata")
        key = bucket.get("user_api_key_metadata")
        if not (team or key):  # of most requests; LiteLLM asks several times in each
            continue
        for metadata, trusted, setting in ((team, trust.team_metadata, "team"), (key, trust.key_metadata, "key")):
            if not metadata:
                continue
            if isinstance(metadata, Mapping) and trusted:
                merged |= metadata
            elif isinstance(metadata, Mapping) and any(metadata.get(name) for name in _SWITCHES):
                _warn_ignored(f"{bucket.get('user_api_key_hash')}: {setting} metadata", f"trust.{setting}_metadata")
    return merged


_SWITCHES = ("disable_global_guardrails", "opted_out_global_guardrails")
"""LiteLLM's metadata fields by which a team or key turns guardrails off."""


def _http_error(error: BadRequest | ForbiddenError) -> ProxyException:
    """LiteLLM's error: HTTP 400 for a bad request, 403 for a forbidden one."""
    if isinstance(error, BadRequest):
        return ProxyException(str(error), "invalid_request_error", error.param, 400)
    return ProxyException(str(error), "permission_error", "aligner", 403)


_AS_HTTP_ERRORS = ErrorTranslation((BadRequest, ForbiddenError), _http_error)
"""Context manager that turns client errors into LiteLLM's HTTP errors."""


@lru_cache(maxsize=1024)
def _warn_ignored(source: str, setting: str) -> None:
    """Log, once for each source, that its opt-out from the guardrail has no effect."""
    log.warning("%s: ignoring its opt-out from the guardrail: %s is false", source, setting)


def request_facts(
    data: Mapping[str, Any],
    user: UserAPIKeyAuth,
    fields: Iterable[str] = (),
    keys: Container[str] = (),
    resolver: PolicyResolver | None = None,
) -> RequestFacts:
    """Collect all facts on which a policy depends.

    `fields` are metadata fields that plugins read, `keys` are the hashes in the keys file, and `resolver` says which
    headers and tool results are needed.
    """
    sent_headers = request_headers(data)
    metadata = metadata_buckets(data)
    client_settings = [bucket[_OUR_FIELD] for bucket in metadata if _OUR_FIELD in bucket]
    model, groups = _model_names(data, user)
    key_hash = _hash_key(user.token or user.api_key)
    is_operator = user.user_role is LitellmUserRoles.PROXY_ADMIN
    body = data.get(BODY_REQUEST)
    body_request = body if isinstance(body, BodyRequest) else BodyRequest()
    return RequestFacts(
        model=model,
        tags=_read_tags(metadata),
        team_id=user.team_id,
        team_alias=user.team_alias,
        key_hash=key_hash,
        key_alias=user.key_alias,
        user_id=_user_id(user),
        team_settings=_find_settings(user.team_metadata),
        key_settings=_find_settings(user.metadata),
        asked=tuple(dict.fromkeys((*_requested_objectives(client_settings, sent_headers), *body_request.names))),
        own=body_request.texts,
        bypass=sent_headers.get(BYPASS_HEADER, "").strip().lower() in ("1", "true", "yes"),
        system=_system_prompt(data),
        fields=dict(_read_client_fields(client_settings, fields)) if client_settings else {},
        tool_results=tool_results(data) if resolver is not None and resolver.reads_tool_results else "",
        given={
            name: decode_header(sent_headers[name])
            for name in (resolver.header_names if resolver is not None else ())
            if name in sent_headers
        },
        brought=body_request.fields,
        groups=groups,
        # LiteLLM lets the owners of its own keys choose aliases.
        alias_by_operator=key_hash in keys or is_operator,
        is_operator=is_operator,
    )


def decode_header(header: str) -> str:
    """The text of a header, decoded if it begins with `base64:`; empty if the base64 is invalid."""
    if not header.startswith(_BASE64):
        return header
    try:
        return base64.b64decode(header.removeprefix(_BASE64), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _system_prompt(data: Mapping[str, Any]) -> str:
    """The system prompt, in the fields of any endpoint."""
    own_fields = (*make_system_turn(data.get("instructions")), *make_system_turn(data.get("system")))
    in_messages = (*read_turns(data.get("messages"), _SYSTEM_ROLES), *read_turns(data.get("input"), _SYSTEM_ROLES))
    return "\n".join([turn.content for turn in (*own_fields, *in_messages)])


def _read_client_fields(client_settings: Sequence[object], names: Iterable[str]) -> Iterator[tuple[str, object]]:
    """(name, value) of the fields with these names, each from the first metadata that has it."""
    for name in names:
        values = [settings[name] for settings in client_settings if isinstance(settings, Mapping) and name in settings]
        if values:
            yield name, values[0]


def _model_names(data: Mapping[str, Any], user: UserAPIKeyAuth) -> tuple[str, tuple[str, ...]]:
    """The requested model, and the further names whose policies count: its groups, and other names in the request."""
    requested = _requested_model(data, user.request_route)
    model, groups = routing.resolve_name(requested, user.team_id)
    if is_stored_answer(user.request_route):
        return model, groups
    other_names = routing.list_other_names(routing.list_written_names(data), requested, user.team_id)
    # The policy of each group counts. If there are other names, the policy of the model must count as well.
    return model, (*groups, model, *other_names) if other_names else groups


def _requested_model(data: Mapping[str, Any], route: str | None) -> str:
    """The requested model; for a stored answer, the group that gave it, which LiteLLM derives from the answer's id.

    The body of a request for a stored answer may name any model, so it must not choose the policy.
    """
    if is_stored_answer(route):
        return str(getattr(data.get("deployment"), "model_name", None) or "")
    return str(data.get("model") or "")


def remove_client_settings(data: Mapping[str, Any]) -> None:
    """Remove our field from the client's metadata, so that it reaches neither the upstream nor a log."""
    for bucket in metadata_buckets(data):
        for metadata in (bucket, bucket.get("requester_metadata")):
            if isinstance(metadata, dict):
                metadata.pop(_OUR_FIELD, None)


def _hash_key(key: str | None) -> str | None:
    """The hash of a key; LiteLLM hashes only keys that begin with `sk-`, so others of a custom auth are hashed here."""
    if key == LITELLM_PROXY_MASTER_KEY_ALIAS:
        return _MASTER_HASH
    if key is None or _SHA256.fullmatch(key):
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def _user_id(user: UserAPIKeyAuth) -> str | None:
    """LiteLLM's user id, else ISSUER#SUBJECT of a JWT, which LiteLLM uses only if a setting names the claim."""
    claims = user.jwt_claims or {}
    subject = claims.get("sub")
    return user.user_id or (f"{claims.get('iss', '')}#{subject}" if subject else None)


def _find_settings(metadata: object) -> object:
    """Our settings in the metadata of a team or key, unchecked; None without any."""
    return metadata.get(_OUR_FIELD) if isinstance(metadata, Mapping) else None


def _read_tags(metadata: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The tags in all metadata of a request, without duplicates."""
    all_tags: list[str] = []
    for bucket in metadata:
        tags = bucket.get("tags")
        if isinstance(tags, list):
            all_tags += map(str, tags)
    return tuple(dict.fromkeys(all_tags))


def _requested_objectives(client_settings: Sequence[object], request_headers: Mapping[str, str]) -> tuple[str, ...]:
    """Names of requested objectives, without duplicates: header first, then body."""
    fields = [settings.get("objectives") for settings in client_settings if isinstance(settings, Mapping)]
    names = [_read_names(field) for field in (request_headers.get(OBJECTIVES_HEADER), *fields) if field]
    return tuple(dict.fromkeys(filter(None, chain(*names))))


def _read_names(names: object) -> list[str]:
    """The objectives in one field: a list, or names separated by commas."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")]
    return [str(name) for name in names] if isinstance(names, list) else []
