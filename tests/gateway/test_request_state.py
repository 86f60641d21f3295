"""What a request says about itself: headers, comment, record. Never a word of the conversation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.types import Correction, DecodeCounts, Objective, Outcome, Policy, SegmentScore, Status

POLICY = Policy("p", (Objective("kind", "Kindness: be kind"), Objective("concise", "Concise: be brief")))


def ledger(*outcomes: Outcome) -> RequestState:
    made = RequestState("call-1", POLICY, "embedded")
    if outcomes:
        made.finalize(outcomes)
    return made


def outcome(status: Status, reason: str | None = None, index: int = 0, hit: bool | None = None) -> Outcome:
    scored = (SegmentScore("bad", 2.0, True), SegmentScore("good", -2.0, False))
    found = Correction("secret text", scored, DecodeCounts(forwards=3)) if hit is not None else None
    return Outcome(status, reason, "secret text", POLICY, index, hit, found, ms=12.6)


def test_before_the_answer() -> None:
    state = ledger()
    assert state.headers() == {
        "x-aligner-id": state.arrival.aligner_id,
        "x-aligner-status": "pending",
        "x-aligner-objectives": "kind,concise",
        "x-aligner-policy": "p",
        "x-aligner-model": "embedded",
    }


def test_after_the_answer() -> None:
    told = ledger(outcome(Status.UNCHANGED, "gate_empty", hit=False)).headers()
    assert (told["x-aligner-status"], told["x-aligner-reason"]) == ("unchanged", "gate_empty")
    assert (told["x-aligner-cache"], told["x-aligner-ms"]) == ("miss", "<=100")


@pytest.mark.parametrize(
    ("ms", "coarse", "exact"),
    [
        (0.0, "<=100", "0"),
        (99.9, "<=100", "100"),
        (100.0, "<=100", "100"),
        (100.4, "<=200", "100"),
        (231.2, "<=500", "231"),
        (1504.0, "<=2000", "1504"),
        (20001.0, "<=50000", "20001"),
    ],
)
def test_times_are_coarse_unless_the_policy_wants_them_exact(ms: float, coarse: str, exact: str) -> None:
    for policy, expected in ((POLICY, coarse), (replace(POLICY, exact_times=True), exact)):
        state = RequestState("c", policy, "embedded")
        state.finalize([Outcome(Status.UNCHANGED, None, "x", policy, ms=ms)])
        assert state.headers()["x-aligner-ms"] == expected


@pytest.mark.parametrize(
    ("statuses", "speaks"),
    [
        ((Status.UNCHANGED, Status.CORRECTED), Status.CORRECTED),
        ((Status.SKIPPED, Status.FAILED, Status.UNCHANGED), Status.FAILED),
        ((Status.SKIPPED, Status.UNCHANGED), Status.UNCHANGED),
    ],
)
def test_one_status_speaks_for_all(statuses: tuple[Status, ...], speaks: Status) -> None:
    assert ledger(*(outcome(status, index=i) for i, status in enumerate(statuses))).status is speaks


def test_the_choice_that_names_a_reason_speaks_for_all_of_its_status() -> None:
    outcomes = [outcome(Status.CORRECTED), outcome(Status.SKIPPED, "empty", 1), outcome(Status.CORRECTED, "emptied", 2)]
    told = ledger(*outcomes).headers()
    assert [told[f"x-aligner-{name}"] for name in ("status", "reason", "choice")] == ["corrected", "emptied", "2"]
    assert "x-aligner-choice" not in ledger(outcomes[0]).headers()


def test_the_cache_is_a_hit_only_if_all_were() -> None:
    hit = outcome(Status.UNCHANGED, hit=True)
    miss = outcome(Status.UNCHANGED, index=1, hit=False)
    assert ledger(hit).headers()["x-aligner-cache"] == "hit"
    assert ledger(hit, miss).headers()["x-aligner-cache"] == "miss"


def test_the_comment() -> None:
    one = ledger(outcome(Status.CORRECTED))
    assert one.comment() == f": aligner status=corrected id={one.arrival.aligner_id}\n\n".encode()
    two = ledger(outcome(Status.SKIPPED, "tool_calls"), outcome(Status.CORRECTED, index=1))
    told = f"status=corrected choices=skipped/tool_calls,corrected id={two.arrival.aligner_id}"
    assert two.comment() == f": aligner {told}\n\n".encode()


def test_the_id_is_told_of_what_was_looked_at_and_no_other_request_has_it() -> None:
    one = ledger(outcome(Status.UNCHANGED))
    assert one.headers()["x-aligner-id"] == one.arrival.aligner_id != ledger().arrival.aligner_id
    skipped = ledger(outcome(Status.SKIPPED, "refusal"))
    assert "x-aligner-id" not in skipped.headers()
    assert b"id=" not in skipped.comment()
    partly = ledger(outcome(Status.SKIPPED, "tool_calls"), outcome(Status.SHADOW, index=1))
    assert partly.headers()["x-aligner-id"] == partly.arrival.aligner_id


def test_the_record_counts_and_quotes_nothing() -> None:
    record = json.dumps(ledger(outcome(Status.CORRECTED, hit=False)).record())
    assert '"flagged": 1' in record
    assert '"forwards": 3' in record
    assert "secret" not in record
    assert "bad" not in record
    assert "secret" not in repr(ledger(outcome(Status.CORRECTED)))


def test_a_header_stays_one_line_of_ascii() -> None:
    odd = RequestState("c", Policy("päp\r\nx-evil: 1"), "m")
    assert odd.headers()["x-aligner-policy"] == "p?p??x-evil: 1"
