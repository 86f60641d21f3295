"""Correction of answers by `align` under the whole policy of a policies file, as the gateway would correct them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from aligner_proxy.cli.callers import find_caller
from aligner_proxy.correctors.registry import open_correctors
from aligner_proxy.engine.api import Engine
from aligner_proxy.gateway.batch_guardrail import BatchGuardrail, FixedPolicies
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.reload import ActiveConfig
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.registry import PluginRules
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import Exchange, Objective, Outcome, Policy, Status


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What the options of `align` say about the request to which an answer belongs."""

    model: str | None
    """Its model; for a batch in place of that of each request."""
    route: str | None
    """The name of the route that applies, whatever the model is."""
    team: str | None
    """Id or alias of its team."""
    key: str | None
    """Alias or sha256 of its key."""


def open_guardrail(options: RequestOptions, engine: Engine, file: PolicyFile, deadline_s: float) -> BatchGuardrail:
    """Return a guardrail that applies the policies of `file` to requests as `options` describe them.

    `deadline_s` is the time for one answer. Raises `ConfigError` for an unknown route.
    """
    active = ActiveConfig.from_file(file)
    if options.route is not None:
        active = replace(active, resolver=active.resolver.restrict_to_route(options.route))
    policies = FixedPolicies(active, config.known_keys(file))
    pipeline = Pipeline(
        engine,
        correctors=open_correctors(file),
        rules=PluginRules.from_file(file),
        extensions=registry.load_extensions(file),
    )
    caller = find_caller(policies.keys, options.team, options.key)
    # --team may be an id or an alias, so it is used as both.
    identity = {"team_id": caller.team, "team_alias": caller.team}
    identity |= {"token": caller.key_digest, "key_alias": caller.key_alias}
    return BatchGuardrail(policies, pipeline, deadline_s, identity=identity)


async def correct_answer(
    guard: BatchGuardrail, model: str | None, exchange: Exchange, objectives: tuple[Objective, ...]
) -> Outcome:
    """Correct an answer as the gateway would in a chat completion; the outcome's text is what a client would get.

    `model` is that of the request, and `objectives`, if there are any, replace those of the policy. For an answer that
    the policy blocks, the outcome has failed.
    """
    message = {"role": "assistant", "content": exchange.answer}
    choice = {"index": 0, "message": message, "finish_reason": exchange.finish_reason}
    body = {"id": exchange.call_id, "object": "chat.completion", "choices": [choice]}
    request: dict[str, Any] = {"messages": [{"role": turn.role, "content": turn.content} for turn in exchange.turns]}
    if model:
        request["model"] = model
    try:
        corrected = await guard.correct_body(body, request, exchange.call_id, objectives)
    except Blocked as error:
        return Outcome(Status.FAILED, error.reason, None, Policy("align"))
    return replace(corrected.state.outcomes[0], text=corrected.body["choices"][0]["message"]["content"])
