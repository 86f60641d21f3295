"""Training of a detector head alone, over rows that are kept: the model below it stays as it is.

It starts from a head that is good at most of what it does and is held near it: wherever nothing better is known, its
scores are pulled to those of that head, over every segment of a batch and every objective of it. What is known of
labelled answers takes the place of that.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from models.data.labelled_replies import AGAINST, UNKNOWN

from .head_rows import HeadRows
from .probe import Aggregation, aggregate

_FARTHEST = 8.0
"""Nats: how far a score lies beyond this says nothing."""


class HeadRecipe(BaseModel):
    """How a head is trained on; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: Mapping[str, float]
    """Of each set the cases in a batch, in proportion; what is not named teaches nothing."""
    held: frozenset[str] = frozenset()
    """Sets in which the scores are held to those of the head before."""
    pull: float = 1.0
    """How much that counts."""
    against: float = 2.0
    """What a segment counts that goes against an objective; others count 1."""
    bags: Aggregation = "noisy-or"
    """How the log-odds of segments become those of a reply of which nobody said which segment it is."""
    bag: float = 1.0
    """What such a reply counts."""
    wider: int = 0
    """Hidden units besides those of the head before."""
    steps: int = 1500
    batch: int = 24
    lr: float = 4e-4
    seed: int = 1


def train_head(before: DetectorHead, sets: Mapping[str, HeadRows], recipe: HeadRecipe) -> DetectorHead:
    """A head learnt from these sets, starting from `before`, which stays as it is."""
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
    """Share of the learning rate: up for a little while, then down to nothing."""
    return min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * step / steps)) / 2


def widen_head(before: DetectorHead, more: int) -> DetectorHead:
    """The same head with so many hidden units more, which say nothing yet."""
    head = copy.deepcopy(before)
    if not more:
        return head
    width = before.score.in_features
    wide = DetectorHead(before.objective.in_features // len(before.layers), before.layers.tolist(), width + more)
    with torch.no_grad():
        for name in ("segment", "objective"):
            old = getattr(before, name)
            new = getattr(wide, name)
            # Each projection is two halves: what stands for itself, and what is multiplied.
            for half in (0, 1):
                new.weight[half * (width + more) :][:width] = old.weight[half * width :][:width]
                new.bias[half * (width + more) :][:width] = old.bias[half * width :][:width]
        wide.score.weight.zero_()
        wide.score.weight[:, :width] = before.score.weight
        wide.score.bias.copy_(before.score.bias)
    for name in ("floor", "ends", "end_shift"):
        getattr(wide, name).copy_(getattr(before, name))
    return wide


@dataclass(frozen=True, slots=True)
class HeadBatch:
    """Rows of some cases, and what is known of each segment under each objective of all of them.

    `labels` are [segments, objectives], `UNKNOWN` where they stand in other prompts; `may_hold` says where the
    scores of the head before are right; `bags` are (rows of segments, column) of replies some segment of which
    goes against.
    """

    segments: Tensor
    objectives: Tensor
    labels: Tensor
    may_hold: Tensor
    bags: tuple[tuple[slice, int], ...]


def _make_batches(sets: Mapping[str, HeadRows], recipe: HeadRecipe) -> Iterator[HeadBatch]:
    rng = Random(recipe.seed)
    names = [name for name, share in recipe.shares.items() if share > 0 and name in sets]
    shares = [recipe.shares[name] for name in names]
    orders = {name: _endless_order(len(sets[name]), rng) for name in names}
    for _ in range(recipe.steps):
        drawn_names = rng.choices(names, shares, k=recipe.batch)
        yield make_batch([(sets[name], next(orders[name]), name in recipe.held) for name in drawn_names])


def _endless_order(count: int, rng: Random) -> Iterator[int]:
    while True:
        yield from rng.sample(range(count), count)


def make_batch(draws: Sequence[tuple[HeadRows, int, bool]]) -> HeadBatch:
    """These cases of these sets together, and whether what is not known of them is held."""
    parts = [rows.case_rows(number) for rows, number, _ in draws]
    segments = torch.cat([part[0] for part in parts]).float()
    # What stands first in many prompts is one and the same there.
    places: dict[bytes, int] = {}
    columns = [[places.setdefault(row.numpy().tobytes(), len(places)) for row in part[1]] for part in parts]
    distinct = {
        place: row for own, part in zip(columns, parts, strict=True) for place, row in zip(own, part[1], strict=True)
    }
    objectives = torch.stack([distinct[place] for place in range(len(places))]).float()
    labels = torch.full((len(segments), len(objectives)), UNKNOWN)
    may_hold = torch.zeros(len(segments), len(objectives), dtype=torch.bool)
    bags: list[tuple[slice, int]] = []
    line = 0
    for (rows, number, hold), part, own in zip(draws, parts, columns, strict=True):
        case = rows.cases[number]
        mine = slice(line, line + len(part[0]))
        labels[mine, own] = torch.tensor(case.labels)
        may_hold[mine] = hold
        bags += [(mine, place) for place, whole in zip(own, case.whole, strict=True) if whole]
        line += len(part[0])
    return HeadBatch(segments, objectives, labels, may_hold, tuple(bags))


def compute_loss(head: DetectorHead, before: DetectorHead, data: HeadBatch, recipe: HeadRecipe) -> Tensor:
    """Of what is known the cross-entropy, of the rest how far the scores are from those of the head before."""
    scores = head(data.segments, data.objectives)
    with torch.no_grad():
        old = before(data.segments, data.objectives)
    has_label = data.labels != UNKNOWN
    weights = torch.where(data.labels == AGAINST, recipe.against, 1.0) * has_label
    each = F.binary_cross_entropy_with_logits(scores, data.labels.clamp(min=0).float(), reduction="none")
    total = (each * weights).sum() / weights.sum().clamp(min=1.0)
    # Where that head is wrong about what is known it is no model, and where it flags what nobody knows it may be wrong.
    right = torch.where(has_label, (old > 0) == (data.labels == AGAINST), old < 0)
    is_held = data.may_hold & right
    if bool(is_held.any()):
        new, former = (tensor.clamp(-_FARTHEST, _FARTHEST) for tensor in (scores, old))
        apart = F.smooth_l1_loss(new, former, reduction="none")
        total = total + recipe.pull * (apart * is_held).sum() / is_held.sum()
    for rows, column in data.bags:
        mine = scores[rows, column]
        zeros = torch.zeros(len(mine), dtype=torch.long)
        whole = aggregate(mine, torch.zeros_like(mine), zeros, 1, recipe.bags)
        total = total + recipe.bag * F.softplus(-whole).sum() / recipe.batch
    return total
