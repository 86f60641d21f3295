"""Records the outcome of each choice, whatever its status, in metrics, spans and the log.

The log line is one JSON object with ids, reasons, lengths and counts; it never contains text.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from prometheus_client import Counter

from aligner_proxy import __version__
from aligner_proxy.engine.client.circuit_breaker import State
from aligner_proxy.gateway.request_state import RequestState, Timeline, model_use_record
from aligner_proxy.gateway.traffic_bounds import RecentNames, TrafficBounds, configured_models
from aligner_proxy.observability import metrics as prometheus
from aligner_proxy.observability.tracing import TraceSpan, record_stage
from aligner_proxy.pipeline.outcomes import INTERNAL
from aligner_proxy.teaching.store import Index
from aligner_proxy.types import METAALIGNER, EditorUse, IncomingKind, Outcome, Policy, SideKind, Status, Traffic

log = logging.getLogger("aligner_proxy.outcome")

CANCELLED = "cancelled"
"""The reason of a choice whose client disconnected before there was an outcome."""

_BREAKER_LEVEL = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
_TRAFFIC_BOUNDS = TrafficBounds(RecentNames(configured_models))
prometheus.INFO.labels(__version__).set(1)


def record_not_applied(state: RequestState) -> None:
    """Withdraw corrections that could not be inserted into their response: the corrected choices have failed."""
    record_withdrawn(state, Status.FAILED, INTERNAL)


def record_withdrawn(state: RequestState, status: Status, reason: str) -> None:
    """Count and log corrections that are not delivered, and give the corrected choices this status and reason.

    The log line revokes an earlier line, which was written when the choices were corrected.
    """
    corrected_numbers = [outcome.index for outcome in state.outcomes if outcome.status is Status.CORRECTED]
    if not corrected_numbers:
        return
    prometheus.NOT_PUT_IN.inc()
    state.withdraw_corrected(status, reason)
    fields = {"choices": corrected_numbers, "status": status.value, "reason": reason, "policy": state.policy.name}
    log.info(json.dumps({"event": "aligner_withdrawn", "call_id": state.call_id, **fields}))


def record_arguments_not_applied() -> None:
    """Count corrected arguments of a call that could not be inserted into their response."""
    prometheus.NOT_PUT_IN.inc()


def record_side_text_refusal(state: RequestState, kind: SideKind) -> None:
    """Count a side text that may not be delivered, and mark the answer as failed if its outcomes are already final."""
    prometheus.SIDE_TEXTS_REFUSED.labels(kind.value, state.policy.name).inc()
    if state.is_final:
        state.fail_all(kind.value)


def record_incoming_text(state: RequestState, kind: IncomingKind, *, is_flagged: bool) -> None:
    """Count a message of a request that was flagged or could not be judged."""
    result = "flagged" if is_flagged else "unjudged"
    prometheus.INCOMING_TEXTS.labels(kind.short_name, result, state.policy.name).inc()


def record_upstream_end(state: RequestState) -> None:
    """Record how long the upstream took; called when the answer is complete, or will not come."""
    seconds = time.monotonic() - state.arrival.opened_at
    record_stage(
        "upstream", seconds, state.arrival.trace, aligner__call_id=state.call_id, aligner__policy=state.policy.name
    )


def record_stream_shed(state: RequestState) -> None:
    """Count and log a stream whose correction was given up because the stream budget was full."""
    prometheus.STREAMS_SHED.labels(state.policy.name).inc()
    log.info(json.dumps({"event": "aligner_stream_shed", "call_id": state.call_id, "policy": state.policy.name}))


def describe_span(span: TraceSpan, outcome: Outcome) -> None:
    """Set the attributes of a choice's trace span (`__` means a dot); flagged objectives become gen_ai events."""
    if not span.is_recorded:
        return
    correction = outcome.correction
    span.set_attributes(
        aligner__choice=outcome.index,
        aligner__status=outcome.status.value,
        aligner__reason=outcome.reason,
        aligner__policy=outcome.policy.name,
        aligner__objectives=[objective.name for objective in outcome.policy.objectives],
        aligner__cache_hit=outcome.cache_hit,
        aligner__segments=len(outcome.segments) if correction else None,
        aligner__flagged=outcome.flagged_count if correction else None,
        aligner__hash=correction.aligner if correction else None,
        gen_ai__usage__input_tokens=correction.prompt_tokens if correction else None,
    )
    if outcome.status is Status.FAILED:
        span.fail(outcome.reason or "failed")
    for name, score in worst_scores(outcome).items():
        span.add_event(
            "gen_ai.evaluation.result",
            gen_ai__evaluation__name=name,
            gen_ai__evaluation__score__value=score,
            gen_ai__evaluation__score__label="flagged",
        )


def worst_scores(outcome: Outcome) -> dict[str, float]:
    """The highest score (log-odds) among the flagged segments of each objective, by the objective's name."""
    worst_by_name: dict[str, float] = {}
    for segment in outcome.segments:
        name = outcome.objective_of(segment)
        if name is not None and segment.score is not None:
            worst_by_name[name] = max(segment.score, worst_by_name.get(name, segment.score))
    return worst_by_name


def record_unprocessed(call_id: str, policy: Policy, status: Status, reason: str, index: int = 0) -> Outcome:
    """Make, record and return the outcome of a choice that did not reach the pipeline, as for a skipped endpoint."""
    outcome = Outcome(status, reason, None, policy, index)
    record_outcome(call_id, 0, outcome)
    return outcome


def finalize_unprocessed(state: RequestState, status: Status, reason: str, numbers: Iterable[int] = (0,)) -> None:
    """Record this status and reason for the choices of these numbers, as the final outcomes of the request."""
    state.finalize([record_unprocessed(state.call_id, state.policy, status, reason, number) for number in numbers])


def record_outcome(call_id: str, answer_chars: int, outcome: Outcome) -> None:
    """Count one choice in the metrics (a skipped one only by status and latency), and log it."""
    policy = outcome.policy
    tenant_and_model = _limit_traffic_labels(policy.traffic)
    prometheus.OUTCOMES.labels(outcome.status.value, outcome.reason or "", policy.name, *tenant_and_model).inc()
    prometheus.LATENCY.labels(outcome.status.value).observe(outcome.ms / 1000)
    if outcome.status is not Status.SKIPPED:
        _count_details(outcome)
    if log.isEnabledFor(logging.INFO):
        log.info(json.dumps(_log_line(call_id, answer_chars, outcome)))


@lru_cache(maxsize=1024)
def _limit_traffic_labels(traffic: Traffic) -> Traffic:
    """The tenant and model as metrics name them, `other` beyond a limit; cached, because every answer needs them."""
    return _TRAFFIC_BOUNDS.bound_traffic(traffic)


def _count_details(outcome: Outcome) -> None:
    """Count corrector, cache, edits, retries, editor, judge and engine work of a choice that was not skipped."""
    policy = outcome.policy
    corrector = policy.aligner if policy.corrector == METAALIGNER else policy.corrector
    prometheus.BY_ALIGNER.labels(corrector, outcome.status.value, policy.name).inc()
    if outcome.cache_hit is not None:
        prometheus.CACHE.labels("hit" if outcome.cache_hit else "miss").inc()
    _count_edits(outcome)
    if outcome.attempts > 1:
        prometheus.RETRIES.labels(outcome.status.value).inc(outcome.attempts - 1)
    _count_editor(outcome)
    _count_judge(outcome)
    if not outcome.cache_hit:
        _count_work(outcome)


def _count_judge(outcome: Outcome) -> None:
    use = outcome.correction.judge if outcome.correction else None
    if use is None:
        return
    group = outcome.policy.judge_groups
    unchanged = use.segments - use.flagged - use.cleared
    for verdict, count in (("flagged", use.flagged), ("cleared", use.cleared), ("unchanged", unchanged)):
        if count:
            prometheus.JUDGED_SEGMENTS.labels(group, verdict).inc(count)
    _count_calls(group, use.calls, prometheus.JUDGE_CALLS, prometheus.JUDGE_TOKENS, prometheus.JUDGE_SECONDS)


def _count_editor(outcome: Outcome) -> None:
    use = outcome.correction.editor if outcome.correction else None
    if use is None:
        return
    group = outcome.policy.editor_group or ""
    _count_calls(group, use, prometheus.EDITOR_CALLS, prometheus.EDITOR_TOKENS, prometheus.EDITOR_SECONDS)
    if use.refused:
        prometheus.EDITOR_REFUSED.labels(group).inc(use.refused)


def _count_calls(
    group: str, use: EditorUse, call_counter: Counter, token_counter: Counter, second_counter: Counter
) -> None:
    """Add the calls to a model group, their tokens and their seconds to these metrics."""
    for result, count in (("failed", use.failed), ("replied", use.calls)):
        if count:  # no series is created before there is something to count
            call_counter.labels(group, result).inc(count)
    token_counter.labels(group, "read").inc(use.read)
    token_counter.labels(group, "written").inc(use.written)
    second_counter.labels(group).inc(use.ms / 1000)


def record_stream(call_id: str, policy: Policy, timeline: Timeline) -> None:
    """Record in metrics and log how much later the client got a stream's text; a stream without text is not counted."""
    first_added_s = timeline.first_added_s
    last_added_s = timeline.last_added_s
    mode = policy.stream.value
    if timeline.first_s is None or first_added_s is None or last_added_s is None:
        return
    prometheus.FIRST_TOKEN_ADDED.labels(mode).observe(first_added_s)
    prometheus.LAST_TOKEN_ADDED.labels(mode).observe(last_added_s)
    seconds_by_name = {
        "first_token": timeline.first_s,
        "first_token_added": first_added_s,
        "last_token_added": last_added_s,
    }
    times = {f"{name}_ms": round(seconds * 1000, 1) for name, seconds in seconds_by_name.items()}
    log.info(json.dumps({"event": "aligner_stream", "call_id": call_id, "stream": mode, **times}))


def _count_edits(outcome: Outcome) -> None:
    """Count delivered edits, and edits that the gate dropped, by the rule; cached edits also went through the gate."""
    for rule in outcome.dropped:
        prometheus.EDITS.labels(rule).inc()
    delivered_count = outcome.edits - len(outcome.dropped)
    if delivered_count:  # no series is created before there is something to count
        prometheus.EDITS.labels("kept").inc(delivered_count)


def record_breaker(state: State) -> None:
    """Record a new state of the engine's circuit breaker."""
    prometheus.BREAKER.set(_BREAKER_LEVEL[state])
    if state is State.OPEN:
        prometheus.BREAKER_OPENINGS.inc()


def record_policy_change(*, is_refused: bool, stale: bool) -> None:
    """Count a change of policies or keys as refused or taken; `stale` says whether an older file stays active."""
    prometheus.RELOADS.labels("refused" if is_refused else "taken").inc()
    prometheus.POLICY_REFUSED.set(stale)


def record_taught(index: Index) -> None:
    """Set the metrics of taught heads: number of examples (violating and fine ones) and time of teaching of each.

    Where no version of a head is active, both are 0.
    """
    for scope, objectives in index.scopes.items():
        for name, objective in objectives.items():
            for aligner in objective.current:
                version = objective.active_version(aligner)
                example_count = version.against + version.fine if version else 0
                taught_at = version.at if version else 0
                prometheus.TAUGHT_EXAMPLES.labels(scope, name, aligner).set(example_count)
                prometheus.TAUGHT_AT.labels(scope, name, aligner).set(taught_at)


def _count_work(outcome: Outcome) -> None:
    """Count drafts, forward passes and segments of the engine for a choice that was not cached."""
    if outcome.correction is None:
        return
    counts = outcome.correction.counts
    prometheus.DRAFT.inc(counts.drafted)
    prometheus.ACCEPTED.inc(counts.accepted)
    prometheus.RECOVERED.inc(counts.recovered)
    prometheus.BONUS.inc(counts.bonus)
    prometheus.FORWARDS.inc(counts.forwards)
    flagged_count = outcome.flagged_count
    for is_flagged, count in (("true", flagged_count), ("false", len(outcome.segments) - flagged_count)):
        if count:
            prometheus.SEGMENTS.labels(is_flagged).inc(count)


def _log_line(call_id: str, answer_chars: int, outcome: Outcome) -> dict[str, Any]:
    """The fields of an outcome's log line. Plugins' fields come first, so that none replaces a field of ours."""
    correction = outcome.correction
    return (
        dict(outcome.reports)
        | model_use_record(outcome)
        | outcome.findings_record
        | {
            "event": "aligner_outcome",
            "call_id": call_id,
            "choice": outcome.index,
            "status": outcome.status.value,
            "reason": outcome.reason,
            "policy": outcome.policy.name,
            "objectives": [objective.name for objective in outcome.policy.objectives],
            "cache_hit": outcome.cache_hit,
            "attempts": outcome.attempts,
            "ms": round(outcome.ms, 1),
            "answer_chars": answer_chars,
            "delivered_chars": len(outcome.text or ""),
            "segments": len(outcome.segments),
            "flagged": outcome.flagged_count,
            "against": outcome.violated_objectives,
            "edits": outcome.edits,
            "dropped": list(outcome.dropped),
            "renumbered": outcome.renumbered,
            "forwards": correction.counts.forwards if correction else 0,
            "aligner": correction.aligner if correction else None,
        }
    )
