"""Corrects the arguments of the tool calls in one response (`tool_arguments: correct`).

Strings of prose in them are judged, and flagged ones corrected in their place, as in a JSON answer. What is flagged
and cannot be corrected stays unchanged and is left to side_texts.py, which treats it as under `judge`; what was judged
here is not judged there again. streaming/call_stream.py uses this for the calls of a stream. Each call has its own
record, under the policy's name followed by `/tool_arguments`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aligner_proxy import formats
from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import CopyStays, NotPutIn, Unreadable
from aligner_proxy.formats.base import is_storing_forbidden
from aligner_proxy.formats.calls import CallText, Place, SafeCalls, arguments_schema, find_tool, has_grammar
from aligner_proxy.formats.side_text import has_prose, has_prose_outside_literals, prose_literals
from aligner_proxy.gateway import metrics, second_copies
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.second_copies import DeliveredTexts, StreamCopies
from aligner_proxy.gateway.side_texts import CorrectorOf, SideTexts, correcting_state, make_side_exchange
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.pipeline.stages.eligibility import reads_as_json
from aligner_proxy.types import Exchange, Outcome, SideKind, SideTreatment, Status

_MAX_CALLS = 32
"""Most calls of one response that are corrected, since each is a question to the engine, at least."""
_SEPARATOR = "\n\n"
"""Separates the strings of one call when its original and its correction are compared."""
_Key = tuple[str, bool, str]
"""What a correction of arguments depends on: the tool's name, whether the arguments are free text, and their text."""


class CallArguments:
    """Corrects the calls of one response."""

    def __init__(
        self,
        form: SafeCalls,
        data: Mapping[str, Any],
        state: RequestState,
        opening: Exchange,
        corrector_of: CorrectorOf,
        side: SideTexts,
    ) -> None:
        self.form = form
        """Reads and replaces calls in the endpoint's wire format."""
        self.data = data
        """The request as LiteLLM passes it to hooks."""
        self.state = state
        self._opening = opening
        """A choice before any part of it has arrived."""
        self._corrector_of = corrector_of
        self.side = side
        """Judges what is not corrected here, with the other texts beside the answer."""
        self.copies = StreamCopies(data)
        """Second copies of what was removed from the calls."""
        self._outcomes: dict[_Key, Outcome] = {}
        """The outcome of each call that was to be corrected, as it arrived."""
        self._names: dict[Place, str] = {}
        """The names of the tools by place, since not every event of a call names its tool."""

    @classmethod
    def open(
        cls, data: Mapping[str, Any], state: RequestState, corrector_of: CorrectorOf, side: SideTexts
    ) -> CallArguments | None:
        """The corrector of a request's calls; None if its endpoint's format has no calls."""
        form = formats.calls(state.arrival.route)
        wire = formats.wire(state.arrival.route)
        if form is None or wire is None:
            return None
        return cls(form, data, state, wire.first_exchange(data), corrector_of, side)

    async def correct_body(self, response: Any, exchanges: Sequence[Exchange]) -> Any:
        """A whole response with corrected calls; the same object if nothing is corrected."""
        try:
            calls = self.form.read(response)
        except Unreadable:
            return response  # it is judged with the other texts beside the answer
        await self.correct(calls, response)
        edited = response
        if self.has_edits:
            texts = DeliveredTexts(exchanges, removed=self.copies.removed)
            try:
                edited = self.form.replace(response, self.find_new_text)
                # in a thread, as for a corrected answer
                edited = await asyncio.to_thread(
                    second_copies.drop_from_body, self.state.arrival.route, self.data, edited, texts
                )
            except (CopyStays, NotPutIn) as error:
                self.withdraw(calls, error)
                return response
        await self.report_judged_calls(calls)
        return edited

    def is_known(self, call: CallText) -> bool:
        """Whether this tool's call with these arguments was corrected or judged before, or holds no prose."""
        return self._key(call) in self._outcomes or not has_prose(call.text)

    @property
    def has_edits(self) -> bool:
        """Whether any call is corrected."""
        return any(outcome.status is Status.CORRECTED for outcome in self._outcomes.values())

    def find_new_text(self, call: CallText) -> str:
        """The arguments to deliver in place of those of a whole call."""
        outcome = self._outcomes.get(self._key(call))
        if outcome is None or outcome.status is not Status.CORRECTED:
            return call.text
        return outcome.text or call.text

    async def correct(self, calls: Iterable[CallText], source: object) -> None:
        """Correct the calls that hold prose and are not known; `source` is the response or stream with their headers.

        Their edits count from then on, until `withdraw`.
        """
        calls = list(calls)
        self._names.update({call.place: call.name for call in calls if call.name})
        new_calls = {self._key(call): call for call in calls if not self.is_known(call)}
        calls_left = _MAX_CALLS - len(self._outcomes)
        selected = list(new_calls.values())[: max(0, calls_left)]
        # another model may answer, under a stricter policy
        if not selected or self.state.policy.tool_arguments is not SideTreatment.CORRECT:
            return
        corrector = self._corrector_of(correcting_state(self.state, SideKind.TOOL_ARGUMENTS))
        is_unstored = is_storing_forbidden(self.data, source)
        exchanges = [
            self._make_exchange(len(self._outcomes) + number, call, unstored=is_unstored)
            for number, call in enumerate(selected)
        ]
        outcomes = await asyncio.gather(*map(corrector.correct_one, exchanges))
        self._outcomes.update(zip(map(self._key, selected), outcomes, strict=True))
        corrected = [
            (call.text, outcome.text or "")
            for call, outcome in zip(selected, outcomes, strict=True)
            if outcome.status is Status.CORRECTED
        ]
        await run_off_loop(_count_chars(selected), partial(self._note_removed, corrected))
        self._publish_outcomes()

    def _note_removed(self, corrected: Iterable[tuple[str, str]]) -> None:
        """Note what was removed from arguments, given as they came and as they were corrected."""
        for arguments, new_arguments in corrected:
            self.copies.add_removed(_join_strings(arguments), _join_strings(new_arguments))

    def _make_exchange(self, index: int, call: CallText, *, unstored: bool) -> Exchange:
        """An exchange with the arguments of a call as the answer, in the form that the tool declares.

        If `unstored`, its correction is not cached.
        """
        name, _, _ = self._key(call)
        tool = find_tool(self.data, name)
        exchange = make_side_exchange(self._opening, index, call.text, no_store=unstored)
        is_bound = has_grammar(tool)
        return replace(
            exchange,
            is_call=True,
            structured=is_bound or not call.is_free,
            constrained=is_bound,
            json_schema=None if call.is_free else arguments_schema(tool),
        )

    async def report_judged_calls(self, calls: Sequence[CallText]) -> None:
        """Tell `side` which of these calls are clean as they are delivered, so that it need not judge them."""
        clean = [call for call in calls if (outcome := self._outcomes.get(self._key(call))) and _is_clean(outcome)]
        texts = await run_off_loop(_count_chars(clean), partial(self._list_judged_texts, clean))
        self.side.note_judged_texts(texts)

    def _list_judged_texts(self, calls: Iterable[CallText]) -> list[str]:
        """The new arguments of calls of which all prose was judged, and the strings of prose in them.

        A call may come as an object of strings in place of text.
        """
        texts = [self.find_new_text(call) for call in calls if _is_judged_whole(call.text)]
        return [*texts, *(literal.text for text in texts for literal in prose_literals(text))]

    def withdraw(self, calls: Iterable[CallText], error: CopyStays | NotPutIn) -> None:
        """Drop the corrections of these calls, which then stay unchanged; `error` says why they cannot go out."""
        is_copied = isinstance(error, CopyStays)
        if not is_copied:
            metrics.record_arguments_not_applied()
        reason = CopyStays.reason if is_copied else pipeline_outcomes.INTERNAL
        for key in {self._key(call) for call in calls}:
            outcome = self._outcomes.get(key)
            if outcome is not None and outcome.status is Status.CORRECTED:
                self._outcomes[key] = replace(outcome, status=Status.FAILED, reason=reason, text=None)
        self._publish_outcomes()

    def _key(self, call: CallText) -> _Key:
        """The key of a whole call in `_outcomes`."""
        return call.name or self._names.get(call.place, ""), call.is_free, call.text

    def _publish_outcomes(self) -> None:
        """Set the outcomes in the request's state, from which headers and comments are made."""
        self.state.arguments = list(self._outcomes.values())


def _count_chars(calls: Iterable[CallText]) -> int:
    return sum(len(call.text) for call in calls)


def _join_strings(arguments: str) -> str:
    """The prose strings of JSON arguments, joined to one text; other arguments as they are."""
    literals = prose_literals(arguments) if reads_as_json(arguments) else ()
    return _SEPARATOR.join(literal.text for literal in literals) or arguments


def _is_judged_whole(arguments: str) -> bool:
    """Whether all prose in arguments was judged when they were corrected."""
    return not (reads_as_json(arguments) and has_prose_outside_literals(arguments))


def _is_clean(outcome: Outcome) -> bool:
    """Whether arguments were judged, and nothing that was flagged is left in them."""
    if outcome.correction is None or outcome.reason is not None or outcome.dropped:
        return False
    return outcome.status is Status.CORRECTED or (outcome.status is Status.UNCHANGED and not outcome.flagged_count)
