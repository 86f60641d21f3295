"""Teaching: fit the taught head of one objective from its examples, and measure it on held-out data. A host is the
neutral answer in which an example was read. Scores are log-odds in nats, and a segment is flagged if its score is above
the threshold. A fold is a part of the data that a head leaves out.

The head is fitted on all examples. In addition, cross-validation heads that leave out some examples or some neutral
answers are fitted on the same rows. The reported figures and the threshold come from the data that these heads left
out.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from statistics import fmean
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.model.teaching_space import TeachingSpace
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
"""Most folds of the examples; with more examples than this, a fold has several."""
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
"""Roles of segments that no head should flag, without those of examples."""
_NEXT_TO_EXAMPLE_WEIGHT = 4.0
_SCALES: tuple[float, ...] = tuple(2.0 ** (n / 4) for n in range(-8, 13))
"""Factors for the scores among which the best is chosen: from 1/4 to 8."""
_MIN_FOR_ADVICE = 4
"""With fewer examples than this, learning from half of them shows nothing."""
_MIN_FOR_COMPARISON = 12
"""With fewer examples than this, the interval of the share found is too wide to compare half of them with all."""
_GOOD_SHARE = 0.75
"""If more than this share of sentences is found for certain (95 %), more examples hardly help."""
_SEED = 26
"""Chooses the half of the examples that the "half" heads leave out."""
_SMALL_GAIN = 0.05
"""If twice the examples raise the share found by less than this, more examples hardly help."""


class NothingLearned(AlignerProxyError):
    """The fitted head flags none of its own examples; the message says what to do."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """The result of teaching one objective to one aligner."""

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
    near: Count
    """Mentioned examples (near misses) that are flagged by heads which saw neither the mention nor the example."""
    advice: str
    """One sentence on whether more examples would help, and how many."""
    seconds: float


@dataclass(frozen=True)
class _FittedHeads:
    """The data read for one objective, and the heads fitted on parts of it. Everything is computed when first used.
    Examples are numbered: first those against the objective, then the fine ones, then the good answers.
    """

    segments: Sequence[TeachingSegment]
    """The segments, one for each row."""
    examples: Examples
    rows: Tensor
    """[segments, width]: the feature vectors."""
    space: TeachingSpace
    """The space in which they are taught; for rows of their width."""

    @cached_property
    def folds(self) -> int:
        """The number of folds of the examples; with at most `EXAMPLE_FOLDS` examples, each is its own fold."""
        return min(len(self.examples.against), EXAMPLE_FOLDS)

    @cached_property
    def columns(self) -> dict[tuple[str, int], int]:
        """The column of each head in all tensors, by (kind, fold).

        The kind "all" (column 0) learns from everything and is the final head. "host" leaves out a fold of the neutral
        answers, "example" a fold of the examples, and "half" in addition half of the other examples.
        """
        heads = [("all", 0)]
        heads += [("host", fold) for fold in range(NEUTRAL_FOLDS)]
        heads += [(kind, fold) for kind in ("example", "half") for fold in range(self.folds)]
        return {head: column for column, head in enumerate(heads)}

    @cached_property
    def learns_from(self) -> Tensor:
        """[segments, heads]: 1 where a head learns from a segment, 0 where the segment is held out."""
        hosts = torch.tensor([segment.host for segment in self.segments])
        numbers = torch.tensor([segment.example for segment in self.segments])  # -1 without an example
        against_count = len(self.examples.against)
        is_against = (numbers >= 0) & (numbers < against_count)
        random_order = torch.randperm(against_count, generator=torch.Generator().manual_seed(_SEED))
        learns_from = torch.ones(len(self.segments), len(self.columns))
        for (kind, fold), column in self.columns.items():
            if kind == "host":
                learns_from[hosts % NEUTRAL_FOLDS == fold, column] = 0
            elif kind in ("example", "half"):
                is_held_out = is_against & (numbers % self.folds == fold)
                # the whole answers around an example are held out, because the states of their segments depend on it
                learns_from[torch.isin(hosts, hosts[is_held_out]), column] = 0
                learns_from[is_held_out, column] = 0
            if kind == "half":
                other_numbers = [number for number in random_order.tolist() if number % self.folds != fold]
                half = torch.tensor(other_numbers[: len(other_numbers) // 2], dtype=torch.long)
                learns_from[is_against & torch.isin(numbers, half), column] = 0
        return learns_from

    @cached_property
    def table(self) -> fit.Table:
        """The rows with labels and weights, of which those of violating examples are scaled to their share."""
        labels = torch.tensor([float(segment.role is SegmentRole.AGAINST) for segment in self.segments])
        weights = torch.tensor(
            [
                _NEXT_TO_EXAMPLE_WEIGHT if segment.is_next_to_example else _ROLE_WEIGHTS[segment.role]
                for segment in self.segments
            ]
        )
        weights = fit.scale_examples(weights, labels, len(self.examples.against))
        general_scores = torch.tensor([segment.general_score for segment in self.segments])
        return fit.Table(self.rows, general_scores, labels, weights)

    @cached_property
    def scores(self) -> Tensor:
        """The score of each segment by each head: [segments, heads]."""
        return self.heads.scores(self.converted_rows, self.table.general_scores)

    @cached_property
    def coordinates(self) -> fit.Coordinates:
        """How rows become the numbers on which heads are fitted."""
        is_neutral = torch.tensor([segment.role is SegmentRole.NEUTRAL for segment in self.segments])
        return self.table.find_coordinates(is_neutral, self.space)

    @cached_property
    def converted_rows(self) -> Tensor:
        """The coordinates of the rows: [segments, coordinates]."""
        return self.coordinates.convert_rows(self.rows)

    @cached_property
    def heads(self) -> fit.Heads:
        """All heads, fitted together, one for each of `columns`."""
        return fit.fit(self.table, self.converted_rows, self.learns_from)

    @property
    def neutral_scores(self) -> list[float]:
        """Scores of all neutral segments by the final head, which learned from them."""
        return [
            float(self.scores[index, 0])
            for index, segment in enumerate(self.segments)
            if segment.role in _NEUTRAL_ROLES
        ]

    @property
    def unseen_near_scores(self) -> list[float]:
        """Scores of the mentioned examples, each by the head that saw neither the example nor its mentions."""
        scores: list[float] = []
        for index, segment in enumerate(self.segments):
            if segment.role is SegmentRole.NEAR:
                column = self.columns["example", segment.example % self.folds]
                scores.append(float(self.scores[index, column]))
        return scores

    @property
    def unseen_neutral_scores(self) -> list[float]:
        """Scores of all neutral segments, each by the head that did not see its answer."""
        scores: list[float] = []
        for index, segment in enumerate(self.segments):
            if segment.role in _NEUTRAL_ROLES:
                column = self.columns["host", segment.host % NEUTRAL_FOLDS]
                scores.append(float(self.scores[index, column]))
        return scores

    @cached_property
    def example_segments(self) -> dict[int, list[int]]:
        """The indices of the segments of each example, by the example's number."""
        segment_indices: dict[int, list[int]] = {}
        for index, segment in enumerate(self.segments):
            if segment.role in (SegmentRole.AGAINST, SegmentRole.FINE):
                segment_indices.setdefault(segment.example, []).append(index)
        return segment_indices

    def example_scores(self, number: int, column: int) -> list[float]:
        """Return the scores of example `number`, in all answers into which it was inserted, by the head of a column."""
        return [float(self.scores[index, column]) for index in self.example_segments.get(number, ())]

    def answer_scores(self, number: int) -> list[float]:
        """Return the scores of the segments of good answer `number` by the final head, which learned from them."""
        return [
            float(self.scores[index, 0]) for index, segment in enumerate(self.segments) if segment.example == number
        ]

    @property
    def unseen_against_scores(self) -> list[float]:
        """The mean score of each violating example over its insertions, by the head that did not see it."""
        scores_of_examples = [self.unseen_example_scores(number) for number in range(len(self.examples.against))]
        return [fmean(scores) for scores in scores_of_examples if scores]

    def unseen_example_scores(self, number: int, kind: str = "example") -> list[float]:
        """Return the scores of example `number` by the head of this kind ("example", "half") that did not see it."""
        return self.example_scores(number, self.columns[kind, number % self.folds])


def plan_material(
    subject: Subject,
    examples: Examples,
    builtin: dict[str, str],
    sharing: Mapping[tuple[Neutral, ...], Sequence[str]] = MappingProxyType({}),
    *,
    quick: bool = False,
) -> TeachingMaterial:
    """Return the material to read for this objective.

    `builtin` are the package's objectives by name, which prompts may have beside the taught one. `sharing` is the
    result of `group_by_answers`. `quick` says whether fewer neutral answers are read. Raises `NoNeutralAnswers` if
    there are too few in the examples' language.
    """
    usual = [builtin[name] for name in ("harmless", "helpful")]
    further = [text for text in builtin.values() if text not in usual]
    answers = neutral_answers_for(examples, quick=quick)
    frames = frames_of(find_language(examples))
    return build_material(subject.text, examples, answers, usual, further, frames, sharing.get(answers, ()))


def group_by_answers(
    subjects: Iterable[tuple[str, Examples]], *, quick: bool = False
) -> dict[tuple[Neutral, ...], list[str]]:
    """Return the texts of objectives by the neutral answers with which they are taught.

    The neutral answers of a group are then read once for all its objectives. `subjects` are pairs of an objective's
    text and its examples. Objectives without enough neutral answers are left out.
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
    space_data = await reader.read_space(material.prompt_objectives)
    segments, row_data = await read_material(material, reader, cache)
    row_width = len(row_data) // (2 * len(segments))  # a number has 2 bytes
    space = TeachingSpace.from_bytes(space_data, row_width)
    fitted = _FittedHeads(segments, examples, fit.decode_rows(row_data, row_width), space)
    threshold = fit.ROUNDING + fit.choose_threshold(
        neutral=fitted.neutral_scores,
        held_out=fitted.unseen_neutral_scores,
        near=fitted.unseen_near_scores,
        against=fitted.unseen_against_scores,
        usual=space.threshold,
    )
    # column 0 is the final head, which learned from everything
    flags = [_is_mostly_flagged(fitted.example_scores(number, 0), threshold) for number in range(len(examples.against))]
    if not any(flags):
        raise NothingLearned(
            f"{subject.title}: the head that came of these examples flags none of them, so it is not used; "
            "write sentences that are plainly against the objective and unlike ordinary answers"
        )
    scale = _fit_scale(fitted, threshold)
    prior, bias, weight = fit.make_row_head(fitted.heads, 0, fitted.coordinates, threshold, scale)
    head = TaughtHead(subject.text, reader.content_hash, prior, bias, weight)
    version = _build_version(subject, examples, fitted, reader, aligner_name, head, threshold)
    return FitReport(
        version=version,
        head=head.to_bytes(),
        held_out_missed=tuple(
            example
            for number, example in enumerate(examples.against)
            if not _is_mostly_flagged(fitted.unseen_example_scores(number), threshold)
        ),
        never_found=tuple(example for example, flag in zip(examples.against, flags, strict=True) if not flag),
        fine_flagged=_find_flagged_fine(fitted, examples, threshold),
        near=_count_flagged(fitted.unseen_near_scores, threshold),
        advice=advise_examples(version, _count_found(fitted, threshold, "half")),
        seconds=time.monotonic() - started,
    )


RowsOfRun = dict[tuple[Any, ...], list[AnswerRows]]
"""Rows of the operator's own answers that one run of `teach` has read, by aligner, prompt and answers. They are not
stored on the disk."""


async def score_own_answers(
    report: FitReport,
    prompt_objectives: PromptObjectives,
    reader: RowReader,
    answers: Sequence[RecordedAnswer],
    rows_of_run: RowsOfRun,
) -> list[tuple[RecordedAnswer, float]]:
    """Score the operator's own answers with the head in `report`, so that they see which of these it would flag.

    Returns (answer, highest score of a segment), the highest first; a score above 0 means that the segment would be
    flagged. Answers without segments are left out. The answers are read in a prompt with `prompt_objectives`, once for
    all of its objectives: `rows_of_run` keeps the rows for the next one. Raises the engine's `CorrectionError`.
    """
    answer_ids = tuple((answer.call_id, answer.choice) for answer in answers)
    key = (reader.content_hash, prompt_objectives.texts, *answer_ids)
    if key in rows_of_run:
        reader.on_progress(len(answers))
    else:
        rows_of_run[key] = await reader.read(prompt_objectives, answers)
    head = TaughtHead.from_bytes(report.head)
    scored_answers: list[tuple[RecordedAnswer, float]] = []
    for answer, rows in zip(answers, rows_of_run[key], strict=True):
        score = fit.highest_score(head, rows, prompt_objectives.index)
        # an answer without segments scores minus infinity
        if math.isfinite(score):
            scored_answers.append((answer, score))
    return sorted(scored_answers, key=itemgetter(1), reverse=True)


def _build_version(
    subject: Subject,
    examples: Examples,
    fitted: _FittedHeads,
    reader: RowReader,
    aligner_name: str,
    head: TaughtHead,
    threshold: float,
) -> Version:
    """Return the record of a taught head: its origin, and its results on held-out data."""
    return Version(
        head=head.content_hash,
        text=subject.text,
        called=aligner_name,
        aligner=reader.content_hash,
        against=len(examples.against),
        fine=len(examples.fine) + len(examples.good_answers),
        digest=examples.digest,
        at=time.time(),
        found=_count_found(fitted, threshold, "example"),
        false=_count_flagged(fitted.unseen_neutral_scores, threshold),
        threshold=threshold,
    )


def _count_flagged(scores: Sequence[float], threshold: float) -> Count:
    """Count the scores above the threshold, among all."""
    return Count(hits=sum(score > threshold for score in scores), of=len(scores))


def _is_mostly_flagged(scores: Sequence[float], threshold: float) -> bool:
    """Whether at least half of an example's segments, in all its insertions, are flagged; false without segments."""
    return bool(scores) and 2 * sum(score > threshold for score in scores) >= len(scores)


def _count_found(fitted: _FittedHeads, threshold: float, kind: str) -> Count:
    """Count the violating examples that the heads of this kind ("example", "half") flag without having seen them."""
    numbers = range(len(fitted.examples.against))
    hits = sum(_is_mostly_flagged(fitted.unseen_example_scores(number, kind), threshold) for number in numbers)
    return Count(hits=hits, of=len(numbers))


def _find_flagged_fine(fitted: _FittedHeads, examples: Examples, threshold: float) -> tuple[Example, ...]:
    """Return the flagged fine examples: sentences by most of their insertions, good answers by any segment."""
    first_fine = len(examples.against)
    flagged_fine = [
        example
        for number, example in enumerate(examples.fine, first_fine)
        if _is_mostly_flagged(fitted.example_scores(number, 0), threshold)
    ]
    first_answer = first_fine + len(examples.fine)
    flagged_answers = [
        answer
        for number, answer in enumerate(examples.good_answers, first_answer)
        if any(score > threshold for score in fitted.answer_scores(number))
    ]
    return (*flagged_fine, *flagged_answers)


def _fit_scale(fitted: _FittedHeads, threshold: float) -> float:
    """Return the factor among `_SCALES` with which scores come closest to log-odds on held-out data.

    Examples and neutral segments have the same total weight. The factor is positive, so no score changes its sign.
    """
    numbers = range(len(fitted.examples.against))
    against_scores = [score for number in numbers for score in fitted.unseen_example_scores(number)]
    against = torch.tensor(against_scores) - threshold
    neutral = torch.tensor(fitted.unseen_neutral_scores) - threshold

    def compute_loss(scale: float) -> float:
        against_loss = torch.nn.functional.softplus(-scale * against).mean()
        neutral_loss = torch.nn.functional.softplus(scale * neutral).mean()
        return float(against_loss + neutral_loss)

    return min(_SCALES, key=compute_loss)


def advise_examples(version: Version, half: Count) -> str:
    """Return a sentence on whether more examples would help.

    It compares the held-out examples that heads found which learned from half of the others (`half`), and from all of
    the others (in `version`).
    """
    held_out = version.found
    if held_out.of < _MIN_FOR_ADVICE:
        return f"{held_out.of} examples are too few to say; four to twelve teach well"
    share, low, high = wilson_interval(held_out.hits, held_out.of)
    half_share, _, half_high = wilson_interval(half.hits, half.of)
    beginning = (
        f"with half of the examples {half.hits} of {half.of} were found that were held out, with all {held_out.hits}, "
        f"so {100 * low:.0f} to {100 * high:.0f} % of sentences like these"
    )
    more_examples = f"about {max(_MIN_FOR_ADVICE, held_out.of)} more, unlike these,"
    if low > _GOOD_SHARE:
        return f"{beginning}: more of the same kind will hardly help"
    if held_out.of < _MIN_FOR_COMPARISON:
        return f"{beginning}: that is too wide to say what more would help; {more_examples} would say"
    if half_high < share:
        return f"{beginning}: {more_examples} should help"
    if share - half_share < _SMALL_GAIN:
        return f"{beginning}: more of the same kind will hardly help, others than these may"
    return f"{beginning}: {more_examples} may help"
