"""Policy of one request: the facts that it depends on, and what follows, also where another model answers.

The caller comes only from LiteLLM's authentication (`UserAPIKeyAuth`); metadata of the body is the client's and counts
only as a request for settings. What a client may not ask for becomes an HTTP error here, before anything is spent.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.formats import is_stored_answer, wire
from aligner_proxy.formats.base import metadata_buckets, request_headers, system_turn, turns
from aligner_proxy.formats.tool_results import tool_results
from aligner_proxy.gateway import litellm_internals, routing
from aligner_proxy.gateway.reload import Policies
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy import references, shares
from aligner_proxy.policy.resolver import PolicyResolver, RequestFacts, policy_for_all
from aligner_proxy.policy.schema import Trust
from aligner_proxy.policy.strictness import stricter
from aligner_proxy.types import LOCAL_EDITOR, Policy

log = logging.getLogger(__name__)
OBJECTIVES_HEADER = "x-aligner-objectives"
BYPASS_HEADER = "x-aligner-bypass"
_OURS = "aligner"
_ABOVE = frozenset({"system", "developer"})
"""Roles of turns with more authority than the user's."""
ASKED = "aligner_proxy_objectives"
"""Field of a request's data with what `POST /v1/align` was asked for."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AskedInBody:
    """What the body of `POST /v1/align` asks for. A body of a client is JSON, so it can never hold an instance."""

    names: tuple[str, ...] = ()
    """Of objectives."""
    texts: tuple[str, ...] = ()
    """Objectives in the request's own words."""
    references: tuple[str, ...] = ()
    """Texts to whose facts the answer is to be held."""


def check_body(data: Mapping[str, Any], trust: Trust) -> None:
    """Refuse a body (HTTP 400) that directs LiteLLM's router as clients may not."""
    with _as_http_errors():
        routing.check(data, trust.router_fields)


async def of_request(
    policies: Policies, extensions: Extensions, data: dict[str, Any], user: UserAPIKeyAuth
) -> tuple[RequestFacts, Policy]:
    """The facts of a request and its policy; raises LiteLLM's error for what it may not have."""
    current = policies.current
    fields = [field.name for field in extensions.request_fields]
    try:
        with _as_http_errors():
            request = facts(data, user, fields, policies.keys, current.resolver)
            if current.resolver.draws:
                request = _placed(request, data, user)
            named = (routing.named(model, user.team_id) for model in routing.further_models(data))
            further = (replace(request, model=model, groups=groups) for model, groups in named)
            policy = policy_for_all(current.resolver, request, further)
            if policy.aligner_shares:  # of metadata
                request = _placed(request, data, user)
                policy = policy if request.position is None else shares.drawn(policy, request.position)
            policy = await extensions.resolved(policy, request)
            if current.has_editors or policy.editor != LOCAL_EDITOR:
                policy = _with_payer(policy, request, user)
            return request, policy
    finally:
        forget_wishes(data)


def _placed(request: RequestFacts, data: Mapping[str, Any], user: UserAPIKeyAuth) -> RequestFacts:
    """The facts with the position of this conversation, by which one of several aligners is drawn."""
    form = wire(user.request_route)
    if form is None:
        return request
    return replace(request, position=shares.position(request.namespace, form.first_exchange(data, 0).turns))


def of_answer(
    policies: Policies, extensions: Extensions, request: RequestFacts, policy: Policy, group: str
) -> Policy | None:
    """The policy of a request that this model group answered, not laxer than `policy`; None if it stays the same."""
    if routing.same(request.names, group):
        return None
    answering = replace(request, model=group, groups=())
    try:
        answered = extensions.resolve(policies.current.resolver.resolve(answering), answering)
    except ForbiddenError:
        # It asked for what only the route of its own model allows; that is in the policy which it has.
        answered = policies.current.resolver.resolve(replace(answering, asked=(), own=()))
    return replace(stricter(answered, policy), upstream=group, payer=policy.payer)


def _with_payer(policy: Policy, request: RequestFacts, user: UserAPIKeyAuth) -> Policy:
    """The policy with the model group that answers, and whom LiteLLM charges for what an editor writes."""
    payer = tuple(litellm_internals.payer(user).items())
    return replace(policy, upstream=next(iter(request.groups), request.model), payer=payer)


def trusted_metadata(data: Mapping[str, Any], trust: Trust) -> dict[str, Any]:
    """LiteLLM's metadata of team and key, the key's over the team's, as far as the policies file trusts them."""
    merged: dict[str, Any] = {}
    for bucket in metadata_buckets(data):
        team = bucket.get("user_api_key_team_metadata")
        key = bucket.get("user_api_key_metadata")
        for metadata, trusted, setting in ((team, trust.team_metadata, "team"), (key, trust.key_metadata, "key")):
            if isinstance(metadata, Mapping) and trusted:
                merged |= metadata
            elif isinstance(metadata, Mapping) and any(metadata.get(name) for name in _SWITCHES):
                _warn_ignored(f"{bucket.get('user_api_key_hash')}: {setting} metadata", f"trust.{setting}_metadata")
    return merged


_SWITCHES = ("disable_global_guardrails", "opted_out_global_guardrails")


@contextlib.contextmanager
def _as_http_errors() -> Iterator[None]:
    """Errors of the client, as LiteLLM sends them."""
    try:
        yield
    except BadRequest as error:
        raise ProxyException(str(error), "invalid_request_error", error.param, 400) from None
    except ForbiddenError as error:
        raise ProxyException(str(error), "permission_error", "aligner", 403) from None


@lru_cache(maxsize=1024)
def _warn_ignored(source: str, setting: str) -> None:
    """Log once for each source that its opt-out from the guardrail has no effect."""
    log.warning("%s: ignoring its opt-out from the guardrail: %s is false", source, setting)


def facts(
    data: Mapping[str, Any],
    user: UserAPIKeyAuth,
    fields: Iterable[str] = (),
    keys: Container[str] = (),
    resolver: PolicyResolver | None = None,
) -> RequestFacts:
    """All facts that a policy depends on.

    `fields` are those that plugins read, `keys` the hashes of the keys file; `resolver` says what may be a reference.
    """
    sent = request_headers(data)
    metadata = metadata_buckets(data)
    wishes = [bucket[_OURS] for bucket in metadata if _OURS in bucket]
    model, groups = _names(data, user)
    key_hash = _hashed(user.token or user.api_key)
    body = data.get(ASKED)
    asked = body if isinstance(body, AskedInBody) else AskedInBody()
    return RequestFacts(
        model=model,
        tags=_tags(metadata),
        team_id=user.team_id,
        team_alias=user.team_alias,
        key_hash=key_hash,
        key_alias=user.key_alias,
        user_id=_user_id(user),
        team_settings=_ours(user.team_metadata),
        key_settings=_ours(user.metadata),
        asked=tuple(dict.fromkeys((*_objectives(wishes, sent), *asked.names))),
        own=asked.texts,
        bypass=sent.get(BYPASS_HEADER, "").strip().lower() in ("1", "true", "yes"),
        system=_system(data),
        fields=dict(_fields(wishes, fields)),
        tool_results=tool_results(data) if resolver is not None and resolver.reads_tool_results else "",
        given={
            name: references.decoded(sent[name])
            for name in (resolver.reference_headers if resolver is not None else ())
            if name in sent
        },
        brought=asked.references,
        groups=groups,
        alias_by_operator=key_hash in keys or user.user_role is LitellmUserRoles.PROXY_ADMIN,
    )


def _system(data: Mapping[str, Any]) -> str:
    """The system prompt, in the fields of any endpoint."""
    above = [*system_turn(data.get("instructions")), *system_turn(data.get("system"))]
    above += [turn for name in ("messages", "input") for turn in turns(data.get(name), _ABOVE)]
    return "\n".join(turn.content for turn in above)


def _fields(wishes: Sequence[object], names: Iterable[str]) -> Iterator[tuple[str, object]]:
    """The fields with these names, each from the first metadata that has it."""
    for name in names:
        values = [wish[name] for wish in wishes if isinstance(wish, Mapping) and name in wish]
        if values:
            yield name, values[0]


def _names(data: Mapping[str, Any], user: UserAPIKeyAuth) -> tuple[str, tuple[str, ...]]:
    """The model that answers, and the groups behind it; and whatever else the request wrote as its model."""
    asked = _model(data, user.request_route)
    model, groups = routing.named(asked, user.team_id)
    if is_stored_answer(user.request_route):
        return model, groups
    further = routing.further_names(routing.written(data), asked, user.team_id)
    return model, (*groups, model, *further) if further else groups


def _model(data: Mapping[str, Any], route: str | None) -> str:
    """The requested model; for a stored answer the group that gave it, which LiteLLM knows by the answer's id.

    For a stored answer the body may name any model, so that must not choose the policy.
    """
    if is_stored_answer(route):
        return str(getattr(data.get("deployment"), "model_name", None) or "")
    return str(data.get("model") or "")


def forget_wishes(data: Mapping[str, Any]) -> None:
    """Remove our field from the client's metadata, so that it reaches neither the upstream nor a log."""
    for bucket in metadata_buckets(data):
        for metadata in (bucket, bucket.get("requester_metadata")):
            if isinstance(metadata, dict):
                metadata.pop(_OURS, None)


def _hashed(key: str | None) -> str | None:
    """The hash of a key. LiteLLM hashes keys that begin with `sk-`; others of a custom auth are hashed here."""
    if key is None or _SHA256.fullmatch(key):
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def _user_id(user: UserAPIKeyAuth) -> str | None:
    """LiteLLM's user, else the subject of a token: LiteLLM takes it for a user only where a setting names the claim."""
    claims = user.jwt_claims or {}
    subject = claims.get("sub")
    return user.user_id or (f"{claims.get('iss', '')}#{subject}" if subject else None)


def _ours(metadata: object) -> object:
    return metadata.get(_OURS) if isinstance(metadata, Mapping) else None


def _tags(metadata: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    values = (bucket.get("tags") for bucket in metadata)
    return tuple(dict.fromkeys(str(tag) for tags in values if isinstance(tags, list) for tag in tags))


def _objectives(wishes: Sequence[object], sent: Mapping[str, str]) -> tuple[str, ...]:
    """Names of requested objectives, without duplicates: header first, then body."""
    names = [name.strip() for name in sent.get(OBJECTIVES_HEADER, "").split(",")]
    for wish in wishes:
        names.extend(_listed(wish))
    return tuple(dict.fromkeys(name for name in names if name))


def _listed(wishes: object) -> list[str]:
    listed = wishes.get("objectives") if isinstance(wishes, Mapping) else None
    if isinstance(listed, str):
        return [name.strip() for name in listed.split(",")]
    return [str(name) for name in listed] if isinstance(listed, list) else []
