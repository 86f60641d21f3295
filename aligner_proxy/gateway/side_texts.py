"""Side texts of a response: collects them, and judges them before delivery if the policy says so. A side text is any
text in a response other than its answers; its kind is, for example, reasoning or tool output. A text is released once
it may be delivered.

One rule decides: a response is delivered if every human-readable text in it was judged or is of a kind that the policy
lets pass. Parts of a delivered answer were judged with it, and repeated parts of the request came from the client, so
neither is judged here. Nothing is edited: a text that is flagged, or cannot be judged, is a failure of class `unjudged`
whose reason is its kind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import HTTPException

from aligner_proxy import formats
from aligner_proxy.audit.entry import SIDE_IDS
from aligner_proxy.concurrency import end_tasks
from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.formats import sse
from aligner_proxy.formats.base import corrected_texts, is_storing_forbidden
from aligner_proxy.formats.safe import call_or_raise
from aligner_proxy.formats.side_text import SideText, SideTextReader, remove_prose
from aligner_proxy.formats.think_tags import DividedText, remove_tags
from aligner_proxy.gateway import metrics, upstream_errors
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.litellm_internals import WatchedStream
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.second_copies import ECHOED, echoed_texts
from aligner_proxy.gateway.upstream_errors import UpstreamItems
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.stages.language import WOULD_NOT_JUDGE
from aligner_proxy.types import (
    METAALIGNER,
    Exchange,
    IfNothingRemains,
    IncomingKind,
    Mode,
    OnSkip,
    Outcome,
    Policy,
    SideKind,
    SideTreatment,
    SkipPolicy,
    Status,
)

MakeCorrector = Callable[[RequestState], ChoiceCorrector]
JUDGE_ALL = SkipPolicy(**dict.fromkeys(SkipPolicy.__dataclass_fields__, OnSkip.JUDGE))
"""Judges a text for whatever reason an answer would be skipped, since an unjudged side text counts as a failure."""
_SEPARATOR = "\n\n"
"""Separates the texts of one kind, which are judged together."""
_JUDGED = "_aligner_judged"
"""Name of the attribute that marks an error whose text has been judged."""
_JUDGED_TREATMENTS = (SideTreatment.JUDGE, SideTreatment.CORRECT)
"""Treatments of which flagged text is a failure; corrected text was judged before it comes here."""
DROPPED = (SideKind.TOOL_OUTPUT, SideKind.TRANSCRIPTS)
"""Kinds whose strings are emptied in place; reasoning is removed with its enclosing objects (reasoning.py)."""


def blocks_kind(policy: Policy, kind: SideKind) -> bool:
    """Whether the client gets an error if a side text of this kind is not judged."""
    return outcomes.blocks(Outcome(Status.FAILED, kind.value, None, policy))


def scoring_state(state: RequestState, kind: SideKind | IncomingKind) -> RequestState:
    """A copy of a request's state under which texts of one kind are only scored, with a record of their own.

    The aligner's detector head scores the texts, and the policy's judge may be asked. Texts of the request are scored
    by the head alone, because clients decide how many there are.
    """
    scored_state = correcting_state(state, kind)
    scored_state.policy = replace(
        scored_state.policy, mode=Mode.SHADOW, score_only=True, corrector=METAALIGNER, plugin_rules=()
    )
    if isinstance(kind, IncomingKind):
        scored_state.policy = scored_state.policy.drop_judges()
    return scored_state


def correcting_state(state: RequestState, kind: SideKind | IncomingKind) -> RequestState:
    """A copy of a request's state under which texts of one kind are corrected, with a record of their own.

    None of the texts is skipped, whatever the policy says about skipped answers.
    """
    kind_name = kind.value
    policy = replace(
        state.policy,
        name=f"{state.policy.name}/{kind_name}",
        shadow_aligner=None,
        hand_off=None,
        if_nothing_remains=IfNothingRemains.ORIGINAL,
        extensions=(),
        on_skip=JUDGE_ALL,
    )
    # Audit entries of these texts must not be taken for the answer's entries, which have the same choice numbers.
    arrival = replace(
        state.arrival,
        route=f"{state.arrival.route}#{kind_name}",
        aligner_id=f"{state.arrival.aligner_id}{SIDE_IDS[kind]}",
    )
    return replace(state, policy=policy, arrival=arrival, outcomes=[], reasoning=[])


def make_side_exchange(empty_exchange: Exchange, index: int, text: str, *, no_store: bool) -> Exchange:
    """An exchange in which a side text is the answer, so that it is judged like one; with `no_store`, it is not cached.

    `empty_exchange` has the request's conversation and no answer; `index` is the number that the text gets.
    """
    return replace(
        empty_exchange,
        index=index,
        answer=text,
        finish_reason="stop",
        structured=False,  # only the answer has the form that the request asks for
        constrained=False,
        json_schema=None,
        no_store=empty_exchange.no_store or no_store,
        inner=True,
    )


class _KindTreatments:
    """A policy's treatment of each kind; created once for each policy, since it is used for every item of a stream."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        treatments = {kind: policy.side_treatment(kind) for kind in SideKind}
        self.dropped = frozenset(kind for kind in DROPPED if treatments[kind] is SideTreatment.DROP)
        checked_treatments = (*_JUDGED_TREATMENTS, SideTreatment.BLOCK)
        checked = frozenset(kind for kind, treatment in treatments.items() if treatment in checked_treatments)
        self.blocking = frozenset(kind for kind in checked if blocks_kind(policy, kind))
        """Kinds that may block the answer, which therefore waits for them."""
        # Reasoning that cannot block the answer is scored in reasoning.py for the record.
        self.checked = self.blocking | (checked - {SideKind.REASONING})
        """Kinds that are judged here or block the answer."""


async def withhold_error(state: RequestState, side: SideTexts | None, error: Exception) -> HTTPException | None:
    """Withhold the message of an upstream's error if it quotes an answer, or if the policy would block its text.

    `side` judges the message; None if the policy lets side texts pass. Returns the error to raise instead if the
    message cannot be removed in place, else None.
    """
    if state.is_enforced and upstream_errors.quotes_answer(error):
        return upstream_errors.withhold_message(error)
    return await side.withhold_flagged_error(error) if side is not None else None


@dataclass(frozen=True, slots=True)
class SideTextJudge:
    """Scores side texts of one response, as answers to its request."""

    data: Mapping[str, Any]
    state: RequestState
    empty_exchange: Exchange
    """The request's conversation, with no answer yet."""
    make_corrector: MakeCorrector
    source: object = None
    """The response or stream, with which LiteLLM stores the upstream's headers."""

    async def score(self, kind: SideKind, text: str) -> Outcome:
        """The outcome of a side text of this kind, scored as an answer."""
        corrector = self.make_corrector(scoring_state(self.state, kind))
        is_unstored = is_storing_forbidden(self.data, self.source)
        return await corrector.correct_one(make_side_exchange(self.empty_exchange, 0, text, no_store=is_unstored))


class SideTexts:
    """Side texts of one response: `read` collects them; `judge_pending` raises `Blocked` if one blocks the answer."""

    def __init__(self, judge: SideTextJudge, *, streamed: bool = False) -> None:
        self._judge = judge
        self._state = judge.state
        self._reader = SideTextReader(streamed=streamed)
        self._streamed = streamed
        self._kinds = _KindTreatments(judge.state.policy)
        """Treatments under the policy that was in use last; read by `_current_kinds`."""
        self._body: object = None
        self._tagged_reasoning: Sequence[str] = ()
        """The reasoning in tags that precedes each answer of a whole response in the same text."""
        self._grown_kinds: set[SideKind] = set()
        """Kinds to which the last value added text."""
        self.ending_kind: SideKind | None = None
        """The kind that blocked the answer; None if none did."""
        self._cleared_texts: list[str] = []
        """Side texts that were judged and not flagged."""
        self._echoes: dict[str, frozenset[str]] = {}
        """The strings of request fields that a response may repeat, by field name, as far as they were needed."""
        self._unjudgeable_kinds: set[SideKind] = set()
        """Kinds of which `note_unjudged` reported a text that cannot be judged."""

    @classmethod
    def open(
        cls,
        data: Mapping[str, Any],
        state: RequestState,
        make_corrector: MakeCorrector,
        *,
        source: object = None,
        streamed: bool = False,
    ) -> SideTexts | None:
        """Return a collector of the side texts of `source`; None if all kinds pass or the request is not judged."""
        policy = state.policy
        wire = formats.wire(state.arrival.route)
        if wire is None or state.skip or policy.mode is not Mode.ENFORCE:
            return None
        kinds = _KindTreatments(policy)
        if not (kinds.dropped or kinds.checked):
            return None
        judge = SideTextJudge(data, state, wire.first_exchange(data), make_corrector, source)
        return cls(judge, streamed=streamed)

    def reopen(self) -> SideTexts:
        """A new collector for the same stream, which is read again from its beginning."""
        reopened = SideTexts(self._judge, streamed=self._streamed)
        # Shared, since the stream's tool calls, whose texts are noted here, are not read a second time.
        reopened._cleared_texts = self._cleared_texts
        reopened._unjudgeable_kinds = self._unjudgeable_kinds
        return reopened

    def note_judged_texts(self, texts: Iterable[str]) -> None:
        """Note texts that were judged elsewhere and may be delivered, so that they are not judged here."""
        self._cleared_texts += texts

    def note_unjudged(self, kind: SideKind) -> None:
        """Note that a text of this kind cannot be judged; `judge_pending` then blocks the answer if that matters."""
        self._unjudgeable_kinds.add(kind)

    def read(self, value: object, answer_texts: Sequence[str] = (), divided_texts: Iterable[DividedText] = ()) -> None:
        """Collect the side texts of `value`, a body or an event of a stream.

        `answer_texts` belong to the answer and are skipped. `divided_texts` are strings whose beginning is reasoning
        and whose rest is answer. Raises `Blocked` if the value cannot be read and the policy prefers an error.
        """
        self._body = value
        try:
            self._grown_kinds = call_or_raise(Unreadable, self._reader.read, value, answer_texts, divided_texts)
        except Unreadable:
            self.raise_if_blocked(SideKind.OTHER_TEXT)

    @contextlib.asynccontextmanager
    async def judge_alongside(self, response: Any, exchanges: Sequence[Exchange]) -> AsyncIterator[Any]:
        """Context manager that yields a whole response without dropped kinds, and judges its other texts meanwhile."""
        remaining = self.drop_kinds(response)
        answers = [exchange.answer or "" for exchange in exchanges]
        self._tagged_reasoning = [exchange.tagged_reasoning for exchange in exchanges]
        self.read(remaining, divided_texts=self._divide_texts(answers))
        judgement = asyncio.create_task(self.judge_pending(answers, final=False))
        try:
            yield remaining
            await self._finish_judging(judgement)
        finally:
            await end_tasks(judgement)

    async def _finish_judging(self, judgement: asyncio.Task[None]) -> None:
        """Wait for the judgement that ran during a correction; raises `Blocked` if a text may not be delivered."""
        try:
            await judgement
        except Blocked as error:
            # The answer may have been recorded as delivered meanwhile, so its outcomes are set again.
            self._state.fail_all(str(error.reason))
            raise

    async def judge_body(self, body: Any, delivered_answers: Sequence[str]) -> None:
        """Judge the side texts of a body before delivery; raises `Blocked` if one may not be delivered."""
        if body is not self._body:  # the correction made another body
            self._reader = SideTextReader(streamed=self._streamed)
            self.read(body, divided_texts=self._divide_texts(delivered_answers))
        await self.judge_pending(delivered_answers)

    def _divide_texts(self, answers: Sequence[str]) -> list[DividedText]:
        """The texts of a whole response that begin with reasoning in tags, each with its answer from `answers`."""
        divided_texts = []
        for tagged_reasoning, answer in zip(self._tagged_reasoning, answers, strict=True):
            if tagged_reasoning:
                divided_texts.append(DividedText(tagged_reasoning, remove_tags(tagged_reasoning), answer))
        return divided_texts

    @property
    def has_pending(self) -> bool:
        """Whether a text was read that may block the answer and was not judged yet."""
        blocking = self._current_kinds().blocking
        if not blocking.isdisjoint(self._unjudgeable_kinds):
            return True
        return any(text.kind in blocking for text in self._reader.pending_texts())

    @property
    def is_growing(self) -> bool:
        """Whether the last value added to a text that may block the answer, however short that text is so far."""
        # "Other text" does not count, since it includes ids and similar values.
        grown_kinds = self._grown_kinds - {SideKind.OTHER_TEXT}
        return not self._current_kinds().blocking.isdisjoint(grown_kinds)

    async def judge_pending(
        self, delivered_answers: Iterable[str], *, final: bool = True, ended_only: bool = False
    ) -> None:
        """Judge the side texts that were read; raises `Blocked` if one of them may not be delivered.

        Text that repeats one of `delivered_answers` is not judged. If `final` is False, these answers may still change,
        so a later call compares the same texts again. With `ended_only`, only kinds are judged to which the last event
        added nothing.
        """
        if ended_only:
            self.release_echoes()
        while self._unjudgeable_kinds:
            self.raise_if_blocked(self._unjudgeable_kinds.pop())
        texts = self._undecided_texts()
        if ended_only:
            texts = [text for text in texts if text.kind not in self._grown_kinds]
        covering_texts = (*delivered_answers, *self._cleared_texts)
        uncovered_by_kind: dict[SideKind, list[str]] = {}
        for text in texts:
            uncovered_text = self._uncovered_text(text, covering_texts)
            if uncovered_text:
                uncovered_by_kind.setdefault(text.kind, []).append(uncovered_text)
        # One judgement per kind, however many fields an upstream fills.
        for kind, uncovered_texts in uncovered_by_kind.items():
            different_texts = dict.fromkeys(uncovered_texts)
            await self._judge_text(kind, _SEPARATOR.join(different_texts))
            # A later text that repeats one of these texts is not judged again.
            self._cleared_texts += uncovered_texts
        for text in texts:
            text.is_released = final

    def release_echoes(self) -> None:
        """Let texts pass that repeat a string of the request's own field of the same name, such as `instructions`."""
        for text in self._undecided_texts():
            field_names = [name for name in ECHOED if name in text.path and len(text.pieces) == 1]
            text.is_released = any(text.pieces[0] in self._request_strings(name) for name in field_names)

    def _uncovered_text(self, text: SideText, covering_texts: Sequence[str]) -> str:
        """The part of a text that has to be judged; empty if there is none.

        This part occurs neither in `covering_texts` nor in a field of the request that the response repeats.
        """
        if not self._state.policy.objectives:  # nothing can be flagged
            return ""
        # Tried first without the request's strings, which are expensive to collect.
        if not self._reader.uncovered_text(text, covering_texts):
            return ""
        request_strings = [string for name in ECHOED if name in text.path for string in self._request_strings(name)]
        return self._reader.uncovered_text(text, (*covering_texts, *request_strings))

    async def withhold_flagged_error(self, error: Exception) -> HTTPException | None:
        """Judge the text of an upstream's error, and remove it from the error if the policy would block such a text.

        Returns the error to raise instead if the text cannot be removed, else None. An error is judged only once.
        """
        if not upstream_errors.is_from_upstream(error) or getattr(error, _JUDGED, False):
            return None
        setattr(error, _JUDGED, True)
        self._reader = SideTextReader(streamed=False)  # an error is judged by itself, without the stream before it
        self.read({"error": {"message": str(error)}})
        try:
            await self.judge_pending(())
        except Blocked:
            return upstream_errors.withhold_message(error)
        return None

    def drop_kinds(self, value: Any) -> Any:
        """A body or event without the kinds that the policy drops; the same object if it has none.

        If they cannot be dropped, the same object is returned or, if the policy prefers an error, `Blocked` is raised.
        """
        dropped_kinds = self._current_kinds().dropped
        if not dropped_kinds:
            return value
        try:
            return call_or_raise(NotPutIn, remove_prose, value, dropped_kinds)
        except NotPutIn:
            self._raise_if_any_blocked(dropped_kinds)
            return value

    def drop_from_stream(self, source: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """A stream without the kinds that the policy drops."""
        if not self._current_kinds().dropped:
            return source
        return WatchedStream(self._drop_items(source), source)

    async def _drop_items(self, source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        """Yield the items of a stream without dropped kinds; bytes are split into events.

        If bytes cannot be split, the remaining items pass unchanged or, if the policy prefers an error, `Blocked` is
        raised.
        """
        splitter = sse.FrameSplitter()
        upstream = UpstreamItems(source)
        is_unreadable = False
        async for item in upstream:
            if is_unreadable:
                yield item
                continue
            if not isinstance(item, bytes | str):
                yield self.drop_kinds(item)
                continue
            try:
                frames = splitter.feed(item)
            except Unreadable:
                is_unreadable = True
                self._raise_if_any_blocked(self._current_kinds().dropped)
                frames = [*splitter.flush(), sse.EventFrame(item, None)]
            for frame in frames:
                yield self._drop_from_frame(frame)
        for frame in splitter.flush():
            yield self._drop_from_frame(frame)
        upstream.raise_error()

    def _drop_from_frame(self, frame: sse.EventFrame) -> object:
        """An event without dropped kinds, as bytes; unchanged if it holds no JSON object."""
        if frame.event is None:
            return frame.item
        return frame.with_event(self.drop_kinds(frame.event))

    def _current_kinds(self) -> _KindTreatments:
        """The treatment of each kind, updated if the policy has changed because another model answers."""
        if self._kinds.policy is not self._state.policy:
            self._kinds = _KindTreatments(self._state.policy)
        return self._kinds

    def _undecided_texts(self) -> list[SideText]:
        """The texts that were read, concern the policy and are not released for delivery."""
        checked = self._current_kinds().checked
        return [text for text in self._reader.pending_texts() if text.kind in checked]

    def _request_strings(self, name: str) -> frozenset[str]:
        """The strings of a field of the request, which are read once."""
        if name not in self._echoes:
            self._echoes[name] = frozenset(echoed_texts(self._judge.data, [name]))
        return self._echoes[name]

    async def _judge_text(self, kind: SideKind, text: str) -> None:
        """Score a text; raises `Blocked` if it is flagged or cannot be judged and the policy then prefers an error."""
        state = self._state
        if state.policy.side_treatment(kind) not in _JUDGED_TREATMENTS:  # any text of a blocked kind is an error
            self.raise_if_blocked(kind)
            return
        outcome = await self._judge.score(kind, text)
        if kind is SideKind.REASONING:
            state.reasoning = [*state.reasoning, outcome]
        if not is_clean(outcome, state.policy):
            self.raise_if_blocked(kind)

    def raise_if_blocked(self, kind: SideKind) -> None:
        """Raise `Blocked`, and record it, if the policy prefers an error to an answer with a text of this kind."""
        if blocks_kind(self._state.policy, kind):
            self.ending_kind = kind
            metrics.record_side_text_refusal(self._state, kind)
            raise Blocked(kind.value)

    def _raise_if_any_blocked(self, kinds: Iterable[SideKind]) -> None:
        for kind in kinds:
            self.raise_if_blocked(kind)

    def raise_if_pending(self) -> None:
        """Raise `Blocked` if texts that block the answer were not judged in time."""
        for text in self._undecided_texts():
            self.raise_if_blocked(text.kind)


def delivered_texts(exchanges: Sequence[Exchange], outcomes: Sequence[Outcome], *, changed: bool) -> list[str]:
    """The answers as delivered: all originals or, if `changed`, the corrected texts where there are any."""
    texts = {exchange.index: exchange.answer or "" for exchange in exchanges}
    if changed:
        texts |= corrected_texts(outcomes)
    return list(texts.values())


def is_clean(outcome: Outcome, policy: Policy) -> bool:
    """Whether a text was judged and not flagged; an unsupported language is fine if `on_skip.language` lets it pass."""
    if outcome.correction is None or outcome.flagged_count:
        return False
    return outcome.reason != WOULD_NOT_JUDGE or policy.on_skip.language is OnSkip.PASSTHROUGH
