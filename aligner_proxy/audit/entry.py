"""Audit entry of one choice: ids, reasons and times in plain text, and one block (encrypted if set) with all texts.

The block contains all that a replay needs: tenant, conversation, answer. It is missing if the client or the upstream
forbids storing. Texts are redacted before anything is derived from them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from sys import getsizeof
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from aligner_proxy.gate.edits import edits_by_comparison
from aligner_proxy.plugins.api import Content, Entry, Flagged
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.text.structure import split
from aligner_proxy.types import Exchange, IncomingKind, Outcome, Policy, SideKind, Turn

Redact = Callable[[str], str]
"""The operator's function: called with a text, it returns the text without what must not be stored."""
KEEP_TEXT: Redact = str
"""Redaction that changes nothing."""

BESIDE_ID = "-beside"
"""Suffix of the id of entries of the shadow aligner (`shadow_aligner`), whose answers are only compared."""
SHADOW_SUFFIX = "/beside"
"""Suffix of the policy's name in entries of the shadow aligner, so that they do not count as entries of the route."""
SIDE_IDS: Mapping[SideKind | IncomingKind, str] = {kind: f"-{kind.value}" for kind in (*SideKind, *IncomingKind)}
"""For each kind of side text (such as reasoning) and of text in the request, the suffix of its entries' id."""
_EVENT_BYTES = 4096
"""Estimated bytes of an event without its texts."""
_BYTES_PER_OBJECT = 96
"""Estimated bytes of the object around each text: a turn, a segment, an item of a list."""
_SCORE_DIGITS = 3
"""Decimal digits of a stored score."""
_FIELDS_WITHOUT_EFFECT = frozenset(
    ("origins", "tenant", "traffic", "quota", "upstream", "payer", "aligner_shares", "shadow_aligner", "hand_off")
)
"""Fields that identify the request or the origin of its policy, not the effect of the policy."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Facts about one answer, collected on the request path as frozen values; the writer thread computes the rest."""

    at: float
    """Time of the answer, in seconds since the epoch."""
    endpoint: str | None
    """Name of the API endpoint that was called; None if it is unknown."""
    facts: RequestFacts
    """What the request said: its tenant, model, texts and options."""
    exchange: Exchange
    """The conversation with the original answer."""
    outcome: Outcome
    record: Mapping[str, Any] = field(default_factory=dict)
    """What plugins record about the policy, by name."""
    aligner_id: str = ""
    """The value of x-aligner-id."""


def _convert_old_content(content: object) -> object:
    """Convert content that an earlier version wrote to the current fields; anything but a dict stays as it is."""
    if not isinstance(content, dict):
        return content
    content = dict(content)
    adherence = content.pop("adherence", None)
    # In earlier versions, `adherence` had a list of preferences; now a plugin reports them.
    if isinstance(adherence, list):
        scores = {preference["name"]: [preference["before"], preference["after"]] for preference in adherence}
        content["reports"] = {"preferences": scores}
    if isinstance(content.get("facts"), dict):
        content["facts"] = _convert_old_facts(content["facts"])
    return content


def _convert_old_facts(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert facts of a request that an earlier version wrote to the current fields."""
    facts = dict(facts)
    # Earlier versions had the system prompt and the fields in one nested object.
    request = facts.get("said")
    if isinstance(request, dict):
        texts = {name: text for name, text in request.get("user", {}).items() if text}
        facts |= {"system": request.get("system", {}).get("text", ""), "fields": texts}
    # In earlier versions, `brought` was the list of references.
    references = facts.get("brought")
    if isinstance(references, list):
        facts["brought"] = {"references": references} if references else {}
    # The percentile had another name. `replay` needs it to choose the aligner that had the conversation.
    if "position" in facts:
        facts.setdefault("traffic_percentile", facts["position"])
    return facts


CONTENT: TypeAdapter[Content] = TypeAdapter(Annotated[Content, BeforeValidator(_convert_old_content)])
"""Converts the block of texts of an entry to JSON and back."""


def encode_content(content: Content) -> bytes:
    """The JSON of a content; unpaired surrogates, which UTF-8 cannot represent, become U+FFFD."""
    try:
        return CONTENT.dump_json(content)
    except ValueError:
        return _replace_surrogates(json.dumps(CONTENT.dump_python(content), ensure_ascii=False)).encode()


def _replace_surrogates(text: str) -> str:
    """The text with U+FFFD in place of unpaired surrogates, which UTF-8 cannot represent."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def estimate_event_bytes(event: AuditEvent) -> int:
    """Estimate the memory of a queued event in bytes: its texts, each counted once, plus constants for the rest."""
    text_bytes: dict[int, int] = {}  # by identity, because several fields often share one text
    values: list[object] = [event.facts.fields, event.record, event.outcome.reports]
    values += (event.facts.own, event.facts.system, event.facts.tool_results, event.facts.given, event.facts.brought)
    values += (event.exchange.answer, event.exchange.json_schema, event.exchange.tagged_reasoning)
    values += (event.outcome.text, event.outcome.edited)
    for turn in event.exchange.turns:
        values += (turn.role, turn.content)
    if event.outcome.correction is not None:
        values.append(event.outcome.correction.text)
        values += [segment.text for segment in event.outcome.segments]
    object_count = 0
    while values:
        value = values.pop()
        object_count += 1
        if isinstance(value, Mapping):
            values += (*value.keys(), *value.values())
        elif isinstance(value, list | tuple):
            values += value
        elif isinstance(value, str):
            text_bytes[id(value)] = getsizeof(value)
    return _EVENT_BYTES + object_count * _BYTES_PER_OBJECT + sum(text_bytes.values())


def make_entry(event: AuditEvent, redact: Redact = KEEP_TEXT) -> Entry:
    """Make the entry to store; it has no texts (`content` is None) if client or upstream forbids storing them."""
    outcome = event.outcome
    exchange = event.exchange
    correction = outcome.correction
    policy = outcome.policy
    return Entry(
        at=event.at,
        call_id=_replace_surrogates(exchange.call_id),
        choice=exchange.index,
        tenant=policy.tenant,
        model=_replace_surrogates(event.facts.model),
        endpoint=event.endpoint,
        policy=policy.name,
        policy_hash=policy_hash(policy),
        mode=policy.mode.value,
        objectives=tuple(objective.name for objective in policy.objectives),
        status=outcome.status.value,
        reason=outcome.reason,
        aligner=correction.aligner if correction else None,
        cache_hit=outcome.cache_hit,
        ms=outcome.ms,
        engine_ms=correction.ms if correction else 0.0,
        forwards=correction.counts.forwards if correction else 0,
        chars=len(exchange.answer or ""),
        content=None if exchange.no_store else _make_content(event, redact),
        aligner_id=event.aligner_id,
        judged=len(outcome.segments) if correction else None,
        changed=None if outcome.edited is None or policy.score_only else outcome.edited != exchange.answer,
        margin=outcome.margin,
    )


def policy_hash(policy: Policy) -> str:
    """Hash of the settings that have an effect, without tenant and origins; 16 hexadecimal digits."""
    all_settings = asdict(policy.without_requirements())
    settings = {name: value for name, value in all_settings.items() if name not in _FIELDS_WITHOUT_EFFECT}
    # Requirements contain texts of the request, so only what the operator set of them counts.
    settings["standards"] = [(name, requirement.operator_settings) for name, requirement in policy.requirements]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _make_content(event: AuditEvent, redact: Redact) -> Content:
    """Build the block with texts: redact all texts, then find edits and flagged segments in the redacted texts."""
    outcome = event.outcome
    correction = outcome.correction
    exchange = _redact_exchange(event.exchange, redact)
    answer = exchange.answer
    edited = None if outcome.edited is None else redact(outcome.edited)
    proposed = None if correction is None or correction.text == outcome.edited else redact(correction.text)
    # If the answer was delivered unchanged, the proposed edits are stored.
    intended_text = proposed if proposed is not None and edited == answer else edited
    edits = () if answer is None or intended_text is None else tuple(find_edits(answer, intended_text))
    return Content(
        facts=_redact_facts(event.facts, redact),
        exchange=exchange,
        edited=edited,
        proposed=proposed,
        edits=edits,
        segments=tuple(_find_flagged_segments(outcome, answer or "", redact)),
        scores=tuple(_round_score(segment.score) for segment in outcome.segments),
        threshold=outcome.threshold,
        reports=dict(outcome.reports) | outcome.findings_record,
        record=dict(event.record),
    )


def _redact_exchange(exchange: Exchange, redact: Redact) -> Exchange:
    return replace(
        exchange,
        turns=tuple(Turn(turn.role, redact(turn.content)) for turn in exchange.turns),
        answer=None if exchange.answer is None else redact(exchange.answer),
        json_schema=None if exchange.json_schema is None else _redact_json(exchange.json_schema, redact),
        tagged_reasoning=redact(exchange.tagged_reasoning),
    )


def _redact_json(text: str, redact: Redact) -> str:
    """Return a JSON text with every text in it redacted, so that it stays JSON; any other text is redacted whole."""
    try:
        value = json.loads(text)
        redacted = _redact_value(value, redact)
    except (ValueError, RecursionError):
        return redact(text)
    return text if redacted == value else json.dumps(redacted)


def _redact_facts(facts: RequestFacts, redact: Redact) -> RequestFacts:
    return replace(
        facts,
        own=tuple(map(redact, facts.own)),
        system=redact(facts.system),
        fields=_redact_value(facts.fields, redact),
        tool_results=redact(facts.tool_results),
        given=_redact_value(facts.given, redact),
        brought=_redact_value(facts.brought, redact),
    )


def _redact_value(value: Any, redact: Redact) -> Any:
    """Return a copy of a JSON-like value with every text in it redacted; keys of mappings stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: _redact_value(inner, redact) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(inner, redact) for inner in value]
    return value


def _find_flagged_segments(outcome: Outcome, answer: str, redact: Redact) -> Iterator[Flagged]:
    """Yield the flagged segments with redacted texts; a text is None if the redacted answer does not contain it.

    That happens when redaction removes something that begins in one segment and ends in another.
    """
    for index, segment in enumerate(outcome.segments):
        if segment.flagged:
            text = redact(segment.text)
            yield Flagged(text if text in answer else None, segment.score, outcome.objective_of(segment), index)


def _round_score(score: float | None) -> float | None:
    """A score rounded for storage; None if there is no score or JSON cannot represent it."""
    if score is None or not math.isfinite(score):
        return None
    return round(score, _SCORE_DIGITS)


def find_edits(before: str, after: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, new text) for each replaced range of `before`, and for white space that differs at the end."""
    edits = edits_by_comparison(before, split(before), after)
    yield from ((edit.start, edit.end, edit.text) for edit in edits)
    visible_length = len(before.rstrip())
    new_space = after[len(after.rstrip()) :]
    covers_end = bool(edits) and edits[-1].end == len(before)
    if before[visible_length:] != new_space and not covers_end:
        yield visible_length, len(before), new_space
