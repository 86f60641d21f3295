"""Correction of answers that a program reads: JSON, and texts in a format that the request prescribed.

With `json_strings: correct`, every long string value is corrected separately and put back in its position. With
`on_skip: {structured_output: judge}`, every string is judged, keys included. The result must have the shape of the
original and meet the request's schema. Otherwise the original is delivered, with a reason of the gate. The arguments of
a tool call are judged like such an answer, but of their strings only those that are prose.

A literal (`JsonString`) is a string in the JSON text, with its place and its decoded text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import AnswerTooLong
from aligner_proxy.formats.side_text import prose_literals
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.pipeline.outcomes import gate_reason
from aligner_proxy.pipeline.second_reading import find_flagged_texts, join_texts
from aligner_proxy.pipeline.stages.eligibility import MAX_JSON_TEXTS, texts_in_json
from aligner_proxy.plugins.api import Corrected, Inner
from aligner_proxy.plugins.inner import InnerWrapper
from aligner_proxy.text.json_answer import JsonString, has_same_shape, meets_schema, replace_literals, string_literals
from aligner_proxy.types import Correction, Exchange, Policy, SegmentScore, all_cached

SCHEMA = "json_schema"
"""The gate rule for edits that would break the answer's schema; the outcome's reason is then gate_json_schema."""


class JsonAnswer(InnerWrapper):
    """A wrapper around the correction of plain text that corrects each long text of a JSON answer separately."""

    def __init__(self, inner: Inner, exchange: Exchange) -> None:
        super().__init__(inner)
        self._exchange = exchange

    async def correct(self, answer: str, policy: Policy) -> Corrected:
        """Correct the long texts of a JSON answer; the eligibility stage has made sure that there are some."""
        literals = await run_off_loop(len(answer), partial(texts_in_json, answer))
        return await self._correct_strings(answer, literals, policy)

    async def _correct_strings(self, answer: str, literals: Sequence[JsonString], policy: Policy) -> Corrected:
        """Correct each of these strings of the answer, and put the results back into it."""
        # One after another, because parallel corrections would occupy engine slots that other requests need.
        results = {literal: await self.inner.correct(literal.text, policy) for literal in literals}
        return Corrected(
            correction=_combine_corrections(answer, results),
            cache_hit=all_cached(result.cache_hit for result in results.values()),
            # In a thread, because checking a request's schema may take a tenth of a second.
            verdict=await asyncio.to_thread(self._join_verdicts, answer, results),
        )

    def _join_verdicts(self, answer: str, results: Mapping[JsonString, Corrected]) -> Verdict:
        """One verdict for the whole answer, made of those on its strings.

        If the edited answer does not fit the request, it is the original, and all edits count as dropped.
        """
        verdicts = {literal: result.verdict for literal, result in results.items()}
        edit_count = sum(verdict.edits for verdict in verdicts.values())
        broken_rules = tuple(rule for verdict in verdicts.values() for rule in verdict.dropped)
        edited_texts = {literal: verdict.text for literal, verdict in verdicts.items() if verdict.text != literal.text}
        edited_answer = replace_literals(answer, edited_texts)
        if edited_texts and not self._fits_request(answer, edited_answer, frozenset(edited_texts.values())):
            edited_answer = answer
            # a single edit may break the schema, but nothing tells which one, so all are dropped
            broken_rules = (SCHEMA,) * edit_count
        is_changed = edited_answer != answer
        delivered_verdicts = list(verdicts.values()) if is_changed else []
        return Verdict(
            edited_answer,
            gate_reason(broken_rules, is_changed=is_changed),
            edit_count,
            broken_rules,
            sum(verdict.renumbered for verdict in delivered_verdicts),
            findings=tuple(finding for verdict in delivered_verdicts for finding in verdict.findings),
        )

    def _fits_request(self, answer: str, edited_answer: str, new_texts: frozenset[str]) -> bool:
        """Whether the edited answer has the shape of the original and meets the request's schema.

        `new_texts` are the texts of the edited strings. False if the request has a grammar that cannot be checked.
        """
        if self._exchange.constrained or not has_same_shape(answer, edited_answer):
            return False
        schema = self._exchange.json_schema
        return schema is None or meets_schema(edited_answer, schema, new_texts)


class JudgedForm(JsonAnswer):
    """A wrapper that judges all strings of a JSON answer, or the whole text in another prescribed format.

    In the arguments of a tool call it judges only prose: ids, names and other short strings stay.

    `scorer` scores the strings as one text, and only strings with a flagged segment are corrected. `is_json` says
    whether the answer could be parsed as JSON. Otherwise the whole text is judged, because JSON too deep or too long to
    parse may hide anything.
    """

    def __init__(self, inner: Inner, exchange: Exchange, scorer: Inner, *, is_json: bool) -> None:
        super().__init__(inner, exchange)
        self._scorer = scorer
        self._is_json = is_json

    async def correct(self, answer: str, policy: Policy) -> Corrected:
        """Correct the answer; raises `AnswerTooLong` if too many strings need correction."""
        if not self._is_json:
            return self._refuse_unchecked_edits(await self.inner.correct(answer, policy), answer)
        # keys are judged, too, although the edit of a key will be refused
        read_literals = prose_literals if self._exchange.is_call else string_literals
        literals = await run_off_loop(len(answer), partial(read_literals, answer))
        if not literals:
            return Corrected(Correction(answer), None, Verdict(answer, None, 0, ()))
        joint_scores = None
        if len(literals) > 1 and await self._scorer.has_detector(policy):
            joined_text = join_texts(literal.text for literal in literals)
            joint_scores = await self._scorer.correct(joined_text, replace(policy, score_only=True))
            literals = _select_flagged(literals, joint_scores.correction.segments)
        if len(literals) > MAX_JSON_TEXTS:
            raise AnswerTooLong(f"{len(literals)} strings of a JSON answer are to be corrected")
        corrected = await self._correct_strings(answer, literals, policy)
        return corrected if joint_scores is None else _add_joint_scores(corrected, joint_scores)

    def _refuse_unchecked_edits(self, corrected: Corrected, answer: str) -> Corrected:
        """The correction of a text that is not JSON, without its edits if they may break a prescribed format."""
        verdict = corrected.verdict
        if not self._exchange.structured or verdict.text == answer:
            return corrected
        broken_rules = (SCHEMA,) * verdict.edits
        reason = gate_reason(broken_rules, is_changed=False)
        return replace(corrected, verdict=Verdict(answer, reason, verdict.edits, broken_rules))


def _select_flagged(literals: Sequence[JsonString], segments: Sequence[SegmentScore]) -> list[JsonString]:
    """The strings with a flagged segment. `segments` are those of the joined strings; empty selects all strings."""
    if not segments:
        return list(literals)
    flagged_numbers = {number for number, _ in find_flagged_texts([literal.text for literal in literals], segments)}
    return [literal for number, literal in enumerate(literals) if number in flagged_numbers]


def _add_joint_scores(corrected: Corrected, joint_scores: Corrected) -> Corrected:
    """The correction with the segments of `joint_scores`, those of all strings, and with its cost added."""
    joint = joint_scores.correction
    correction = corrected.correction.with_cost_of([corrected.correction, joint])
    correction = replace(correction, segments=joint.segments, aligner=joint.aligner)
    cache_hit = all_cached([corrected.cache_hit, joint_scores.cache_hit])
    return replace(corrected, correction=correction, cache_hit=cache_hit)


def _combine_corrections(answer: str, results: Mapping[JsonString, Corrected]) -> Correction:
    """Combine the corrections of strings into one correction of the whole answer, with their total cost.

    Its text has all proposed edits, including those that the gate has dropped.
    """
    corrections = {string: result.correction for string, result in results.items()}
    combined = Correction(
        text=replace_literals(answer, {string: correction.text for string, correction in corrections.items()}),
        segments=tuple(segment for correction in corrections.values() for segment in correction.segments),
        aligner=next((correction.aligner for correction in corrections.values()), ""),
    )
    return combined.with_cost_of(corrections.values())
