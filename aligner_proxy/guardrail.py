"""What does LiteLLM call? `AlignerGuardrail`: thin native hooks around the pipeline.

Registered under `guardrails:` with mode post_call. All hooks stand on this class itself, because LiteLLM looks for most
of them there only. Nothing about a request is kept on `self`: a `Ledger` travels in the request's own metadata.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from functools import partial
from typing import Any, ClassVar

from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.litellm_core_utils.core_helpers import get_or_create_metadata_bucket
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import GuardrailStatus

from aligner_proxy import (
    audit,
    collecting,
    config,
    delivery,
    eligibility,
    failures,
    in_force,
    inside,
    logs,
    rewrite,
    sampling,
    telemetry,
    tracing,
)
from aligner_proxy.blocked import Blocked, refuse
from aligner_proxy.correctors import correctors
from aligner_proxy.delivery import Books, Read
from aligner_proxy.engine.backends import open_engine
from aligner_proxy.engine.breaker import Breaker
from aligner_proxy.engine.protocol import Reading
from aligner_proxy.errors import AlignerProxyError, BadRequest, ClientGone, ForbiddenError, NotPutIn
from aligner_proxy.group import in_proxy
from aligner_proxy.ledger import Ledger
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.plugged_cache import correction_cache
from aligner_proxy.plugged_rules import PluggedRules
from aligner_proxy.policy_file import PolicyFile
from aligner_proxy.presence import client_left, together, while_there
from aligner_proxy.rewrite import Wire, sse
from aligner_proxy.rewrite.facts import facts, forget_wishes, further_models
from aligner_proxy.rewrite.request import buckets
from aligner_proxy.several import policy_for_all
from aligner_proxy.shadow import Shadows
from aligner_proxy.types import DEFAULT_ALIGNER, Exchange, Mode, Outcome, Policy, SkipReason, Status
from aligner_proxy.weighing import Weighing, wants

_LEDGER = "aligner_proxy_ledger"
_PATIENCE_S = 0.0
"""Whether anybody waits for an engine that is down or full is said by the policy (`retry`), not by the client."""
_NO_POLICY = Policy(name="-")
_GUARDRAIL_STATUS: dict[Status, GuardrailStatus] = {
    Status.CORRECTED: "guardrail_intervened",
    Status.UNCHANGED: "success",
    Status.SHADOW: "success",
    Status.FAILED: "guardrail_failed_to_respond",
    Status.SKIPPED: "not_run",
}


class AlignerGuardrail(CustomGuardrail):
    """Corrects what upstream models answer, by the policies of `policies.yaml`."""

    use_native_lifecycle_hooks: ClassVar[bool] = True

    def __init__(self, policies: str = "policies.yaml", event_hook: Any = None, **settings: Any) -> None:
        # LiteLLM swallows ValueError and TypeError from here and would start without the guardrail.
        try:
            if (form := config.log_form()) is not None:
                logs.ours_to_stderr(form)
            self._policies = in_force.at(config.policies_path(policies, inside.config_folder()))
            file = self._policies.current.file
            self.pipeline = build_pipeline(file)
            self._keepers = audit.keepers(file)
        except (AlignerProxyError, OSError) as error:
            raise RuntimeError(f"aligner-proxy cannot start: {error}") from error
        self._shadows = Shadows(file.shadow.running, file.shadow.waiting)
        self._model = file.aligner.model
        inside.watch_clients()
        collecting.between_callbacks()
        inside.at_shutdown(partial(self._shadows.finish, self._keepers.aclose))
        super().__init__(event_hook=inside.with_pre_call(event_hook), **{**settings, "mask_response_content": True})

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Resolve the policy before anything is spent; 403 for what the tenant may not ask."""
        if not rewrite.stored(user_api_key_dict.request_route):
            self._ledger(data, user_api_key_dict)
        return data

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> Any:
        """Correct a whole response. None tells LiteLLM that nothing is to be replaced."""
        ledger = self._ledger(data, user_api_key_dict)
        if ledger.settled:
            return None
        if ledger.skip:
            self._leave(data, ledger, SkipReason(ledger.skip), rewrite.choices(response))
            return None
        await ledger.weighed()
        wire = rewrite.wire(ledger.route)
        exchanges = wire.exchanges(data, response) if wire else []
        if wire is None or not exchanges:
            self._leave(data, ledger, SkipReason.EMPTY if wire else SkipReason.ENDPOINT)
            return None
        try:
            outcomes = await while_there(client_left(), self._align(data, ledger, exchanges))
        except ClientGone:
            ledger.settle([Outcome(Status.FAILED, telemetry.CANCELLED, None, ledger.policy)])
            self._report(data, ledger, time.time())
            return None
        return self._put_in(wire, response, ledger, outcomes)

    def _put_in(self, wire: Wire, response: Any, ledger: Ledger, outcomes: Sequence[Outcome]) -> Any:
        """The corrected response; the original where it cannot be put in and the policy does not prefer an error."""
        try:
            return wire.apply(response, outcomes)
        except NotPutIn:
            telemetry.not_put_in(ledger)
            if any(map(failures.blocks, ledger.outcomes)):
                raise Blocked(failures.INTERNAL) from None
            return None

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Never correct here: LiteLLM caches what this hook returns under a key that knows no tenant."""

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: AsyncIterable[Any], request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Correct a stream in the policy's way. What is skipped beforehand passes item by item."""
        ledger = self._ledger(request_data, user_api_key_dict)
        await ledger.weighed()
        wire = rewrite.wire(ledger.route)
        if wire is None or ledger.skip or ledger.settled:
            source = self._passed(response, request_data, ledger, commented=wire is not None)
        else:
            source = delivery.stream(wire, ledger, request_data, response, self._books(request_data, ledger))
        async with contextlib.aclosing(source) as items:
            async for item in items:
                yield item

    async def _passed(
        self, response: AsyncIterable[Any], data: dict[str, Any], ledger: Ledger, *, commented: bool
    ) -> AsyncGenerator[Any, None]:
        """A stream that nobody looks at, item by item as it comes."""
        ending = b""
        try:
            async for item in response:
                ending = sse.tail(ending, item)
                yield item
        finally:
            if not ledger.settled:
                self._leave(data, ledger, SkipReason(ledger.skip or SkipReason.ENDPOINT))
        if commented and sse.at_rest(ending):
            yield ledger.comment()

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: UserAPIKeyAuth,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """The x-aligner headers; a stream's are sent before its first chunk and say `pending`."""
        ledger = _find(data)
        if ledger is None:
            return None
        if response is None and not ledger.settled:
            ledger.skip = ledger.skip or SkipReason.UPSTREAM_ERROR.value
        await ledger.weighed()
        return ledger.headers()

    def _ledger(self, data: dict[str, Any], user: UserAPIKeyAuth) -> Ledger:
        """The request's ledger, opened on first use. Which hook comes first depends on how we were activated."""
        ledger = _find(data)
        if ledger is None:
            ledger = self._open(data, user)
            get_or_create_metadata_bucket(data)[1][_LEDGER] = ledger
        return ledger

    def _open(self, data: dict[str, Any], user: UserAPIKeyAuth) -> Ledger:
        call_id, route = str(data.get("litellm_call_id") or ""), user.request_route
        if rewrite.wire(route) is None:
            return Ledger(call_id, _NO_POLICY, self._model, route, skip=SkipReason.ENDPOINT.value)
        try:
            asked = facts(data, user)
            policy = policy_for_all(self._policies.current.resolver, asked, further_models(data))
        except BadRequest as error:
            raise ProxyException(str(error), "invalid_request_error", error.param, 400) from None
        except ForbiddenError as error:
            raise ProxyException(str(error), "permission_error", "aligner", 403) from None
        finally:
            forget_wishes(data)
        model = self._model if policy.aligner == DEFAULT_ALIGNER else policy.aligner
        skip = eligibility.by_policy(policy) or (None if sampling.drawn(policy.sample) else SkipReason.NOT_SAMPLED)
        trace = tracing.under(user.parent_otel_span)
        weighing = Weighing(self._weighed(data, route, policy), policy) if wants(policy) and not skip else None
        return Ledger(call_id, policy, model, route, facts=asked, skip=skip, weighing=weighing, trace=trace)

    async def _weighed(self, data: dict[str, Any], route: str | None, policy: Policy) -> Policy:
        """What objectives weigh for this prompt, asked while the upstream works."""
        wire = rewrite.wire(route)
        return await self.pipeline.weighed(wire.opening(data, 0), policy) if wire else policy

    async def _align(
        self, data: dict[str, Any], ledger: Ledger, exchanges: Sequence[Exchange], read: Read = lambda _: None
    ) -> Sequence[Outcome]:
        """All choices at once; raises `Blocked` where the policy prefers an error to an uncorrected answer."""
        started, policy = time.time(), ledger.policy
        telemetry.upstream_ended(ledger)
        if ledger.skip is not None:
            outcomes = [telemetry.closed(e.call_id, policy, Status.SKIPPED, ledger.skip, e.index) for e in exchanges]
        elif policy.mode is Mode.SHADOW:
            outcomes = [self._shadows.take(e, policy, partial(self._settle, ledger)) for e in exchanges]
        else:
            with tracing.span("aligner.correct", ledger.trace, aligner__call_id=ledger.call_id):
                outcomes = await together([self._settle(ledger, e, read(e.index)) for e in exchanges])
        ledger.settle(outcomes)
        self._report(data, ledger, started)
        for outcome in outcomes:
            refuse(outcome)
        return outcomes

    def _books(self, data: dict[str, Any], ledger: Ledger) -> Books:
        """What a stream of this request needs of us."""
        started = time.time()
        return Books(
            pipeline=self.pipeline,
            align=lambda exchanges, read: self._align(data, ledger, exchanges, read),
            record=partial(self._record, ledger),
            report=lambda: self._released(data, ledger, started),
            refuse=refuse,
        )

    def _released(self, data: dict[str, Any], ledger: Ledger, started: float) -> None:
        telemetry.upstream_ended(ledger)
        self._report(data, ledger, started)

    async def _settle(self, ledger: Ledger, exchange: Exchange, reading: Reading | None = None) -> Outcome:
        """One choice, recorded wherever records are kept."""
        outcome = await telemetry.settle(self.pipeline, exchange, ledger.policy, reading)
        self._note(ledger, exchange, outcome)
        return outcome

    def _record(self, ledger: Ledger, exchange: Exchange, outcome: Outcome) -> None:
        """A choice that was settled piece by piece."""
        telemetry.record(exchange.call_id, len(exchange.answer or ""), outcome)
        self._note(ledger, exchange, outcome)

    def _note(self, ledger: Ledger, exchange: Exchange, outcome: Outcome) -> None:
        if ledger.facts is not None and outcome.status is not Status.SKIPPED:
            self._keepers.note(audit.Noted(time.time(), ledger.route, ledger.facts, exchange, outcome))

    def _leave(self, data: dict[str, Any], ledger: Ledger, reason: SkipReason, choices: int = 1) -> None:
        telemetry.upstream_ended(ledger)
        said = (ledger.call_id, ledger.policy, Status.SKIPPED, reason.value)
        ledger.settle([telemetry.closed(*said, index) for index in range(choices)])
        if reason is not SkipReason.MODE_OFF:  # LiteLLM itself says `not_run` where nobody reports
            self._report(data, ledger, time.time())

    def _report(self, data: dict[str, Any], ledger: Ledger, started: float) -> None:
        """LiteLLM's own guardrail record: spend logs, OTEL spans and its Prometheus metrics read it."""
        ended = time.time()
        self.add_standard_logging_guardrail_information_to_request_data(
            guardrail_json_response=ledger.record(),
            request_data=data,
            guardrail_status=_GUARDRAIL_STATUS[ledger.status],
            start_time=started,
            end_time=ended,
            duration=ended - started,
            guardrail_provider="aligner-proxy",
            event_type=GuardrailEventHooks.post_call,
        )


def build_pipeline(file: PolicyFile) -> Pipeline:
    """Engine and cache as the policies file says; connects to nothing yet."""
    engine = Breaker(open_engine(file, in_proxy, patience_s=_PATIENCE_S), telemetry.breaker)
    made, rules = correctors(file), PluggedRules.of(file)
    return Pipeline(engine, correction_cache(file), remember=file.cache.enabled, correctors=made, rules=rules)


def _find(data: dict[str, Any]) -> Ledger | None:
    """The ledger, if a hook of this request has opened one. JSON from a client can never be a `Ledger`."""
    found = (bucket.get(_LEDGER) for bucket in buckets(data))
    return next((ledger for ledger in found if isinstance(ledger, Ledger)), None)
