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
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from litellm.constants import LITELLM_PROXY_MASTER_KEY_ALIAS
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

from aligner_proxy.concurrency import ErrorTranslation
from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.formats import is_stored_answer, wire
from aligner_proxy.formats.base import make_system_turn, metadata_buckets, read_turns, request_headers
from aligner_proxy.formats.incoming import tool_results
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
_DRAW_RANGE = 2**53
"""A power of two, so that a share times this is exact."""
_SETTINGS_FIELD = "aligner"
"""Our field in metadata, by which clients, keys and teams set things."""
_SYSTEM_ROLES = frozenset({"system", "developer"})
"""Roles of turns with more authority than the user's."""
BODY_REQUEST = "aligner_proxy_objectives"
"""Field of a request's data that holds the `BodyRequest` of `POST /v1/align`."""
_BASE64_PREFIX = "base64:"
"""Prefix of a header value in base64, for text with line breaks or characters that headers cannot contain."""
_MASTER_HASH = hashlib.sha256(LITELLM_PROXY_MASTER_KEY_ALIAS.encode()).hexdigest()
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BodyRequest:
    """Objectives and plugin fields in the body of `POST /v1/align`; client JSON can never be an instance."""

    names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """Objectives that the request itself words ("Name: description")."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Values of the fields that plugins declare, by name."""


def check_body(data: Mapping[str, Any], trust: Trust) -> None:
    """Refuse a body (HTTP 400) with router settings that clients may not use."""
    with _AS_HTTP_ERRORS:
        routing.check_router_fields(data, trust.router_fields)


def is_sampled(share: float) -> bool:
    """Draw at random whether a request belongs to the sample of a policy; True with probability `share` (0 to 1)."""
    if share in (0, 1):  # needs no draw
        return share == 1
    return secrets.randbelow(_DRAW_RANGE) < share * _DRAW_RANGE


async def resolve_request(
    policies: PolicySource, extensions: Extensions, data: dict[str, Any], user: UserAPIKeyAuth
) -> tuple[RequestFacts, Policy]:
    """The facts of a request and its policy; raises LiteLLM's error if the request asks for something forbidden.

    `data` is the request's body with LiteLLM's additions; the client's settings for us are removed from its metadata.
    """
    current = policies.current
    field_names = [field.name for field in extensions.request_fields]
    try:
        with _AS_HTTP_ERRORS:
            facts = request_facts(data, user, field_names, policies.keys, current.resolver)
            if current.resolver.splits_traffic:
                facts = _add_traffic_percentile(facts, data, user)
            # A fallback may answer instead, so the policy is the strictest one of all models.
            fallback_facts = []
            for fallback_model in routing.list_fallback_models(data):
                model, groups = routing.resolve_name(fallback_model, user.team_id)
                fallback_facts.append(replace(facts, model=model, groups=groups))
            policy = resolve_for_models(current.resolver, facts, fallback_facts)
            if policy.aligner_shares:  # metadata set the shares, so the resolver has not picked an aligner
                facts = _add_traffic_percentile(facts, data, user)
                if facts.traffic_percentile is not None:
                    policy = shares.pick_aligner(policy, facts.traffic_percentile)
            policy = await extensions.resolve_async(policy, facts)
            if current.asks_models or policy.editor != LOCAL_EDITOR or policy.judges:
                policy = _add_payer(policy, facts, user)
            return facts, policy
    finally:
        remove_client_settings(data)


def _add_traffic_percentile(facts: RequestFacts, data: Mapping[str, Any], user: UserAPIKeyAuth) -> RequestFacts:
    """The facts with the percentile (0 to 99) of the conversation, which picks one of several aligners.

    It is the same for all requests of a conversation. None is added on endpoints whose answers are not corrected.
    """
    wire_format = wire(user.request_route)
    if wire_format is None:  # the endpoint's answers are not corrected
        return facts
    conversation = wire_format.first_exchange(data).turns
    return replace(facts, traffic_percentile=shares.traffic_percentile(facts.namespace, conversation))


def resolve_answer(
    policies: PolicySource, extensions: Extensions, facts: RequestFacts, policy: Policy, group: str
) -> Policy | None:
    """The policy of a request that the model group `group` answered; None if the requested model did.

    It is at least as strict as `policy`, which the request got before the answer.
    """
    if routing.is_same_group(facts.names, group):
        return None
    resolver = policies.current.resolver
    facts_of_group = replace(facts, model=group, groups=())
    try:
        policy_of_group = extensions.resolve(resolver.resolve(facts_of_group), facts_of_group)
    except ForbiddenError:
        # The client requested settings that only the requested model's route allows; `policy` has them already.
        facts_of_group = replace(facts_of_group, asked=(), own=(), fields={})
        policy_of_group = extensions.resolve(resolver.resolve(facts_of_group), facts_of_group)
    return replace(stricter_policy(policy_of_group, policy), upstream=group, payer=policy.payer)


def _add_payer(policy: Policy, facts: RequestFacts, user: UserAPIKeyAuth) -> Policy:
    """The policy with the answering model group and the metadata by which LiteLLM charges editor and judge calls."""
    payer = tuple(litellm_internals.payer_metadata(user).items())
    # If the requested name is an alias, the group behind it answers.
    answering_group = facts.groups[0] if facts.groups else facts.model
    return replace(policy, upstream=answering_group, payer=payer)


def trusted_metadata(data: Mapping[str, Any], trust: Trust) -> dict[str, Any]:
    """The metadata of team and key that the policies file trusts, merged; the key's overrides the team's.

    LiteLLM stores both in the metadata dicts of the request `data`. Warns once for each key if untrusted metadata of
    the key or its team tries to switch the guardrail off.
    """
    merged: dict[str, Any] = {}
    for request_metadata in metadata_buckets(data):
        team_metadata = request_metadata.get("user_api_key_team_metadata")
        key_metadata = request_metadata.get("user_api_key_metadata")
        if not (team_metadata or key_metadata):  # as in most requests, for each of which this is called several times
            continue
        for owner, metadata, is_trusted in (
            ("team", team_metadata, trust.team_metadata),
            ("key", key_metadata, trust.key_metadata),
        ):
            if not isinstance(metadata, Mapping):
                continue
            if is_trusted:
                merged |= metadata
            elif any(metadata.get(name) for name in _OPT_OUT_FIELDS):
                key_hash = request_metadata.get("user_api_key_hash")
                _warn_ignored(f"{key_hash}: {owner} metadata", f"trust.{owner}_metadata")
    return merged


_OPT_OUT_FIELDS = ("disable_global_guardrails", "opted_out_global_guardrails")
"""LiteLLM's metadata fields by which a team or key turns guardrails off."""


def _http_error(error: BadRequest | ForbiddenError) -> ProxyException:
    """LiteLLM's error for one of ours: HTTP 400 for a bad request, 403 for a forbidden request."""
    if isinstance(error, BadRequest):
        return ProxyException(str(error), "invalid_request_error", error.param, 400)
    return ProxyException(str(error), "permission_error", "aligner", 403)


_AS_HTTP_ERRORS = ErrorTranslation((BadRequest, ForbiddenError), _http_error)
"""Context manager that turns client errors into LiteLLM's HTTP errors."""


@lru_cache(maxsize=1024)
def _warn_ignored(source: str, setting: str) -> None:
    """Log that the opt-out of `source` from the guardrail has no effect; once, since results are cached."""
    log.warning("%s: ignoring its opt-out from the guardrail: %s is false", source, setting)


def request_facts(
    data: Mapping[str, Any],
    user: UserAPIKeyAuth,
    field_names: Iterable[str] = (),
    keys: Container[str] = (),
    resolver: PolicyResolver | None = None,
) -> RequestFacts:
    """Collect all facts on which a policy depends.

    `field_names` name metadata fields that plugins read, `keys` are the key hashes in the keys file, and `resolver`
    says which headers and tool results policies depend on (None: on none).
    """
    sent_headers = request_headers(data)
    metadata = metadata_buckets(data)
    client_settings = [fields[_SETTINGS_FIELD] for fields in metadata if _SETTINGS_FIELD in fields]
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
        fields=dict(_read_client_fields(client_settings, field_names)) if client_settings else {},
        tool_results=tool_results(data) if resolver is not None and resolver.reads_tool_results else "",
        given={
            name: decode_header(sent_headers[name])
            for name in (resolver.header_names if resolver is not None else ())
            if name in sent_headers
        },
        brought=body_request.fields,
        groups=groups,
        # Of a key in our keys file, the operator chose the alias; LiteLLM lets the owners of its own keys choose one.
        alias_by_operator=key_hash in keys or is_operator,
        is_operator=is_operator,
    )


def decode_header(header: str) -> str:
    """The text of a header, decoded if it begins with `base64:`; empty if the base64 is invalid."""
    if not header.startswith(_BASE64_PREFIX):
        return header
    try:
        return base64.b64decode(header.removeprefix(_BASE64_PREFIX), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _system_prompt(data: Mapping[str, Any]) -> str:
    """The system prompt of a request to any endpoint: system turns of all its fields, each on lines of its own."""
    turns = [
        *make_system_turn(data.get("instructions")),
        *make_system_turn(data.get("system")),
        *read_turns(data.get("messages"), _SYSTEM_ROLES),
        *read_turns(data.get("input"), _SYSTEM_ROLES),
    ]
    return "\n".join([turn.content for turn in turns])


def _read_client_fields(client_settings: Sequence[object], names: Iterable[str]) -> Iterator[tuple[str, object]]:
    """Yield (name, value) of each of these fields that the client's settings contain; the first settings count."""
    for name in names:
        for settings in client_settings:
            if isinstance(settings, Mapping) and name in settings:
                yield name, settings[name]
                break


def _model_names(data: Mapping[str, Any], user: UserAPIKeyAuth) -> tuple[str, tuple[str, ...]]:
    """The requested model, and all names whose policies count instead (empty: only the model's policy counts).

    These names are the model's groups. If the path, query or body of the request also names other models, all of these
    and the model itself are among the names.
    """
    requested_model = _requested_model(data, user.request_route)
    model, groups = routing.resolve_name(requested_model, user.team_id)
    if is_stored_answer(user.request_route):
        return model, groups
    other_names = routing.list_other_names(routing.list_written_names(data), requested_model, user.team_id)
    if not other_names:
        return model, groups
    return model, (*groups, model, *other_names)


def _requested_model(data: Mapping[str, Any], route: str | None) -> str:
    """The requested model; for a stored answer, the group that gave it, which LiteLLM derives from the answer's id.

    The body of a request for a stored answer may name any model, so it must not choose the policy.
    """
    if is_stored_answer(route):
        return str(getattr(data.get("deployment"), "model_name", None) or "")
    return str(data.get("model") or "")


def remove_client_settings(data: Mapping[str, Any]) -> None:
    """Remove our field from the client's metadata, so that it reaches neither the upstream nor a log."""
    for request_metadata in metadata_buckets(data):
        for metadata in (request_metadata, request_metadata.get("requester_metadata")):
            if isinstance(metadata, dict):
                metadata.pop(_SETTINGS_FIELD, None)


def _hash_key(key: str | None) -> str | None:
    """The hash of a key, which may be hashed already; LiteLLM itself hashes only keys that begin with `sk-`."""
    if key == LITELLM_PROXY_MASTER_KEY_ALIAS:
        return _MASTER_HASH
    if key is None or _SHA256.fullmatch(key):
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def _user_id(user: UserAPIKeyAuth) -> str | None:
    """LiteLLM's user id, else ISSUER#SUBJECT of a JWT, which LiteLLM uses only if a setting names the claim."""
    if user.user_id:
        return user.user_id
    claims = user.jwt_claims or {}
    subject = claims.get("sub")
    return f"{claims.get('iss', '')}#{subject}" if subject else None


def _find_settings(metadata: object) -> object:
    """Our settings in the metadata of a team or key, unchecked; None without any."""
    return metadata.get(_SETTINGS_FIELD) if isinstance(metadata, Mapping) else None


def _read_tags(metadata: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The tags in all metadata of a request, without duplicates."""
    all_tags: list[str] = []
    for fields in metadata:
        tags = fields.get("tags")
        if isinstance(tags, list):
            all_tags += map(str, tags)
    return tuple(dict.fromkeys(all_tags))


def _requested_objectives(client_settings: Sequence[object], request_headers: Mapping[str, str]) -> tuple[str, ...]:
    """Names of requested objectives, without duplicates: those in the header first, then those in the body."""
    fields = [request_headers.get(OBJECTIVES_HEADER)]
    fields += [settings.get("objectives") for settings in client_settings if isinstance(settings, Mapping)]
    names = [name for field in fields if field for name in _read_names(field) if name]
    return tuple(dict.fromkeys(names))


def _read_names(names: object) -> list[str]:
    """The objectives in one field: a list, or names separated by commas."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")]
    return [str(name) for name in names] if isinstance(names, list) else []
