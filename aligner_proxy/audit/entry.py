"""What is written of one choice? Ids, reasons and times in the clear, and one block that holds everything with text.

The block holds all that a replay needs: who asked, the conversation, the answer. Where client or upstream forbade
storing there is no block. Redaction comes before anything else is made of a text, so nothing derived can tell more.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter

from aligner_proxy.policy import RequestFacts
from aligner_proxy.preferences.dialogue import MetaPrompt, SystemInfo, UserInfo
from aligner_proxy.segments import split
from aligner_proxy.types import Exchange, Outcome, Policy, Turn
from aligner_proxy.wishes import Adherence

Redact = Callable[[str], str]

_COMPARABLE = 400
"""Segments on either side beyond which comparing takes too long; all between equal ends is one edit then."""
_NOT_POLICY = ("origins", "tenant", "quota")
"""Whose request it was and where its policy was said: not what is to be done."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What the request path hands over: frozen things only, nothing is computed there."""

    at: float
    endpoint: str | None
    facts: RequestFacts
    exchange: Exchange
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Flagged:
    """A segment that the detector spoke against; `text` is None where redaction leaves nothing certain to show."""

    text: str | None
    score: float | None
    objective: str | None


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that holds text."""

    facts: RequestFacts
    exchange: Exchange
    edited: str | None = None
    """What the gate let through, delivered or, in shadow mode, not; None where nothing was judged."""
    proposed: str | None = None
    """What the aligner wanted, where the gate did not let it through as it was."""
    edits: tuple[tuple[int, int, str], ...] = ()
    """(start, end, text): from the answer to `edited`, or to `proposed` where nothing was let through."""
    segments: tuple[Flagged, ...] = ()
    adherence: tuple[Adherence, ...] = ()


CONTENT = TypeAdapter(Content)


@dataclass(frozen=True, slots=True)
class Entry:
    """One choice. Times: `at` seconds since the epoch, `ms` added to the response, `engine_ms` of the aligner."""

    at: float
    call_id: str
    choice: int
    tenant: str
    model: str
    endpoint: str | None
    policy: str
    policy_hash: str
    mode: str
    objectives: tuple[str, ...]
    status: str
    reason: str | None
    aligner: str | None
    cache_hit: bool | None
    ms: float
    engine_ms: float
    forwards: int
    chars: int
    content: Content | None = None


def entry(noted: Noted, redact: Redact | None = None) -> Entry:
    """What is to be kept of `noted`."""
    outcome, exchange, found = noted.outcome, noted.exchange, noted.outcome.correction
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


def _content(noted: Noted, redact: Redact) -> Content:
    outcome, found = noted.outcome, noted.outcome.correction
    turns = tuple(Turn(turn.role, redact(turn.content)) for turn in noted.exchange.turns)
    answer = None if noted.exchange.answer is None else redact(noted.exchange.answer)
    edited = None if outcome.edited is None else redact(outcome.edited)
    proposed = None if found is None or found.text == outcome.edited else redact(found.text)
    wanted = proposed if proposed is not None and edited == answer else edited
    return Content(
        facts=replace(noted.facts, said=_redacted(noted.facts.said, redact)),
        exchange=replace(noted.exchange, turns=turns, answer=answer),
        edited=edited,
        proposed=proposed,
        edits=() if answer is None or wanted is None else tuple(edits(answer, wanted)),
        segments=tuple(_flagged(outcome, answer or "", redact)),
        adherence=outcome.adherence,
    )


def _redacted(said: MetaPrompt, redact: Redact) -> MetaPrompt:
    user = UserInfo(redact(said.user.persona), redact(said.user.preference))
    return MetaPrompt(SystemInfo(redact(said.system.text)), user)


def _flagged(outcome: Outcome, answer: str, redact: Redact) -> Iterator[Flagged]:
    """A segment is shown only as it stands in the redacted answer: cut out, a pattern across its ends may be missed."""
    for segment in outcome.correction.segments if outcome.correction else ():
        if segment.flagged:
            text = redact(segment.text)
            yield Flagged(text if text in answer else None, segment.score, outcome.named(segment))


def edits(before: str, after: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, text): what stands in place of which characters, whole segments at a time."""
    old, new = [s.text + s.gap for s in split(before)], [s.text + s.gap for s in split(after)]
    first = _alike(old, new)
    last = _alike(old[first:][::-1], new[first:][::-1])
    left, right = old[first : len(old) - last], new[first : len(new) - last]
    starts = [0]
    for piece in old:
        starts.append(starts[-1] + len(piece))
    for i, j, k, m in _changes(left, right):
        yield starts[first + i], starts[first + j], "".join(right[k:m])


def _changes(left: Sequence[str], right: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    if max(len(left), len(right)) > _COMPARABLE:
        yield 0, len(left), 0, len(right)
        return
    for tag, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag != "equal":
            yield i, j, k, m


def _alike(a: Sequence[str], b: Sequence[str]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
