"""Corrects the arguments of the tool calls in one response (`tool_arguments: correct`). Prose means the
strings in the arguments that read as natural language.

Strings of prose in the arguments are judged, and flagged strings are corrected in their place, as in a JSON answer. A
call that is flagged and cannot be corrected stays unchanged, and side_texts.py judges it with the other texts beside
the answer; it does not judge again what was judged here. streaming/call_stream.py uses this for the calls of a stream.
Each call has its own record, under the policy's name followed by `/tool_arguments`.
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
from aligner_proxy.gateway.side_texts import MakeCorrector, SideTexts, correcting_state, make_side_exchange
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.pipeline.stages.eligibility import reads_as_json
from aligner_proxy.types import Exchange, Outcome, SideKind, SideTreatment, Status

_MAX_CALLS = 32
"""Most calls of one response that are corrected, since each is a question to the engine, at least."""
_SEPARATOR = "\n\n"
"""Separates the strings of one call when its original and its correction are compared."""
_CallKey = tuple[str, bool, str]
"""What a correction of arguments depends on: the tool's name, whether the arguments are free text, and their text."""


class CallArguments:
    """Corrects the calls of one response."""

    def __init__(
        self,
        call_format: SafeCalls,
        data: Mapping[str, Any],
        state: RequestState,
        empty_exchange: Exchange,
        make_corrector: MakeCorrector,
        side: SideTexts,
    ) -> None:
        self.call_format = call_format
        self.data = data
        self.state = state
        self._empty_exchange = empty_exchange
        self._make_corrector = make_corrector
        self.side = side
        """Judges the texts beside the answer, and so the calls that are not corrected here."""
        self.copies = StreamCopies(data)
        """Second copies of what was removed from the calls."""
        self._outcomes: dict[_CallKey, Outcome] = {}
        """The outcome of each call that was to be corrected, by its key with the original arguments."""
        self._tool_names: dict[Place, str] = {}
        """The names of the tools by place, since not every event of a call names its tool."""

    @classmethod
    def open(
        cls, data: Mapping[str, Any], state: RequestState, make_corrector: MakeCorrector, side: SideTexts
    ) -> CallArguments | None:
        """Return a corrector of a request's calls; None if its endpoint's format has no calls."""
        call_format = formats.calls(state.arrival.route)
        wire = formats.wire(state.arrival.route)
        if call_format is None or wire is None:
            return None
        return cls(call_format, data, state, wire.first_exchange(data), make_corrector, side)

    async def correct_body(self, response: Any, exchanges: Sequence[Exchange]) -> Any:
        """A whole response with corrected calls; the same object if nothing is corrected."""
        try:
            calls = self.call_format.read(response)
        except Unreadable:
            return response  # `side` judges its calls with the other texts beside the answer
        await self.correct(calls, response)
        edited = response
        if self.has_edits:
            answers = DeliveredTexts(exchanges, removed=self.copies.removed)
            try:
                edited = self.call_format.replace(response, self.find_new_text)
                # in a thread, because a body may hold thousands of citations
                edited = await asyncio.to_thread(
                    second_copies.drop_from_body, self.state.arrival.route, self.data, edited, answers
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
        """The arguments to deliver for a whole call: corrected, or as they came."""
        outcome = self._outcomes.get(self._key(call))
        if outcome is None or outcome.status is not Status.CORRECTED:
            return call.text
        return outcome.text or call.text

    async def correct(self, calls: Iterable[CallText], source: object) -> None:
        """Correct the calls that hold prose and were not corrected before, as far as `_MAX_CALLS` allows.

        `source` is the response or stream, with which LiteLLM stores the upstream's headers. From then on,
        `find_new_text` returns the corrected arguments, until `withdraw`.
        """
        calls = list(calls)
        self._tool_names.update({call.place: call.name for call in calls if call.name})
        calls_by_key = {self._key(call): call for call in calls if not self.is_known(call)}
        calls_left = _MAX_CALLS - len(self._outcomes)
        new_calls = list(calls_by_key.values())[: max(0, calls_left)]
        # The policy is asked again, because another model may answer, under a stricter policy.
        if not new_calls or self.state.policy.tool_arguments is not SideTreatment.CORRECT:
            return
        corrector = self._make_corrector(correcting_state(self.state, SideKind.TOOL_ARGUMENTS))
        no_store = is_storing_forbidden(self.data, source)
        exchanges = [
            self._make_exchange(number, call, no_store=no_store)
            for number, call in enumerate(new_calls, start=len(self._outcomes))
        ]
        outcomes = await asyncio.gather(*map(corrector.correct_one, exchanges))
        self._outcomes.update(zip(calls_by_key, outcomes, strict=False))  # the calls above the limit have no outcome
        argument_pairs = [
            (call.text, outcome.text or "")
            for call, outcome in zip(new_calls, outcomes, strict=True)
            if outcome.status is Status.CORRECTED
        ]
        await run_off_loop(_count_chars(new_calls), partial(self._note_removed, argument_pairs))
        self._publish_outcomes()

    def _note_removed(self, argument_pairs: Iterable[tuple[str, str]]) -> None:
        """Note in `copies` what was removed from calls, given as pairs of original and corrected arguments."""
        for arguments, new_arguments in argument_pairs:
            self.copies.add_removed(_join_strings(arguments), _join_strings(new_arguments))

    def _make_exchange(self, number: int, call: CallText, *, no_store: bool) -> Exchange:
        """An exchange in which the arguments of a call are the answer, so that they are corrected like one.

        The tool's declaration says which form the answer must have. With `no_store`, the correction is not cached.
        """
        tool_name, _, _ = self._key(call)
        tool = find_tool(self.data, tool_name)
        exchange = make_side_exchange(self._empty_exchange, number, call.text, no_store=no_store)
        follows_grammar = has_grammar(tool)
        return replace(
            exchange,
            is_call=True,
            structured=follows_grammar or not call.is_free,
            constrained=follows_grammar,
            json_schema=None if call.is_free else arguments_schema(tool),
        )

    async def report_judged_calls(self, calls: Sequence[CallText]) -> None:
        """Tell `side`, the judge of texts beside the answer, which of these calls it need not judge again."""
        clean_calls = [call for call in calls if _is_clean(self._outcomes.get(self._key(call)))]
        texts = await run_off_loop(_count_chars(clean_calls), partial(self._list_judged_texts, clean_calls))
        self.side.note_judged_texts(texts)

    def _list_judged_texts(self, calls: Iterable[CallText]) -> list[str]:
        """Texts that `side` need not judge again: the delivered arguments of each call of which all prose was judged.

        Each call is listed as one text, and also string by string, since `side` reads a call in either form, depending
        on whether its arguments arrive as a string or as an object.
        """
        judged_texts = [self.find_new_text(call) for call in calls if _is_judged_whole(call.text)]
        prose_strings = [literal.text for arguments in judged_texts for literal in prose_literals(arguments)]
        return judged_texts + prose_strings

    def withdraw(self, calls: Iterable[CallText], error: CopyStays | NotPutIn) -> None:
        """Drop the corrections of these calls, which then stay unchanged; `error` says why they cannot be delivered."""
        is_copied = isinstance(error, CopyStays)
        if not is_copied:
            metrics.record_arguments_not_applied()
        reason = CopyStays.reason if is_copied else pipeline_outcomes.INTERNAL
        for key in {self._key(call) for call in calls}:
            outcome = self._outcomes.get(key)
            if outcome is not None and outcome.status is Status.CORRECTED:
                self._outcomes[key] = replace(outcome, status=Status.FAILED, reason=reason, text=None)
        self._publish_outcomes()

    def _key(self, call: CallText) -> _CallKey:
        """The key of a whole call in `_outcomes`."""
        return call.name or self._tool_names.get(call.place, ""), call.is_free, call.text

    def _publish_outcomes(self) -> None:
        """Set the outcomes in the request's state, from which headers and comments are made."""
        self.state.arguments = list(self._outcomes.values())


def _count_chars(calls: Iterable[CallText]) -> int:
    return sum(len(call.text) for call in calls)


def _join_strings(arguments: str) -> str:
    """The prose strings of JSON arguments, joined to one text; other arguments, or JSON without prose, as they are."""
    literals = prose_literals(arguments) if reads_as_json(arguments) else ()
    return _SEPARATOR.join(literal.text for literal in literals) or arguments


def _is_judged_whole(arguments: str) -> bool:
    """Whether all prose in arguments was judged when they were corrected."""
    return not (reads_as_json(arguments) and has_prose_outside_literals(arguments))


def _is_clean(outcome: Outcome | None) -> bool:
    """Whether arguments were judged, and nothing that was flagged is left in them."""
    if outcome is None or outcome.correction is None or outcome.reason is not None or outcome.dropped:
        return False
    return outcome.status is Status.CORRECTED or (outcome.status is Status.UNCHANGED and not outcome.flagged_count)
