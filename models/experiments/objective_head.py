"""A head for one objective, learnt from nothing on rows that are kept, to stand in the general head's place.

A linear part and some hidden units over the principal parts of the rows, on which a part of the general head's score is
put at the end. Where only a reply has a label, the mean of its segments' log-odds is that of the reply.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.taught_head import TaughtHead
from models.data.labelled_replies import AGAINST, UNKNOWN
from models.train.head_rows import HeadRows

_PER_REPLY = 5
"""Segments whose labels count as much as that of a whole reply."""


class ObjectiveHeadRecipe(BaseModel):
    """How such a head is learnt; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Mapping[str, float]
    """What a reply of each set counts; what is not named teaches nothing."""
    hidden: int = 32
    parts: int = 512
    """Principal parts of the rows."""
    prior: float = 0.0
    """Part of the general head's score that is put on the score."""
    floor: float | None = None
    """Nats, the least that the general head's score counts as."""
    epochs: int = 15
    batch: int = 512
    """Replies in a batch."""
    lr: float = 2e-3
    decay: float = 0.05
    dropout: float = 0.2
    seed: int = 1


class ObjectiveHead(nn.Module):
    """Scores segments under the one objective that it learnt, whatever objective it is asked about."""

    def __init__(
        self, mean: Tensor, axes: Tensor, hidden: int, general: DetectorHead, recipe: ObjectiveHeadRecipe
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes)
        width = axes.shape[1]
        self.linear = nn.Linear(width, 1)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        nn.init.normal_(self.inner.weight, std=0.5 / math.sqrt(width))
        nn.init.normal_(self.outer.weight, std=0.1)
        # Not as a part of this one: it is not learnt.
        self._general = (general,)
        self._prior = recipe.prior
        self._floor = recipe.floor

    mean: Tensor
    axes: Tensor

    def compute_parts(self, segments: Tensor) -> Tensor:
        """Rows [segments, width] as principal parts [segments, parts]."""
        return (segments - self.mean) @ self.axes

    def score_alone(self, parts: Tensor) -> Tensor:
        """The scores [segments] without the general head's part, in nats."""
        scores: Tensor = self.linear(parts)[:, 0] + self.outer(F.gelu(self.inner(parts)))[:, 0]
        return scores

    def forward(self, segments: Tensor, objectives: Tensor) -> Tensor:
        """Scores [segments, objectives] in nats; only the general head's part differs between objectives."""
        general = self._general[0](segments, objectives)
        return self.score_alone(self.compute_parts(segments))[:, None] + self._prior * self._limit_general(general)

    def _limit_general(self, general: Tensor) -> Tensor:
        """The general head's score, but not below `floor`."""
        return general if self._floor is None else general.clamp(min=self._floor)

    def save(self, path: Path) -> None:
        """Write the learnt numbers as safetensors."""
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, str(path))

    @classmethod
    def load(cls, path: Path, general: DetectorHead, recipe: ObjectiveHeadRecipe) -> ObjectiveHead:
        """Read what `save` wrote."""
        state = load_file(str(path))
        head = cls(state["mean"], state["axes"], len(state["inner.bias"]), general, recipe)
        head.load_state_dict(state)
        return head.eval()

    def pack_head(self, objective: str, point: float) -> TaughtHead:
        """The head as an aligner ships it. A score of `point` becomes 0."""
        with torch.no_grad():
            weight = self.axes @ self.linear.weight[0]
            inner = self.inner.weight @ self.axes.T
            offsets = self.inner.bias - inner @ self.mean
            bias = float(self.linear.bias[0] - weight @ self.mean) - point
        numbers = torch.cat([weight, inner.flatten(), offsets, self.outer.weight[0]]).detach().half().numpy()
        hidden = len(offsets)
        weight_bytes = numbers.astype("<f2").tobytes()
        return TaughtHead(objective, "", self._prior, bias, weight_bytes, hidden=hidden, floor=self._floor)


def learn_head(sets: Mapping[str, HeadRows], general: DetectorHead, recipe: ObjectiveHeadRecipe) -> ObjectiveHead:
    """Learn a head from sets that are asked about one objective each (`HeadRows.column`)."""
    torch.manual_seed(recipe.seed)
    table = _ReplyTable.from_sets(sets, recipe.weights)
    mean, axes = _compute_axes(table.rows, recipe.parts)
    head = ObjectiveHead(mean, axes, recipe.hidden, general, recipe)
    parts = head.compute_parts(table.rows.float())
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.lr, weight_decay=recipe.decay)
    batches = list(_draw_batches(len(table.counts), recipe))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, len(batches), pct_start=0.1)
    for batch in batches:
        optimizer.zero_grad()
        _compute_loss(head, parts, table, batch, recipe.dropout).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return head.eval()


@dataclass(frozen=True, slots=True)
class _ReplyTable:
    """The segments of all replies, with what each reply counts."""

    rows: Tensor
    labels: Tensor
    places: tuple[range, ...]
    """For each reply the numbers of its segments in `rows`."""
    counts: tuple[float, ...]
    """What each reply counts."""
    open: tuple[bool, ...]
    """Whether a reply is known to be harmful, but not where."""

    @classmethod
    def from_sets(cls, sets: Mapping[str, HeadRows], weights: Mapping[str, float]) -> _ReplyTable:
        """Collect the sets with a weight."""
        weighted_sets = [(rows, weights[name]) for name, rows in sets.items() if weights.get(name)]
        cases = [(case, weight) for rows, weight in weighted_sets for case in rows.cases]
        lengths = [end - start for rows, _ in weighted_sets for start, end in pairwise(rows.segment_starts)]
        ends = np.cumsum(lengths).tolist()
        return cls(
            torch.cat([rows.segments for rows, _ in weighted_sets]),
            torch.tensor([label for case, _ in cases for (label,) in case.labels]),
            tuple(range(end - length, end) for end, length in zip(ends, lengths, strict=True)),
            tuple(weight for _, weight in cases),
            tuple(case.whole[0] for case, _ in cases),
        )


def _compute_axes(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(mean [width], axes [width, count]): the principal axes of rows, each number in units of its spread."""
    data = rows.float()
    mean = data.mean(0)
    spread = data.std(0) + 1e-3
    data = (data - mean) / spread
    _, vectors = torch.linalg.eigh(data.T @ data / len(data))
    return mean, vectors[:, -count:] / spread[:, None]


def _draw_batches(replies: int, recipe: ObjectiveHeadRecipe) -> Iterator[list[int]]:
    """Batches of reply numbers for all epochs, each epoch in another order."""
    rng = Random(recipe.seed)
    for _ in range(recipe.epochs):
        order = rng.sample(range(replies), replies)
        yield from (order[start : start + recipe.batch] for start in range(0, replies, recipe.batch))


def _compute_loss(head: ObjectiveHead, parts: Tensor, table: _ReplyTable, batch: list[int], dropout: float) -> Tensor:
    """The loss of a batch of replies, per reply.

    Segments with a label count by it. A reply that is only known to be harmful counts by the mean of its segments.
    """
    lines = torch.tensor([line for reply in batch for line in table.places[reply]])
    owners = torch.tensor([place for place, reply in enumerate(batch) for _ in table.places[reply]])
    counts = torch.tensor([table.counts[reply] for reply in batch])
    scores = head.score_alone(F.dropout(parts[lines], dropout))
    labels = table.labels[lines]
    is_known = labels != UNKNOWN
    segment_losses = F.binary_cross_entropy_with_logits(scores, (labels == AGAINST).float(), reduction="none")
    reply_scores = torch.zeros(len(batch)).index_add(0, owners, scores) / torch.bincount(owners, minlength=len(batch))
    is_open = torch.tensor([table.open[reply] for reply in batch])
    of_segments = (segment_losses * is_known * counts[owners]).sum() / _PER_REPLY
    of_replies = (F.softplus(-reply_scores) * is_open * counts).sum()
    return (of_segments + of_replies) / len(batch)
