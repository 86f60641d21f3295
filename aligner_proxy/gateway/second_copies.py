"""Second copies on their way to a client: what an edit removed goes out nowhere else in the response.

Fields that quote removed text, point into an edited text or encode it are dropped from the response, as reasoning is
that quotes it. A copy that has to stay (a call's arguments, reasoning that the client sends back) or that has gone out
already raises `CopyStays`: the answer then counts as one that could not be corrected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from aligner_proxy import formats
from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import CopyStays, NotPutIn
from aligner_proxy.formats import copies, sse
from aligner_proxy.formats.base import corrected_texts, holds_only_answer
from aligner_proxy.formats.copies import RemovedText
from aligner_proxy.formats.safe import call_or_raise
from aligner_proxy.formats.side_text import SideText, SideTextReader, side_strings
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.types import Exchange, OnSkip, Outcome, Policy, SideKind, SkipReason, Status

ECHOED = ("instructions", "metadata", "tools", "tool_choice", "text")
"""Request fields that a response repeats under the same name."""

NOTHING: Final = object()
"""What is left of an event that is left out; an upstream may send any value, None too."""
_SPREAD = 3
"""How many times as long as the removed text a copy may be, because of white space and escapes."""
_OVERLAP = 1_000
"""Characters in which a copy of a long sentence shows, as a part of it is enough, whatever its escapes."""


def echoed_texts(data: Mapping[str, Any], names: Sequence[str] = ECHOED) -> list[str]:
    """The strings of the request's fields that a response may repeat."""
    return [text for name in names if data.get(name) for _, _, text in side_strings({name: data[name]})]


class DeliveredTexts:
    """The texts of one response: what was removed from them, and what is delivered."""

    def __init__(
        self, exchanges: Sequence[Exchange], outcomes: Sequence[Outcome] = (), removed: RemovedText | None = None
    ) -> None:
        texts = corrected_texts(outcomes)
        self.removed = removed or RemovedText()
        """What edits removed from the answers."""
        self.unchanged: list[str] = []
        """Answers without edits."""
        for exchange in exchanges:
            original = exchange.answer or ""
            if exchange.index in texts:
                self.removed.add(original, texts[exchange.index])
            else:
                self.unchanged.append(original)
        self.delivered = [*texts.values(), *self.unchanged]
        tagged = [exchange for exchange in exchanges if exchange.tagged_reasoning]
        self.delivered += [
            exchange.tagged_reasoning + texts.get(exchange.index, exchange.answer or "") for exchange in tagged
        ]
        self.is_quoted_in_tagged_reasoning = any(
            self.removed.is_quoted_in(exchange.tagged_reasoning, SideKind.REASONING) for exchange in tagged
        )
        """Whether reasoning in the same text as an answer quotes what was removed."""


async def compare_answers(exchanges: Sequence[Exchange], outcomes: Sequence[Outcome]) -> DeliveredTexts:
    """The texts of one response, compared in a thread if they are long: 1,000 characters take a millisecond."""
    chars = sum(len(exchange.answer or "") for exchange in exchanges)
    return await run_off_loop(chars, partial(DeliveredTexts, exchanges, outcomes))


def drop_from_body(route: str | None, data: Mapping[str, Any], body: Any, texts: DeliveredTexts) -> Any:
    """A corrected body without second copies; raises `CopyStays`, or `NotPutIn` if it cannot be read."""
    echoed = echoed_texts(data)

    def drop(value: Any) -> Any:
        """The body `value` without copies that may be dropped; raises `CopyStays` for another copy."""
        return call_or_raise(
            NotPutIn, copies.drop_copies, value, texts.removed, texts.delivered, texts.unchanged, echoed
        )

    form = formats.reasoning(route)
    if not texts.is_quoted_in_tagged_reasoning:
        try:
            return drop(body)
        except CopyStays as copy:
            if copy.kind is not SideKind.REASONING:
                raise
    if form is None:
        raise CopyStays(SideKind.REASONING)
    return drop(form.remove_reasoning(data, body))


def copy_outcome(policy: Policy) -> Outcome:
    """The outcome of an answer with a copy that stays, as `on_skip.annotations` of the policy says.

    A failure of class `unjudged` under `judge`; else the answer is skipped with the reason `annotations`.
    """
    if policy.on_skip.annotations is OnSkip.JUDGE:
        return Outcome(Status.FAILED, CopyStays.reason, None, policy)
    return Outcome(Status.SKIPPED, SkipReason.ANNOTATIONS.value, None, policy)


def withdraw_corrections(state: RequestState) -> Outcome:
    """Record that corrected choices count as not correctable; return the outcome that they get."""
    outcome = copy_outcome(state.policy)
    metrics.record_withdrawn(state, outcome.status, str(outcome.reason))
    return outcome


class StreamCopies:
    """Second copies in the events of one stream, which is corrected before or while it is delivered."""

    def __init__(self, data: Mapping[str, Any], removed: RemovedText | None = None) -> None:
        self.removed = removed or RemovedText()
        """What edits removed from the answers so far."""
        self._data = data
        self._reader = SideTextReader(streamed=True)
        """Holds what the events so far say beside the answers."""
        self._echoed: list[str] | None = None
        """Strings of the request that the response may repeat; None until they are needed."""
        self._checked: dict[object, tuple[int, str]] = {}
        """By path of a text, the number of its pieces that were checked, and the end of the last of them."""
        self._newly_removed: RemovedText | None = None
        """What was removed since `check_past_events` was called last; None if nothing was."""
        self._past = _PastTexts()
        """The texts of all events so far, in which later edits are looked for."""

    def remember(self, item: object, own_texts: Collection[str]) -> None:
        """Remember what an event that is delivered says beside the answer; raises `NotPutIn` if it cannot be read."""
        if not holds_only_answer(event_value(sse.as_frame(item)), own_texts):
            call_or_raise(NotPutIn, self._reader.read, item, list(own_texts))

    def remove_copies(
        self, item: Any, own_texts: Collection[str], unchanged_texts: Collection[str], *, edited: bool = True
    ) -> Any:
        """An event without copies, which is remembered; `NOTHING` if nothing is left of it.

        `own_texts` are the answer's texts in it, as they are delivered; `edited` is False if its pointers stay right.
        Raises `CopyStays`, or `NotPutIn` if it cannot be read.
        """
        frame = sse.as_frame(item)
        value = event_value(frame)
        if holds_only_answer(value, own_texts):
            return item
        if self._echoed is None:
            self._echoed = echoed_texts(self._data)
        drop = partial(copies.drop_copies, edited=edited)
        cleaned = call_or_raise(NotPutIn, drop, value, self.removed, own_texts, unchanged_texts, self._echoed)
        if cleaned is not value:
            is_line = isinstance(item, bytes) and frame.event is None
            if is_line or copies.is_pointing_event(value):
                return NOTHING
            item = frame.with_event(cleaned)
        call_or_raise(NotPutIn, self._reader.read, item, list(own_texts))
        return item

    def add_removed(self, original: str, corrected: str) -> None:
        """Note what an edit removes; `check_past_events` then looks for it in the events so far, too."""
        self.removed.add(original, corrected)
        if self._newly_removed is None:
            self._newly_removed = RemovedText()
        self._newly_removed.add(original, corrected)

    def check_past_events(self) -> None:
        """Raise `CopyStays` if a text in the events so far holds removed text, whole or in pieces."""
        grown_texts = self._reader.take_grown()
        if self._newly_removed is not None:
            self._past.check(self._newly_removed)
            self._newly_removed = None
        for text in grown_texts:
            self._check_new_pieces(text)
            self._past.add(text)

    def _check_new_pieces(self, text: SideText) -> None:
        """Raise `CopyStays` if what has come of a text since the last check holds removed text."""
        count, tail = self._checked.get(text.path, (0, ""))
        latest = tail + "".join(text.pieces[count:])
        if self.removed.is_quoted_in(latest, text.kind):
            raise CopyStays(text.kind)
        # how much of a text's end is read again with later pieces, since a copy may begin there
        overlap = min(_SPREAD * self.removed.longest, max(_OVERLAP, _SPREAD * self.removed.longest_alike))
        self._checked[text.path] = (len(text.pieces), latest[-overlap:] if overlap else "")


class _PastTexts:
    """The texts of the events so far, in which each edit is looked for once."""

    def __init__(self) -> None:
        self._grown_texts: dict[object, SideText] = {}
        """Texts that have grown since the last check, by path."""
        self._read: dict[object, tuple[int, str, str]] = {}
        """By path, the number of pieces that were read, their normalized text, and an end that is not final yet."""
        self._normalized: dict[bool, dict[object, str]] = {False: {}, True: {}}
        """The normalized texts by path; under True those of a kind in `ACTED_ON`, such as reasoning."""
        self._grams = {False: copies.Grams(), True: copies.Grams()}
        """Short stretches of these texts, which show quickly that most edits do not occur in them."""

    def add(self, text: SideText) -> None:
        """Note that a text is new or has grown."""
        self._grown_texts[text.path] = text

    def check(self, removed: RemovedText) -> None:
        """Raise `CopyStays` if one of the texts holds removed text."""
        for text in self._grown_texts.values():
            self._read_new_pieces(text)
        self._grown_texts.clear()
        for is_acted_on, texts in self._normalized.items():
            kind = SideKind.REASONING if is_acted_on else SideKind.OTHER_TEXT
            # what these texts may hold of it, by a quick test; looking into all of them for each edit would take
            # quadratic time
            likely_removed = removed.narrow(self._grams[is_acted_on])
            if likely_removed is not None and likely_removed.is_quoted_in_normalized("\n".join(texts.values()), kind):
                raise CopyStays(kind)

    def _read_new_pieces(self, text: SideText) -> None:
        """Normalize what has come of a text since the last check."""
        count, final_text, end = self._read.get(text.path, (0, "", ""))
        end += "".join(text.pieces[count:])
        # Only text up to the last space is final: no escape holds a space, but one may be cut off after it.
        final_length = end.rfind(" ") + 1
        grown_text = final_text + copies.normalize(end[:final_length])
        end = end[final_length:]
        self._read[text.path] = (len(text.pieces), grown_text, end)
        is_acted_on = text.kind in copies.ACTED_ON
        normalized_text = grown_text + copies.normalize(end)
        self._normalized[is_acted_on][text.path] = normalized_text
        self._grams[is_acted_on].add(normalized_text, len(final_text))


def event_value(frame: sse.EventFrame) -> Any:
    """The data of an event that came as bytes, its text if that is no object; any other event as it is."""
    if not isinstance(frame.item, bytes):
        return frame.item
    return {"line": frame.item.decode(errors="replace")} if frame.event is None else frame.event
