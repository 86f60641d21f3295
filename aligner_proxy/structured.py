"""How is a JSON answer corrected, where a route asks for it? Text by text, each as an answer of its own.

Every long string value is aligned and gated alone and put back where it stood. The result must have the shape of the
original and meet the request's schema; else the original stands. Tool arguments are not answers and never get here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import astuple, replace

from aligner_proxy.json_schema import meets
from aligner_proxy.json_strings import Literal, put_back, same_shape, texts
from aligner_proxy.refusals import is_refusal
from aligner_proxy.types import Correction, DecodeCounts, Exchange, Mode, Outcome, Policy, SkipReason, Status

MOST_TEXTS = 32
SCHEMA = "json_schema"
"""The reason of an answer that its edits would keep from meeting the schema: gate_json_schema."""

Align = Callable[[str, Policy], Awaitable[Outcome]]


async def align(exchange: Exchange, answer: str, policy: Policy, one: Align) -> Outcome:
    """The outcome of a whole JSON answer; `one` decides each text in it."""
    found = [literal for literal in texts(answer) if not is_refusal(literal.text)]
    if not found or len(found) > MOST_TEXTS:
        reason = SkipReason.TOO_LONG if found else SkipReason.STRUCTURED_OUTPUT
        return Outcome(Status.SKIPPED, reason.value, answer, policy, exchange.index)
    enforced = replace(policy, mode=Mode.ENFORCE)
    # One after the other: together they would take the places of other requests in the engine.
    made = {text: await one(text.text, enforced) for text in found}
    new = {text: outcome.text for text, outcome in made.items() if outcome.status is Status.CORRECTED and outcome.text}
    edited = put_back(answer, new)
    outcomes = list(made.values())
    if new and not _fits(exchange, answer, edited, frozenset(new.values())):
        edited, outcomes = answer, [_dropped(outcome) for outcome in outcomes]
    return _together(exchange, answer, edited, policy, outcomes, _as_made(answer, made))


def _fits(exchange: Exchange, answer: str, edited: str, new: frozenset[str]) -> bool:
    if not same_shape(answer, edited):
        return False
    return exchange.json_schema is None or meets(edited, exchange.json_schema, new)


def _dropped(outcome: Outcome) -> Outcome:
    return replace(outcome, dropped=(SCHEMA,) * outcome.edits, reason=f"gate_{SCHEMA}")


def _together(
    exchange: Exchange, answer: str, edited: str, policy: Policy, outcomes: Sequence[Outcome], made: Correction
) -> Outcome:
    """One outcome for all texts: what changed any of them changes the answer, and the first rule broken is named."""
    changes = edited != answer
    dropped = tuple(rule for outcome in outcomes for rule in outcome.dropped)
    reason = f"gate_{'partly:' if changes else ''}{dropped[0]}" if dropped else None
    status = Status.CORRECTED if changes else Status.UNCHANGED
    if policy.mode is Mode.SHADOW:
        status, reason = Status.SHADOW, reason or ("would_correct" if changes else "would_leave")
    hits = {outcome.cache_hit for outcome in outcomes} - {None}
    return Outcome(
        status=status,
        reason=reason,
        text=edited if status is Status.CORRECTED else answer,
        policy=policy,
        index=exchange.index,
        cache_hit=False not in hits if hits else None,
        correction=made,
        edited=edited,
        edits=sum(outcome.edits for outcome in outcomes),
        dropped=dropped,
    )


def _as_made(answer: str, made: Mapping[Literal, Outcome]) -> Correction:
    """What the engine said about all texts, as one correction of the answer."""
    known = {text: outcome.correction for text, outcome in made.items() if outcome.correction is not None}
    each = list(known.values())
    counts = (sum(column) for column in zip(*(astuple(c.counts) for c in each), strict=True))
    return Correction(
        text=put_back(answer, {text: correction.text for text, correction in known.items()}),
        segments=tuple(segment for c in each for segment in c.segments),
        counts=DecodeCounts(*counts),
        prompt_tokens=sum(c.prompt_tokens for c in each),
        ms=sum(c.ms for c in each),
        aligner=each[0].aligner if each else "",
    )
