"""Correction of answers that a program reads: JSON, and texts in a format that the request prescribed.

With `json_strings: correct`, every long string value is corrected separately and put back in its position. With
`on_skip: {structured_output: judge}`, every string is judged, keys included. The result must have the shape of the
original and meet the request's schema. Otherwise the original is delivered, with a reason of the gate. The arguments of
a tool call are such an answer, of which only the strings that are prose are judged.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import AnswerTooLong
from aligner_proxy.formats.side_text import prose_literals
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.pipeline.outcomes import gate_reason
from aligner_proxy.pipeline.second_reading import find_flagged
from aligner_proxy.pipeline.stages.eligibility import MAX_JSON_TEXTS, texts_in_json
from aligner_proxy.plugins.api import Corrected, Inner
from aligner_proxy.plugins.inner import InnerWrapper
from aligner_proxy.text.json_answer import JsonString, has_same_shape, meets_schema, replace_literals, string_literals
from aligner_proxy.types import Correction, Exchange, Policy, SegmentScore, all_cached

SCHEMA = "json_schema"
"""The gate rule for edits that would break the answer's schema; the reason is then gate_json_schema."""
_BREAK = "\n\n"
"""Separates the strings when they are scored as one text; only an open code fence makes a segment span two of them."""


class JsonAnswer(InnerWrapper):
    """A wrapper around the correction of plain text that corrects each long text of a JSON answer separately."""

    def __init__(self, inner: Inner, exchange: Exchange) -> None:
        super().__init__(inner)
        self._exchange = exchange

    async def correct(self, answer: str, policy: Policy) -> Corrected:
        """Correct a whole JSON answer, in which `eligibility` has found texts."""
        literals = await run_off_loop(len(answer), partial(texts_in_json, answer))
        return await self._correct_strings(answer, literals, policy)

    async def _correct_strings(self, answer: str, literals: Sequence[JsonString], policy: Policy) -> Corrected:
        """Correct each of these strings and put the results back into the answer."""
        # Sequentially, because parallel corrections would occupy engine slots that other requests need.
        results = {literal: await self.inner.correct(literal.text, policy) for literal in literals}
        return Corrected(
            correction=_combine_corrections(answer, results),
            cache_hit=all_cached(result.cache_hit for result in results.values()),
            # In a thread, because checking a request's schema may take a tenth of a second.
            verdict=await asyncio.to_thread(self._join_verdicts, answer, results),
        )

    def _join_verdicts(self, answer: str, results: Mapping[JsonString, Corrected]) -> Verdict:
        """One verdict for the whole answer, from those on its texts; its reason names the first broken rule."""
        edits = sum(result.verdict.edits for result in results.values())
        dropped = tuple(rule for result in results.values() for rule in result.verdict.dropped)
        edited_texts = {
            string: result.verdict.text for string, result in results.items() if result.verdict.text != string.text
        }
        edited = replace_literals(answer, edited_texts)
        if edited_texts and not self._fits(answer, edited, frozenset(edited_texts.values())):
            edited = answer
            # one broken edit may be enough, but the schema does not say which
            dropped = (SCHEMA,) * edits
        changed = edited != answer
        renumbered = sum(result.verdict.renumbered for result in results.values()) if changed else 0
        findings = (
            tuple(finding for result in results.values() for finding in result.verdict.findings) if changed else ()
        )
        reason = gate_reason(dropped, changed=changed)
        return Verdict(edited, reason, edits, dropped, renumbered, findings=findings)

    def _fits(self, answer: str, edited: str, new_texts: frozenset[str]) -> bool:
        """Whether the edited answer has the shape of the original and meets the request's schema."""
        if self._exchange.constrained or not has_same_shape(answer, edited):
            return False
        schema = self._exchange.json_schema
        return schema is None or meets_schema(edited, schema, new_texts)


class JudgedForm(JsonAnswer):
    """A wrapper that judges all strings of a JSON answer, or the whole text in another prescribed format.

    `scorer` scores the strings as one text, and only strings with a flagged segment are corrected. `is_json` is false
    if the answer could not be parsed. The whole text is then judged, because JSON too deep or too long to parse may
    hide anything.
    """

    def __init__(self, inner: Inner, exchange: Exchange, scorer: Inner, *, is_json: bool) -> None:
        super().__init__(inner, exchange)
        self._scorer = scorer
        self._is_json = is_json

    async def correct(self, answer: str, policy: Policy) -> Corrected:
        """Correct the answer; raises `AnswerTooLong` if too many strings need correction."""
        if not self._is_json:
            return self._refuse_unchecked_edits(await self.inner.correct(answer, policy), answer)
        literals = await run_off_loop(len(answer), partial(self.literals, answer))
        if not literals:
            return Corrected(Correction(answer), None, Verdict(answer, None, 0, ()))
        overview = None
        if len(literals) > 1 and await self._scorer.has_detector(policy):
            joined = _BREAK.join(literal.text for literal in literals)
            overview = await self._scorer.correct(joined, replace(policy, score_only=True))
            literals = _select_flagged(literals, overview.correction.segments)
        if len(literals) > MAX_JSON_TEXTS:
            raise AnswerTooLong(f"{len(literals)} strings of a JSON answer are to be corrected")
        corrected = await self._correct_strings(answer, literals, policy)
        return corrected if overview is None else _add_overview(corrected, overview)

    def literals(self, answer: str) -> list[JsonString]:
        """The strings of a JSON answer that are judged: all of them, keys included."""
        return string_literals(answer)

    def _refuse_unchecked_edits(self, corrected: Corrected, answer: str) -> Corrected:
        """The correction of a text that is not JSON, without its edits if the request prescribed a format."""
        verdict = corrected.verdict
        if not self._exchange.structured or verdict.text == answer:
            return corrected
        dropped = (SCHEMA,) * verdict.edits
        return replace(corrected, verdict=Verdict(answer, gate_reason(dropped, changed=False), verdict.edits, dropped))


class ArgumentsForm(JudgedForm):
    """A wrapper that judges the prose in the arguments of a tool call; ids, names and other short strings stay."""

    def literals(self, answer: str) -> list[JsonString]:
        """The strings that are prose; a key counts, too, but has to stay as it is."""
        return prose_literals(answer)


def _select_flagged(literals: Sequence[JsonString], segments: Sequence[SegmentScore]) -> list[JsonString]:
    """The strings with a flagged segment; all of them if the engine gives no scores."""
    if not segments:
        return list(literals)
    joined = _BREAK.join(literal.text for literal in literals)
    # where each string begins in the joined text
    starts = [0, *accumulate(len(literal.text) + len(_BREAK) for literal in literals)]
    flagged_numbers = set[int]()
    for start, end, _ in find_flagged(joined, segments):
        if end > start:
            # a code fence that one string leaves open makes one segment of it and the strings after it
            first = bisect_right(starts, start) - 1
            stop = bisect_left(starts, end)
            flagged_numbers.update(range(first, stop))
    return [literal for number, literal in enumerate(literals) if number in flagged_numbers]


def _add_overview(corrected: Corrected, overview: Corrected) -> Corrected:
    """The correction with the scores of all strings, and with the cost of scoring them added."""
    correction = corrected.correction.with_cost_of([corrected.correction, overview.correction])
    segments = overview.correction.segments
    correction = replace(correction, segments=segments, aligner=overview.correction.aligner)
    return replace(corrected, correction=correction, cache_hit=all_cached([corrected.cache_hit, overview.cache_hit]))


def _combine_corrections(answer: str, results: Mapping[JsonString, Corrected]) -> Correction:
    """Combine the corrections of all strings into one of the whole answer, with their total cost.

    It holds what was proposed for the strings; what the gate left of it is in the verdict.
    """
    corrections = {string: result.correction for string, result in results.items()}
    combined = Correction(
        text=replace_literals(answer, {string: correction.text for string, correction in corrections.items()}),
        segments=tuple(segment for correction in corrections.values() for segment in correction.segments),
        aligner=next((correction.aligner for correction in corrections.values()), ""),
    )
    return combined.with_cost_of(corrections.values())
