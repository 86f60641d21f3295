"""Objectives about brevity take no parallel facts and no refrain for repetitions."""

from __future__ import annotations

from aligner_proxy.gate.edits import Edit
from aligner_proxy.gate.judge import ReleasedAnswer, judge, judge_next
from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, Policy, SegmentScore

CASES = [
    ("The bakery opens at 7. The bakery on Mill Lane opens at 8. Come early.", 1, False),
    ("Anna likes long walks. Tom likes long walks. They go on Sunday.", 1, False),
    ("The small jar holds two litres. The large jar holds three litres. Both are here.", 1, False),
    ("The tide comes in. We wait on the pier. The tide comes in. We go home.", 2, False),
    ("Water it once a week. That is, give it water once a week. Keep it in the sun.", 1, True),
    ("Keep the receipt. Keep the receipt. We need it later.", 1, True),
]


def test_parallel_facts_and_refrains_stay() -> None:
    failures = []
    for name in ("non-repetitive", "concise", "harmless"):
        policy = Policy("p", (builtin_objectives()[name],))
        for answer, number, goes in CASES:
            pieces = split(answer)
            verdicts = tuple(
                SegmentScore(piece.text, 3.0 if at == number else -3.0, at == number, 0)
                for at, piece in enumerate(pieces)
            )
            shorter = answer[: pieces[number].start] + answer[pieces[number + 1].start :]
            expected = shorter if goes or name == "harmless" else answer
            if judge(answer, Correction(shorter, verdicts), policy).text != expected:
                failures.append(f"whole {name} {answer}")
            edit = Edit(pieces[number].start, pieces[number].end + 1, "", number, number + 1)
            broken, _ = judge_next(answer, edit, verdicts, ReleasedAnswer(), policy)
            if (broken is None) != (expected == shorter):
                failures.append(f"stream {name} {answer}: {broken}")
    assert not failures, "\n".join(failures)
