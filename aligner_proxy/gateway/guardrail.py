"""LiteLLM guardrail: thin native hooks around the pipeline.

Registered under `guardrails:` with mode post_call. All hooks stand on `AlignerGuardrail` itself, because LiteLLM looks
for most of them there only. Nothing about a request is kept on `self`: a `RequestState` travels in the request's own
metadata. A policy that prefers an error to an uncorrected answer makes a 503.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from functools import partial
from typing import Any, ClassVar

from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.litellm_core_utils.core_helpers import get_or_create_metadata_bucket
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import GuardrailStatus

from aligner_proxy import audit, formats
from aligner_proxy.concurrency import cancelled_when
from aligner_proxy.errors import AlignerProxyError, BadRequest, ClientGone, ForbiddenError, NotPutIn
from aligner_proxy.formats import Wire, sse
from aligner_proxy.formats.base import buckets
from aligner_proxy.gateway import gc_workaround, litellm_internals, metrics, reload
from aligner_proxy.gateway.build import build_pipeline
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.disconnect import client_left
from aligner_proxy.gateway.request_facts import facts, forget_wishes, further_models
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.shadow import Shadows
from aligner_proxy.gateway.streaming import dispatch
from aligner_proxy.observability import logs, tracing
from aligner_proxy.pipeline import eligibility
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.plugins.extensions import Selecting
from aligner_proxy.policy import config
from aligner_proxy.policy.resolver import policy_for_all
from aligner_proxy.types import DEFAULT_ALIGNER, Outcome, Policy, SkipReason, Status

_LOTS = 2**53
_LEDGER = "aligner_proxy_ledger"
_NO_POLICY = Policy(name="-")
_GUARDRAIL_STATUS: dict[Status, GuardrailStatus] = {
    Status.CORRECTED: "guardrail_intervened",
    Status.UNCHANGED: "success",
    Status.SHADOW: "success",
    Status.FAILED: "guardrail_failed_to_respond",
    Status.SKIPPED: "not_run",
}


def drawn(share: float) -> bool:
    """Whether one more request is within `share`; every call is a new draw."""
    return secrets.randbelow(_LOTS) < share * _LOTS


class AlignerGuardrail(CustomGuardrail):
    """Corrects what upstream models answer, by the policies of `policies.yaml`."""

    use_native_lifecycle_hooks: ClassVar[bool] = True

    def __init__(self, policies: str = "policies.yaml", event_hook: Any = None, **settings: Any) -> None:
        # LiteLLM swallows ValueError and TypeError from here and would start without the guardrail.
        try:
            if (form := config.log_form()) is not None:
                logs.ours_to_stderr(form)
            self._policies = reload.at(config.policies_path(policies, litellm_internals.config_folder()))
            file = self._policies.current.file
            self.pipeline = build_pipeline(file)
            self._request_fields = tuple(field.name for field in self.pipeline.extensions.request_fields)
            self._keepers = audit.audit_writers(file)
            self._keeper = self._keepers or None
        except (AlignerProxyError, OSError) as error:
            raise RuntimeError(f"aligner-proxy cannot start: {error}") from error
        self._shadows = Shadows(file.shadow.running, file.shadow.waiting)
        self._model = file.aligner.model
        litellm_internals.watch_clients()
        gc_workaround.between_callbacks()
        litellm_internals.at_shutdown(partial(self._shadows.finish, self._keepers.aclose))
        super().__init__(
            event_hook=litellm_internals.with_pre_call(event_hook), **{**settings, "mask_response_content": True}
        )

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Resolve the policy before anything is spent; 403 for what the tenant may not ask."""
        if not formats.stored(user_api_key_dict.request_route):
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
            self._leave(data, ledger, SkipReason(ledger.skip), formats.choices(response))
            return None
        await ledger.selected()
        wire = formats.wire(ledger.route)
        exchanges = wire.exchanges(data, response) if wire else []
        if wire is None or not exchanges:
            self._leave(data, ledger, SkipReason.EMPTY if wire else SkipReason.ENDPOINT)
            return None
        try:
            async with cancelled_when(client_left()):
                outcomes = await self._corrector(data, ledger).correct(exchanges)
        except ClientGone:
            ledger.settle([Outcome(Status.FAILED, metrics.CANCELLED, None, ledger.policy)])
            self._report(data, ledger, time.time())
            return None
        return self._put_in(wire, response, ledger, outcomes)

    def _put_in(self, wire: Wire, response: Any, ledger: RequestState, outcomes: Sequence[Outcome]) -> Any:
        """The corrected response; the original where it cannot be put in and the policy does not prefer an error."""
        try:
            return wire.apply(response, outcomes)
        except NotPutIn:
            metrics.not_put_in(ledger)
            if any(map(pipeline_outcomes.blocks, ledger.outcomes)):
                raise Blocked(pipeline_outcomes.INTERNAL) from None
            return None

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Never correct here: LiteLLM caches what this hook returns under a key that knows no tenant."""

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: AsyncIterable[Any], request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Correct a stream in the policy's way. What is skipped beforehand passes item by item."""
        ledger = self._ledger(request_data, user_api_key_dict)
        await ledger.selected()
        wire = formats.wire(ledger.route)
        if wire is None or ledger.skip or ledger.settled:
            source = self._passed(response, request_data, ledger, commented=wire is not None)
        else:
            source = dispatch.stream(wire, ledger, request_data, response, self._corrector(request_data, ledger))
        async with contextlib.aclosing(source) as items:
            async for item in items:
                yield item

    async def _passed(
        self, response: AsyncIterable[Any], data: dict[str, Any], ledger: RequestState, *, commented: bool
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
        await ledger.selected()
        return ledger.headers()

    def _ledger(self, data: dict[str, Any], user: UserAPIKeyAuth) -> RequestState:
        """The request's ledger, opened on first use. Which hook comes first depends on how we were activated."""
        ledger = _find(data)
        if ledger is None:
            ledger = self._open(data, user)
            get_or_create_metadata_bucket(data)[1][_LEDGER] = ledger
        return ledger

    def _open(self, data: dict[str, Any], user: UserAPIKeyAuth) -> RequestState:
        call_id = str(data.get("litellm_call_id") or "")
        route = user.request_route
        extensions = self.pipeline.extensions
        wire = formats.wire(route)
        if wire is None:
            return RequestState(call_id, _NO_POLICY, self._model, route, skip=SkipReason.ENDPOINT.value)
        try:
            asked = facts(data, user, self._request_fields)
            policy = policy_for_all(self._policies.current.resolver, asked, further_models(data))
            policy = extensions.resolve(policy, asked)
        except BadRequest as error:
            raise ProxyException(str(error), "invalid_request_error", error.param, 400) from None
        except ForbiddenError as error:
            raise ProxyException(str(error), "permission_error", "aligner", 403) from None
        finally:
            forget_wishes(data)
        model = self._model if policy.aligner == DEFAULT_ALIGNER else policy.aligner
        skip = eligibility.by_policy(policy) or (None if drawn(policy.sample) else SkipReason.NOT_SAMPLED)
        trace = tracing.under(user.parent_otel_span)
        ledger = RequestState(call_id, policy, model, route, facts=asked, skip=skip, extensions=extensions, trace=trace)
        if skip is None and extensions.selects(policy):
            ledger.selecting = Selecting(self.pipeline.selected(wire.opening(data, 0), policy), policy)
        return ledger

    def _corrector(self, data: dict[str, Any], ledger: RequestState) -> ChoiceCorrector:
        """What corrects the choices of this request."""
        return ChoiceCorrector(self.pipeline, ledger, self._shadows, self._keeper, partial(self._report, data, ledger))

    def _leave(self, data: dict[str, Any], ledger: RequestState, reason: SkipReason, choices: int = 1) -> None:
        metrics.upstream_ended(ledger)
        said = (ledger.call_id, ledger.policy, Status.SKIPPED, reason.value)
        ledger.settle([metrics.closed(*said, index) for index in range(choices)])
        if reason is not SkipReason.MODE_OFF:  # LiteLLM itself says `not_run` where nobody reports
            self._report(data, ledger, time.time())

    def _report(self, data: dict[str, Any], ledger: RequestState, started: float) -> None:
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


def _find(data: dict[str, Any]) -> RequestState | None:
    """The ledger, if a hook of this request has opened one. JSON from a client can never be a `RequestState`."""
    found = (bucket.get(_LEDGER) for bucket in buckets(data))
    return next((ledger for ledger in found if isinstance(ledger, RequestState)), None)
