"""A space to teach in: coordinates in which a few examples of any objective tell its violations from other text.

    python -m models.experiments.teaching_space aligner_proxy/embedded --before HEAD --data DATA --out runs/space

`teach` fits a head to four or twelve sentences that go against an objective. In the rows of the detector head, such a
head learns the subject of the sentences as much as the fault, so it flags every third sentence that has only the
subject. Here each kind of `models/data/objective_lessons` is a task: a ridge regression, through which gradients flow,
is fitted to some of its sentences and judges the others. The coordinates are learned from what it does wrong; `teach`
then fits its logistic regression in them.

The general head's score is a part of every fit, and a head that learned from an author's lessons would score them too
well. So the scores of each author come from a head that learned from other authors, from the numbers of `--before`: the
head that the aligner had before any lessons. Authors are measured by a space that was learned from the others.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from rich.progress import track
from torch import Tensor, nn

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.teaching_space import TeachingSpace
from aligner_proxy.engine.weights.manifest import HEAD
from aligner_proxy.teaching import fit
from models.data.labelled_replies import AGAINST, FINE, UNKNOWN
from models.experiments.answer_evidence import hash_teaching
from models.experiments.objective_lessons import (
    GROUPS,
    LESSONS,
    LessonSets,
    ObjectiveLessonRecipe,
    count_flags,
    find_groups,
    learn_objectives,
    read_lesson_sets,
)
from models.reporting import output
from models.reporting.statistics import Rate
from models.train.export import replace_head
from models.train.head_rows import HeadRows, join_rows, open_row_reader

MEASURED_EXAMPLES = (4, 6)
"""Numbers of violating examples with which spaces are measured."""


class TeachingSpaceRecipe(BaseModel):
    """How a space is learned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = 64
    """Coordinates of one space."""
    seeds: int = 4
    """Spaces that are learned from other beginnings; the one that ships has the coordinates of all of them."""
    steps: int = 700
    lr: float = 2e-3
    batch: int = 24
    """Kinds of a step."""
    decay: float = 2.0
    dropout: float = 0.6
    """Share of the numbers of a row that a step does not see."""
    examples: tuple[int, ...] = (2, 3, 4, 4, 5, 6, 7, 8)
    """Numbers of violating examples, of which each task draws one."""
    allowed: tuple[int, ...] = (0, 0, 2, 4)
    """Numbers of allowed examples, of which each task draws one."""
    space_factor: float = 3.0
    row_factor: float = 0.6
    """Factors of the learned coordinates, and of the standardised rows beside them, which keep neutral segments apart.
    `teach` has a fixed penalty, to which a larger factor makes the coordinate cheaper."""
    threshold: float = -1.4
    """Nats, as `TeachingSpace` has it. It and the factors were chosen on 15 kinds of `data/taught_kinds`."""
    violation_weight: float = 2.0
    """Weight of the loss on violations; that on allowed sentences and that on segments beside them weigh 1."""


@dataclass(frozen=True, slots=True)
class KindRows:
    """The segments of all answers with the sentences of one kind; shapes are in brackets."""

    rows: Tensor
    """[segments, width]: standardised rows."""
    labels: Tensor
    """[segments]: `AGAINST`, `FINE`, or `UNKNOWN` for the segments beside a sentence."""
    answers: Tensor
    """[segments]: number of the answer that has the segment."""
    general_scores: Tensor
    """[segments]: scores of a general head that has not learned from the author."""


class TeachingTask(NamedTuple):
    """Which segments of a kind teach: [segments]; the others are judged."""

    is_teaching: Tensor
    example_count: int

    @property
    def is_judged(self) -> Tensor:
        """[segments]: whether a segment is judged."""
        return ~self.is_teaching


def draw_task(kind: KindRows, example_count: int, allowed_count: int, rng: Random) -> TeachingTask:
    """Draw the sentences that teach.

    The segments beside these sentences teach, too, and those of half of the answers with allowed sentences, which stand
    for the neutral answers of `teach`.
    """
    against = _list_answers(kind, AGAINST, rng)
    allowed = _list_answers(kind, FINE, rng)
    examples = torch.tensor(against[:example_count])
    allowed_examples = torch.tensor(allowed[:allowed_count], dtype=torch.long)
    hosts = torch.tensor(allowed[: len(allowed) // 2])
    is_example = torch.isin(kind.answers, examples)
    is_allowed_example = torch.isin(kind.answers, allowed_examples)
    is_beside_allowed = torch.isin(kind.answers, hosts) & (kind.labels == UNKNOWN)
    is_teaching = is_example | is_allowed_example | is_beside_allowed
    return TeachingTask(is_teaching, example_count)


def _list_answers(kind: KindRows, label: int, rng: Random) -> list[int]:
    """The numbers of the answers with a segment of this label, in random order."""
    numbers: list[int] = kind.answers[kind.labels == label].unique().tolist()
    rng.shuffle(numbers)
    return numbers


class FitNumbers(NamedTuple):
    """The numbers of a ridge regression, each a tensor of one number."""

    penalty: Tensor
    """Penalty of large slopes."""
    share: Tensor
    """Share of the violating segments in the total weight."""
    allowed_weight: Tensor
    """Weight of a segment of an allowed example, relative to a segment beside an example."""
    general_factor: Tensor
    """Factor with which the general head's score becomes one more coordinate."""
    scale: Tensor
    """Nats for each unit of the regression's output, which is between -1 (allowed) and 1 (violating)."""
    prior: Tensor
    """Factor with which the general head's score is added to the score."""
    bias: Tensor
    """Nats that are added to the score of a head of four examples."""
    bias_per_doubling: Tensor
    """Nats that are added for each doubling of the number of examples."""


def score_task(kind: KindRows, task: TeachingTask, rows: Tensor, projection: Tensor, numbers: FitNumbers) -> Tensor:
    """Fit a head to the segments that teach, and return its scores of the judged ones, in nats [judged segments].

    `rows` are those of the kind, perhaps with some numbers dropped; `projection` is [coordinates, width].
    """
    general_scores = kind.general_scores[:, None] * numbers.general_factor
    coordinates = torch.cat([rows @ projection.T, general_scores], 1)
    labels = kind.labels[task.is_teaching]
    other_weights = torch.where(labels == FINE, numbers.allowed_weight, torch.ones(())) * (labels != AGAINST)
    violation_weights = (labels == AGAINST).float()
    # all violating segments together have their share of the total weight, which is 1
    weights = numbers.share * violation_weights / violation_weights.sum()
    weights = weights + (1 - numbers.share) * other_weights / other_weights.sum()
    teaching_coordinates = coordinates[task.is_teaching]
    mean = weights @ teaching_coordinates
    targets = 2 * violation_weights - 1
    mean_target = weights @ targets
    centred = teaching_coordinates - mean
    # solved for a factor of each segment, because there are fewer segments than coordinates
    equations = centred @ centred.T + torch.diag(numbers.penalty / weights)
    slope = torch.linalg.solve(equations, targets - mean_target) @ centred
    outputs = (coordinates[task.is_judged] - mean) @ slope + mean_target
    bias = numbers.bias + numbers.bias_per_doubling * math.log2(task.example_count / 4)
    return numbers.scale * outputs + numbers.prior * kind.general_scores[task.is_judged] + bias


class LearnedSpace(nn.Module):
    """A space whose coordinates and numbers are learned. Positive numbers are learned by their logarithms."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.randn(size, width) / width**0.5)
        self.log_penalty = nn.Parameter(torch.tensor(-1.0))
        self.share_logit = nn.Parameter(torch.tensor(0.0))
        self.log_allowed_weight = nn.Parameter(torch.tensor(2.0))
        self.general_factor = nn.Parameter(torch.tensor(0.1))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.prior = nn.Parameter(torch.tensor(0.6))
        self.bias = nn.Parameter(torch.tensor(-1.0))
        self.bias_per_doubling = nn.Parameter(torch.tensor(0.0))

    def find_numbers(self) -> FitNumbers:
        """The numbers of the fit, through which gradients flow back to the parameters."""
        return FitNumbers(
            penalty=self.log_penalty.exp(),
            share=torch.sigmoid(self.share_logit),
            allowed_weight=self.log_allowed_weight.exp(),
            general_factor=self.general_factor,
            scale=self.scale,
            prior=self.prior,
            bias=self.bias,
            bias_per_doubling=self.bias_per_doubling,
        )


def learn_space(kinds: Sequence[KindRows], recipe: TeachingSpaceRecipe, seed: int) -> LearnedSpace:
    """Learn a space from these kinds, for standardised rows."""
    torch.manual_seed(seed)
    rng = Random(seed)
    learned = LearnedSpace(recipe.size, kinds[0].rows.shape[1])
    numbers = [parameter for name, parameter in learned.named_parameters() if name != "projection"]
    groups = [
        {"params": [learned.projection], "weight_decay": recipe.decay},
        {"params": numbers, "weight_decay": 0.0},
    ]
    # the numbers have far to go, and are not many
    rates = [recipe.lr, 3 * recipe.lr]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, recipe.steps, pct_start=0.1)
    for _ in track(range(recipe.steps), description=f"seed {seed}"):
        optimizer.zero_grad()
        for kind in rng.sample(kinds, recipe.batch):
            task = draw_task(kind, rng.choice(recipe.examples), rng.choice(recipe.allowed), rng)
            rows = F.dropout(kind.rows, recipe.dropout)
            scores = score_task(kind, task, rows, learned.projection, learned.find_numbers())
            loss = _compute_loss(scores, kind.labels[task.is_judged], recipe.violation_weight) / recipe.batch
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return learned.requires_grad_(False)


def _compute_loss(scores: Tensor, labels: Tensor, violation_weight: float) -> Tensor:
    """The log loss, of which violations, allowed sentences and segments beside them are parts with fixed weights."""
    loss = torch.zeros(())
    for label, weight in ((AGAINST, violation_weight), (FINE, 1.0), (UNKNOWN, 1.0)):
        has_label = labels == label
        targets = torch.full((int(has_label.sum()),), float(label == AGAINST))
        loss = loss + weight * F.binary_cross_entropy_with_logits(scores[has_label], targets)
    return loss


def join_spaces(spaces: Sequence[LearnedSpace], spread: Tensor, recipe: TeachingSpaceRecipe) -> TeachingSpace:
    """A space with the coordinates of all these spaces: products of rows are the mean of theirs, but for a factor.

    Rows need not be divided by their `spread` [width] first.
    """
    mean_projection = torch.cat([space.projection for space in spaces]) / len(spaces) ** 0.5 / spread
    projection = recipe.space_factor * mean_projection
    return TeachingSpace(projection, recipe.row_factor, recipe.threshold)


def measure_space(space: TeachingSpace, kinds: Sequence[KindRows], example_count: int) -> dict[str, Rate]:
    """What heads flag that `teach` would fit in a space to so many violating examples: by label of the segment.

    They are fitted as `teach` fits them, but to few neutral segments, and with the threshold for any objective.
    """
    judged_labels: list[int] = []
    flags: list[bool] = []
    for number, kind in enumerate(kinds):
        task = draw_task(kind, example_count, 0, Random(number))
        labels = (kind.labels[task.is_teaching] == AGAINST).float()
        weights = fit.scale_examples(torch.ones_like(labels), labels, example_count)
        table = fit.Table(kind.rows[task.is_teaching], kind.general_scores[task.is_teaching], labels, weights)
        coordinates = table.find_coordinates(labels == 0, space)
        heads = fit.fit(table, coordinates.convert_rows(table.rows), torch.ones(len(labels), 1))
        judged_rows = coordinates.convert_rows(kind.rows[task.is_judged])
        scores = heads.scores(judged_rows, kind.general_scores[task.is_judged])[:, 0]
        judged_labels += kind.labels[task.is_judged].tolist()
        flags += (scores > (space.threshold or 0.0)).tolist()
    return count_flags(judged_labels, flags)


class Spread(NamedTuple):
    """Mean and spread of each number of neutral rows: [width] each."""

    mean: Tensor
    spread: Tensor


def measure_spread(lessons: Mapping[str, HeadRows]) -> Spread:
    """The mean and the spread of the rows beside the sentences, of which every third counts."""
    parts = []
    for rows in lessons.values():
        is_beside = torch.tensor([label for case in rows.cases for label in case.own_labels]) == UNKNOWN
        parts.append(rows.segments[is_beside][::3].float())
    neutral_rows = torch.cat(parts)
    return Spread(neutral_rows.mean(0), neutral_rows.std(0).clamp(min=1e-2))


def make_kinds(rows: HeadRows, general: DetectorHead, spread: Spread) -> Iterator[KindRows]:
    """The kinds of the lessons of one file, with the scores of a general head."""
    scores = rows.scores(general)
    for _, numbers in groupby(range(len(rows)), lambda number: rows.cases[number].id.rpartition("-")[0]):
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for answer, number in enumerate(numbers):
            case = rows.cases[number]
            labels = torch.tensor(case.own_labels)
            segments = (rows.case_rows(number).segments.float() - spread.mean) / spread.spread
            parts.append((segments, labels, torch.full_like(labels, answer), scores[number][:, case.own_column]))
        yield KindRows(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def learn_general_heads(
    before: DetectorHead, sets: LessonSets, groups: Mapping[str, int], folder: Path
) -> list[DetectorHead]:
    """For each group of authors, a general head that learned from the lessons of the others; kept in `folder`."""
    recipe = ObjectiveLessonRecipe(seeds=1)
    heads = []
    for group in range(GROUPS):
        path = folder / f"general_without_{group}.safetensors"
        if not path.exists():
            parts = [rows for name, rows in sets.lessons.items() if groups[name] != group]
            learn_objectives(before, {LESSONS: join_rows(parts), **sets.teaching}, recipe).save(path)
        heads.append(DetectorHead.load(path))
    return heads


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.teaching_space",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--before", type=Path, required=True, help="detector head that has learned from no lessons")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--into", type=Path, help="aligner folder whose head gets the space")
    arguments = parser.parse_args(argv)
    recipe = TeachingSpaceRecipe()
    reader = open_row_reader(arguments.aligner, arguments.out / "weights")
    sets = read_lesson_sets(reader, arguments.data, arguments.out)
    groups = find_groups(sets.lessons)
    general_heads = learn_general_heads(DetectorHead.load(arguments.before), sets, groups, arguments.out)
    spread = measure_spread(sets.lessons)
    kinds = {name: list(make_kinds(rows, general_heads[groups[name]], spread)) for name, rows in sets.lessons.items()}
    # the rows of kinds are standardised already
    unit_spread = torch.ones_like(spread.spread)
    lines = []
    for group in range(GROUPS):
        unseen_kinds = [kind for name, parts in kinds.items() for kind in parts if groups[name] == group]
        others_kinds = [kind for name, parts in kinds.items() for kind in parts if groups[name] != group]
        learned = learn_space(others_kinds, recipe, 0)
        own_rows = TeachingSpace(torch.zeros(0, len(spread.mean)))
        for title, space in (("rows", own_rows), ("learned from others", join_spaces([learned], unit_spread, recipe))):
            for count in MEASURED_EXAMPLES:
                rates = measure_space(space, unseen_kinds, count)
                lines += [(f"group {group}, {count} examples", title, label, rate) for label, rate in rates.items()]
    everything = [kind for parts in kinds.values() for kind in parts]
    space = join_spaces([learn_space(everything, recipe, seed) for seed in range(recipe.seeds)], spread.spread, recipe)
    if arguments.into:
        head = DetectorHead.load(arguments.into / HEAD)
        head.store_space(space)
        replace_head(arguments.into, head)
    text = output.table(("authors", "space", "segments", "flagged"), lines)
    output.write(arguments.out, "teaching_space", text, {"recipe": recipe.model_dump(mode="json")})
    print(f"{text}\nteaching answers: {hash_teaching(sets.lessons)}")


if __name__ == "__main__":
    main()
