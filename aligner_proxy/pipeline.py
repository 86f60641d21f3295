"""READ THIS FIRST. How does one upstream answer become one outcome?

eligible -> cache -> engine -> gate -> outcome, and again where the policy says `retry`; of several drafts the best
stays (drafting.py); a request with preferences goes through cache, engine and gate for them first (preferring.py).
`Pipeline.align` never raises: whatever goes wrong becomes an outcome with a named reason, and what the client then gets
is the policy's `on_error` for that class of failure (failures.py). It knows no wire format and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aligner_proxy import drafting, eligibility, failures, preferences, preferring, structured, weighing
from aligner_proxy.account import account
from aligner_proxy.cache import CorrectionCache
from aligner_proxy.correctors import MISSING, Correctors, Revising
from aligner_proxy.engine.protocol import AlignRequest, Engine, Reading, Unread
from aligner_proxy.errors import AnswerTooLong, CorrectionError, QuotaSpent, Unreadable
from aligner_proxy.gate import Verdict, aside
from aligner_proxy.plugged_rules import PluggedRules
from aligner_proxy.preferences.checks import adherence
from aligner_proxy.stages import stage
from aligner_proxy.types import METAALIGNER, Correction, Exchange, Mode, Outcome, Policy, SkipReason, Status, StreamMode

log = logging.getLogger(__name__)

# What the engine's answer may need for its way back: its own word on a deadline should arrive before ours ends it.
_WAY_BACK_S, _WAY_BACK_SHARE = 0.05, 0.05

_SOMETHING = "Begun."
Ask = Callable[[AlignRequest], Coroutine[Any, Any, Correction]]


class Pipeline:
    """The hot path. Holds what all requests share; nothing about a request is kept here."""

    def __init__(
        self,
        engine: Engine,
        cache: CorrectionCache | None = None,
        *,
        remember: bool = True,
        correctors: Correctors | None = None,
        rules: PluggedRules | None = None,
    ) -> None:
        self.engine = engine
        self.correctors: Correctors = {**(correctors or {}), METAALIGNER: engine}
        self.rules = rules or PluggedRules({})
        self.cache = cache
        self.remember = remember
        """False: nothing is stored, but identical requests in flight still share one correction."""

    async def align(self, exchange: Exchange, policy: Policy, reading: Reading | None = None) -> Outcome:
        """Decide one choice; `reading` is what the engine has read of it ahead. Only `CancelledError` leaves this."""
        started = time.perf_counter()
        policy = await self.weighed(exchange, policy)
        budget = failures.Budget(policy)
        try:
            outcome = await self._tried(exchange, budget, reading)
        finally:
            if reading is not None:
                await reading.aclose()
        took = (time.perf_counter() - started) * 1000
        return failures.closed(replace(outcome, ms=took, attempts=budget.made))

    async def read(self, exchange: Exchange, policy: Policy) -> Reading | None:
        """Let the engine read an answer of which `exchange` has the beginning; None where it will not be corrected."""
        policy = await self.weighed(exchange, policy)
        if eligibility.check(replace(exchange, answer=_SOMETHING, finish_reason=None), policy) is not None:
            return None
        if policy.corrector != METAALIGNER and not (policy.stream is StreamMode.SENTENCE and self.piecewise(policy)):
            return Unread(self.engine_of(policy))  # holds no place while the upstream writes
        until, policy = time.monotonic() + policy.deadline_s, preferring.asked(policy)
        if not policy.objectives:
            return None
        engine = self.engine_of(policy)
        return await engine.read(_Asking(exchange, "", policy, until, engine.align).request())

    def piecewise(self, policy: Policy) -> bool:
        """Whether an answer can be judged while it is written; otherwise as a whole, as whoever chooses drafts does."""
        along = policy.corrector == METAALIGNER or isinstance(self.engine_of(policy), Revising)
        return along and not policy.plugin_rules and policy.drafts == 1

    async def weighed(self, exchange: Exchange, policy: Policy) -> Policy:
        """The policy with its objectives weighed for this conversation, where it wants that and nobody did it yet."""
        return await weighing.weighed(self.engine, policy, exchange.turns, exchange.call_id)

    def engine_of(self, policy: Policy) -> Engine:
        """Who corrects under this policy."""
        return self.correctors.get(policy.corrector, MISSING)

    async def _tried(self, exchange: Exchange, budget: failures.Budget, reading: Reading | None) -> Outcome:
        """Try until an outcome stands. What was read ahead is good for one try; later ones send the whole answer."""
        whole = self.engine_of(budget.policy).align
        ask = whole if reading is None else reading.finish
        while True:
            outcome, error = await self._try(exchange, budget, ask)
            pause = budget.again(outcome, error)
            if pause is None:
                return outcome
            await asyncio.sleep(pause)
            ask = whole

    async def _try(self, exchange: Exchange, budget: failures.Budget, ask: Ask) -> tuple[Outcome, Exception | None]:
        """One try: what came of it, and the error that kept it from its end."""
        try:
            return await self._outcome(exchange, budget, ask), None
        except Exception as error:  # noqa: BLE001 - the package's one boundary: a correction must not cost the answer
            return failed(error, exchange, budget.policy), error

    async def _outcome(self, exchange: Exchange, budget: failures.Budget, ask: Ask) -> Outcome:
        policy = budget.policy
        skip = eligibility.by_policy(policy)
        if skip is None and exchange.fault is not None:
            raise Unreadable(exchange.fault)
        skip = skip or eligibility.check(exchange, policy)
        if skip is not None or exchange.answer is None:
            reason = skip or SkipReason.EMPTY
            return Outcome(Status.SKIPPED, reason.value, exchange.answer, policy, exchange.index)
        seconds = budget.begin()
        asking = _Asking(exchange, exchange.answer, budget.asked, time.monotonic() + seconds, ask)
        async with asyncio.timeout(seconds):
            if eligibility.is_structured(exchange):
                one = partial(self._align_part, asking)
                return await structured.align(exchange, exchange.answer, policy, one)
            return await self._align_text(asking, policy)

    async def _align_part(self, asking: _Asking, text: str, policy: Policy) -> Outcome:
        """The outcome of one text in a JSON answer. What was read ahead was read as a whole, and is of no use here."""
        exchange = replace(asking.exchange, answer=text, inner=True)
        ask = self.engine_of(policy).align
        return await self._align_text(replace(asking, exchange=exchange, answer=text, ask=ask), policy)

    async def _align_text(self, asking: _Asking, policy: Policy) -> Outcome:
        """The outcome of one text, which is the answer or stands in it."""
        if preferences.wishes(policy):
            met = await preferring.prefer(asking.answer, policy, partial(self._correct_for, asking), self._verdict)
            return _judged(asking.exchange, asking.answer, policy, met.correction, met.cache_hit, met.verdict)
        correction, cache_hit = await self._correct(asking)
        verdict = await self._verdict(asking.answer, correction, policy)
        return _judged(asking.exchange, asking.answer, policy, correction, cache_hit, verdict)

    async def _verdict(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's word, and that of plugins' rules where the policy names some."""
        with stage("gate"):
            judge = self.rules.judge if policy.plugin_rules else aside.judge
            return await judge(text, correction, policy)

    async def _correct_for(self, asking: _Asking, text: str, policy: Policy) -> tuple[Correction, bool | None]:
        """The correction of `text` for some of the objectives; what was read ahead was read for the operator's."""
        read_ahead = text == asking.answer and policy.objectives == preferring.asked(asking.policy).objectives
        ask = asking.ask if read_ahead else self.engine_of(asking.policy).align
        exchange = replace(asking.exchange, answer=text)
        part = replace(asking.policy, objectives=policy.objectives)
        return await self._correct(replace(asking, exchange=exchange, answer=text, policy=part, ask=ask))

    async def _correct(self, asking: _Asking) -> tuple[Correction, bool | None]:
        """The correction, of several drafts the best, and whether the cache had it (None: the cache was not asked)."""
        if asking.policy.drafts == 1 or not await self._reads(asking.policy):
            return await self._draft(asking)
        ask, judge = partial(self._draft_of, asking), self._verdict
        return await drafting.best(asking.answer, asking.policy, asking.until, ask, judge)

    async def _reads(self, policy: Policy) -> bool:
        """Whether there is a detector head by which drafts can be told apart."""
        try:
            return (await self.engine.info()).named(policy.aligner).has_head
        except CorrectionError:
            return False

    async def _draft_of(self, asking: _Asking, text: str, policy: Policy) -> tuple[Correction, bool | None]:
        """One draft, or one reading of a draft; what was read ahead is for the first of them."""
        first = text == asking.answer and policy.draft == 0 and policy.corrector == asking.policy.corrector
        unmoved = policy.caution == asking.policy.caution
        ask = asking.ask if first and unmoved else self.engine_of(policy).align
        exchange = replace(asking.exchange, answer=text)
        return await self._draft(replace(asking, exchange=exchange, answer=text, policy=policy, ask=ask))

    async def _draft(self, asking: _Asking) -> tuple[Correction, bool | None]:
        """One correction, and whether the cache had it."""
        if self.cache is None or asking.exchange.no_store:
            return await asking.correction(), None
        info = await self.engine_of(asking.policy).info()
        if asking.policy.corrector == METAALIGNER:
            info = info.named(asking.policy.aligner)
        key = self.cache.key(info, asking.policy, asking.exchange)
        if not self.remember:
            return await self.cache.shared(key, asking.correction), None
        known = await self.cache.get(key)
        if known is not None:
            return known, True
        return await self.cache.shared(key, lambda: self._compute(key, info.content_hash, asking)), False

    async def _compute(self, key: str, content_hash: str, asking: _Asking) -> Correction:
        """Ask the engine and store what it says, before the gate.

        The gate is cheap and runs again on every hit, so a changed gate holds at once and needs no new key. A
        correction made by another aligner than the key names (the engine was swapped meanwhile) is not stored.
        """
        correction = await asking.correction()
        if self.cache is not None and correction.aligner in ("", content_hash):
            await self.cache.put(key, correction)
        return correction


@dataclass(frozen=True, slots=True)
class _Asking:
    """One try at one choice: what is asked for, and until when."""

    exchange: Exchange
    answer: str
    policy: Policy
    until: float
    ask: Ask

    async def correction(self) -> Correction:
        """What the engine says."""
        return await self.ask(self.request())

    def request(self) -> AlignRequest:
        """As it is sent now, with the time that is left now; the tenant travels as a digest."""
        left = max(0.001, self.until - time.monotonic())
        tenant, quota = account(self.policy)
        return AlignRequest(
            request_id=f"{self.exchange.call_id}/{self.exchange.index}",
            turns=self.exchange.turns,
            answer=self.answer,
            objectives=tuple(objective.text for objective in self.policy.objectives),
            caution=self.policy.caution,
            verify=self.policy.verify,
            aligner=self.policy.aligner,
            deadline_s=left - min(_WAY_BACK_S, left * _WAY_BACK_SHARE),
            tenant=tenant,
            quota=quota,
            draft=self.policy.draft,
            open_ended=not self.exchange.inner,
        )


def _judged(
    exchange: Exchange,
    answer: str,
    policy: Policy,
    correction: Correction,
    cache_hit: bool | None,
    verdict: Verdict,
) -> Outcome:
    """What a correction comes to; in shadow mode the reason says what would have been done."""
    changes, reason = verdict.text != answer, verdict.reason
    status = Status.CORRECTED if changes else Status.UNCHANGED
    if policy.mode is Mode.SHADOW:
        status, reason = Status.SHADOW, reason or ("would_correct" if changes else "would_leave")
    text = verdict.text if status is Status.CORRECTED else answer
    made = Outcome(status, reason, text, policy, exchange.index, cache_hit, correction)
    found = adherence(preferences.wishes(policy), answer, verdict.text)
    return replace(made, edited=verdict.text, edits=verdict.edits, dropped=verdict.dropped, adherence=found)


def failed(error: Exception, exchange: Exchange, policy: Policy) -> Outcome:
    """Name what went wrong. Only the type is logged: messages of foreign exceptions may quote the text."""
    reason = failures.reason_of(error)
    status = Status.SKIPPED if isinstance(error, AnswerTooLong | QuotaSpent) else Status.FAILED
    log.warning("call %s choice %d: %s (%s)", exchange.call_id, exchange.index, reason, type(error).__name__)
    return Outcome(status, reason, exchange.answer, policy, exchange.index)
