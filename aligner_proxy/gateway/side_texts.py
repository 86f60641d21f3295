"""Side texts of a response: collects them, and judges them before delivery if the policy says so.

A side text is any text in a response other than its answers, such as reasoning or tool output. One rule decides: a
response is delivered if every human-readable text in it was judged or is of a kind that the policy lets pass. Parts of
a delivered answer were judged with it, and repeated parts of the request came from the client, so neither is judged
here. Nothing is edited: a text that is flagged, or cannot be judged, is a failure of class `unjudged` whose reason is
its kind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
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

CorrectorOf = Callable[[RequestState], ChoiceCorrector]
"""Creates the corrector for a request with this state."""
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
    """The state for scoring texts of one kind: nothing is edited, and the result gets its own record.

    The aligner's detector head scores them and the policy's judge may be asked. Texts of the request are scored by the
    head alone, because clients decide how many there are.
    """
    scored_state = correcting_state(state, kind)
    scored_state.policy = replace(
        scored_state.policy,
        mode=Mode.SHADOW,
        score_only=True,
        corrector=METAALIGNER,
        plugin_rules=(),
    )
    if isinstance(kind, IncomingKind):
        scored_state.policy = scored_state.policy.drop_judges()
    return scored_state


def correcting_state(state: RequestState, kind: SideKind | IncomingKind) -> RequestState:
    """The state for correcting texts of one kind, which are judged in any form, and get their own record."""
    name = kind.value
    policy = replace(
        state.policy,
        name=f"{state.policy.name}/{name}",
        shadow_aligner=None,
        hand_off=None,
        if_nothing_remains=IfNothingRemains.ORIGINAL,
        extensions=(),
        on_skip=JUDGE_ALL,
    )
    arrival = state.arrival
    # Entries of these texts must not be taken for the answer's entries, which have the same choice numbers.
    return replace(
        state,
        policy=policy,
        arrival=replace(arrival, route=f"{arrival.route}#{name}", aligner_id=f"{arrival.aligner_id}{SIDE_IDS[kind]}"),
        outcomes=[],
        reasoning=[],
    )


def make_side_exchange(opening: Exchange, index: int, text: str, *, no_store: bool) -> Exchange:
    """An exchange with a side text as an answer to the same conversation; with `no_store`, it is not cached."""
    return replace(
        opening,
        index=index,
        answer=text,
        finish_reason="stop",
        structured=False,  # the form that the request asks for is that of the answer
        constrained=False,
        json_schema=None,
        no_store=opening.no_store or no_store,
        inner=True,
    )


class _KindTreatments:
    """A policy's treatment of each kind; created once for each policy, since it is used for every item of a stream."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        treatments = {kind: policy.side_treatment(kind) for kind in SideKind}
        self.dropped = frozenset(kind for kind in DROPPED if treatments[kind] is SideTreatment.DROP)
        """Kinds that are removed."""
        checked_treatments = (*_JUDGED_TREATMENTS, SideTreatment.BLOCK)
        checked = frozenset(kind for kind, treatment in treatments.items() if treatment in checked_treatments)
        self.blocking = frozenset(kind for kind in checked if blocks_kind(policy, kind))
        """Kinds that may block the answer, which therefore waits for them."""
        # Reasoning that cannot block the answer is scored in reasoning.py for the record.
        self.checked = self.blocking | (checked - {SideKind.REASONING})
        """Kinds that are judged here or block the answer."""


async def withhold_error(state: RequestState, side: SideTexts | None, error: Exception) -> HTTPException | None:
    """Withhold the message of an upstream's error if it quotes an answer, or says what may not be delivered.

    Returns the error to raise instead if the message cannot be removed.
    """
    if state.is_enforced and upstream_errors.quotes_answer(error):
        return upstream_errors.withhold_message(error)
    return await side.withhold_flagged_error(error) if side is not None else None


@dataclass(frozen=True, slots=True)
class SideTextJudge:
    """Scores side texts of one response, as answers to its request."""

    data: Mapping[str, Any]
    state: RequestState
    opening: Exchange
    """The conversation to which they are answers."""
    corrector_of: CorrectorOf
    source: object = None
    """The response or stream, with which LiteLLM stores the upstream's headers."""

    async def score(self, kind: SideKind, text: str) -> Outcome:
        """The outcome of a side text of this kind, scored as an answer."""
        corrector = self.corrector_of(scoring_state(self.state, kind))
        is_unstored = is_storing_forbidden(self.data, self.source)
        return await corrector.correct_one(make_side_exchange(self.opening, 0, text, no_store=is_unstored))


class SideTexts:
    """Side texts of one response: `read` collects them; `judge_pending` raises `Blocked` if one blocks the answer."""

    def __init__(self, judge: SideTextJudge, *, streamed: bool = False) -> None:
        self._judge = judge
        self._state = judge.state
        self._reader = SideTextReader(streamed=streamed)
        """Holds the side texts that were read."""
        self._streamed = streamed
        self._kinds = _KindTreatments(judge.state.policy)
        """Treatments under the policy that was in use last; read by `_current_kinds`."""
        self._body: object = None
        """The body that was last read."""
        self._tagged_reasoning: Sequence[str] = ()
        """The reasoning in tags that precedes each answer of a whole response in the same text."""
        self._grown_kinds: set[SideKind] = set()
        """Kinds to which the last value added text."""
        self.ending_kind: SideKind | None = None
        """The kind that blocked the answer; None if none did."""
        self._cleared_texts: list[str] = []
        """Side texts that were judged and not flagged."""
        self._echoes: dict[str, frozenset[str]] = {}
        """The strings of the request's own fields, by field name, as far as they were needed."""
        self._unjudgeable_kinds: set[SideKind] = set()
        """Kinds of which `note_unjudged` reported a text that cannot be judged."""

    @classmethod
    def open(
        cls,
        data: Mapping[str, Any],
        state: RequestState,
        corrector_of: CorrectorOf,
        *,
        source: object = None,
        streamed: bool = False,
    ) -> SideTexts | None:
        """Create the collector for a request; None if its policy lets every kind pass or the request is not judged."""
        policy = state.policy
        wire = formats.wire(state.arrival.route)
        if wire is None or state.skip or policy.mode is not Mode.ENFORCE:
            return None
        kinds = _KindTreatments(policy)
        if not (kinds.dropped or kinds.checked):
            return None
        judge = SideTextJudge(data, state, wire.first_exchange(data), corrector_of, source)
        return cls(judge, streamed=streamed)

    def reopen(self) -> SideTexts:
        """A new collector for the same stream, to be read again from its beginning."""
        reopened = SideTexts(self._judge, streamed=self._streamed)
        # shared, since what was noted here of the stream's calls holds for it, too
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
        """Read a body or event.

        `answer_texts` belong to the answer and are skipped. Of strings that are `divided_texts` the beginning is
        reasoning. Raises `Blocked` if the value cannot be read and the policy prefers an error.
        """
        self._body = value
        try:
            self._grown_kinds = call_or_raise(Unreadable, self._reader.read, value, answer_texts, divided_texts)
        except Unreadable:
            self.raise_if_blocked(SideKind.OTHER_TEXT)

    @contextlib.asynccontextmanager
    async def judge_alongside(self, response: Any, exchanges: Sequence[Exchange]) -> AsyncIterator[Any]:
        """Context manager that yields a whole response without dropped kinds, and judges its side texts meanwhile."""
        remaining = self.drop_kinds(response)
        answers = [exchange.answer or "" for exchange in exchanges]
        self._tagged_reasoning = [exchange.tagged_reasoning for exchange in exchanges]
        self.read(remaining, divided_texts=self._divide_texts(answers))
        work = asyncio.create_task(self.judge_pending(answers, final=False))
        try:
            yield remaining
            await self._finish_judging(work)
        finally:
            await end_tasks(work)

    async def _finish_judging(self, work: asyncio.Task[None]) -> None:
        """Wait for the judgement that ran beside a correction; raises `Blocked` if a text may not be delivered."""
        try:
            await work
        except Blocked as error:
            # the outcomes of the answer may have become final only after the text was found
            self._state.fail_all(str(error.reason))
            raise

    async def judge_body(self, body: Any, delivered: Sequence[str]) -> None:
        """Judge the side texts of a body before delivery; raises `Blocked` if one may not be delivered."""
        if body is not self._body:  # the correction made another body
            self._reader = SideTextReader(streamed=self._streamed)
            self.read(body, divided_texts=self._divide_texts(delivered))
        await self.judge_pending(delivered)

    def _divide_texts(self, answers: Sequence[str]) -> list[DividedText]:
        """The texts of a whole response that begin with reasoning, with these answers."""
        pairs = zip(self._tagged_reasoning, answers, strict=True)
        return [DividedText(tagged, remove_tags(tagged), answer) for tagged, answer in pairs if tagged]

    @property
    def has_pending(self) -> bool:
        """Whether a text was read that may not be delivered yet."""
        blocking = self._current_kinds().blocking
        if not blocking.isdisjoint(self._unjudgeable_kinds):
            return True
        return any(text.kind in blocking for text in self._reader.pending_texts())

    @property
    def is_growing(self) -> bool:
        """Whether the last value added to a text that may block the answer, however short that text is so far.

        The kind "other text" does not count, since it includes ids and similar values.
        """
        grown_kinds = self._grown_kinds - {SideKind.OTHER_TEXT}
        return not self._current_kinds().blocking.isdisjoint(grown_kinds)

    async def judge_pending(self, delivered: Iterable[str], *, final: bool = True, ended_only: bool = False) -> None:
        """Judge text that is not part of `delivered`; raises `Blocked` if it may not be delivered.

        If `final` is False, the delivered texts may still change, so the texts are not released. `ended_only` limits
        this to kinds to which the last event added nothing.
        """
        if ended_only:
            self.release_echoes()
        while self._unjudgeable_kinds:
            self.raise_if_blocked(self._unjudgeable_kinds.pop())
        texts = self._undecided_texts()
        if ended_only:
            texts = [text for text in texts if text.kind not in self._grown_kinds]
        covering_texts = (*delivered, *self._cleared_texts)
        uncovered_by_kind: dict[SideKind, list[str]] = {}
        for text in texts:
            if uncovered_text := self._uncovered_text(text, covering_texts):
                uncovered_by_kind.setdefault(text.kind, []).append(uncovered_text)
        # One judgement per kind, however many fields an upstream fills.
        for kind, parts in uncovered_by_kind.items():
            await self._judge_text(kind, _SEPARATOR.join(dict.fromkeys(parts)))
            # A text that repeats one of these later is not judged again.
            self._cleared_texts += parts
        for text in texts:
            text.is_released = final

    def release_echoes(self) -> None:
        """Release texts that are strings of the request's own field of the same name, which need no judgement."""
        for text in self._undecided_texts():
            fields = [name for name in ECHOED if name in text.path and len(text.pieces) == 1]
            text.is_released = any(text.pieces[0] in self._request_strings(name) for name in fields)

    def _uncovered_text(self, text: SideText, covering_texts: Sequence[str]) -> str:
        """The part of a text that is in none of `covering_texts` and does not repeat the request; it is to be judged.

        Empty if there is none.
        """
        # Without objectives nothing can be flagged. The request's texts are collected only if they may matter.
        if not self._state.policy.objectives or not self._reader.uncovered_text(text, covering_texts):
            return ""
        return self._reader.uncovered_text(text, (*covering_texts, *self._echoed_texts(text)))

    async def withhold_flagged_error(self, error: Exception) -> HTTPException | None:
        """Judge an upstream's error text and remove it from the error if it may not be delivered.

        Returns the error to raise instead if it cannot be removed, else None.
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
        """A body without the kinds that the policy drops; the same object if it has none, or they cannot be dropped.

        In the latter case `Blocked` is raised instead if the policy prefers an error.
        """
        kinds = self._current_kinds().dropped
        try:
            return call_or_raise(NotPutIn, remove_prose, value, kinds) if kinds else value
        except NotPutIn:
            self._raise_if_any_blocked(kinds)
            return value

    def drop_from_stream(self, source: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """A stream without the kinds that the policy drops."""
        if not self._current_kinds().dropped:
            return source
        return WatchedStream(self._drop_items(source), source)

    async def _drop_items(self, source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        """The items of a stream without dropped kinds; bytes are split into events."""
        splitter = sse.FrameSplitter()
        upstream = UpstreamItems(source)
        has_failed = False
        async for item in upstream:
            if has_failed:
                yield item
                continue
            if not isinstance(item, bytes | str):
                yield self.drop_kinds(item)
                continue
            try:
                frames = splitter.feed(item)
            except Unreadable:
                has_failed = True
                self._raise_if_any_blocked(self._current_kinds().dropped)
                frames = [*splitter.flush(), sse.EventFrame(item, None)]
            for frame in frames:
                yield self._drop_from_frame(frame)
        for frame in splitter.flush():
            yield self._drop_from_frame(frame)
        upstream.raise_error()

    def _drop_from_frame(self, frame: sse.EventFrame) -> object:
        """An event without dropped kinds, as bytes; unchanged if it holds no JSON object."""
        return frame.item if frame.event is None else frame.with_event(self.drop_kinds(frame.event))

    def _current_kinds(self) -> _KindTreatments:
        """The treatment of each kind, updated if the policy has changed because another model answers."""
        if self._kinds.policy is not self._state.policy:
            self._kinds = _KindTreatments(self._state.policy)
        return self._kinds

    def _undecided_texts(self) -> list[SideText]:
        """The texts that were read, concern the policy and are not released for delivery."""
        checked = self._current_kinds().checked
        return [text for text in self._reader.pending_texts() if text.kind in checked]

    def _echoed_texts(self, text: SideText) -> list[str]:
        """Strings that the request sent in the field that contains `text`, such as `instructions`.

        A response that only repeats them needs no judgement.
        """
        return [string for name in ECHOED if name in text.path for string in self._request_strings(name)]

    def _request_strings(self, name: str) -> frozenset[str]:
        """The strings of a field of the request, which are read once."""
        if name not in self._echoes:
            self._echoes[name] = frozenset(echoed_texts(self._judge.data, [name]))
        return self._echoes[name]

    async def _judge_text(self, kind: SideKind, text: str) -> None:
        """Score a text, unless its kind is blocked unread; raises `Blocked` if it may not be delivered."""
        state = self._state
        if state.policy.side_treatment(kind) not in _JUDGED_TREATMENTS:
            self.raise_if_blocked(kind)
            return
        outcome = await self._judge.score(kind, text)
        if kind is SideKind.REASONING:
            state.reasoning = [*state.reasoning, outcome]
        if not is_clean(outcome, state.policy):
            self.raise_if_blocked(kind)

    def raise_if_blocked(self, kind: SideKind) -> None:
        """Raise `Blocked`, and record it, if the policy prefers an error to an answer with such a text."""
        if blocks_kind(self._state.policy, kind):
            self.ending_kind = kind
            metrics.record_side_text_refusal(self._state, kind)
            raise Blocked(kind.value)

    def _raise_if_any_blocked(self, kinds: Iterable[SideKind]) -> None:
        """Raise `Blocked` if the policy prefers an error to an answer with texts of these kinds."""
        for kind in kinds:
            self.raise_if_blocked(kind)

    def raise_if_pending(self) -> None:
        """Raise `Blocked` if texts that block the answer were not judged in time."""
        for text in self._undecided_texts():
            self.raise_if_blocked(text.kind)


def delivered_texts(exchanges: Sequence[Exchange], outcomes: Sequence[Outcome], *, changed: bool) -> list[str]:
    """The answers as delivered: the corrected ones if `changed`, and the originals of the others."""
    texts = {exchange.index: exchange.answer or "" for exchange in exchanges}
    if changed:
        texts |= corrected_texts(outcomes)
    return list(texts.values())


def is_clean(outcome: Outcome, policy: Policy) -> bool:
    """Whether a text was judged and not flagged; an unsupported language is fine if `on_skip.language` lets it pass."""
    if outcome.correction is None or outcome.flagged_count:
        return False
    return outcome.reason != WOULD_NOT_JUDGE or policy.on_skip.language is OnSkip.PASSTHROUGH
