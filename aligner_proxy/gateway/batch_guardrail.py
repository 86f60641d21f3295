"""The guardrail for whole responses from a file, without a proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from aligner_proxy import formats
from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import ForbiddenError
from aligner_proxy.formats import json_body
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.endpoints.judgement import list_changes
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.reload import ActiveConfig, PolicySource
from aligner_proxy.gateway.request_state import RequestState, find_state
from aligner_proxy.gateway.shadow import CorrectTexts, ShadowCorrections
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy.keys_file import KeyEntry
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Exchange, Objective, Outcome, Policy, Status

_LITELLM_FIELDS = ("litellm_logging_obj", "proxy_server_request")
"""Fields of a request that LiteLLM sets itself; in a file they could only pretend to be headers."""
_OBJECTIVES = "aligner_proxy_objectives_of_caller"
"""Field of a request's data with the objectives that replace the policy's."""


@dataclass(frozen=True, slots=True)
class FixedPolicies:
    """Policies and keys that do not change, because nothing watches their files. Satisfies `PolicySource`."""

    current: ActiveConfig
    keys: Mapping[str, KeyEntry] = field(default_factory=dict)
    is_outdated: bool = False


@dataclass(frozen=True, slots=True)
class CorrectedBody:
    """A body as it may be delivered; the same object if nothing changed."""

    body: dict[str, Any] = field(repr=False)
    state: RequestState
    edits: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """Every change of an answer, as in the response of `POST /v1/align`, with the number of the answer."""


class BatchGuardrail(AlignerGuardrail):
    """The guardrail with only what its hook for whole responses needs. It installs nothing in LiteLLM, watches no file,
    and writes neither audit entries nor reports. `policy` replaces the policies of the file for every body; None to
    look them up. `identity` has the fields of LiteLLM's authentication (`UserAPIKeyAuth`) that say who the caller is.
    """

    def __init__(
        self,
        policies: PolicySource,
        pipeline: Pipeline,
        deadline_s: float,
        policy: Policy | None = None,
        identity: Mapping[str, str | None] | None = None,
    ) -> None:
        # The constructor of `AlignerGuardrail` is not called, because it sets up a gateway's process.
        self._policies = policies
        self.pipeline = pipeline
        self._model = policies.current.file.aligner.model
        self._shadows = _NoShadows(0, 0)
        self._deadline_s = deadline_s
        self._policy = policy
        self._identity = identity or {}

    async def correct_body(
        self, body: dict[str, Any], request: Mapping[str, Any], call_id: str, objectives: tuple[Objective, ...] = ()
    ) -> CorrectedBody:
        """Correct a body of any wire format as the answer to `request`, which is empty if it is not known.

        `objectives`, if there are any, replace those of the policy. Raises `Blocked` if the policy prefers an error to
        the answer, and `ForbiddenError` if the request asks for something that it is not allowed.
        """
        data = {name: value for name, value in request.items() if name not in _LITELLM_FIELDS}
        data["litellm_call_id"] = call_id
        data[_OBJECTIVES] = objectives
        route = json_body.find_route(body, data)
        response = json_body.read_body(body)
        try:
            user = UserAPIKeyAuth(request_route=route, **self._identity)
            edited_response = await self.async_post_call_success_hook(data, user, response)
        except Blocked:
            raise
        except ProxyException as error:
            raise ForbiddenError(error.message) from None
        state = find_state(data)
        assert state is not None  # the hook creates it
        if edited_response is None or edited_response is response:
            return CorrectedBody(body, state)
        edits = await _list_edits(data, route, response, state)
        return CorrectedBody(json_body.write_body(edited_response, body), state, edits)

    async def _resolve_policy(self, data: dict[str, Any], user: UserAPIKeyAuth) -> tuple[RequestFacts, Policy]:
        """The facts of a request, and its policy with our objectives and deadline, which corrects every answer.

        The policy has no quota, shadow aligner or reports.
        """
        if self._policy is not None:
            return RequestFacts(), self._policy
        objectives = data.pop(_OBJECTIVES, ())
        facts, policy = await super()._resolve_policy(data, user)
        policy = replace(policy, objectives=objectives or policy.objectives)
        return facts, replace(
            policy, deadline_s=self._deadline_s, sample=1.0, quota=None, shadow_aligner=None, hand_off=None
        )

    def _make_corrector(self, data: dict[str, Any], state: RequestState) -> ChoiceCorrector:
        """A corrector that writes neither audit entries nor records."""
        return ChoiceCorrector(self.pipeline, state, self._shadows, None, lambda _: None)

    def _add_record(self, data: dict[str, Any], state: RequestState, started: float) -> None:
        """Do nothing, since LiteLLM logs no call."""


class _NoShadows(ShadowCorrections):
    """Does not correct in shadow mode, since nothing would record the result."""

    def start(self, texts: Sequence[Exchange], policy: Policy, correct: CorrectTexts) -> list[Outcome]:
        """The outcomes that a client would get at once."""
        return [Outcome(Status.SHADOW, None, exchange.answer, policy, exchange.index) for exchange in texts]


async def _list_edits(
    data: Mapping[str, Any], route: str, response: Any, state: RequestState
) -> tuple[dict[str, Any], ...]:
    """Every change of the corrected answers in `response`, without the removed text.

    A change has the number of its answer (`answer`), and the fields of an edit in the response of `POST /v1/align`.
    """
    wire = formats.wire(route)
    exchanges = wire.exchanges(data, response) if wire is not None else ()
    originals = {exchange.index: exchange.answer or "" for exchange in exchanges}
    edits: list[dict[str, Any]] = []
    for outcome in state.outcomes:
        if outcome.status is Status.CORRECTED and outcome.text is not None:
            original = originals[outcome.index]
            changes = await run_off_loop(len(original), partial(list_changes, original, outcome.text, outcome))
            edits += [{"answer": outcome.index, **change.model_dump()} for change in changes]
    return tuple(edits)
