"""State of one request: its policy, what became of each choice, and when text came and left.

It travels in the request's own metadata. What LiteLLM's hooks, headers, comments and records say is read from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aligner_proxy.plugins.extensions import NO_EXTENSIONS, Extensions, Selecting
from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.types import METAALIGNER, Outcome, Policy, Status

# Which status speaks for a response whose choices differ: what changed it first, then what went wrong.
_RANK = (Status.CORRECTED, Status.FAILED, Status.SHADOW, Status.UNCHANGED, Status.SKIPPED, Status.PENDING)


@dataclass(slots=True)
class Timeline:
    """Only text counts: roles, usage and other events are no tokens."""

    began: float = field(default_factory=time.perf_counter)
    came_first: float | None = None
    came_last: float | None = None
    went_first: float | None = None
    went_last: float | None = None

    def came(self) -> None:
        """Text came from the upstream."""
        self.came_last = time.perf_counter()
        self.came_first = self.came_first or self.came_last

    def went(self) -> None:
        """Text goes to the client."""
        self.went_last = time.perf_counter()
        self.went_first = self.went_first or self.went_last

    @property
    def first_s(self) -> float | None:
        """From the start of the stream to the first delivered token."""
        return None if self.went_first is None else self.went_first - self.began

    @property
    def first_added_s(self) -> float | None:
        """How much later the client got its first token than it would have from the upstream."""
        return _between(self.came_first, self.went_first)

    @property
    def last_added_s(self) -> float | None:
        """How much later the client had the whole answer."""
        return _between(self.came_last, self.went_last)


def _between(came: float | None, went: float | None) -> float | None:
    return None if came is None or went is None else max(0.0, went - came)


@dataclass(slots=True, repr=False)
class RequestState:
    """One request. Only the proxy can make one: what a client sends as metadata is JSON, never this class."""

    call_id: str
    policy: Policy
    model: str
    """The aligner as configured."""
    route: str | None = None
    stream: bool = False
    facts: RequestFacts | None = None
    """Who asked for what; None where no policy was resolved."""
    skip: str | None = None
    """Known before there is an answer: why no choice will be looked at."""
    settled: bool = False
    """The outcomes are final; a second run of a hook for this call has nothing to do."""
    selecting: Selecting | None = None
    """The policy's objectives are being chosen for this prompt; `selected` waits for that."""
    extensions: Extensions = NO_EXTENSIONS
    """What plugins add to headers, comments and records."""
    trace: Any = None
    """Where the spans of this request hang (tracing.under)."""
    opened: float = field(default_factory=time.monotonic)
    """When the request went on to the upstream, monotonic seconds."""
    outcomes: list[Outcome] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Ledger({self.call_id}, policy={self.policy.name}, status={self.status.value})"

    async def selected(self) -> None:
        """Wait until the policy's objectives are those of this prompt."""
        if self.selecting is not None:
            self.policy = await self.selecting.policy()
            self.selecting = None

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Close the books."""
        self.outcomes = list(outcomes)
        self.settled = True

    def undo(self, reason: str) -> None:
        """What was corrected could not be delivered: the client gets the original."""
        self.outcomes = [
            replace(one, status=Status.FAILED, reason=reason, text=None) if one.status is Status.CORRECTED else one
            for one in self.outcomes
        ]

    @property
    def status(self) -> Status:
        """One status for the whole response."""
        if self.outcomes:
            return self._speaker().status
        return Status.SKIPPED if self.skip else Status.PENDING

    @property
    def reason(self) -> str | None:
        """The reason of the choice that gave the status."""
        return self._speaker().reason if self.outcomes else self.skip

    @property
    def corrector(self) -> str:
        """What corrects: the aligner as configured, or the corrector that the policy names."""
        return self.model if self.policy.corrector == METAALIGNER else self.policy.corrector

    def headers(self) -> dict[str, str]:
        """The x-aligner headers of the response (docs/operations.md). Values that are not known are left out."""
        hits = {outcome.cache_hit for outcome in self.outcomes} - {None}
        pairs = self.extensions.headers(self.policy, self.outcomes) | {
            "status": self.status.value,
            "reason": self.reason,
            "objectives": ",".join(objective.name for objective in self.policy.objectives),
            "policy": self.policy.name,
            "model": self.corrector,
            "cache": ("miss" if False in hits else "hit") if hits else None,
            "ms": f"{max(outcome.ms for outcome in self.outcomes):.0f}" if self.outcomes else None,
        }
        return {f"x-aligner-{name}": _header_value(value) for name, value in pairs.items() if value}

    def comment(self, timeline: Timeline | None = None) -> bytes:
        """The end of a stream: SSE comments, which every parser ignores; the status is the last of them."""
        trail = self._trail(timeline) if timeline is not None and self.policy.debug_trailer else b""
        words = [f"status={self.status.value}"]
        if self.reason:
            words.append(f"reason={self.reason}")
        words += [f"{name}={value}" for name, value in self.extensions.trailer(self.policy, self.outcomes).items()]
        if len(self.outcomes) > 1:
            words.append("choices=" + ",".join(_brief(outcome) for outcome in self.outcomes))
        return trail + f": aligner {_header_value(' '.join(words))}\n\n".encode()

    def _trail(self, timeline: Timeline) -> bytes:
        """What was flagged, and how long it took: numbers and names of objectives, never text."""
        told = {
            "stream": self.policy.stream.value,
            "first_token_ms": _ms(timeline.first_s),
            "first_token_added_ms": _ms(timeline.first_added_s),
            "last_token_added_ms": _ms(timeline.last_added_s),
            "choices": [{"index": outcome.index, "flagged": flagged(outcome)} for outcome in self.outcomes],
        }
        return f": aligner-trail {json.dumps(told)}\n\n".encode()

    def record(self) -> dict[str, Any]:
        """For LiteLLM's guardrail information: ids, names, lengths and counts; it masks them value by value."""
        if self.skip:
            return {"policy": self.policy.name, "status": self.status.value, "reason": self.reason}
        return self.extensions.record(self.policy) | {
            "policy": self.policy.name,
            "objectives": [objective.name for objective in self.policy.objectives],
            "aligner": self.corrector,
            "status": self.status.value,
            "reason": self.reason,
            "choices": [_counts(outcome) for outcome in self.outcomes],
        }

    def _speaker(self) -> Outcome:
        return min(self.outcomes, key=lambda outcome: _RANK.index(outcome.status))


def flagged(outcome: Outcome) -> list[dict[str, object]]:
    """What was flagged: the segment's number, its log-odds and the objective; no text."""
    segments = outcome.correction.segments if outcome.correction else ()
    return [
        {"segment": number, "score": segment.score and round(segment.score, 2), "objective": outcome.named(segment)}
        for number, segment in enumerate(segments)
        if segment.flagged
    ]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _brief(outcome: Outcome) -> str:
    return f"{outcome.status.value}/{outcome.reason}" if outcome.reason else outcome.status.value


def _counts(outcome: Outcome) -> dict[str, Any]:
    found = outcome.correction
    segments = found.segments if found else ()
    return dict(outcome.reports) | {
        "index": outcome.index,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "cache_hit": outcome.cache_hit,
        "ms": round(outcome.ms, 1),
        "chars": len(outcome.text or ""),
        "segments": len(segments),
        "flagged": sum(segment.flagged for segment in segments),
        "forwards": found.counts.forwards if found else 0,
    }


def _header_value(value: str) -> str:
    """Names come from configuration and may hold anything; a header value is printable ASCII on one line."""
    return "".join(char if " " <= char <= "~" else "?" for char in value)
