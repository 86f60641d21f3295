"""State of one request: its policy, the outcome of each choice, and the times of its text. A choice is one of several
answers or, in Responses and Messages, one text part of the answer.

The state travels in the request's own metadata. Headers, comments and LiteLLM's records are made from it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from aligner_proxy.formats.base import metadata_buckets
from aligner_proxy.plugins.extensions import NO_EXTENSIONS, Extensions, RunningSelection
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.teaching.active_heads import taught_versions
from aligner_proxy.teaching.store import Version
from aligner_proxy.types import METAALIGNER, EditorUse, JudgeUse, Mode, Outcome, Policy, Status, all_cached, sum_uses

# If the choices of a response differ in status, the first of these that occurs is the response's status.
_STATUS_RANK = (
    Status.CORRECTED,
    Status.FAILED,
    Status.SHADOW,
    Status.NOT_JUDGED,
    Status.UNCHANGED,
    Status.SKIPPED,
    Status.PENDING,
)

_CACHE_WORDS = {None: None, True: "hit", False: "miss"}
_STATE_KEY = "aligner_proxy_state"
_MIN_BOUND_MS = 100
"""The first of the bounds 100, 200, 500, 1000, 2000 ... that a time is reported below."""


@dataclass(slots=True)
class Timeline:
    """Times at which a stream's text arrived and left; roles, usage and other events do not count."""

    # Seconds of `time.perf_counter`; None before any text.
    began: float = field(default_factory=time.perf_counter)
    upstream_first: float | None = None
    upstream_last: float | None = None
    client_first: float | None = None
    client_last: float | None = None

    def note_upstream(self) -> None:
        """Record that text arrived from the upstream."""
        self.upstream_last = time.perf_counter()
        self.upstream_first = self.upstream_first or self.upstream_last

    def note_client(self) -> None:
        """Record that text went to the client."""
        self.client_last = time.perf_counter()
        self.client_first = self.client_first or self.client_last

    @property
    def first_s(self) -> float | None:
        """Seconds from the start of the stream to the first delivered token; None if none was delivered."""
        return None if self.client_first is None else self.client_first - self.began

    @property
    def first_added_s(self) -> float | None:
        """Seconds by which the first token was delayed; None if none was delivered."""
        return _delay(self.upstream_first, self.client_first)

    @property
    def last_added_s(self) -> float | None:
        """Seconds by which the end of the answer was delayed; None if no text was delivered."""
        return _delay(self.upstream_last, self.client_last)


def _delay(upstream: float | None, client: float | None) -> float | None:
    """Seconds from arrival to delivery, at least 0; None if one of the two did not happen."""
    return None if upstream is None or client is None else max(0.0, client - upstream)


class IncomingJudgement(Protocol):
    """What judges the texts of a request, perhaps while the upstream works."""

    async def wait(self) -> None:
        """Wait until everything is judged."""

    @property
    def labels(self) -> Sequence[str]:
        """The messages that were flagged or could not be judged, each with the objectives or the reason."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known once a request has arrived, and does not change while it is answered."""

    route: str | None = None
    facts: RequestFacts | None = None
    """Facts about the caller and the request; None if no policy was resolved."""
    extensions: Extensions = NO_EXTENSIONS
    """Extensions of plugins, which add to headers, comments and records."""
    heads_in_force: Mapping[str, Version] = field(default_factory=dict)
    """Every taught head in use when the request arrived, by content hash."""
    trace: Any = None
    """Parent of this request's spans (`tracing.context_of`)."""
    aligner_id: str = field(default_factory=lambda: os.urandom(16).hex())
    """Id of this request's audit entries; it is random and cannot be guessed, while clients may choose call ids."""
    opened_at: float = field(default_factory=time.monotonic)
    """Time at which the request went to the upstream, in monotonic seconds."""

    def versions_used(self, policy: Policy) -> Mapping[str, Version]:
        """The taught heads that a policy's objectives used at the arrival, by name of the objective."""
        return taught_versions(policy, self.heads_in_force) if self.heads_in_force else {}


@dataclass(slots=True, repr=False)
class RequestState:
    """State of one request; client metadata is JSON, so it can never be an instance of this class."""

    call_id: str
    """LiteLLM's id of the call, which a client may choose."""
    policy: Policy
    """The policy that applies now; a stricter one takes its place if another model answers."""
    model: str
    """The configured name of the aligner."""
    arrival: Arrival = field(default_factory=Arrival)
    answered_by: str | None = None
    """The model group that answers; None if LiteLLM has not said yet."""
    skip: str | None = None
    """Reason, known before the answer, why no choice will be judged; None if choices are judged."""
    is_final: bool = False
    """Whether later hooks for this call do nothing."""
    selecting: RunningSelection | None = None
    """A plugin's running choice of objectives for this prompt; `wait_for_selection` waits for it."""
    outcomes: list[Outcome] = field(default_factory=list)
    """The outcome of each choice; empty until `finalize`."""
    reasoning: list[Outcome] = field(default_factory=list)
    """Outcomes of scored reasoning, by choice."""
    incoming: IncomingJudgement | None = None
    """The judgement of texts of the request; None if the policy looks at none, or before it began."""
    arguments: list[Outcome] = field(default_factory=list)
    """Outcomes of the arguments of tool calls that were to be corrected, by call."""

    def __repr__(self) -> str:
        return f"RequestState({self.call_id}, policy={self.policy.name}, status={self.status.value})"

    @property
    def is_enforced(self) -> bool:
        """Whether the answer is judged before it is delivered."""
        return self.skip is None and self.policy.mode is Mode.ENFORCE

    async def wait_for_selection(self) -> None:
        """Wait until the objectives have been chosen, and set the policy to the result."""
        if self.selecting is not None:
            self.policy = await self.selecting.policy()
            self.selecting = None

    def finalize(self, outcomes: Sequence[Outcome]) -> None:
        """Set the final outcomes and mark the state as final."""
        self.outcomes = list(outcomes)
        self.is_final = True

    def withdraw_corrected(self, status: Status, reason: str) -> None:
        """Give corrected choices this status and reason, and no text, because their corrections were not delivered."""
        self.outcomes = [
            replace(outcome, status=status, reason=reason, text=None) if outcome.status is Status.CORRECTED else outcome
            for outcome in self.outcomes
        ]

    def fail_all(self, reason: str) -> None:
        """Mark every choice as failed, without text, because the client gets an error in place of the answer."""
        self.outcomes = [replace(outcome, status=Status.FAILED, reason=reason, text=None) for outcome in self.outcomes]

    @property
    def status(self) -> Status:
        """Status of the whole response."""
        if self.outcomes:
            return self._decisive_outcome().status
        return Status.SKIPPED if self.skip else Status.PENDING

    @property
    def reason(self) -> str | None:
        """The reason of the choice that determines the status."""
        return self._decisive_outcome().reason if self.outcomes else self.skip

    @property
    def corrector(self) -> str:
        """Name of what corrects: the configured aligner, or another corrector that the policy names."""
        return self.model if self.policy.corrector == METAALIGNER else self.policy.corrector

    @property
    def public_id(self) -> str | None:
        """The id in headers and comments; None for skipped answers whose calls were not judged, either."""
        return None if self.status is Status.SKIPPED and not self.arguments else self.arrival.aligner_id

    def headers(self) -> dict[str, str]:
        """The x-aligner headers of the response (docs/reference/headers.md); unknown values are left out."""
        is_cache_hit = all_cached([outcome.cache_hit for outcome in self.outcomes])
        # Our values come last, so that no value of a plugin replaces one.
        values = self.arrival.extensions.headers(self.policy, self.outcomes) | {
            "id": self.public_id,
            "status": self.status.value,
            "reason": self.reason,
            "choice": str(self._decisive_outcome().index) if len(self.outcomes) > 1 else "",
            "objectives": ",".join([objective.name for objective in self.policy.objectives]),
            "taught": _taught_summary(self.arrival.versions_used(self.policy)) if self.arrival.heads_in_force else "",
            "policy": self.policy.name,
            "model": self.corrector,
            "reasoning": _reasoning_summary(self.reasoning) if self.reasoning else "",
            "incoming": self._incoming_summary(),
            "tool-arguments": ",".join(map(_status_text, self.arguments)),
            "cache": _CACHE_WORDS[is_cache_hit],
            "ms": self._added_ms_text(),
            "editor": self._editor_summary(),
            "judge": self._judge_summary(),
        }
        return {
            f"x-aligner-{name}": value if value.isascii() and value.isprintable() else _make_printable(value)
            for name, value in values.items()
            if value
        }

    def _incoming_summary(self) -> str:
        return ",".join(self.incoming.labels) if self.incoming is not None else ""

    def _editor_summary(self) -> str | None:
        """The editor with its calls and tokens, for a header; None if no editor was called."""
        use = editor_use(self.outcomes)
        if use is None:
            return None
        summary = f"{self.policy.editor_group} calls={use.calls} read={use.read} written={use.written}"
        return f"{summary} refused={use.refused}" if use.refused else summary

    def _use_fields(self) -> Iterator[str]:
        """Yield the use of editor and judge for a stream's comment, such as "editor=2/180/40".

        These are the editor's calls, tokens read and written, and the judge's segments asked, flagged and cleared.
        """
        editing = editor_use(self.outcomes)
        if editing:
            yield f"editor={editing.calls}/{editing.read}/{editing.written}"
        judging = judge_use(self.outcomes)
        if judging:
            yield f"judge={judging.segments}/{judging.flagged}/{judging.cleared}"

    def _judge_summary(self) -> str | None:
        """The judge with its verdicts and tokens, for a header; None if it was asked about nothing."""
        use = judge_use(self.outcomes)
        if use is None:
            return None
        calls = use.calls  # the calls to the judge's model group, with their tokens
        summary = f"{self.policy.judge_groups} asked={use.segments} flagged={use.flagged} cleared={use.cleared}"
        summary += f" calls={calls.calls} read={calls.read} written={calls.written}"
        if calls.failed:
            summary += f" failed={calls.failed}"
        if self.policy.exact_times:  # exact times reveal something about the texts, so they need this permission
            summary += f" ms={calls.ms:.0f}"
        return summary

    def added_ms(self) -> float | None:
        """Milliseconds of the slowest choice; None if there are no outcomes.

        Exact times would reveal something about the texts, so unless the policy sets `exact_times`, this is the
        smallest of 100, 200, 500, 1000, 2000 ... that is not below the time.
        """
        slowest_ms = max([outcome.ms for outcome in self.outcomes], default=None)
        if slowest_ms is None or self.policy.exact_times:
            return slowest_ms
        power_ms = _MIN_BOUND_MS
        while slowest_ms > 5 * power_ms:
            power_ms *= 10
        return next(factor * power_ms for factor in (1, 2, 5) if slowest_ms <= factor * power_ms)

    def _added_ms_text(self) -> str | None:
        """`added_ms` as a header's text: exact with `exact_times`, else `<=200`; None if nothing was corrected."""
        ms = self.added_ms()
        if ms is None:
            return None
        return f"{ms:.0f}" if self.policy.exact_times else f"<={ms:.0f}"

    def comment(self, timeline: Timeline | None = None) -> bytes:
        """SSE comments for the end of a stream, which every parser ignores; the last one contains the status.

        With a `timeline`, a comment with scores and latency precedes it if the policy sets `debug_trailer`.
        """
        trail = self._trail_comment(timeline) if timeline is not None and self.policy.debug_trailer else b""
        fields = [f"status={self.status.value}"]
        if self.reason:
            fields.append(f"reason={self.reason}")
        if self.reasoning:
            fields.append(f"reasoning={_reasoning_summary(self.reasoning)}")
        incoming = self._incoming_summary()
        if incoming:
            fields.append(f"incoming={incoming}")
        if self.arguments:
            fields.append("tool_arguments=" + ",".join(map(_status_text, self.arguments)))
        fields += self._use_fields()
        plugin_fields = self.arrival.extensions.trailer(self.policy, self.outcomes)
        fields += [f"{name}={value}" for name, value in plugin_fields.items()]
        if len(self.outcomes) > 1:  # the only choice has the status of the response
            fields.append("choices=" + ",".join(map(_status_text, self.outcomes)))
        if self.public_id:
            fields.append(f"id={self.public_id}")
        return trail + f": aligner {_make_printable(' '.join(fields))}\n\n".encode()

    def _trail_comment(self, timeline: Timeline) -> bytes:
        """The comment for `debug_trailer`, with flagged segments and latency: only numbers and names of objectives."""
        fields = {
            "stream": self.policy.stream.value,
            "first_token_ms": _milliseconds(timeline.first_s),
            "first_token_added_ms": _milliseconds(timeline.first_added_s),
            "last_token_added_ms": _milliseconds(timeline.last_added_s),
            "choices": [{"index": outcome.index, "flagged": flagged_segments(outcome)} for outcome in self.outcomes],
        }
        return f": aligner-trail {json.dumps(fields)}\n\n".encode()

    def policy_record(self, policy: Policy) -> dict[str, Any]:
        """What is recorded of a policy beside its settings: records of plugins, and the taught heads it uses."""
        record = dict(self.arrival.extensions.record(policy))
        heads_record = {
            name: {"head": version.head[:16], "examples": version.against + version.fine, "at": round(version.at)}
            for name, version in self.arrival.versions_used(policy).items()
        }
        if heads_record:
            record["taught"] = heads_record
        return record

    def record(self) -> dict[str, Any]:
        """The data for LiteLLM's guardrail record: ids, names, lengths and counts, without texts."""
        if self.skip:
            return {"policy": self.policy.name, "status": self.status.value, "reason": self.reason}
        return self.policy_record(self.policy) | {
            "policy": self.policy.name,
            "objectives": [objective.name for objective in self.policy.objectives],
            "aligner": self.corrector,
            "status": self.status.value,
            "reason": self.reason,
            "choices": [_outcome_counts(outcome) for outcome in self.outcomes],
        }

    def _decisive_outcome(self) -> Outcome:
        """The outcome that gives the response its status: the one whose status comes first in `_STATUS_RANK`.

        Of several with this status, it is the first with a reason, else the first. There must be an outcome.
        """
        if len(self.outcomes) == 1:
            return self.outcomes[0]
        return min(self.outcomes, key=lambda outcome: (_STATUS_RANK.index(outcome.status), outcome.reason is None))


def store_state(data: dict[str, Any], state: RequestState) -> None:
    """Store the state in the request's metadata, where later hooks find it."""
    # Importing LiteLLM takes seconds, and commands import this module without calling this function.
    from litellm.litellm_core_utils.core_helpers import get_or_create_metadata_bucket

    _, metadata = get_or_create_metadata_bucket(data)
    metadata[_STATE_KEY] = state


def copy_without_state(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of a request without the state that an earlier hook stored."""
    request_copy = dict(data)
    for name in ("metadata", "litellm_metadata"):
        metadata = data.get(name)
        if isinstance(metadata, Mapping):
            request_copy[name] = {key: value for key, value in metadata.items() if key != _STATE_KEY}
    return request_copy


def find_state(data: Mapping[str, Any]) -> RequestState | None:
    """The state that an earlier hook stored, or None; a client's value of that name is JSON, so never a state."""
    for metadata in metadata_buckets(data):
        state = metadata.get(_STATE_KEY)
        if isinstance(state, RequestState):
            return state
    return None


def editor_use(outcomes: Sequence[Outcome]) -> EditorUse | None:
    """The summed editor use of all choices of a response; None if no editor was called."""
    return sum_uses([outcome.correction.editor for outcome in outcomes if outcome.correction], EditorUse())


def judge_use(outcomes: Sequence[Outcome]) -> JudgeUse | None:
    """The summed use of a judge by all choices of a response; None if it was asked about nothing."""
    return sum_uses([outcome.correction.judge for outcome in outcomes if outcome.correction], JudgeUse())


def flagged_segments(outcome: Outcome) -> list[dict[str, object]]:
    """Number, score (log-odds that it must change) and objective of each flagged segment, without text."""
    return [
        {
            "segment": number,
            "score": None if segment.score is None else round(segment.score, 2),
            "objective": outcome.objective_of(segment),
        }
        for number, segment in enumerate(outcome.segments)
        if segment.flagged
    ]


def _reasoning_summary(outcomes: Sequence[Outcome]) -> str:
    """The result of each choice's reasoning, such as "2/7:insults+legal,0/3" for two choices."""
    return ",".join(map(_reasoning_result, outcomes))


def _reasoning_result(outcome: Outcome) -> str:
    """Number of flagged and of all segments, and violated objectives ("2/7:insults+legal"); if none, the status."""
    if not outcome.segments:
        return _status_text(outcome)
    counts = f"{outcome.flagged_count}/{len(outcome.segments)}"
    objectives = "+".join(outcome.violated_objectives)
    return f"{counts}:{objectives}" if objectives else counts


def _taught_summary(versions: Mapping[str, Version]) -> str:
    """Each taught objective of a request, with its number of examples and the day it was taught."""
    return ",".join(f"{name}={version.against}@{version.day}" for name, version in versions.items())


def _milliseconds(seconds: float | None) -> float | None:
    """Seconds in milliseconds, rounded to tenths; None stays None."""
    return None if seconds is None else round(seconds * 1000, 1)


def _status_text(outcome: Outcome) -> str:
    """The status of an outcome and its reason, if it has one, as in "skipped/json"."""
    return f"{outcome.status.value}/{outcome.reason}" if outcome.reason else outcome.status.value


def _outcome_counts(outcome: Outcome) -> dict[str, Any]:
    """The fields of one choice in LiteLLM's record; our fields come last, so that no field of a plugin replaces one."""
    return (
        dict(outcome.reports)
        | model_use_record(outcome)
        | outcome.findings_record
        | {
            "index": outcome.index,
            "status": outcome.status.value,
            "reason": outcome.reason,
            "cache_hit": outcome.cache_hit,
            "ms": round(outcome.ms, 1),
            "chars": len(outcome.text or ""),
            "segments": len(outcome.segments),
            "flagged": outcome.flagged_count,
            "forwards": outcome.correction.counts.forwards if outcome.correction else 0,
        }
    )


def model_use_record(outcome: Outcome) -> dict[str, Any]:
    """The use of editor and judge in an outcome, for records; empty if neither was called."""
    correction = outcome.correction
    record: dict[str, Any] = {}
    if correction is None:
        return record
    if correction.editor:
        calls = _call_record(correction.editor)
        record["editor"] = {"model": outcome.policy.editor_group, **calls, "refused": correction.editor.refused}
    use = correction.judge
    if use:
        verdicts = {"asked": use.segments, "flagged": use.flagged, "cleared": use.cleared}
        record["judge"] = {"model": outcome.policy.judge_groups, **verdicts, **_call_record(use.calls)}
    return record


def _call_record(use: EditorUse) -> dict[str, Any]:
    """Calls to a model group, with their tokens and rounded milliseconds."""
    return {"calls": use.calls, "read": use.read, "written": use.written, "ms": round(use.ms, 1), "failed": use.failed}


def _make_printable(value: str) -> str:
    """The value as printable ASCII on one line, since configured names may contain anything."""
    return "".join(char if " " <= char <= "~" else "?" for char in value)
