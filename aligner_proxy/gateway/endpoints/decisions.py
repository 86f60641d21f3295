"""Answers questions about a text as a decision model does, under the caller's key, policy and quota.

A caller may ask about the objectives that it may request: configured ones by name, with their taught heads, and with
`allow: ["*"]` others in its own words. The head answers alone, without a judge; nothing is edited or recorded, and only
heads of a request's examples stay in memory.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from fastapi import Request
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from aligner_proxy.concurrency import cancel_when_gone, client_gone_waiter
from aligner_proxy.engine.decisions import AskedObjective, Decision, DecisionForm, answer_decision, score_objective
from aligner_proxy.engine.example_heads import ExampleHeads
from aligner_proxy.errors import ClientGone, CorrectionError
from aligner_proxy.gateway import litellm_internals
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.endpoints.judgement import GatewayHooks
from aligner_proxy.gateway.request_policy import BODY_REQUEST, BodyRequest
from aligner_proxy.gateway.request_state import RequestState, find_state
from aligner_proxy.pipeline.pipeline import Pipeline, align_request
from aligner_proxy.policy.objective_choice import normalise_words
from aligner_proxy.types import Correction, Exchange

_CALL_TYPE = "decisions"
_EXAMPLE_HEADS = ExampleHeads()
"""Heads learned from the examples of requests, for all requests of this worker."""


async def decide(
    hooks: GatewayHooks, request: Request, caller: UserAPIKeyAuth, question_body: DecisionForm
) -> dict[str, Any]:
    """The JSON answer to the questions in a body; each question is judged as an objective.

    Raises LiteLLM's error if the questions are invalid, the caller lacks permission or the engine fails.
    """
    decision = question_body.read()
    fault = decision.find_fault()
    if fault:
        raise ProxyException(fault, "invalid_request_error", "questions", 400)
    body = {"model": question_body.model} if question_body.model else {}
    data = await litellm_internals.make_request_data(request, caller, body)
    # An objective that is not a configured name is a text in the client's words.
    texts = tuple(objective for objective in decision.objectives if objective not in decision.names)
    data[BODY_REQUEST] = BodyRequest(decision.names, texts)
    async with litellm_internals.count_request(caller, data):
        await hooks.async_pre_call_hook(caller, None, data, _CALL_TYPE)
        state = find_state(data)
        assert state is not None  # the hook creates it
        try:
            async with cancel_when_gone(client_gone_waiter()):
                return await _ask_engine(hooks.pipeline, state, question_body, decision)
        except ClientGone:
            raise ProxyException("the client left", "aligner_error", None, ClientGone.status_code) from None
        except CorrectionError as error:
            raise Blocked(error.reason) from None


async def _ask_engine(
    pipeline: Pipeline, state: RequestState, question_body: DecisionForm, decision: Decision
) -> dict[str, Any]:
    """The JSON answer to the questions, from the engine's scores of the text.

    Raises HTTP 403 if the policy of the request lacks the objective of a question.
    """
    policy = replace(state.policy.drop_judges(), score_only=True)
    engine = pipeline.engine_of(policy)
    exchange = Exchange(state.call_id, 0, decision.turns, decision.text)
    deadline = time.monotonic() + policy.deadline_s
    # By name and by text, both with words normalised, so that spelling variants are found.
    objectives = {normalise_words(objective.text): objective for objective in policy.objectives}
    objectives |= {normalise_words(objective.name): objective for objective in policy.objectives}
    if any(normalise_words(objective) not in objectives for objective in decision.objectives):
        raise ProxyException("the policy leaves out an objective of the questions", "aligner_error", "questions", 403)

    async def score_question(objective: AskedObjective) -> Correction:
        """The engine's scores for one question alone, with a head learned from its examples if it brings some."""
        single_policy = replace(policy, objectives=(objectives[normalise_words(objective.text)],))
        single_request = align_request(exchange, decision.text, single_policy, deadline)
        return await score_objective(engine, _EXAMPLE_HEADS, single_request, objective)

    return await answer_decision(question_body, decision, score_question)
