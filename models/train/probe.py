"""Linear and small non-linear probes over states of segments, learnt from labels of segments or of whole replies.

Where only the reply has a label, its log-odds are an aggregate of those of its segments: noisy-or (any segment
suffices), the maximum, the mean, or attention (learnt weights). The segments of such a reply are a bag, as in
multiple-instance learning. Full-batch fits with L2; features are standardised by the training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.data.labelled_replies import UNKNOWN
from models.reporting.statistics import Area

from .segment_states import SegmentStates

Aggregation = Literal["noisy-or", "max", "mean", "attention"]
_STEPS = 40


@dataclass(frozen=True, slots=True)
class Features:
    """Which states a probe reads, as (index in `POOLINGS`, index among the layers); together they are a segment's row.

    `Features(((0, 2), (1, 2)))` are the mean and the last token's state at the third layer.
    """

    taps: tuple[tuple[int, int], ...]
    with_score: bool = False
    """Whether the general head's score is one more feature."""

    def compute_rows(self, read: SegmentStates) -> Tensor:
        """Rows [segments, features]: each tap layer-normed, fp32."""
        taps = [
            F.layer_norm(torch.from_numpy(read.states[:, pooling, layer]).float(), read.states.shape[-1:])
            for pooling, layer in self.taps
        ]
        rows = torch.cat(taps, dim=1)
        return torch.cat([rows, torch.from_numpy(read.scores)[:, None]], dim=1) if self.with_score else rows


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How a probe is fitted; `l2` is the penalty on a standardised weight, per example."""

    aggregation: Aggregation = "noisy-or"
    l2: float = 1e-2
    hidden: int = 0
    """Width of a hidden layer; 0: linear."""
    prior: float | None = None
    """Part of the last feature, the general head's score, that the probe starts from; None: a feature like others."""
    steps: int = _STEPS


class Probe:
    """A fitted probe: rows of features to log-odds (nats) of segments."""

    def __init__(self, net: nn.Module, mean: Tensor, scale: Tensor, prior: float | None = None) -> None:
        self._net = net
        self._mean = mean
        self._scale = scale
        self._prior = prior

    @property
    def prior(self) -> float | None:
        """Part of the general head's score that it started from."""
        return self._prior

    @torch.inference_mode()
    def score_segments(self, rows: Tensor) -> Tensor:
        """Log-odds of each segment."""
        rows, start = _split_prior(rows, self._prior)
        scores: Tensor = self._net((rows - self._mean) / self._scale)[:, 0] + start
        return scores

    def weights(self) -> tuple[Tensor, float]:
        """The weights and the bias of a linear probe, for rows that are not standardised."""
        if not isinstance(self._net, nn.Linear):
            raise TypeError("only a linear probe is a weight and a bias")
        weight = self._net.weight[0].detach() / self._scale
        return weight, float(self._net.bias[0].detach() - weight @ self._mean)


@dataclass(frozen=True, slots=True)
class _Facts:
    """Labels as tensors: of segments, and of replies some of whose segments have none."""

    segment: Tensor
    """[segments], 1 for a segment that goes against its objective, else 0."""
    segment_weight: Tensor
    """[segments], 0 for a segment without a label."""
    bag_of: Tensor
    """[segments], the number of the reply that each segment is of."""
    reply: Tensor
    """[replies], 1 for a harmful one, else 0."""
    bag_weight: Tensor
    """[replies], 0 for a reply of which the labels of its segments say more."""


def fit_probe(
    parts: Sequence[SegmentStates], features: Features, settings: ProbeSettings, weights: Sequence[float]
) -> Probe:
    """A probe learnt from several sets; `weights` say how much each set counts as a whole."""
    torch.manual_seed(0)
    rows, start = _split_prior(torch.cat([features.compute_rows(part) for part in parts]), settings.prior)
    mean = rows.mean(0)
    scale = rows.std(0) + 1e-3
    rows = (rows - mean) / scale
    facts = _collect_facts(parts, weights)
    net = _make_net(rows.shape[1], settings.hidden)
    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=settings.steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        penalty = sum((p**2).sum() for p in net.parameters() if p.dim() > 1)
        outputs = net(rows) + torch.stack([start, torch.zeros_like(start)], dim=1)
        total = _compute_loss(outputs, facts, settings.aggregation) + settings.l2 * penalty
        total.backward()
        return total

    optimizer.step(loss)
    return Probe(net.eval(), mean, scale, settings.prior)


def _split_prior(rows: Tensor, prior: float | None) -> tuple[Tensor, Tensor]:
    """The columns to learn from, and where the scores start: at `prior` times the last column, or at zero."""
    if prior is None:
        return rows, rows.new_zeros(len(rows))
    return rows[:, :-1], prior * rows[:, -1]


def _make_net(width: int, hidden: int) -> nn.Module:
    """A net with two outputs for each segment: its score, and its weight where attention aggregates."""
    if not hidden:
        net = nn.Linear(width, 2)
        nn.init.zeros_(net.weight)
        return net
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 2))


def _collect_facts(parts: Sequence[SegmentStates], weights: Sequence[float]) -> _Facts:
    """The labels of all sets as tensors. The replies of a set share its weight equally."""
    segment_labels: list[float] = []
    segment_weights: list[float] = []
    reply_of_segment: list[int] = []
    reply_labels: list[float] = []
    reply_weights: list[float] = []
    for part, weight in zip(parts, weights, strict=True):
        weight_of_reply = weight / len(part.replies)
        for number, reply in enumerate(part.replies):
            segment_count = part.segment_starts[number + 1] - part.segment_starts[number]
            labels = reply.segments[:segment_count]
            segment_labels += [0.0 if label == UNKNOWN else float(label) for label in labels]
            # The labels of a reply's segments together count as much as its label as a whole.
            segment_weights += [0.0 if label == UNKNOWN else weight_of_reply / segment_count for label in labels]
            reply_of_segment += [len(reply_labels)] * segment_count
            # If every segment of a harmful reply has a label, the label of the whole reply teaches nothing more.
            counts_as_whole = UNKNOWN in labels or not reply.harmful
            reply_labels.append(float(reply.harmful))
            reply_weights.append(weight_of_reply if counts_as_whole else 0.0)
    return _Facts(
        segment=torch.tensor(segment_labels),
        segment_weight=torch.tensor(segment_weights),
        bag_of=torch.tensor(reply_of_segment),
        reply=torch.tensor(reply_labels),
        bag_weight=torch.tensor(reply_weights),
    )


def _compute_loss(outputs: Tensor, facts: _Facts, aggregation: Aggregation) -> Tensor:
    """The cross-entropy of segments with labels, and of replies; `outputs` [segments, 2] are scores and attention."""
    scores = outputs[:, 0]
    segment_loss = F.binary_cross_entropy_with_logits(scores, facts.segment, facts.segment_weight, reduction="sum")
    reply_scores = aggregate(scores, outputs[:, 1], facts.bag_of, len(facts.reply), aggregation)
    reply_loss = F.binary_cross_entropy_with_logits(reply_scores, facts.reply, facts.bag_weight, reduction="sum")
    return segment_loss + reply_loss


def aggregate(scores: Tensor, attention: Tensor, bag_of: Tensor, bags: int, how: Aggregation) -> Tensor:
    """Log-odds [bags] of replies from the `scores` of their segments; `bag_of` is the reply of each segment.

    Segments of 2.0 and -1.0 make a reply of 2.0 by "max", 0.5 by "mean", and 2.3 by "noisy-or".
    """
    zeros = scores.new_zeros(bags)
    if how == "noisy-or":
        # 1 - prod(1 - p) has the log-odds log(exp(sum of softplus) - 1).
        total = zeros.index_add(0, bag_of, F.softplus(scores)).clamp(min=1e-6)
        return total + torch.log(-torch.expm1(-total))
    if how == "max":
        return zeros.fill_(-1e9).scatter_reduce(0, bag_of, scores, "amax")
    weight = torch.ones_like(scores) if how == "mean" else torch.exp(attention.clamp(-8, 8))
    return zeros.index_add(0, bag_of, weight * scores) / zeros.index_add(0, bag_of, weight).clamp(min=1e-6)


def worst_scores(read: SegmentStates, scores: Tensor) -> Any:
    """The highest score among the segments of each reply."""
    return np.array([float(scores[start:stop].max()) for start, stop in pairwise(read.segment_starts)])


def measure_area(high: Any, low: Any) -> Area:
    """AUC of scores that should be high over those that should be low."""
    order = np.argsort(np.concatenate([high, low]), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    total = ranks[: len(high)].sum() - len(high) * (len(high) + 1) / 2
    return Area(float(total / (len(high) * len(low))), len(high), len(low))
