"""READ THIS FIRST. How does one upstream answer become one outcome?

eligible -> cache -> engine -> gate -> outcome. `Pipeline.align` never raises: whatever goes wrong becomes an outcome
with a named reason, and what the client then gets is the policy's `on_error`. It knows no wire format and no HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable
from dataclasses import replace

from aligner_proxy import eligibility, gate
from aligner_proxy.cache import CorrectionCache
from aligner_proxy.engine.protocol import AlignRequest, Engine, Reading
from aligner_proxy.errors import AnswerTooLong, CorrectionError
from aligner_proxy.types import Correction, Exchange, Mode, Outcome, Policy, SkipReason, Status

log = logging.getLogger(__name__)

_SOMETHING = "An answer of which only the beginning is there."


class Pipeline:
    """The hot path. Holds what all requests share; nothing about a request is kept here."""

    def __init__(self, engine: Engine, cache: CorrectionCache | None = None, *, remember: bool = True) -> None:
        self.engine = engine
        self.cache = cache
        self.remember = remember
        """False: nothing is stored, but identical requests in flight still share one correction."""

    async def align(self, exchange: Exchange, policy: Policy, reading: Reading | None = None) -> Outcome:
        """Decide one choice; `reading` is what the engine has read of it ahead. Only `CancelledError` leaves this."""
        started = time.perf_counter()
        try:
            outcome = await self._outcome(exchange, policy, reading)
        except Exception as error:  # noqa: BLE001 - the package's one boundary: a correction must not cost the answer
            outcome = _failed(error, exchange, policy)
        finally:
            if reading is not None:
                await reading.aclose()
        return replace(outcome, ms=(time.perf_counter() - started) * 1000)

    async def read(self, exchange: Exchange, policy: Policy) -> Reading | None:
        """Let the engine read an answer of which `exchange` has the beginning; None where it will not be corrected."""
        if eligibility.check(replace(exchange, answer=_SOMETHING, finish_reason=None), policy) is not None:
            return None
        return await self.engine.read(_request(exchange, "", policy))

    async def _outcome(self, exchange: Exchange, policy: Policy, reading: Reading | None) -> Outcome:
        skip = skipped_by_policy(policy, exchange.call_id) or eligibility.check(exchange, policy)
        if skip is not None or exchange.answer is None:
            reason = skip or SkipReason.EMPTY
            return Outcome(Status.SKIPPED, reason.value, exchange.answer, policy, exchange.index)
        async with asyncio.timeout(policy.deadline_s):
            correction, cache_hit = await self._correct(exchange, exchange.answer, policy, reading)
        return _judge(exchange, exchange.answer, policy, correction, cache_hit)

    async def _correct(
        self, exchange: Exchange, answer: str, policy: Policy, reading: Reading | None
    ) -> tuple[Correction, bool | None]:
        """The correction, and whether the cache had it (None: the cache was not asked)."""
        request, ask = _request(exchange, answer, policy), self.engine.align if reading is None else reading.finish
        if self.cache is None or exchange.no_store:
            return await ask(request), None
        info = await self.engine.info()
        key = self.cache.key(info, policy, exchange)
        if not self.remember:
            return await self.cache.shared(key, lambda: ask(request)), None
        known = await self.cache.get(key)
        if known is not None:
            return known, True
        return await self.cache.shared(key, lambda: self._compute(key, info.content_hash, ask(request))), False

    async def _compute(self, key: str, content_hash: str, asked: Awaitable[Correction]) -> Correction:
        """Ask the engine and store what it says, before the gate.

        The gate is cheap and runs again on every hit, so a changed gate holds at once and needs no new key. A
        correction made by another aligner than the key names (the engine was swapped meanwhile) is not stored.
        """
        correction = await asked
        if self.cache is not None and correction.aligner in ("", content_hash):
            await self.cache.put(key, correction)
        return correction


def skipped_by_policy(policy: Policy, call_id: str) -> SkipReason | None:
    """What is known before there is an answer; a stream that is skipped here is not withheld."""
    if policy.mode is Mode.OFF:
        return SkipReason.MODE_OFF
    if policy.bypass:
        return SkipReason.BYPASS
    if not policy.objectives:
        return SkipReason.NO_OBJECTIVES
    return None if _sampled(call_id, policy.sample) else SkipReason.NOT_SAMPLED


def _sampled(call_id: str, share: float) -> bool:
    """Stable per call: all choices of a request, and every worker that asks, decide alike."""
    draw = int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:8]) / 2**64
    return draw < share


def _request(exchange: Exchange, answer: str, policy: Policy) -> AlignRequest:
    return AlignRequest(
        request_id=f"{exchange.call_id}/{exchange.index}",
        turns=exchange.turns,
        answer=answer,
        objectives=tuple(objective.text for objective in policy.objectives),
        caution=policy.caution,
        verify=policy.verify,
        deadline_s=policy.deadline_s,
    )


def _judge(exchange: Exchange, answer: str, policy: Policy, correction: Correction, cache_hit: bool | None) -> Outcome:
    """Gate the correction and say what it comes to; in shadow mode the reason says what would have been done."""
    refusal = None
    if correction.text != answer:
        refusal = gate.check(answer, correction, policy.objectives)
    blocked = None if refusal is None else f"gate_{refusal.value}"
    changes = correction.text != answer and refusal is None
    status, reason = (Status.CORRECTED, None) if changes else (Status.UNCHANGED, blocked)
    if policy.mode is Mode.SHADOW:
        status, reason = Status.SHADOW, blocked or ("would_correct" if changes else "would_leave")
    text = correction.text if status is Status.CORRECTED else answer
    return Outcome(status, reason, text, policy, exchange.index, cache_hit, correction)


def _failed(error: Exception, exchange: Exchange, policy: Policy) -> Outcome:
    """Name what went wrong. Only the type is logged: messages of foreign exceptions may quote the text."""
    reason = error.reason if isinstance(error, CorrectionError) else _foreign_reason(error)
    status = Status.SKIPPED if isinstance(error, AnswerTooLong) else Status.FAILED
    log.warning("call %s choice %d: %s (%s)", exchange.call_id, exchange.index, reason, type(error).__name__)
    return Outcome(status, reason, exchange.answer, policy, exchange.index)


def _foreign_reason(error: Exception) -> str:
    return "timeout" if isinstance(error, TimeoutError) else "internal_error"
