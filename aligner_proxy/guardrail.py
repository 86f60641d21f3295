"""What does LiteLLM call? `AlignerGuardrail`: thin native hooks around the pipeline.

Registered under `guardrails:` with mode post_call. All hooks stand on this class itself, because LiteLLM looks for most
of them there only. Nothing about a request is kept on `self`: a `Ledger` travels in the request's own metadata.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.litellm_core_utils.core_helpers import get_or_create_metadata_bucket
from litellm.litellm_core_utils.served_output_texts import record_served_output_texts, served_stream_output_texts
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.guardrails import Mode as ModeByTag
from litellm.types.utils import GuardrailStatus

from aligner_proxy import config, rewrite, telemetry
from aligner_proxy.ahead import ReadAhead
from aligner_proxy.cache import CorrectionCache
from aligner_proxy.engine.client import HttpEngine
from aligner_proxy.engine.protocol import Reading
from aligner_proxy.errors import AlignerProxyError, ForbiddenError
from aligner_proxy.ledger import Ledger
from aligner_proxy.pipeline import Pipeline, skipped_by_policy
from aligner_proxy.policy import PolicyResolver
from aligner_proxy.policy_file import PolicyFile
from aligner_proxy.rewrite import Wire
from aligner_proxy.rewrite.facts import facts, forget_wishes
from aligner_proxy.rewrite.request import buckets
from aligner_proxy.streaming import HeldStream
from aligner_proxy.types import Exchange, Mode, OnError, Outcome, Policy, SkipReason, Status

_LEDGER = "aligner_proxy_ledger"
_NO_POLICY = Policy(name="-")
_GUARDRAIL_STATUS: dict[Status, GuardrailStatus] = {
    Status.CORRECTED: "guardrail_intervened",
    Status.UNCHANGED: "success",
    Status.SHADOW: "success",
    Status.FAILED: "guardrail_failed_to_respond",
    Status.SKIPPED: "not_run",
}


Read = Callable[[int], Reading | None]


def _unread(_index: int) -> None:
    """Of a whole response nothing was read ahead."""


class Blocked(ProxyException):
    """A correction failed where the policy says `on_error: block` (HTTP 503)."""

    # LiteLLM reads `code` on whole responses and `status_code` on streams.
    status_code = 503

    def __init__(self, reason: str | None) -> None:
        super().__init__(f"the answer could not be aligned ({reason})", "aligner_error", None, self.status_code)


class AlignerGuardrail(CustomGuardrail):
    """Corrects what upstream models answer, by the policies of `policies.yaml`."""

    use_native_lifecycle_hooks: ClassVar[bool] = True

    def __init__(self, policies: str = "policies.yaml", event_hook: Any = None, **settings: Any) -> None:
        # LiteLLM swallows ValueError and TypeError from here and would start without the guardrail.
        try:
            file = config.load(config.policies_path(policies, _config_folder()))
            self._resolver = PolicyResolver(file)
            self.pipeline = build_pipeline(file)
            keys = config.keys_path(file)
            if keys is not None:
                config.load_keys(keys)
        except (AlignerProxyError, OSError) as error:
            raise RuntimeError(f"aligner-proxy cannot start: {error}") from error
        self._model = file.aligner.model
        super().__init__(event_hook=_with_pre_call(event_hook), **{**settings, "mask_response_content": True})

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Resolve the policy before anything is spent; 403 for what the tenant may not ask."""
        self._ledger(data, user_api_key_dict)
        return data

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> Any:
        """Correct a whole response. None tells LiteLLM that nothing is to be replaced."""
        ledger = self._ledger(data, user_api_key_dict)
        if ledger.settled:
            return None
        wire = rewrite.wire(ledger.route)
        exchanges = wire.exchanges(data, response) if wire else []
        if wire is None or not exchanges:
            self._leave(data, ledger, SkipReason.EMPTY if wire else SkipReason.ENDPOINT)
            return None
        return wire.apply(response, await self._align(data, ledger, exchanges))

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Never correct here: LiteLLM caches what this hook returns under a key that knows no tenant."""

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: AsyncIterable[Any], request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Correct a stream: hold, align, replay. What is skipped beforehand passes item by item."""
        ledger = self._ledger(request_data, user_api_key_dict)
        wire = rewrite.wire(ledger.route)

        if wire is None or ledger.skip or ledger.settled:
            source = self._passed(response, request_data, ledger, commented=wire is not None)
        else:
            source = self._held(wire, ledger, response, request_data)
        async with contextlib.aclosing(source) as items:
            async for item in items:
                yield item

    async def _held(
        self, wire: Wire, ledger: Ledger, response: AsyncIterable[Any], data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """A stream that is aligned; the engine reads along."""

        async def align(exchanges: Sequence[Exchange]) -> Sequence[Outcome]:
            return await self._align(data, ledger, exchanges, ahead.of)

        async with contextlib.aclosing(ReadAhead(self.pipeline, wire, data, ledger.policy)) as ahead:
            held = HeldStream(wire, data, ledger, align, ahead.hear)
            async with contextlib.aclosing(held.play(response)) as items:
                async for item in items:
                    if isinstance(item, bytes):
                        _log_served(data, held.items)
                    yield item

    async def _passed(
        self, response: AsyncIterable[Any], data: dict[str, Any], ledger: Ledger, *, commented: bool
    ) -> AsyncGenerator[Any, None]:
        """A stream that nobody looks at, item by item as it comes."""
        try:
            async for item in response:
                yield item
        finally:
            if not ledger.settled:
                self._leave(data, ledger, SkipReason(ledger.skip or SkipReason.ENDPOINT))
        if commented:
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
            policy = self._resolver.resolve(facts(data, user))
        except ForbiddenError as error:
            raise ProxyException(str(error), "permission_error", "aligner", 403) from None
        finally:
            forget_wishes(data)
        return Ledger(call_id, policy, self._model, route, skip=skipped_by_policy(policy, call_id))

    async def _align(
        self, data: dict[str, Any], ledger: Ledger, exchanges: Sequence[Exchange], read: Read = _unread
    ) -> Sequence[Outcome]:
        """All choices at once; raises `Blocked` where the policy prefers an error to an uncorrected answer."""
        started = time.time()
        outcomes = await asyncio.gather(
            *(telemetry.settle(self.pipeline, e, ledger.policy, read(e.index)) for e in exchanges)
        )
        ledger.settle(outcomes)
        self._report(data, ledger, started)
        failed = next((outcome for outcome in outcomes if outcome.status is Status.FAILED), None)
        if failed is not None and _blocks(ledger.policy):
            raise Blocked(failed.reason)
        return outcomes

    def _leave(self, data: dict[str, Any], ledger: Ledger, reason: SkipReason) -> None:
        ledger.settle([telemetry.closed(ledger.call_id, ledger.policy, Status.SKIPPED, reason.value)])
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
    address = config.engine_at(file)
    engine = HttpEngine(f"unix:{config.default_socket()}" if address == "local" else address)
    cache = CorrectionCache(config.cache_dir(file), file.cache.ttl_s, file.cache.max_mb)
    return Pipeline(engine, cache, remember=file.cache.enabled)


def _blocks(policy: Policy) -> bool:
    """Shadow mode promises the original, whatever becomes of the correction."""
    return policy.on_error is OnError.BLOCK and policy.mode is Mode.ENFORCE


def _config_folder() -> Path:
    """Folder of the LiteLLM YAML, from which relative paths count."""
    from litellm.proxy import proxy_server  # importing it takes seconds; inside the proxy it is there already

    path = proxy_server.user_config_file_path
    return Path(path).resolve().parent if path else Path.cwd()


def _with_pre_call(event_hook: Any) -> Any:
    """LiteLLM calls a guardrail's pre-call hook only in mode pre_call; whoever corrects answers needs both."""
    if event_hook is None or isinstance(event_hook, ModeByTag):
        return event_hook
    wanted = list(event_hook) if isinstance(event_hook, list) else [event_hook]
    names = [GuardrailEventHooks(name).value for name in wanted]
    return [GuardrailEventHooks(name) for name in dict.fromkeys(["pre_call", *names])]


def _find(data: dict[str, Any]) -> Ledger | None:
    """The ledger, if a hook of this request has opened one. JSON from a client can never be a `Ledger`."""
    found = (bucket.get(_LEDGER) for bucket in buckets(data))
    return next((ledger for ledger in found if isinstance(ledger, Ledger)), None)


def _log_served(data: dict[str, Any], items: Sequence[object]) -> None:
    """LiteLLM logs the served text of a stream only if all its items are chunks; our comment is none."""
    details = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
    if isinstance(details, dict):
        record_served_output_texts(details, served_stream_output_texts(items))
