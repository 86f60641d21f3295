"""Fit of a taught head: logistic regression on rows, with the general head's score as a prior, and its threshold.

    score = prior * general + row @ weight + bias

A row is the feature vector that the aligner computes for a segment; `general` is the general head's score of the
segment, and `prior` the factor with which that score counts. Scores are log-odds in nats. Rows are standardised by the
mean and spread of the neutral ones; the penalty draws the weight to 0 and the prior to 1.
Several heads, each on its own part of the table, are fitted together, because a pass over the rows costs the same for
one head as for twenty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aligner_proxy.engine.model.taught import LoadedHead, TaughtColumns
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.teaching.rows import AnswerRows

PENALTY = 0.03
"""Penalty of the weight, relative to a mean loss; weak. From 0.003 to 0.3 the result hardly changes; at 0.0003 the fit
does not converge."""
PRIOR_PENALTY = 1.0
"""Penalty for a prior other than 1, relative to a mean loss."""
STEPS = 80
"""Maximum steps of the optimiser."""
MAX_FALSE = 0.004
"""Largest share of neutral segments that the head may flag."""
MAX_FALSE_UNSEEN = 0.03
"""Largest share of neutral segments that may be flagged by heads that did not learn from them. Those heads saw fewer
answers than the final head, which flags about three segments in a thousand in answers that are new to it
(docs/lab/2026-11-27-near-misses.md)."""
MAX_NEAR_UNSEEN = 0.4
"""Largest share of mentioned examples (near_misses.py) that may be flagged by heads that learned neither from them nor
from their examples. It is far larger than for other segments, because such a head has never seen these words. A lower
share lost more violations than it spared mentions."""
_MIN_SPREAD = 1e-2
"""Least number by which rows are divided, so that a column that hardly varies is not blown up."""
ROUNDING = 0.01
"""Nats that a score may move when the weights are rounded to 16 bits; added to the threshold, so that a neutral segment
exactly at it is not flagged."""
_LIMIT = 60_000.0
"""Limit of weights, below the largest 16-bit number."""


@dataclass(frozen=True, slots=True)
class Table:
    """The data of a fit; shapes are in brackets."""

    rows: Tensor
    """[segments, width]: the feature vector of each segment."""
    general_scores: Tensor
    """[segments]: the general head's score."""
    labels: Tensor
    """[segments]: 1 for a violation, else 0."""
    segment_weights: Tensor
    """[segments]: how much each segment weighs in the loss."""

    def standardise(self, neutral: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (standardised rows, mean, spread), by mean and spread of the segments where `neutral` is true."""
        mean = self.rows[neutral].mean(0)
        spread = self.rows[neutral].std(0).clamp(min=_MIN_SPREAD)
        return (self.rows - mean) / spread, mean, spread


@dataclass(frozen=True, slots=True)
class Heads:
    """Fitted heads, one for each column: weights [width, heads] for standardised rows, priors and biases [heads]."""

    weights: Tensor
    priors: Tensor
    biases: Tensor

    def scores(self, rows: Tensor, general_scores: Tensor) -> Tensor:
        """Scores [segments, heads] of standardised rows, given the general scores [segments]."""
        return general_scores[:, None] * self.priors + rows @ self.weights + self.biases


def decode_rows(data: bytes, width: int) -> Tensor:
    """Convert rows of 16-bit floats to a tensor [segments, width] of 32-bit floats."""
    if not data:
        return torch.zeros(0, width)
    return torch.frombuffer(bytearray(data), dtype=torch.float16).view(-1, width).float()


def fit(table: Table, rows: Tensor, parts: Tensor, penalty: float = PENALTY) -> Heads:
    """Fit all heads to the standardised `rows` of a table and return them.

    `parts` [segments, heads] is 1 where a head learns from a segment, and 0 where the segment is held out.
    """
    heads = parts.shape[1]
    segment_weights = table.segment_weights[:, None] * parts
    head_totals = segment_weights.sum(0)
    weights = torch.zeros(rows.shape[1], heads, requires_grad=True)
    priors = torch.ones(heads, requires_grad=True)
    positive = (segment_weights * table.labels[:, None]).sum(0) / head_totals
    # Start at the log-odds of the share of violations; the limits keep it finite.
    biases = torch.logit(positive.clamp(1e-4, 0.5)).clone().requires_grad_()
    labels = table.labels[:, None].expand(-1, heads)
    optimizer = torch.optim.LBFGS(
        [weights, priors, biases], max_iter=STEPS, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def compute_loss() -> Tensor:
        """The weighted log loss plus the penalties; also computes the gradients."""
        optimizer.zero_grad()
        scores = table.general_scores[:, None] * priors + rows @ weights + biases
        losses = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
        # Divided by the sum of each head's segment weights, so that heads that learn from less are not penalised more.
        data_loss = (losses * segment_weights / head_totals).sum()
        penalties = penalty * (weights**2).sum() / 2 + PRIOR_PENALTY * ((priors - 1) ** 2).sum() / 2
        total: Tensor = data_loss + penalties
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(compute_loss)  # type: ignore[no-untyped-call]
    return Heads(weights.detach(), priors.detach(), biases.detach())


def choose_threshold(
    neutral: Sequence[float], held_out: Sequence[float], near: Sequence[float], against: Sequence[float]
) -> float:
    """The score above which a segment is flagged; 0 if there are no neutral segments.

    All arguments are scores: `neutral` of neutral segments by the head itself; by heads that did not see them,
    `held_out` of neutral segments, `near` of mentioned examples and `against` of the examples. At most `MAX_FALSE` of
    `neutral`, `MAX_FALSE_UNSEEN` of `held_out` and `MAX_NEAR_UNSEEN` of `near` are above the threshold. If all of
    `against` are higher, the threshold is half way to the lowest of them, because nothing is known about scores in
    between.
    """
    if not neutral or not held_out:
        return 0.0
    least = _highest_without(held_out, MAX_FALSE_UNSEEN)
    if near:
        least = max(least, _highest_without(near, MAX_NEAR_UNSEEN))
    lowest = min(against, default=least)
    return max(_highest_without(neutral, MAX_FALSE), least, (least + lowest) / 2)


def _highest_without(scores: Sequence[float], share: float) -> float:
    """The highest score after removing this share of the highest ones."""
    return sorted(scores)[-1 - int(len(scores) * share)]


def destandardise(
    heads: Heads, column: int, mean: Tensor, spread: Tensor, shift: float, scale: float
) -> tuple[float, float, bytes]:
    """Return (prior, bias, weight as 16-bit floats) of the head in `column`, for rows that are not standardised.

    The threshold, at the score `shift`, is moved to 0, and the scores are multiplied by `scale`.
    """
    weight = heads.weights[:, column] / spread
    bias = heads.biases[column] - (weight * mean).sum() - shift
    numbers = (weight * scale).clamp(-_LIMIT, _LIMIT).to(torch.float16)
    return float(heads.priors[column] * scale), float(bias * scale), numbers.numpy().astype("<f2").tobytes()


def highest_score(head: TaughtHead, answer: AnswerRows, index: int) -> float:
    """The highest score that a taught head gives a segment of an answer; minus infinity for an answer without segments.

    `index` is that of the head's objective among the objectives of the prompt.
    """
    if not answer.segments:
        return -math.inf
    rows = decode_rows(answer.rows, head.width)
    scores = torch.tensor(answer.general_scores(index))[:, None]
    TaughtColumns({0: LoadedHead.from_head(head, rows.device)}).judge(rows, scores)
    return float(scores.max())
