"""Drops second copies: other fields of a response that still hold what an edit removed from the answer. Texts of a kind
in `ACTED_ON`, such as reasoning, are never edited; only a copy of a long passage counts in them.

Fields that quote removed text, point into an edited text (as citations do) or encode it are dropped from the response;
so is reasoning that quotes removed text. A copy that has to stay (a call's arguments, reasoning that the client sends
back) or that has gone out already raises `CopyStays`: the answer then counts as one that could not be corrected.
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
"""Stands for an event of which nothing is left; None cannot, since an upstream may send None as an event."""
_LONGEST_COPY_RATIO = 3
"""How many times as long as the removed text a copy may be, because of white space and escapes."""
_MIN_OVERLAP_CHARS = 1_000
"""Characters in which a copy of a long sentence is recognised, whatever its escapes, since a part of it is enough."""


def echoed_texts(data: Mapping[str, Any], names: Sequence[str] = ECHOED) -> list[str]:
    """The strings in the fields `names` of a request, which a response may repeat under the same name."""
    texts = []
    for name in names:
        if data.get(name):
            texts += [text for _, _, text in side_strings({name: data[name]})]
    return texts


class DeliveredTexts:
    """The answers of one response: what was removed from them (and from other texts, `removed`), and what is delivered.
    Answers with a corrected text in `outcomes` count as edited.
    """

    def __init__(
        self, exchanges: Sequence[Exchange], outcomes: Sequence[Outcome] = (), removed: RemovedText | None = None
    ) -> None:
        texts_by_index = corrected_texts(outcomes)
        self.removed = removed or RemovedText()
        self.unchanged: list[str] = []
        for exchange in exchanges:
            original = exchange.answer or ""
            if exchange.index in texts_by_index:
                self.removed.add(original, texts_by_index[exchange.index])
            else:
                self.unchanged.append(original)
        self.delivered = [*texts_by_index.values(), *self.unchanged]
        # An answer that follows reasoning in the same text is in the response with that reasoning before it.
        tagged_exchanges = [exchange for exchange in exchanges if exchange.tagged_reasoning]
        for exchange in tagged_exchanges:
            delivered_answer = texts_by_index.get(exchange.index, exchange.answer or "")
            self.delivered.append(exchange.tagged_reasoning + delivered_answer)
        self.is_quoted_in_tagged_reasoning = any(
            self.removed.is_quoted_in(exchange.tagged_reasoning, SideKind.REASONING) for exchange in tagged_exchanges
        )
        """Whether reasoning in the same text as an answer quotes what was removed."""


async def compare_answers(exchanges: Sequence[Exchange], outcomes: Sequence[Outcome]) -> DeliveredTexts:
    """Compare the answers of one response with their corrections, in a thread if they are long."""
    chars = sum(len(exchange.answer or "") for exchange in exchanges)
    return await run_off_loop(chars, partial(DeliveredTexts, exchanges, outcomes))


def drop_from_body(route: str | None, data: Mapping[str, Any], body: Any, answers: DeliveredTexts) -> Any:
    """A corrected body without second copies; if reasoning holds a copy, all reasoning is removed.

    `data` is the request, whose strings the body may repeat. Raises `CopyStays` for a copy that may not be dropped, and
    `NotPutIn` for an unreadable body.
    """
    request_strings = echoed_texts(data)

    def drop_copies(value: Any) -> Any:
        """The body `value` without copies that may be dropped; raises `CopyStays` for another copy."""
        return call_or_raise(
            NotPutIn, copies.drop_copies, value, answers.removed, answers.delivered, answers.unchanged, request_strings
        )

    if not answers.is_quoted_in_tagged_reasoning:
        try:
            return drop_copies(body)
        except CopyStays as copy:
            if copy.kind is not SideKind.REASONING:
                raise
    reasoning_format = formats.reasoning(route)
    if reasoning_format is None:
        raise CopyStays(SideKind.REASONING)
    return drop_copies(reasoning_format.remove_reasoning(data, body))


def copy_outcome(policy: Policy) -> Outcome:
    """The outcome of an answer with a copy that cannot be dropped, as `on_skip.annotations` of the policy says.

    Under `judge` it is a failure of class `unjudged`; else the answer is skipped with the reason `annotations`.
    """
    if policy.on_skip.annotations is OnSkip.JUDGE:
        return Outcome(Status.FAILED, CopyStays.reason, None, policy)
    return Outcome(Status.SKIPPED, SkipReason.ANNOTATIONS.value, None, policy)


def withdraw_corrections(state: RequestState) -> Outcome:
    """Record that the corrected choices could not be delivered corrected; return the outcome that they get instead."""
    outcome = copy_outcome(state.policy)
    metrics.record_withdrawn(state, outcome.status, str(outcome.reason))
    return outcome


class StreamCopies:
    """Finds and drops second copies in the events of one stream. Each event is passed to `remember` (before the first
    edit) or `remove_copies`, and each edit to `add_removed`.
    """

    def __init__(self, data: Mapping[str, Any], removed: RemovedText | None = None) -> None:
        self.removed = removed or RemovedText()
        """What edits removed from the answers so far."""
        self._data = data
        self._reader = SideTextReader(streamed=True)
        """Holds what the events so far say beside the answers."""
        self._request_strings: list[str] | None = None
        """Strings of the request that the response may repeat; None until they are needed."""
        self._checked_ends: dict[object, tuple[int, str]] = {}
        """By path of a text, the number of its pieces that were checked, and the end of the checked text."""
        self._newly_removed: RemovedText | None = None
        """What was removed since `check_past_events` was called last; None if nothing was."""
        self._past_texts = _PastTexts()
        """The texts of all events so far, in which later edits are looked for."""

    def remember(self, item: Any, own_texts: Collection[str], *, may_be_edited: bool = False) -> Any:
        """Remember the texts of an event other than `own_texts`, which are the answer's; return the event.

        Text that later edits remove is looked for in them. If the answer's text `may_be_edited` still, the event is
        returned without token probabilities of other text. Raises `NotPutIn` if the event cannot be read.
        """
        frame = sse.as_frame(item)
        value = event_value(frame)
        if holds_only_answer(value, own_texts):
            return item
        if may_be_edited:
            cleaned = call_or_raise(NotPutIn, copies.drop_foreign_logprobs, value)
            item = item if cleaned is value else frame.with_event(cleaned)
        call_or_raise(NotPutIn, self._reader.read, item, list(own_texts))
        return item

    def remove_copies(
        self,
        item: Any,
        own_texts: Collection[str],
        unchanged_texts: Collection[str],
        *,
        edited: bool = True,
        may_be_edited: bool = False,
    ) -> Any:
        """An event without second copies; `NOTHING` if nothing is left of it. Its other texts are remembered.

        `own_texts` are the answer's texts in the event as they are delivered, `unchanged_texts` the answer's texts that
        no edit changed. `edited` is False if citations in the event point into an unchanged text; `may_be_edited` is as
        for `remember`. Raises `CopyStays` for a copy that may not be dropped, or `NotPutIn` for an unreadable event.
        """
        frame = sse.as_frame(item)
        value = event_value(frame)
        if holds_only_answer(value, own_texts):
            return item
        if self._request_strings is None:
            self._request_strings = echoed_texts(self._data)
        drop = partial(copies.drop_copies, edited=edited)
        cleaned = call_or_raise(NotPutIn, drop, value, self.removed, own_texts, unchanged_texts, self._request_strings)
        if edited or may_be_edited:
            cleaned = call_or_raise(NotPutIn, copies.drop_foreign_logprobs, cleaned)
        if cleaned is not value:
            has_no_object = isinstance(item, bytes) and frame.event is None
            if has_no_object or copies.is_pointing_event(value):
                return NOTHING
            item = frame.with_event(cleaned)
        call_or_raise(NotPutIn, self._reader.read, item, list(own_texts))
        return item

    def add_removed(self, original: str, corrected: str) -> None:
        """Note what an edit removes; `check_past_events` then looks for it in the events so far, too."""
        self._newly_removed = self._newly_removed or RemovedText()
        for removed in (self.removed, self._newly_removed):
            removed.add(original, corrected)

    def check_past_events(self) -> None:
        """Raise `CopyStays` if a text in the events so far holds removed text, whole or in pieces."""
        grown_texts = self._reader.take_grown()
        if self._newly_removed is not None:
            self._past_texts.check(self._newly_removed)
            self._newly_removed = None
        for text in grown_texts:
            self._check_new_pieces(text)
            self._past_texts.add(text)

    def _check_new_pieces(self, text: SideText) -> None:
        """Raise `CopyStays` if removed text occurs in the pieces of a text since its last check."""
        # A copy may begin in earlier pieces, so the end of the checked text is checked again.
        checked_count, checked_end = self._checked_ends.get(text.path, (0, ""))
        latest = checked_end + "".join(text.pieces[checked_count:])
        if self.removed.is_quoted_in(latest, text.kind):
            raise CopyStays(text.kind)
        longest_copy = _LONGEST_COPY_RATIO * self.removed.longest
        # A long sentence is recognised by a part of it, so `_MIN_OVERLAP_CHARS` are enough for it.
        longest_whole_copy = _LONGEST_COPY_RATIO * self.removed.longest_alike
        overlap = min(longest_copy, max(_MIN_OVERLAP_CHARS, longest_whole_copy))
        self._checked_ends[text.path] = (len(text.pieces), latest[-overlap:] if overlap else "")


class _PastTexts:
    """The texts of the events so far, in which each edit is looked for once."""

    def __init__(self) -> None:
        self._grown_texts: dict[object, SideText] = {}
        """Texts that have grown since the last check, by path."""
        self._read_texts: dict[object, tuple[int, str, str]] = {}
        """By path of a text, what was read: number of pieces, normalized text up to the last space, and the rest."""
        self._normalized_texts: dict[bool, dict[object, str]] = {False: {}, True: {}}
        """The normalized texts by path; under True those of a kind in `ACTED_ON`, which have other rules for copies."""
        self._grams = {False: copies.Grams(), True: copies.Grams()}
        """Index of short stretches of these texts, by the same keys; shows fast that most edits do not occur there."""

    def add(self, text: SideText) -> None:
        """Note that a text is new or has grown."""
        self._grown_texts[text.path] = text

    def check(self, removed: RemovedText) -> None:
        """Raise `CopyStays` if one of the texts holds removed text."""
        for text in self._grown_texts.values():
            self._read_new_pieces(text)
        self._grown_texts.clear()
        for is_acted_on, texts_by_path in self._normalized_texts.items():
            # Only whether the kind is in `ACTED_ON` matters here, so one kind stands for all that are, or are not.
            kind = SideKind.REASONING if is_acted_on else SideKind.OTHER_TEXT
            # A quick test first, since to search all texts for each edit would take quadratic time.
            likely_removed = removed.narrow(self._grams[is_acted_on])
            if likely_removed is None:
                continue
            all_texts = "\n".join(texts_by_path.values())
            if likely_removed.is_quoted_in_normalized(all_texts, kind):
                raise CopyStays(kind)

    def _read_new_pieces(self, text: SideText) -> None:
        """Normalize the pieces that a text has got since this was called last, and add them to `_grams`."""
        read_count, old_normalized_text, raw_end = self._read_texts.get(text.path, (0, "", ""))
        raw_end += "".join(text.pieces[read_count:])
        # Only text up to the last space is final: no escape holds a space, but an escape may be cut off after it.
        final_length = raw_end.rfind(" ") + 1
        final_normalized_text = old_normalized_text + copies.normalize(raw_end[:final_length])
        raw_end = raw_end[final_length:]
        self._read_texts[text.path] = (len(text.pieces), final_normalized_text, raw_end)
        is_acted_on = text.kind in copies.ACTED_ON
        normalized_text = final_normalized_text + copies.normalize(raw_end)
        self._normalized_texts[is_acted_on][text.path] = normalized_text
        self._grams[is_acted_on].add(normalized_text, start=len(old_normalized_text))


def event_value(frame: sse.EventFrame) -> Any:
    """The content of an event, as an object whose strings can be read: its JSON object or, for bytes without one,
    `{"line": their text}`.
    """
    if not isinstance(frame.item, bytes):
        return frame.item
    if frame.event is None:
        return {"line": frame.item.decode(errors="replace")}
    return frame.event
