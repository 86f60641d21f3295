"""Training of a detector head alone, on stored rows: the model below it stays as it is.

The new head starts from an earlier one, which is good at most of what it does, and stays near it. Where a label of a
segment is known, the new head learns the label. Elsewhere its scores are pulled to those of the earlier head, for every
segment of a batch under every objective of the batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from aligner_proxy.engine.model.detector import DetectorHead
from models.data.labelled_replies import AGAINST, UNKNOWN

from .head_rows import HeadRows
from .probe import Aggregation, aggregate

FARTHEST = 8.0
"""In nats: scores are compared only within this distance of 0, as both of two larger ones are beyond doubt."""
_WARM_UP_STEPS = 20


class HeadRecipe(BaseModel):
    """How a head is trained further; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: Mapping[str, float]
    """By the name of a set, its share of the cases in a batch; from other sets nothing is learned."""
    held: frozenset[str] = frozenset()
    """Sets in whose cases the scores are pulled to those of the head before."""
    pull: float = 1.0
    """Weight of that pull."""
    against: float = 2.0
    """Weight of a segment that goes against an objective; others weigh 1."""
    bags: Aggregation = "noisy-or"
    """How the scores of segments become that of a reply, if it is unknown which of its segments goes against."""
    bag: float = 1.0
    """Weight of such a reply."""
    wider: int = 0
    """Hidden units that are added to those of the head before."""
    steps: int = 1500
    batch: int = 24
    lr: float = 4e-4
    seed: int = 1


def train_head(before: DetectorHead, sets: Mapping[str, HeadRows], recipe: HeadRecipe) -> DetectorHead:
    """A head that starts as a copy of `before`, and learns from these sets."""
    torch.manual_seed(recipe.seed)
    head = widen_head(before, recipe.wider)
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.steps))
    for batch in _make_batches(sets, recipe):
        optimizer.zero_grad()
        compute_loss(head, before, batch, recipe).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return head.eval()


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine down to 0."""
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * (1 + math.cos(math.pi * step / steps)) / 2


def widen_head(before: DetectorHead, more: int) -> DetectorHead:
    """A copy of the head with `more` hidden units, whose weights in the score are 0 yet."""
    if not more:
        return copy.deepcopy(before)
    return add_heads(before, create_silent_head(before, more))


def create_silent_head(before: DetectorHead, width: int) -> DetectorHead:
    """An untrained head that reads the rows of `before`, with weights of 0 in its score."""
    addition = DetectorHead(before.objective.in_features // len(before.layers), before.layers.tolist(), width)
    nn.init.zeros_(addition.score.weight)
    nn.init.zeros_(addition.score.bias)
    return addition


_SILENT_TERM = -1e3
"""Of a hidden unit that is to add nothing to a score: GELU is 0 there, whatever the objective adds."""


@torch.no_grad()
def add_heads(before: DetectorHead, addition: DetectorHead) -> DetectorHead:
    """The head, as wide as both together, whose scores are those of `before` plus those of `addition`.

    By how much an objective scores neutral segments too high is measured by `before` alone: only its projections of
    these segments are known. Everything else that a head stores is that of `before`.
    """
    head = create_silent_head(before, before.score.in_features + addition.score.in_features)
    for name in ("segment", "objective"):
        parts = (getattr(before, name), getattr(addition, name))
        getattr(head, name).weight.copy_(_join_units([part.weight for part in parts]))
        getattr(head, name).bias.copy_(_join_units([part.bias for part in parts]))
    head.score.weight.copy_(torch.cat([before.score.weight, addition.score.weight], dim=1))
    head.score.bias.copy_(before.score.bias + addition.score.bias)
    for name, buffer in before.named_buffers():
        setattr(head, name, buffer.clone())
    head.floor += addition.score.bias.item()  # which neutral segments now have in their scores, too
    terms = torch.full((len(before.neutral), addition.score.in_features), _SILENT_TERM)
    silent_units = torch.cat([terms, torch.zeros_like(terms)], dim=1)
    head.neutral = _join_units([before.neutral.T, silent_units.T]).T.contiguous()
    return head.eval()


def _join_units(projections: Sequence[Tensor]) -> Tensor:
    """The hidden units of several projections [2 * width, ...]: first all that are added, then all factors."""
    halves = [projection.chunk(2) for projection in projections]
    return torch.cat([terms for terms, _ in halves] + [factors for _, factors in halves])


@dataclass(frozen=True, slots=True)
class HeadBatch:
    """Rows of some cases, and what is known of each segment under each objective of all these cases."""

    segments: Tensor
    """[segments, width]."""
    objectives: Tensor
    """[objectives, width]; an objective that several cases have is there once."""
    labels: Tensor
    """[segments, objectives]; `UNKNOWN` if the objective is not in the segment's prompt."""
    is_own: Tensor
    """[segments, objectives], True where the objective is in the segment's prompt."""
    may_hold: Tensor
    """[segments, objectives], True where the score may be pulled to that of the head before."""
    bags: tuple[tuple[slice, int], ...]
    """Replies of which an unknown segment goes against an objective: their rows, and the objective's column."""


class DrawnCase(NamedTuple):
    """A case for a batch: its set, its number in the set, and whether its scores may be pulled to the head before."""

    rows: HeadRows
    number: int
    may_hold: bool


def _make_batches(sets: Mapping[str, HeadRows], recipe: HeadRecipe) -> Iterator[HeadBatch]:
    """Yield a batch for each step; each set is gone through in random order, again and again."""
    rng = Random(recipe.seed)
    names = [name for name, share in recipe.shares.items() if share > 0 and name in sets]
    shares = [recipe.shares[name] for name in names]
    orders = {name: _endless_order(len(sets[name]), rng) for name in names}
    for _ in range(recipe.steps):
        drawn_names = rng.choices(names, shares, k=recipe.batch)
        yield make_batch([DrawnCase(sets[name], next(orders[name]), name in recipe.held) for name in drawn_names])


def _endless_order(count: int, rng: Random) -> Iterator[int]:
    """Yield the numbers below `count` in random order, then in another, without end."""
    while True:
        yield from rng.sample(range(count), count)


def make_batch(draws: Sequence[DrawnCase]) -> HeadBatch:
    """The batch of these cases: their segments under all objectives that any of them has.

    Labels are known only under a case's own objectives.
    """
    parts = [draw.rows.case_rows(draw.number) for draw in draws]
    segments = torch.cat([part.segments for part in parts]).float()
    # An objective that comes first in many prompts has the same row in all of them, and so one column.
    column_of_row: dict[bytes, int] = {}
    columns = [
        [column_of_row.setdefault(row.numpy().tobytes(), len(column_of_row)) for row in part.objectives]
        for part in parts
    ]
    row_of_column = {
        column: row
        for own_columns, part in zip(columns, parts, strict=True)
        for column, row in zip(own_columns, part.objectives, strict=True)
    }
    objectives = torch.stack([row_of_column[column] for column in range(len(column_of_row))]).float()
    labels = torch.full((len(segments), len(objectives)), UNKNOWN)
    is_own = torch.zeros(len(segments), len(objectives), dtype=torch.bool)
    may_hold = torch.zeros_like(is_own)
    # answers of which some segment is known to go against an objective: (rows of its segments, column)
    bags: list[tuple[slice, int]] = []
    first_row = 0
    for draw, part, own_columns in zip(draws, parts, columns, strict=True):
        case = draw.rows.cases[draw.number]
        own_rows = slice(first_row, first_row + len(part.segments))
        labels[own_rows, own_columns] = torch.tensor(case.labels)
        is_own[own_rows, own_columns] = True
        may_hold[own_rows] = draw.may_hold
        bags += [(own_rows, column) for column, whole in zip(own_columns, case.whole, strict=True) if whole]
        first_row = own_rows.stop
    return HeadBatch(segments, objectives, labels, is_own, may_hold, tuple(bags))


def compute_loss(head: DetectorHead, before: DetectorHead, data: HeadBatch, recipe: HeadRecipe) -> Tensor:
    """The cross-entropy of known labels, plus the distance of the other scores from those of the head before."""
    scores = head(data.segments, data.objectives)
    with torch.no_grad():
        scores_before = before(data.segments, data.objectives)
    has_label = data.labels != UNKNOWN
    weights = torch.where(data.labels == AGAINST, recipe.against, 1.0) * has_label
    losses = F.binary_cross_entropy_with_logits(scores, data.labels.clamp(min=0).float(), reduction="none")
    total = (losses * weights).sum() / weights.sum().clamp(min=1.0)
    # The head before is no model where it contradicts a label, nor where it flags a segment without a label.
    agrees = torch.where(has_label, (scores_before > 0) == (data.labels == AGAINST), scores_before < 0)
    is_held = data.may_hold & agrees
    if bool(is_held.any()):
        clamped, clamped_before = (tensor.clamp(-FARTHEST, FARTHEST) for tensor in (scores, scores_before))
        distances = F.smooth_l1_loss(clamped, clamped_before, reduction="none")
        total = total + recipe.pull * (distances * is_held).sum() / is_held.sum()
    for rows, column in data.bags:
        reply_scores = scores[rows, column]
        bag_of = torch.zeros(len(reply_scores), dtype=torch.long)
        reply_score = aggregate(reply_scores, torch.zeros_like(reply_scores), bag_of, 1, recipe.bags)
        total = total + recipe.bag * F.softplus(-reply_score).sum() / recipe.batch
    return total
