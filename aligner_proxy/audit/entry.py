"""Audit entry of one choice: ids, reasons and times in the clear, and one block that holds everything with text.

The block holds all that a replay needs: who asked, the conversation, the answer. Where client or upstream forbade
storing there is no block. Redaction comes before anything else is made of a text, so nothing derived can tell more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from aligner_proxy.gate.edits import by_comparison
from aligner_proxy.plugins.api import Content, Entry, Flagged
from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.text.structure import split
from aligner_proxy.types import Exchange, Outcome, Policy, Turn

Redact = Callable[[str], str]

_NOT_POLICY = ("origins", "tenant", "quota")
"""Whose request it was and where its policy was said: not what is to be done."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What the request path hands over: frozen things only, nothing is computed there."""

    at: float
    endpoint: str | None
    facts: RequestFacts
    exchange: Exchange
    outcome: Outcome
    record: Mapping[str, Any] = field(default_factory=dict)
    """What plugins say of the policy."""


def _of_today(content: object) -> object:
    """Content as it was written by earlier versions, in today's fields."""
    if not isinstance(content, dict):
        return content
    content = dict(content)
    if isinstance(met := content.pop("adherence", None), list):
        content["reports"] = {"preferences": {one["name"]: [one["before"], one["after"]] for one in met}}
    facts = content.get("facts")
    if isinstance(facts, dict) and isinstance(said := facts.get("said"), dict):
        texts = {name: text for name, text in said.get("user", {}).items() if text}
        content["facts"] = {**facts, "system": said.get("system", {}).get("text", ""), "fields": texts}
    return content


CONTENT: TypeAdapter[Content] = TypeAdapter(Annotated[Content, BeforeValidator(_of_today)])


def entry(noted: AuditEvent, redact: Redact | None = None) -> Entry:
    """What is to be kept of `noted`."""
    outcome = noted.outcome
    exchange = noted.exchange
    found = noted.outcome.correction
    policy = outcome.policy
    return Entry(
        at=noted.at,
        call_id=exchange.call_id,
        choice=exchange.index,
        tenant=policy.tenant,
        model=noted.facts.model,
        endpoint=noted.endpoint,
        policy=policy.name,
        policy_hash=policy_hash(policy),
        mode=policy.mode.value,
        objectives=tuple(objective.name for objective in policy.objectives),
        status=outcome.status.value,
        reason=outcome.reason,
        aligner=found.aligner if found else None,
        cache_hit=outcome.cache_hit,
        ms=outcome.ms,
        engine_ms=found.ms if found else 0.0,
        forwards=found.counts.forwards if found else 0,
        chars=len(exchange.answer or ""),
        content=None if exchange.no_store else _content(noted, redact or _as_it_is),
    )


def policy_hash(policy: Policy) -> str:
    """The same for every request to which the same is done, whoever asks and wherever it was said."""
    parts = {name: value for name, value in asdict(policy).items() if name not in _NOT_POLICY}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _as_it_is(text: str) -> str:
    return text


def _content(noted: AuditEvent, redact: Redact) -> Content:
    outcome = noted.outcome
    found = noted.outcome.correction
    turns = tuple(Turn(turn.role, redact(turn.content)) for turn in noted.exchange.turns)
    answer = None if noted.exchange.answer is None else redact(noted.exchange.answer)
    edited = None if outcome.edited is None else redact(outcome.edited)
    proposed = None if found is None or found.text == outcome.edited else redact(found.text)
    wanted = proposed if proposed is not None and edited == answer else edited
    return Content(
        facts=replace(noted.facts, system=redact(noted.facts.system), fields=_redacted(noted.facts.fields, redact)),
        exchange=replace(noted.exchange, turns=turns, answer=answer),
        edited=edited,
        proposed=proposed,
        edits=() if answer is None or wanted is None else tuple(edits(answer, wanted)),
        segments=tuple(_flagged(outcome, answer or "", redact)),
        reports=dict(outcome.reports),
        record=dict(noted.record),
    )


def _redacted(value: Any, redact: Redact) -> Any:
    """A JSON value with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: _redacted(inner, redact) for name, inner in value.items()}
    return [_redacted(inner, redact) for inner in value] if isinstance(value, list) else value


def _flagged(outcome: Outcome, answer: str, redact: Redact) -> Iterator[Flagged]:
    """A segment is shown only as it stands in the redacted answer: cut out, a pattern across its ends may be missed."""
    for segment in outcome.correction.segments if outcome.correction else ():
        if segment.flagged:
            text = redact(segment.text)
            yield Flagged(text if text in answer else None, segment.score, outcome.named(segment))


def edits(before: str, after: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, text): what stands in place of which characters, white space at the very end included."""
    found = by_comparison(before, split(before), after)
    yield from ((edit.start, edit.end, edit.text) for edit in found)
    end = len(before.rstrip())
    gap = after[len(after.rstrip()) :]
    if before[end:] != gap and not (found and found[-1].end == len(before)):
        yield end, len(before), gap
