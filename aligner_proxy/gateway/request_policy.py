"""Policy of one request: by what the client asks for before it is sent on, and by the model group that answered.

What a client may not ask for becomes an HTTP error here, before anything is spent.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.formats.base import buckets
from aligner_proxy.gateway import model_groups, router_fields
from aligner_proxy.gateway.reload import Policies
from aligner_proxy.gateway.request_facts import facts, forget_wishes
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy.resolver import RequestFacts, policy_for_all
from aligner_proxy.policy.schema import Trust
from aligner_proxy.policy.strictness import stricter
from aligner_proxy.types import Policy

log = logging.getLogger(__name__)


def check_body(data: Mapping[str, Any], trust: Trust) -> None:
    """Refuse a body (HTTP 400) that directs LiteLLM's router as clients may not."""
    with _as_http_errors():
        router_fields.check(data, trust.router_fields)


async def of_request(
    policies: Policies, extensions: Extensions, data: dict[str, Any], user: UserAPIKeyAuth
) -> tuple[RequestFacts, Policy]:
    """The facts of a request and its policy; raises LiteLLM's error for what it may not have."""
    current = policies.current
    fields = [field.name for field in extensions.request_fields]
    try:
        with _as_http_errors():
            request = facts(data, user, fields, policies.keys)
            named = (model_groups.named(model, user.team_id) for model in router_fields.further_models(data))
            further = (replace(request, model=model, groups=groups) for model, groups in named)
            policy = policy_for_all(current.resolver, request, further)
            return request, await extensions.resolved(policy, request)
    finally:
        forget_wishes(data)


def of_answer(
    policies: Policies, extensions: Extensions, request: RequestFacts, policy: Policy, group: str
) -> Policy | None:
    """The policy of a request that this model group answered, not laxer than `policy`; None if it stays the same."""
    if model_groups.same(request.names, group):
        return None
    answering = replace(request, model=group, groups=())
    try:
        answered = extensions.resolve(policies.current.resolver.resolve(answering), answering)
    except ForbiddenError:
        # It asked for what only the route of its own model allows; that is in the policy which it has.
        answered = policies.current.resolver.resolve(replace(answering, asked=()))
    return stricter(answered, policy)


def trusted_metadata(data: Mapping[str, Any], trust: Trust) -> dict[str, Any]:
    """LiteLLM's metadata of team and key, the key's over the team's, as far as the policies file trusts them."""
    merged: dict[str, Any] = {}
    for bucket in buckets(data):
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
