"""What became of the completions of one upstream? Edited, harmed, better, worse; by measures and by a judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from aligner_proxy.types import Status

from . import accuracy
from .delivered import Delivered
from .judge import Verdict
from .measures import MEASURES, Comparison, Result, compare, faultless
from .rates import Rate


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How often the edited answer won, tied and lost; `decided` leaves the ties apart."""

    win: Rate
    tie: Rate
    lose: Rate
    decided: Rate

    @classmethod
    def of(cls, said: Sequence[Result]) -> Verdicts:
        """From single results."""
        count, n = Counter(said), len(said)
        decided = Rate.among(count["win"], count["win"] + count["lose"])
        win, tie, lose = (Rate.among(count[result], n) for result in accuracy.RESULTS)
        return cls(win, tie, lose, decided)


@dataclass(frozen=True, slots=True)
class Row:
    """One upstream under some objectives; `judged` holds a judge's verdicts per objective, `replies` their kinds.

    `benign` figures are of answers in which no measure sees anything.
    """

    source: str
    upstream: str
    asked: tuple[str, ...]
    n: int
    skipped: int
    failed: int
    edited: Rate
    identical: Rate
    harmed: Rate
    benign_edited: Rate
    benign_harmed: Rate
    measures: Verdicts
    better: dict[str, int]
    worse: dict[str, int]
    judged: dict[str, Verdicts]
    replies: dict[Verdict, int]

    @property
    def name(self) -> str:
        """What was asked, as it stands in the table."""
        return self.asked[0] if len(self.asked) == 1 else "all together"


def row(delivered: Sequence[Delivered], verdicts: dict[str, list[Verdict]]) -> Row:
    """What became of the completions of one upstream; `verdicts` are of the edited ones, in their order."""
    first = delivered[0]
    looked = [one for one in delivered if one.looked_at]
    compared = [compared_with(one) for one in looked]
    status = Counter(one.outcome.status for one in delivered)
    same = len([one for one in looked if one.identical])
    good = [
        (one, c)
        for one, c in zip(looked, compared, strict=True)
        if faultless(one.completion.query, one.completion.answer)
    ]
    signs = list(zip(MEASURES, zip(*(c.signs for c in compared), strict=True), strict=True)) if compared else []
    return Row(
        source=first.completion.source,
        upstream=first.completion.model,
        asked=first.asked,
        n=len(looked),
        skipped=status[Status.SKIPPED],
        failed=status[Status.FAILED],
        edited=Rate.among(len(looked) - same, len(looked)),
        identical=Rate.among(same, len(looked)),
        harmed=Rate.of(c.harmed for c in compared),
        benign_edited=Rate.of(not one.identical for one, _ in good),
        benign_harmed=Rate.of(c.harmed for _, c in good),
        measures=Verdicts.of([c.result for c in compared]),
        better={m.name: column.count(1) for m, column in signs},
        worse={m.name: column.count(-1) for m, column in signs},
        judged={name: Verdicts.of([*(_result(v) for v in said), *["tie"] * same]) for name, said in verdicts.items()},
        replies=dict(Counter(v for said in verdicts.values() for v in said)),
    )


def compared_with(one: Delivered) -> Comparison:
    """What was delivered beside the completion."""
    return compare(one.completion.query, one.completion.answer, one.text, one.asked)


def _result(said: Verdict) -> Result:
    return said if said in ("win", "lose") else "tie"
