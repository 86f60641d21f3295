"""The LiteLLM guardrail: thin native hooks around the pipeline. LiteLLM passes every hook the request's body with its
own additions, as `data`. Side texts are the texts of a response beside its answers, such as reasoning.

It is registered under `guardrails:` with mode post_call. All hooks are methods of `AlignerGuardrail` itself, because
LiteLLM looks for most of them only there. No data of a request is kept on `self`; a `RequestState` travels in the
request's own metadata. If a policy prefers an error to an uncorrected answer, the client gets one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from fastapi import HTTPException
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.guardrails import Mode as ModeByTag
from litellm.types.utils import GuardrailStatus

from aligner_proxy import formats
from aligner_proxy.audit.writer import load_redaction, make_audit_writers
from aligner_proxy.concurrency import cancel_when_gone, client_gone_waiter
from aligner_proxy.errors import AlignerProxyError, ClientGone, CopyStays, NotPutIn
from aligner_proxy.formats import json_body, sse
from aligner_proxy.formats.base import holds_only_answer
from aligner_proxy.gateway import (
    litellm_internals,
    metrics,
    reasoning,
    reload,
    request_policy,
    routing,
    second_copies,
    upstream_errors,
)
from aligner_proxy.gateway.build import build_pipeline
from aligner_proxy.gateway.call_arguments import CallArguments
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.comment_lines import is_comment, write_comment
from aligner_proxy.gateway.endpoints.routes import install_endpoints
from aligner_proxy.gateway.incoming_texts import IncomingTexts
from aligner_proxy.gateway.process_changes import change_process
from aligner_proxy.gateway.readiness import EngineReadiness
from aligner_proxy.gateway.request_state import Arrival, RequestState, copy_without_state, find_state, store_state
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.shared_server import open_shared_server
from aligner_proxy.gateway.side_texts import SideTexts, delivered_texts, withhold_error
from aligner_proxy.gateway.streaming import dispatch, takeover
from aligner_proxy.gateway.streaming.budget import StreamBudget
from aligner_proxy.gateway.webhook import WebhookSender
from aligner_proxy.observability import logs, tracing
from aligner_proxy.observability.stalls import LoopWatchdog
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.extensions import RunningSelection
from aligner_proxy.policy import config, environment, guardrail_entry
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import DEFAULT_ALIGNER, Exchange, Outcome, Policy, SideTreatment, SkipReason, Status

log = logging.getLogger(__name__)
_HOOKS = (GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call)
"""The hooks that run for every request if the policies file enforces."""
_NO_POLICY = Policy(name="-")
"""The policy on endpoints whose answers are not corrected."""
_NO_PASS_THROUGH_STREAMS = (
    "streams of pass-through routes are not judged, and the policy withholds answers that are not judged; "
    "send `stream: false`, or use the endpoint of LiteLLM for this format"
)
_GUARDRAIL_STATUS: dict[Status, GuardrailStatus] = {
    Status.CORRECTED: "guardrail_intervened",
    Status.UNCHANGED: "success",
    Status.NOT_JUDGED: "not_run",
    Status.SHADOW: "success",
    Status.FAILED: "guardrail_failed_to_respond",
    Status.SKIPPED: "not_run",
}


class AlignerGuardrail(CustomGuardrail):
    """Guardrail that corrects answers of upstream models according to `policies.yaml`."""

    use_native_lifecycle_hooks: ClassVar[bool] = True
    _bypass_warnings: tuple[str, ...] = ()
    """Descriptions of settings in LiteLLM's entry that keep answers from the hooks."""
    _examined_file: tuple[PolicyFile, bool] | None = None
    """The policies file that `_enforces` examined last, and its result."""

    def __init__(self, policies: str = "policies.yaml", event_hook: Any = None, **settings: Any) -> None:
        """Load the policies file, build pipeline, audit and webhook, and hook into LiteLLM for the whole process.

        The arguments are the settings of LiteLLM's guardrail entry: `policies` is the path of the policies file,
        `event_hook` the mode. Raises `RuntimeError`, with the fault and its fix, if the gateway cannot start.
        """
        # LiteLLM swallows ValueError and TypeError from here and would start without the guardrail.
        try:
            hooks = litellm_internals.add_pre_call(event_hook)
            log_form = environment.log_format()
            if log_form is not None:
                logs.configure_own_logging(log_form)
            path = config.policies_path(policies, litellm_internals.config_folder())
            watched_policies = reload.watched_policies(path)
            self._policies: reload.PolicySource = watched_policies
            file = watched_policies.current.file
            server = open_shared_server(file)
            self.pipeline = build_pipeline(file, watched_policies.current.heads.store.head, server)
            self._audit_writers = make_audit_writers(file)
            self._auditor = self._audit_writers or None  # None if nothing is stored
            self.endpoints: Mapping[str, registry.PluginEndpoint] = registry.load_endpoints(file)
            config.check_hand_offs(file)
            self._webhook = WebhookSender(load_redaction(file))
        except (AlignerProxyError, OSError) as error:
            raise RuntimeError(f"aligner-proxy cannot start: {error}") from error
        if server is not None:  # it gets reports of this process until the proxy ends
            membership = server.join(watched_policies)
            with contextlib.suppress(RuntimeError):  # raised if no event loop runs, as in `check`
                membership.start()
                litellm_internals.run_at_shutdown(membership.aclose)
        self._shadows = ShadowCorrections(file.shadow.running, file.shadow.waiting)
        self._watchdog = LoopWatchdog()
        with contextlib.suppress(RuntimeError):  # the proxy creates guardrails in the event loop that will serve
            self._watchdog.watch()
        self._streams = StreamBudget(file.streams.max_mb, file.streams.stream_mb)
        self._model = file.aligner.model  # the configured name of the default aligner
        readiness = EngineReadiness(self.pipeline.engine, reload.refer_to_file(watched_policies))
        litellm_internals.count_in_readiness(readiness.reason)
        change_process(str(settings.get("guardrail_name")))
        install_endpoints(self)
        litellm_internals.run_at_shutdown(self._webhook.aclose)
        litellm_internals.run_at_shutdown(partial(self._shadows.finish, self._audit_writers.aclose))
        super().__init__(event_hook=hooks, **{**settings, "mask_response_content": True})

    @property
    def run_in_parallel(self) -> bool:
        """Always False, because LiteLLM would discard what the hooks return."""
        return False

    @run_in_parallel.setter
    def run_in_parallel(self, _value: bool) -> None:
        pass

    @property
    def scan_raw_request(self) -> bool:
        """Always False, because the pre-call hook would get a copy of the request that LiteLLM discards."""
        return False

    @scan_raw_request.setter
    def scan_raw_request(self, _value: bool) -> None:
        pass

    def apply_stream_scope(self, stream_scope: object) -> None:
        """Apply the setting `stream_scope` of LiteLLM's guardrail entry; warn of its settings that let answers pass.

        LiteLLM calls this after the other settings of the entry are applied, so all of them are checked here.
        """
        super().apply_stream_scope(stream_scope)
        earlier_warnings = self._bypass_warnings
        mode = self.event_hook.tags if isinstance(self.event_hook, ModeByTag) else self.event_hook
        bypasses = guardrail_entry.find_gaps(mode, self.default_on, stream_scope)
        self._bypass_warnings = tuple(warning for _setting, warning in bypasses)
        if self._bypass_warnings == earlier_warnings:  # LiteLLM calls this twice for each entry, so we log only once
            return
        for warning in self._bypass_warnings:
            log.warning("%s (where the policies file enforces objectives, every answer is corrected anyway)", warning)

    def should_run_guardrail(self, data: Any, event_type: GuardrailEventHooks) -> bool:
        """Whether the hook `event_type` runs for a request; LiteLLM calls this before each hook.

        If LiteLLM's guardrail entry would let answers pass but the active policies file enforces objectives, the hook
        runs for every request that did not opt out. Otherwise LiteLLM decides by its entry.
        """
        if self._bypass_warnings and event_type in _HOOKS and self._enforces():
            opted_out = self.guardrail_name in self.get_opted_out_global_guardrails_from_metadata(data)
            return not (opted_out or self.get_disable_global_guardrail(data))
        return bool(super().should_run_guardrail(data, event_type))

    def _enforces(self) -> bool:
        """Whether the active policies file withholds answers that were not judged; each file is examined only once."""
        file = self._policies.current.file
        if self._examined_file is None or self._examined_file[0] is not file:
            self._examined_file = (file, guardrail_entry.find_enforcement(file) is not None)
        return self._examined_file[1]

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Resolve the policy before any tokens are spent, and judge the request's own texts if the policy says so.

        Returns `data`, as LiteLLM expects. Raises HTTP 403 for a request that the tenant may not make.
        """
        route = user_api_key_dict.request_route
        # The model of a stored answer, and so its policy, is known only once the answer arrives.
        if formats.is_stored_answer(route):
            return data
        if formats.wire(route) is not None:
            request_policy.check_body(data, self._policies.current.file.trust)
        elif data.get("stream") and litellm_internals.is_pass_through(route):
            await self._refuse_pass_through_stream(data, user_api_key_dict)
        state = await self._get_state(data, user_api_key_dict)
        if state.policy.looks_at_incoming and state.skip is None and state.incoming is None:
            incoming_texts = IncomingTexts(data, state, partial(self._make_corrector, data))
            state.incoming = incoming_texts
            await incoming_texts.start()
        return data

    async def _refuse_pass_through_stream(self, data: dict[str, Any], user: UserAPIKeyAuth) -> None:
        """Refuse (HTTP 400) a stream of a pass-through route, which would not be judged, if the policy forbids that."""
        # A route whose configuration does not name this guardrail is not refused.
        metadata = data.get("metadata")
        # LiteLLM puts the names of the route's guardrails into metadata that is a dict; a client may send another type.
        guardrail_names = metadata.get("guardrails") if isinstance(metadata, dict) else None
        if not isinstance(guardrail_names, list | dict) or self.guardrail_name not in guardrail_names:
            return
        # A pass-through route has no policy of its own, so the one of a chat request decides.
        chat_user = user.model_copy(update={"request_route": json_body.CHAT})
        state = await self._open_state(data, chat_user)
        if state.is_enforced and state.policy.blocks_unjudged:
            raise ProxyException(_NO_PASS_THROUGH_STREAMS, "invalid_request_error", "stream", 400)

    def get_disable_global_guardrail(self, data: dict[str, Any]) -> bool:
        """Whether metadata of team or key turns guardrails off; only metadata that the policies file trusts counts."""
        trusted = request_policy.trusted_metadata(data, self._policies.current.file.trust)
        return trusted.get("disable_global_guardrails") is True

    def get_opted_out_global_guardrails_from_metadata(self, data: dict[str, Any]) -> list[str]:
        """The guardrails that metadata of team or key turns off; only metadata that the policies file trusts counts."""
        trusted = request_policy.trusted_metadata(data, self._policies.current.file.trust)
        names = trusted.get("opted_out_global_guardrails")
        return names if isinstance(names, list) else []

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> Any:
        """The corrected response; None to leave it unchanged. Raises `Blocked` if the policy prefers an error."""
        route = user_api_key_dict.request_route
        # LiteLLM has no object of its own for the JSON body of a pass-through route.
        if formats.wire(route) is None and isinstance(response, dict) and litellm_internals.is_pass_through(route):
            return await self._correct_pass_through_body(data, user_api_key_dict, response)
        state = await self._get_state(data, user_api_key_dict)
        if state.is_final:  # an earlier hook has recorded the outcomes
            return None
        self._switch_to_answering_group(data, state, response)
        await state.wait_for_selection()
        reasoning_handler = self._open_reasoning(data, state)
        if state.skip and reasoning_handler is None:
            self._skip_choices(data, state, SkipReason(state.skip), formats.count_choices(response))
            return None
        side = self._open_side_texts(data, state, response)
        calls = self._open_calls(data, state, side)
        reasoning_judgement = (
            reasoning_handler.judge_alongside(response) if reasoning_handler else contextlib.nullcontext(response)
        )
        # `remaining` is the response without what the steps so far removed: reasoning, then other kinds of side texts.
        async with reasoning_judgement as remaining:
            exchanges = self._read_exchanges(data, state, remaining)
            outcomes: Sequence[Outcome] = ()
            delivered = remaining
            try:
                # Without exchanges and side texts there is nothing to wait for, so the client need not be watched.
                async with cancel_when_gone(client_gone_waiter() if exchanges or side else None):
                    if calls is not None:
                        remaining = await calls.correct_body(remaining, exchanges)
                        delivered = remaining
                    side_judgement = (
                        side.judge_alongside(remaining, exchanges) if side else contextlib.nullcontext(remaining)
                    )
                    async with side_judgement as remaining:
                        if exchanges:
                            outcomes = await self._make_corrector(data, state).correct(exchanges)
                    delivered = await self._apply_outcomes(data, state, remaining, exchanges, outcomes)
                    if side is not None:
                        changed = delivered is not remaining
                        await side.judge_body(delivered, delivered_texts(exchanges, outcomes, changed=changed))
            # Nobody is left to get the answer; only the record remains to be made.
            except ClientGone:
                state.finalize([Outcome(Status.FAILED, metrics.CANCELLED, None, state.policy)])
                self._add_record(data, state, time.time())
        return None if delivered is response and not outcomes else delivered

    async def _correct_pass_through_body(self, data: dict[str, Any], user: UserAPIKeyAuth, body: dict[str, Any]) -> Any:
        """The corrected JSON body of a pass-through route, read as an answer of the endpoint whose format it has.

        None leaves the body unchanged.
        """
        # The stored state belongs to the pass-through route, which has no policy, so the hook gets a copy without it.
        request = copy_without_state(data)
        user_of_route = user.model_copy(update={"request_route": json_body.find_route(body, request)})
        response = json_body.read_body(body)
        edited_response = await self.async_post_call_success_hook(request, user_of_route, response)
        if edited_response is None or edited_response is response:
            return None
        return json_body.write_body(edited_response, body)

    def _read_exchanges(self, data: dict[str, Any], state: RequestState, response: Any) -> Sequence[Exchange]:
        """The exchanges (prompt and answer) of a response; empty, with the skip recorded, if it stays unchanged."""
        if state.skip:
            self._skip_choices(data, state, SkipReason(state.skip), formats.count_choices(response))
            return ()
        wire = formats.wire(state.arrival.route)
        exchanges = wire.exchanges(data, response) if wire else ()
        if not exchanges:
            self._skip_choices(data, state, SkipReason.EMPTY if wire else SkipReason.ENDPOINT)
        return exchanges

    async def _apply_outcomes(
        self,
        data: Mapping[str, Any],
        state: RequestState,
        response: Any,
        exchanges: Sequence[Exchange],
        outcomes: Sequence[Outcome],
    ) -> Any:
        """The response with the corrected texts of `outcomes`, and without other copies of what was removed.

        The same object is returned if nothing was corrected. If a correction cannot be put in, or a copy cannot be
        removed, the same object is returned or, if the policy prefers an error, `Blocked` is raised.
        """
        wire = formats.wire(state.arrival.route)
        if wire is None or not outcomes:
            return response
        try:
            edited = wire.apply(response, outcomes, exchanges)
            if edited is response or holds_only_answer(edited, [outcome.text or "" for outcome in outcomes]):
                return edited  # no other field can hold a copy
            answers = await second_copies.compare_answers(exchanges, outcomes)
            # in a thread, because a body may hold thousands of citations
            return await asyncio.to_thread(second_copies.drop_from_body, state.arrival.route, data, edited, answers)
        except NotPutIn:
            metrics.record_not_applied(state)
            reason: str | None = pipeline_outcomes.INTERNAL
        except CopyStays:
            reason = second_copies.withdraw_corrections(state).reason
        if any(map(pipeline_outcomes.blocks, state.outcomes)):
            raise Blocked(reason)
        return response

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Do nothing, because LiteLLM caches this hook's result under a key without the tenant."""

    def post_call_already_checked(self, data: Any, response: Any) -> bool:
        """Always False: the hook above checks nothing, and LiteLLM would hash every whole answer to find that out."""
        return False

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: AsyncIterable[Any], request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Yield the items of a stream as the client gets them, corrected in the policy's stream mode.

        The items of a stream that is not judged pass unchanged.
        """
        state = await self._get_state(request_data, user_api_key_dict)
        self._switch_to_answering_group(request_data, state)
        if routing.may_switch_model(request_data):
            note_item = partial(self._switch_to_answering_group, request_data, state)
            response = await takeover.watch_stream(response, state, self.pipeline, note_item)
        await state.wait_for_selection()
        reasoning_handler = self._open_reasoning(request_data, state)
        if reasoning_handler is not None:
            response = reasoning_handler.wrap_stream(response)
        wire = formats.wire(state.arrival.route)
        if wire is None or state.skip or state.is_final:
            # With `mode: off`, the client gets what LiteLLM alone would send, byte for byte, so no comment is added.
            adds_comment = wire is not None and state.skip != SkipReason.MODE_OFF
            source = self._pass_stream(response, request_data, state, adds_comment=adds_comment)
        else:
            corrector = self._make_corrector(request_data, state)
            side = self._open_side_texts(request_data, state, response, streamed=True)
            calls = self._open_calls(request_data, state, side)
            source = dispatch.deliver_stream(wire, state, request_data, response, corrector, self._streams, side, calls)
        async with contextlib.aclosing(source) as items:
            async for item in items:
                # LiteLLM would hand a comment to other guardrails as an item, so comments go past LiteLLM if possible.
                if not (is_comment(item) and await write_comment(item)):
                    yield item

    async def _pass_stream(
        self, response: AsyncIterable[Any], data: dict[str, Any], state: RequestState, *, adds_comment: bool
    ) -> AsyncGenerator[Any, None]:
        """Pass the items of a stream that is not judged, and record the skip.

        With `adds_comment`, a comment with the status is put before the event that ends the stream.
        """
        keeper = sse.LastEventKeeper()
        try:
            async for item in response:
                passed_items = keeper.feed(item) if adds_comment else [item]
                for passed_item in passed_items:
                    yield passed_item
        except upstream_errors.UPSTREAM_ERRORS:
            # The connection may break after the event that ends the stream; the client must still get this event.
            for event in keeper.flush():
                yield event
            raise
        finally:
            if not state.is_final:
                self._skip_choices(data, state, SkipReason(state.skip or SkipReason.ENDPOINT))
        if adds_comment and keeper.is_between_events:
            yield state.comment()
        for event in keeper.flush():
            yield event

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: UserAPIKeyAuth,
        traceback_str: str | None = None,
    ) -> HTTPException | None:
        """Withhold an upstream's error message if it quotes an answer, or if the policy would block its text.

        Returns the error to raise instead if the message cannot be removed in place, else None.
        """
        wire = formats.wire(user_api_key_dict.request_route)
        if wire is None or not upstream_errors.is_from_upstream(original_exception):
            return None
        state = await self._get_state(request_data, user_api_key_dict)
        side = self._open_side_texts(request_data, state, None)
        return await withhold_error(state, side, original_exception)

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: UserAPIKeyAuth,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """The x-aligner headers; a stream's are sent before its first chunk, with status `pending`.

        None for a request that no hook has seen.
        """
        state = find_state(data)
        if state is None:
            return None
        # LiteLLM has no response if the upstream failed.
        if response is None and not state.is_final:
            state.skip = state.skip or SkipReason.UPSTREAM_ERROR.value
        if response is not None:
            self._switch_to_answering_group(data, state, response)
        await state.wait_for_selection()
        if state.incoming is not None:
            await state.incoming.wait()
        return state.headers()

    async def _get_state(self, data: dict[str, Any], user: UserAPIKeyAuth) -> RequestState:
        """The request's state, created by whichever hook runs first, which depends on the configuration."""
        state = find_state(data)
        if state is None:
            state = await self._open_state(data, user)
            store_state(data, state)
        return state

    async def _open_state(self, data: dict[str, Any], user: UserAPIKeyAuth) -> RequestState:
        """Make the state of a request: its policy, and the reason, if any, for which its answer is not judged.

        Raises `Blocked` if the policy withholds an answer that is not judged for this reason.
        """
        call_id = str(data.get("litellm_call_id") or "")
        route = user.request_route
        wire = formats.wire(route)
        if wire is None:
            return RequestState(call_id, _NO_POLICY, self._model, Arrival(route), skip=SkipReason.ENDPOINT.value)
        facts, policy = await self._resolve_policy(data, user)
        skip = self._find_skip_reason(policy, sampled=request_policy.is_sampled(policy.sample))
        if skip is not None and pipeline_outcomes.blocks(Outcome(Status.SKIPPED, skip.value, None, policy)):
            raise Blocked(skip.value)
        arrival = Arrival(
            route,
            facts=facts,
            extensions=self.pipeline.extensions,
            heads_in_force=self._policies.current.head_versions,
            trace=tracing.context_of(user.parent_otel_span),
        )
        state = RequestState(call_id, policy, self._aligner_name(policy), arrival, skip=skip)
        self._start_selection(data, state)
        return state

    async def _resolve_policy(self, data: dict[str, Any], user: UserAPIKeyAuth) -> tuple[RequestFacts, Policy]:
        """The facts of a request and its policy; raises LiteLLM's error if it asks for something not allowed."""
        return await request_policy.resolve_request(self._policies, self.pipeline.extensions, data, user)

    def _find_skip_reason(self, policy: Policy, *, sampled: bool) -> SkipReason | None:
        """Why answers under this policy are skipped, as far as known before the answer; None to judge them.

        `sampled` says whether the request was drawn for the policy's sample.
        """
        reason = eligibility.find_policy_reason(policy)
        # The file on disk could not be loaded, and may have the objectives that the active file lacks.
        if reason is SkipReason.NO_OBJECTIVES and self._policies.is_outdated:
            return SkipReason.RELOAD_FAILED
        if reason is None and not sampled:
            return SkipReason.NOT_SAMPLED
        return reason

    def _start_selection(self, data: dict[str, Any], state: RequestState) -> None:
        """Start choosing the objectives, if a plugin chooses them for this policy and the request is not skipped."""
        wire = formats.wire(state.arrival.route)
        if wire is not None and state.skip is None and state.arrival.extensions.selects(state.policy):
            selection = self.pipeline.select_objectives(wire.first_exchange(data), state.policy)
            state.selecting = RunningSelection(selection, state.policy)

    def _switch_to_answering_group(self, data: dict[str, Any], state: RequestState, response: object = None) -> None:
        """Switch to the stricter of both groups' policies if another model group answers than the requested one.

        `response` is the response or a stream's item, from which the group is read; None if there is none yet.
        """
        if state.arrival.facts is None or state.is_final:  # no policy was resolved, or the answer is decided
            return
        group = routing.find_answering_group(data, response)
        if group is None or group == state.answered_by:
            return  # unknown, or the same as before
        state.answered_by = group
        policy = request_policy.resolve_answer(
            self._policies, state.arrival.extensions, state.arrival.facts, state.policy, group
        )
        if policy is None:
            return
        # A request in the first policy's sample stays in; another request may be in the new policy's sample.
        sampled = state.skip is None or request_policy.is_sampled(policy.sample)
        state.policy = policy
        state.model = self._aligner_name(policy)
        state.skip = self._find_skip_reason(policy, sampled=sampled)
        state.selecting = None  # it was a choice among the other policy's objectives
        self._start_selection(data, state)

    def _aligner_name(self, policy: Policy) -> str:
        """The configured name of a policy's aligner."""
        return self._model if policy.aligner == DEFAULT_ALIGNER else policy.aligner

    def _open_reasoning(self, data: dict[str, Any], state: RequestState) -> reasoning.Reasoning | None:
        """The handler of this request's reasoning; None if reasoning passes unchanged."""
        if state.policy.reasoning is SideTreatment.PASS:
            return None
        return reasoning.open_reasoning(data, state, partial(self._make_corrector, data))

    def _open_side_texts(
        self, data: dict[str, Any], state: RequestState, source: object, *, streamed: bool = False
    ) -> SideTexts | None:
        """The handler of side texts of a response or stream; None if they are not checked."""
        if not state.policy.looks_at_side_texts:
            return None
        return SideTexts.open(data, state, partial(self._make_corrector, data), source=source, streamed=streamed)

    def _open_calls(self, data: dict[str, Any], state: RequestState, side: SideTexts | None) -> CallArguments | None:
        """The corrector of tool calls in a response or stream; None if the policy does not correct them."""
        if side is None or state.policy.tool_arguments is not SideTreatment.CORRECT:
            return None
        return CallArguments.open(data, state, partial(self._make_corrector, data), side)

    def _make_corrector(self, data: dict[str, Any], state: RequestState) -> ChoiceCorrector:
        """A corrector for the choices of one request, which adds LiteLLM's record to `data`."""
        publish = partial(self._add_record, data, state)
        return ChoiceCorrector(self.pipeline, state, self._shadows, self._auditor, publish, self._webhook)

    def _skip_choices(self, data: dict[str, Any], state: RequestState, reason: SkipReason, count: int = 1) -> None:
        """Record that none of the response's `count` choices is judged, and why."""
        metrics.record_upstream_end(state)
        metrics.finalize_unprocessed(state, Status.SKIPPED, reason.value, range(count))
        if reason is not SkipReason.MODE_OFF:  # without our record, LiteLLM records `not_run`
            self._add_record(data, state, time.time())

    def _add_record(self, data: dict[str, Any], state: RequestState, started: float) -> None:
        """Add LiteLLM's guardrail record to `data`, for its logs and metrics; our work began at `started` (epoch s)."""
        end = time.time()
        self.add_standard_logging_guardrail_information_to_request_data(
            guardrail_json_response=state.record(),
            request_data=data,
            guardrail_status=_GUARDRAIL_STATUS[state.status],
            start_time=started,
            end_time=end,
            duration=end - started,
            guardrail_provider="aligner-proxy",
            event_type=GuardrailEventHooks.post_call,
        )
