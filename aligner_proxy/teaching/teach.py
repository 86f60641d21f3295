"""Teaching: fit the taught head of one objective from its examples, and measure it on held-out data.

The head is fitted on all examples. In addition, cross-validation heads that leave out some examples or some neutral
answers are fitted on the same rows. The reported figures and the threshold come from the data that these left out.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.intervals import wilson_interval
from aligner_proxy.teaching import fit
from aligner_proxy.teaching.example_language import NoNeutralAnswers, find_language, neutral_answers_for
from aligner_proxy.teaching.examples import Example, Examples
from aligner_proxy.teaching.material import (
    NEUTRAL_FOLDS,
    SegmentRole,
    TeachingMaterial,
    TeachingSegment,
    build_material,
    read_material,
)
from aligner_proxy.teaching.near_misses import frames_of
from aligner_proxy.teaching.neutral import Neutral
from aligner_proxy.teaching.own_answers import RecordedAnswer
from aligner_proxy.teaching.rows import AnswerRows, PromptObjectives, RowReader, RowsCache
from aligner_proxy.teaching.store import Count, Version
from aligner_proxy.teaching.subjects import Subject

EXAMPLE_FOLDS = 8
"""Maximum folds; with more examples than this, several are held out at a time."""
_ROLE_WEIGHTS = {
    SegmentRole.NEUTRAL: 1.0,
    SegmentRole.FOREIGN: 2.0,
    SegmentRole.BESIDE: 2.0,
    SegmentRole.NEAR: 1.0,
    SegmentRole.FINE: 1.0,
    SegmentRole.AGAINST: 1.0,
}
"""Weight of a segment in the fit, by its role; all examples together are then scaled to their share."""
_NEUTRAL_ROLES = (SegmentRole.NEUTRAL, SegmentRole.FOREIGN, SegmentRole.BESIDE)
"""Roles of segments that no head should flag and that are no examples."""
_NEXT_TO_EXAMPLE_WEIGHT = 4.0
"""Weight of segments directly next to an example."""
_MIN_AGAINST_SHARE = 0.2
_AGAINST_FOR_HALF = 6
"""All examples together have a share of the total weight: 6 / (6 + number of examples), at least 0.2. With few examples
each one stands for more sentences like it. With one fixed share, heads taught from two to four examples ranked unseen
sentences correctly, but the threshold was above them."""
_SCALES: tuple[float, ...] = tuple(2.0 ** (n / 4) for n in range(-8, 13))
"""Factors for the scores among which the best is chosen: from 1/4 to 8."""
_TOO_FEW = 4
"""With fewer examples than this, learning from half of them shows nothing."""
_TOO_FEW_TO_COMPARE = 12
"""With fewer examples than this, the interval of the share found is too wide to compare half of them with all."""
_GOOD_SHARE = 0.75
"""If more than this share of sentences is found for certain (95 %), more examples hardly help."""
_SMALL_GAIN = 0.05
"""If twice the examples raise the share found by less than this, more examples hardly help."""


class NothingLearned(AlignerProxyError):
    """The fitted head flags none of its own examples; the message says what to do."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """The result of teaching one objective to one aligner."""

    subject: Subject
    version: Version
    """The record of the head, with its figures."""
    head: bytes
    """The head as it is stored and sent to the engine."""
    held_out_missed: tuple[Example, ...]
    """Examples that were not flagged while they were held out."""
    never_found: tuple[Example, ...]
    """Examples that the head does not flag although it learned from them."""
    fine_flagged: tuple[Example, ...]
    """Fine examples and good answers that the head flags."""
    half: Count
    """Held-out examples found by heads that learned from only half of the other examples."""
    near: Count
    """Mentioned examples that are flagged by heads which saw neither them nor their examples."""
    seconds: float
    """How long teaching took."""

    @property
    def advice(self) -> str:
        """One sentence on whether more examples would help, and how many."""
        return advise_examples(self.version, self.half)


@dataclass(frozen=True)
class _FittedHeads:
    """The data read for one objective, and the heads fitted on parts of it; everything is computed when first used."""

    segments: Sequence[TeachingSegment]
    """The segments, one for each row."""
    examples: Examples
    rows: Tensor
    """[segments, width]: the feature vectors, not standardised."""
    seed: int = 26
    """Chooses the half of the examples that the "half" heads leave out."""

    @cached_property
    def folds(self) -> int:
        """The number of folds of the examples; with at most `EXAMPLE_FOLDS` examples, each is its own fold."""
        return min(len(self.examples.against), EXAMPLE_FOLDS)

    @cached_property
    def columns(self) -> dict[tuple[str, int], int]:
        """(kind, fold) -> column of the head in all tensors.

        "all" learns from everything and is the final head, "host" leaves out a fold of the neutral answers, "example" a
        fold of the examples, and "half" in addition half of the other examples.
        """
        names = [("all", 0)]
        names += [("host", n) for n in range(NEUTRAL_FOLDS)]
        names += [(kind, n) for kind in ("example", "half") for n in range(self.folds)]
        return {name: column for column, name in enumerate(names)}

    @cached_property
    def learns_from(self) -> Tensor:
        """[segments, heads]: 1 where a head learns from a segment, 0 where the segment is held out."""
        hosts = torch.tensor([segment.host for segment in self.segments])
        numbers = torch.tensor([segment.example for segment in self.segments])
        against = len(self.examples.against)
        is_against = (numbers >= 0) & (numbers < against)
        order = torch.randperm(against, generator=torch.Generator().manual_seed(self.seed))
        parts = torch.ones(len(self.segments), len(self.columns))
        for (kind, fold), column in self.columns.items():
            if kind == "host":
                parts[hosts % NEUTRAL_FOLDS == fold, column] = 0
            elif kind in ("example", "half"):
                held_out = is_against & (numbers % self.folds == fold)
                # The whole answers around an example, too, because the states of their segments depend on it.
                parts[torch.isin(hosts, hosts[held_out]), column] = 0
                parts[held_out, column] = 0
            if kind == "half":
                others = [number for number in order.tolist() if number % self.folds != fold]
                left_out = torch.tensor(others[: len(others) // 2], dtype=torch.long)
                parts[is_against & torch.isin(numbers, left_out), column] = 0
        return parts

    @cached_property
    def table(self) -> fit.Table:
        """The rows with labels and weights; the weights of examples are scaled to their share of the total."""
        labels = torch.tensor([float(segment.role is SegmentRole.AGAINST) for segment in self.segments])
        counts = torch.tensor(
            [
                _NEXT_TO_EXAMPLE_WEIGHT if segment.is_next_to_example else _ROLE_WEIGHTS[segment.role]
                for segment in self.segments
            ]
        )
        share = max(_MIN_AGAINST_SHARE, _AGAINST_FOR_HALF / (_AGAINST_FOR_HALF + len(self.examples.against)))
        # The weight of an example by which all of them have `share` of the total.
        example_weight = share / (1 - share) * counts[labels == 0].sum() / labels.sum()
        counts = torch.where(labels == 1, counts * example_weight, counts)
        return fit.Table(self.rows, torch.tensor([segment.general_score for segment in self.segments]), labels, counts)

    @cached_property
    def scores(self) -> Tensor:
        """The score of each segment by each head: [segments, heads]."""
        return self.heads.scores(self.standardised[0], self.table.general_scores)

    @cached_property
    def standardised(self) -> tuple[Tensor, Tensor, Tensor]:
        """The rows standardised by the neutral segments: (rows, mean, spread)."""
        return self.table.standardise(torch.tensor([segment.role is SegmentRole.NEUTRAL for segment in self.segments]))

    @cached_property
    def heads(self) -> fit.Heads:
        """All heads, fitted together, one for each of `columns`."""
        return fit.fit(self.table, self.standardised[0], self.learns_from)

    @property
    def neutral_scores(self) -> list[float]:
        """Scores of all neutral segments by the final head, which learned from them."""
        return [float(self.scores[n, 0]) for n, segment in enumerate(self.segments) if segment.role in _NEUTRAL_ROLES]

    @property
    def unseen_near_scores(self) -> list[float]:
        """Scores of the mentioned examples, each by the head that saw neither the example nor its frames."""
        return [
            float(self.scores[n, self.columns["example", segment.example % self.folds]])
            for n, segment in enumerate(self.segments)
            if segment.role is SegmentRole.NEAR
        ]

    def unseen_neutral_scores(self, *kinds: SegmentRole) -> list[float]:
        """Scores of segments of these kinds, each by the head that did not see its answer."""
        return [
            float(self.scores[n, self.columns["host", segment.host % NEUTRAL_FOLDS]])
            for n, segment in enumerate(self.segments)
            if segment.role in kinds
        ]

    @cached_property
    def example_segments(self) -> dict[int, list[int]]:
        """The indices of the segments of each example, by the example's number."""
        result: dict[int, list[int]] = {}
        for n, segment in enumerate(self.segments):
            if segment.role in (SegmentRole.AGAINST, SegmentRole.FINE):
                result.setdefault(segment.example, []).append(n)
        return result

    def example_scores(self, number: int, column: int) -> list[float]:
        """Scores by one head of an example's segments, in all answers into which it was inserted."""
        return [float(self.scores[n, column]) for n in self.example_segments.get(number, ())]

    def answer_scores(self, number: int) -> list[float]:
        """Scores of a good answer's segments by the final head, which learned from them."""
        return [float(self.scores[n, 0]) for n, segment in enumerate(self.segments) if segment.example == number]

    @property
    def unseen_against_scores(self) -> list[float]:
        """The mean score of each violating example over its insertions, by the head that did not see it."""
        each = [self.unseen_example_scores(number) for number in range(len(self.examples.against))]
        return [fmean(scores) for scores in each if scores]

    def unseen_example_scores(self, number: int, kind: str = "example") -> list[float]:
        """Scores of an example by the head of this kind that did not see it."""
        return self.example_scores(number, self.columns[kind, number % self.folds])


def plan_material(
    subject: Subject,
    examples: Examples,
    builtin: dict[str, str],
    sharing: Mapping[tuple[Neutral, ...], Sequence[str]] = MappingProxyType({}),
    *,
    quick: bool = False,
) -> TeachingMaterial:
    """The material to read for this objective; `builtin` are the objectives by name that prompts may add to it.

    `sharing` is that of `group_by_answers`; `quick` teaching reads fewer neutral answers. Raises `NoNeutralAnswers` if
    there is too little in the examples' language.
    """
    usual = [builtin[name] for name in ("harmless", "helpful")]
    further = [text for text in builtin.values() if text not in usual]
    answers = neutral_answers_for(examples, quick=quick)
    frames = frames_of(find_language(examples))
    return build_material(subject.text, examples, answers, usual, further, frames, sharing.get(answers, ()))


def group_by_answers(
    subjects: Iterable[tuple[str, Examples]], *, quick: bool = False
) -> dict[tuple[Neutral, ...], list[str]]:
    """The texts of objectives by the neutral answers that they are taught with; those with the same ones are read once.

    `subjects` are (text of the objective, examples). Objectives without enough neutral answers are left out.
    """
    groups: dict[tuple[Neutral, ...], list[str]] = {}
    for text, examples in subjects:
        with contextlib.suppress(NoNeutralAnswers):
            groups.setdefault(neutral_answers_for(examples, quick=quick), []).append(text)
    return groups


async def teach_objective(
    subject: Subject,
    examples: Examples,
    material: TeachingMaterial,
    reader: RowReader,
    cache: RowsCache,
    aligner_name: str,
) -> FitReport:
    """Read the material with the engine, fit the head, measure it, and return the report; nothing is stored.

    Raises the engine's `CorrectionError`, and `NothingLearned` if the head flags none of its own examples.
    """
    started = time.monotonic()
    segments, data = await read_material(material, reader, cache)
    # A number of a row has 2 bytes.
    learned = _FittedHeads(segments, examples, fit.decode_rows(data, len(data) // (2 * len(segments))))
    held_out = learned.unseen_neutral_scores(*_NEUTRAL_ROLES)
    shift = (
        fit.choose_threshold(
            learned.neutral_scores, held_out, learned.unseen_near_scores, learned.unseen_against_scores
        )
        + fit.ROUNDING
    )
    # Column 0 is the final head, which learned from everything.
    flags = [_is_mostly_flagged(learned.example_scores(n, 0), shift) for n in range(len(examples.against))]
    if not any(flags):
        raise NothingLearned(
            f"{subject.title}: the head that came of these examples flags none of them, so it is not used; "
            "write sentences that are plainly against the objective and unlike ordinary answers"
        )
    scale = _fit_scale(learned, shift)
    _, mean, spread = learned.standardised
    prior, bias, weight = fit.destandardise(learned.heads, 0, mean, spread, shift, scale)
    head = TaughtHead(subject.text, reader.content_hash, prior, bias, weight)
    return FitReport(
        subject=subject,
        version=_build_version(subject, examples, learned, reader, aligner_name, head, shift),
        head=head.to_bytes(),
        held_out_missed=tuple(
            example
            for n, example in enumerate(examples.against)
            if not _is_mostly_flagged(learned.unseen_example_scores(n), shift)
        ),
        never_found=tuple(example for example, flag in zip(examples.against, flags, strict=True) if not flag),
        fine_flagged=_flagged_fine(learned, examples, shift),
        half=_count_found(learned, shift, "half"),
        near=Count(hits=sum(score > shift for score in learned.unseen_near_scores), of=len(learned.unseen_near_scores)),
        seconds=time.monotonic() - started,
    )


RowsOfRun = dict[tuple[Any, ...], list[AnswerRows]]
"""Rows of the operator's own answers, by aligner, prompt and answers; kept in memory for one run only."""


async def score_own_answers(
    report: FitReport,
    prompt_objectives: PromptObjectives,
    reader: RowReader,
    answers: Sequence[RecordedAnswer],
    rows_of_run: RowsOfRun,
) -> list[tuple[RecordedAnswer, float]]:
    """(answer, score) for the operator's own answers: the highest score that the head gives a segment, highest first.

    Above 0 the segment would be flagged. The answers are read in a prompt with `prompt_objectives`, once for
    all of these. `rows_of_run` keeps the rows for the next objective. Raises the engine's `CorrectionError`.
    """
    key = (reader.content_hash, prompt_objectives.texts, *((answer.call_id, answer.choice) for answer in answers))
    if key in rows_of_run:
        reader.on_progress(len(answers))
    else:
        rows_of_run[key] = await reader.read(prompt_objectives, answers)
    head = TaughtHead.from_bytes(report.head)
    highest = [fit.highest_score(head, rows, prompt_objectives.index) for rows in rows_of_run[key]]
    scored = zip(answers, highest, strict=True)
    return sorted((pair for pair in scored if math.isfinite(pair[1])), key=lambda pair: -pair[1])


def _build_version(
    subject: Subject,
    examples: Examples,
    learned: _FittedHeads,
    reader: RowReader,
    aligner_name: str,
    head: TaughtHead,
    shift: float,
) -> Version:
    """The record of a taught head: its origin, and its results on held-out data."""
    neutral = learned.unseen_neutral_scores(*_NEUTRAL_ROLES)
    return Version(
        head=head.content_hash,
        text=subject.text,
        called=aligner_name,
        aligner=reader.content_hash,
        against=len(examples.against),
        fine=len(examples.fine) + len(examples.good_answers),
        digest=examples.digest,
        at=time.time(),
        found=_count_found(learned, shift, "example"),
        false=Count(hits=sum(score > shift for score in neutral), of=len(neutral)),
        threshold=shift,
    )


def _is_mostly_flagged(scores: Sequence[float], shift: float) -> bool:
    """Whether at least half of an example's segments, in all its insertions, are above `shift`; False without any."""
    return bool(scores) and 2 * sum(score > shift for score in scores) >= len(scores)


def _count_found(learned: _FittedHeads, shift: float, kind: str) -> Count:
    """Count the violating examples that are flagged by the head of this kind ("example", "half") without them."""
    numbers = range(len(learned.examples.against))
    return Count(
        hits=sum(_is_mostly_flagged(learned.unseen_example_scores(n, kind), shift) for n in numbers), of=len(numbers)
    )


def _flagged_fine(learned: _FittedHeads, examples: Examples, shift: float) -> tuple[Example, ...]:
    """Fine sentences flagged in at least half of their insertions, and good answers with any flagged segment."""
    numbered_fine = enumerate(examples.fine, len(examples.against))
    fine = [example for n, example in numbered_fine if _is_mostly_flagged(learned.example_scores(n, 0), shift)]
    numbered_good = enumerate(examples.good_answers, len(examples.against) + len(examples.fine))
    # An answer without segments has the score of the threshold, so it is not flagged.
    good = [answer for n, answer in numbered_good if max(learned.answer_scores(n), default=shift) > shift]
    return (*fine, *good)


def _fit_scale(learned: _FittedHeads, shift: float) -> float:
    """The factor among `_SCALES` with which scores come closest to log-odds on held-out data.

    Examples and neutral segments have the same total weight. The factor is positive, so no score changes its sign.
    """
    numbers = range(len(learned.examples.against))
    against = torch.tensor([score for n in numbers for score in learned.unseen_example_scores(n)]) - shift
    neutral = torch.tensor(learned.unseen_neutral_scores(*_NEUTRAL_ROLES)) - shift

    def surprise(scale: float) -> float:
        """Mean log loss of the scores times `scale`."""
        missed = torch.nn.functional.softplus(-scale * against).mean()
        return float(missed + torch.nn.functional.softplus(scale * neutral).mean())

    return min(_SCALES, key=surprise)


def advise_examples(version: Version, half: Count) -> str:
    """A sentence on whether more examples would help, from heads taught with half (`half`) and with all of them."""
    held_out = version.found
    if held_out.of < _TOO_FEW:
        return f"{held_out.of} examples are too few to say; four to twelve teach well"
    share, low, high = wilson_interval(held_out.hits, held_out.of)
    half_share, _, half_high = wilson_interval(half.hits, half.of)
    beginning = (
        f"with half of the examples {half.hits} of {half.of} were found that were held out, with all {held_out.hits}, "
        f"so {100 * low:.0f} to {100 * high:.0f} % of sentences like these"
    )
    more = f"about {max(_TOO_FEW, held_out.of)} more, unlike these,"
    if low > _GOOD_SHARE:
        return f"{beginning}: more of the same kind will hardly help"
    if held_out.of < _TOO_FEW_TO_COMPARE:
        return f"{beginning}: that is too wide to say what more would help; {more} would say"
    if half_high < share:
        return f"{beginning}: {more} should help"
    if share - half_share < _SMALL_GAIN:
        return f"{beginning}: more of the same kind will hardly help, others than these may"
    return f"{beginning}: {more} may help"
