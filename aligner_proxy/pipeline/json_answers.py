"""Correction of JSON answers, text by text, where a route asks for it.

Every long string value is corrected and gated by itself and put back where it stood. The result must have the shape of
the original and meet the request's schema; else the original stands. Tool arguments are no answers and never get here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aligner_proxy.gate.judge import Verdict
from aligner_proxy.pipeline.eligibility import texts_in_json
from aligner_proxy.pipeline.outcomes import gate_reason
from aligner_proxy.plugins.api import Corrected, Inner
from aligner_proxy.text.json_answer import Literal, meets, put_back, same_shape
from aligner_proxy.types import Correction, Exchange, Policy, all_cached

SCHEMA = "json_schema"
"""The rule that edits break which would keep the answer from meeting its schema: reason gate_json_schema."""


class JsonAnswer:
    """A wrapper around the correction of plain text that corrects each long text of a JSON answer by itself."""

    def __init__(self, inner: Inner, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange
        self.deadline = inner.deadline

    async def correct(self, answer: str, policy: Policy) -> Corrected:
        """The correction of a whole JSON answer, which `eligibility` has found to hold texts."""
        # One after the other: together they would take the places of other requests in the engine.
        parts = {literal: await self._inner.correct(literal.text, policy) for literal in texts_in_json(answer)}
        return Corrected(
            correction=_combined(answer, parts),
            cache_hit=all_cached(part.cache_hit for part in parts.values()),
            # In a thread: a request's schema may take a tenth of a second.
            verdict=await asyncio.to_thread(self._verdict, answer, parts),
        )

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict on one text."""
        return await self._inner.judge(text, correction, policy)

    async def has_detector(self, policy: Policy) -> bool:
        """Whether there is a detector head under this policy."""
        return await self._inner.has_detector(policy)

    def _verdict(self, answer: str, parts: Mapping[Literal, Corrected]) -> Verdict:
        """One verdict for all texts; the first rule broken is named."""
        edits = sum(part.verdict.edits for part in parts.values())
        dropped = tuple(rule for part in parts.values() for rule in part.verdict.dropped)
        edited_texts = {text: part.verdict.text for text, part in parts.items() if part.verdict.text != text.text}
        edited = put_back(answer, edited_texts)
        if edited_texts and not self._fits(answer, edited, frozenset(edited_texts.values())):
            edited = answer
            dropped = (SCHEMA,) * edits
        return Verdict(edited, gate_reason(dropped, changed=edited != answer), edits, dropped)

    def _fits(self, answer: str, edited: str, new_texts: frozenset[str]) -> bool:
        """Whether the edited answer has the shape of the original and meets the request's schema."""
        if not same_shape(answer, edited):
            return False
        schema = self._exchange.json_schema
        return schema is None or meets(edited, schema, new_texts)


def _combined(answer: str, parts: Mapping[Literal, Corrected]) -> Correction:
    """What the engine returned for all texts, as one correction of the answer."""
    corrections = {text: part.correction for text, part in parts.items()}
    combined = Correction(
        text=put_back(answer, {text: correction.text for text, correction in corrections.items()}),
        segments=tuple(segment for correction in corrections.values() for segment in correction.segments),
        aligner=next((correction.aligner for correction in corrections.values()), ""),
    )
    return combined.with_cost_of(corrections.values())
