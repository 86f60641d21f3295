"""Figures of taught objectives: what became of each test answer, rates of kinds and heads, tables and a plot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from models.reporting import output
from models.reporting.statistics import Rate

from .kinds import TaughtCase, TaughtKind, TaughtTrial

GENERAL = 0
"""The number of examples that stands for the general head, which nothing was taught."""


class SegmentVerdict(NamedTuple):
    """What an engine says of one segment of an answer."""

    start: int
    end: int
    flagged: bool
    objective: int
    """The number of the objective that it violates most; -1 for none."""
    score: float


@dataclass(frozen=True, slots=True)
class TaughtOutcome:
    """What became of one test answer under a head that was taught from `examples` sentences."""

    kind: str
    examples: int
    trial: TaughtTrial
    found: bool
    """The planted sentence is flagged."""
    named: bool
    """It is, and the taught objective is the one that it violates most."""
    neutral: int
    """The other segments."""
    false: int
    """Of these flagged."""
    own: int
    """Of these flagged by the taught objective, and by none of its company more plainly."""

    @property
    def exact(self) -> bool:
        """Whether the planted sentence is flagged, and no other segment."""
        return self.found and not self.false


@dataclass(frozen=True, slots=True)
class TeachingResult:
    """What was taught of one kind. Without a head the general head judges, as in a gateway."""

    kind: str
    examples: int
    head: bytes | None
    why: str | None = None
    """Why there is no head."""
    found: tuple[int, int] = (0, 0)
    """Sentences flagged while they were held out, of so many: what `teach` says of itself."""
    false: tuple[int, int] = (0, 0)
    """Neutral segments flagged while they were held out, of so many."""
    threshold: float = 0.0
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was measured."""

    aligner: str
    kinds: tuple[TaughtKind, ...]
    teachings: tuple[TeachingResult, ...]
    outcomes: tuple[TaughtOutcome, ...]


def make_outcome(kind: str, examples: int, case: TaughtCase, verdicts: Sequence[SegmentVerdict]) -> TaughtOutcome:
    """Compare the verdicts on an answer with where its sentence was planted."""
    inside = [verdict for verdict in verdicts if case.planted.covers(verdict.start, verdict.end)]
    outside = [verdict for verdict in verdicts if not case.planted.covers(verdict.start, verdict.end)]
    flagged = [verdict for verdict in inside if verdict.flagged]
    false = [verdict for verdict in outside if verdict.flagged]
    return TaughtOutcome(
        kind=kind,
        examples=examples,
        trial=case.trial,
        found=bool(flagged),
        named=any(verdict.objective == case.company.index for verdict in flagged),
        neutral=len(outside),
        false=len(false),
        own=sum(verdict.objective == case.company.index for verdict in false),
    )


@dataclass(frozen=True, slots=True)
class TaughtFigures:
    """Rates of some kinds under one head: the general one, or the one taught from `examples` sentences."""

    kinds: str
    examples: int
    alone: Rate
    """Exact where the objective is the only one."""
    company: Rate
    """Exact among one to four others."""
    exact: Rate
    found: Rate
    named: Rate
    """Found, and the taught objective is the one that is violated most."""
    false: Rate
    """Neutral segments beside a planted sentence that are flagged."""
    own: Rate
    """The same by the taught objective."""
    clean: Rate
    """Segments of good answers, nothing planted, that are flagged."""
    clean_own: Rate
    fine: Rate
    """Sentences flagged that are allowed."""

    @classmethod
    def from_outcomes(cls, kinds: str, examples: int, outcomes: Iterable[TaughtOutcome]) -> TaughtFigures:
        """The rates of those outcomes that belong to `examples`, under the name `kinds`."""
        of_count = [outcome for outcome in outcomes if outcome.examples == examples]
        by_trial = {trial: [outcome for outcome in of_count if outcome.trial is trial] for trial in TaughtTrial}
        against = by_trial[TaughtTrial.ALONE] + by_trial[TaughtTrial.COMPANY]
        clean = by_trial[TaughtTrial.CLEAN]
        neutral = sum(outcome.neutral for outcome in against)
        neutral_clean = sum(outcome.neutral for outcome in clean)
        return cls(
            kinds=kinds,
            examples=examples,
            alone=Rate.from_outcomes(outcome.exact for outcome in by_trial[TaughtTrial.ALONE]),
            company=Rate.from_outcomes(outcome.exact for outcome in by_trial[TaughtTrial.COMPANY]),
            exact=Rate.from_outcomes(outcome.exact for outcome in against),
            found=Rate.from_outcomes(outcome.found for outcome in against),
            named=Rate.from_outcomes(outcome.named for outcome in against),
            false=Rate.from_counts(sum(outcome.false for outcome in against), neutral),
            own=Rate.from_counts(sum(outcome.own for outcome in against), neutral),
            clean=Rate.from_counts(sum(outcome.false for outcome in clean), neutral_clean),
            clean_own=Rate.from_counts(sum(outcome.own for outcome in clean), neutral_clean),
            fine=Rate.from_outcomes(outcome.found for outcome in by_trial[TaughtTrial.FINE]),
        )


def summarise_groups(results: Results, counts: Sequence[int]) -> list[TaughtFigures]:
    """The figures of kinds far from training, of kinds near it, and of all kinds: a row for each head.

    The first head is the general one, which was taught nothing; `counts` are the numbers of examples of the others.
    """
    near_slugs = {kind.slug for kind in results.kinds if kind.near}
    groups = {
        "far from training": [outcome for outcome in results.outcomes if outcome.kind not in near_slugs],
        "near": [outcome for outcome in results.outcomes if outcome.kind in near_slugs],
        "all": list(results.outcomes),
    }
    return [
        TaughtFigures.from_outcomes(name, n, outcomes)
        for name, outcomes in groups.items()
        if outcomes
        for n in (GENERAL, *counts)
    ]


def list_kind_figures(results: Results, counts: Sequence[int]) -> list[TaughtFigures]:
    """For each kind its figures under each head."""
    return [
        TaughtFigures.from_outcomes(
            kind.slug, n, [outcome for outcome in results.outcomes if outcome.kind == kind.slug]
        )
        for kind in results.kinds
        for n in (GENERAL, *counts)
    ]


_SUMMARY = (
    "kinds", "head", "exact", "exact alone", "exact in company", "found", "by its objective", "false beside",
    "by its objective", "false in clean answers", "by its objective", "allowed, flagged",
)  # fmt: skip
_BY_KIND = ("kind", "head", "exact", "found", "false beside", "false in clean answers", "allowed, flagged")


def format_report(results: Results, counts: Sequence[int]) -> str:
    """Markdown: the summary, what was not taught, and a table of the kinds."""
    far = sum(not kind.near for kind in results.kinds)
    failed = [teaching for teaching in results.teachings if teaching.head is None]
    lines = [
        f"Aligner {results.aligner[:12]}, {len(results.kinds)} kinds, {far} of them far from training.",
        "",
        output.table(_SUMMARY, map(_summary_row, summarise_groups(results, counts))),
        "",
        *(
            f"Not taught from {teaching.examples} examples, judged by the general head: {teaching.kind}."
            for teaching in failed
        ),
        *([""] if failed else []),
        output.table(_BY_KIND, map(_kind_row, list_kind_figures(results, counts))),
    ]
    return "\n".join(lines)


def _head(examples: int) -> str:
    return f"{examples} examples" if examples else "general"


def _summary_row(row: TaughtFigures) -> tuple[object, ...]:
    """The cells of a row, in the columns of `_SUMMARY`."""
    planted = (row.exact, row.alone, row.company, row.found, row.named)
    neutral = (row.false, row.own, row.clean, row.clean_own)
    return row.kinds, _head(row.examples), *planted, *neutral, row.fine


def _kind_row(row: TaughtFigures) -> tuple[object, ...]:
    return row.kinds, _head(row.examples), row.exact, row.found, row.false, row.clean, row.fine


def make_document(results: Results, counts: Sequence[int]) -> dict[str, Any]:
    """All results as plain data, without any text of a test answer."""
    return {
        "aligner": results.aligner,
        "summary": summarise_groups(results, counts),
        "kinds": list_kind_figures(results, counts),
        "near": [kind.slug for kind in results.kinds if kind.near],
        "taught": [
            {name: value for name, value in asdict(teaching).items() if name != "head"}
            | {"head": hashlib.sha256(teaching.head).hexdigest() if teaching.head else None}
            for teaching in results.teachings
        ],
    }


def plot(results: Results, counts: Sequence[int], path: Path) -> None:
    """A dot for each kind and head: the share flagged exactly.

    The kinds that the general head judges best are on top.
    """
    rows = list_kind_figures(results, counts)
    general = sorted((row for row in rows if row.examples == GENERAL), key=lambda row: -row.exact.percent)
    places = {row.kinds: len(general) - n for n, row in enumerate(general)}
    near_slugs = {kind.slug for kind in results.kinds if kind.near}
    with output.plot(path, size=(8, 1.5 + 0.22 * len(general))) as ((axis,),):
        for examples, mark in zip((GENERAL, *counts), "ox^sDv*P", strict=False):
            of_count = [row for row in rows if row.examples == examples]
            shares = [row.exact.percent for row in of_count]
            axis.plot(shares, [places[row.kinds] for row in of_count], mark, label=_head(examples), alpha=0.75)
        labels = [row.kinds + (" (near)" if row.kinds in near_slugs else "") for row in general]
        axis.set_yticks([places[row.kinds] for row in general], labels, fontsize=7)
        axis.set_xlim(-2, 102)
        axis.set_xlabel("flagged exactly, %")
        axis.legend(loc="lower left", fontsize=8)
