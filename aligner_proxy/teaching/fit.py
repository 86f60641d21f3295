"""Fit of a taught head: logistic regression on rows, with the general head's score as a prior, and the choice of its
threshold. A row is the feature vector that the aligner computes for a segment of an answer. Neutral segments violate no
objective. Scores are log-odds in nats; a segment is flagged if its score is above the threshold.

    score = prior * general + row @ weight + bias

`general` is the general head's score of the segment, and `prior` the factor with which this score counts. Rows are
standardised by mean and spread of the neutral rows, and get the coordinates of the aligner's teaching space, in which
sentences against an objective are alike. The penalty draws the weight to 0 and the prior to 1.
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
from aligner_proxy.engine.model.teaching_space import TeachingSpace
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.teaching.rows import AnswerRows

PENALTY = 0.03
"""Penalty of the weight, relative to a mean loss. It is weak: from 0.003 to 0.3 the result hardly changes; at 0.0003
the fit does not converge."""
PRIOR_PENALTY = 1.0
"""Penalty for a prior other than 1, relative to a mean loss."""
STEPS = 80
MAX_FALSE = 0.004
"""Largest share of the neutral segments from which a head learned that it may flag."""
MAX_FALSE_UNSEEN = 0.03
"""Largest share of neutral segments that may be flagged by heads that did not learn from them. These heads saw fewer
answers than the final head, which flags about three segments in a thousand in answers that are new to it
(docs/lab/2026-11-27-near-misses.md)."""
MAX_NEAR_UNSEEN = 0.4
"""Largest share of mentioned examples (near_misses.py) that may be flagged by heads that learned neither from these
mentions nor from the examples. It is far larger than for other segments, because these heads have never seen the words.
A lower share lost more violations than it spared mentions."""
_MIN_EXAMPLES_SHARE = 0.2
_EXAMPLES_FOR_HALF = 6
"""The share of all violating examples in the total weight is 6 / (6 + number of examples), at least 0.2, because each
of few examples stands for more sentences like it. With a fixed share, heads taught from two to four examples ranked
unseen sentences correctly, but the threshold was above them."""
_MIN_SPREAD = 1e-2
"""Smallest number by which a column of the rows is divided, so that one that hardly varies is not blown up."""
ROUNDING = 0.01
"""Nats that a score may move when the weights are rounded to 16 bits. They are added to the threshold, so that a
neutral segment exactly at the threshold is not flagged."""
_MAX_WEIGHT = 60_000.0
"""Largest weight, which is below the largest 16-bit number."""


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

    def find_coordinates(self, neutral: Tensor, space: TeachingSpace) -> Coordinates:
        """Return the coordinates of rows; `neutral` [segments] is true where the rows are neutral."""
        neutral_rows = self.rows[neutral]
        return Coordinates(neutral_rows.mean(0), neutral_rows.std(0).clamp(min=_MIN_SPREAD), space)


@dataclass(frozen=True, slots=True)
class Coordinates:
    """How a row becomes the numbers on which heads are fitted: its standardised numbers, and those of the space."""

    mean: Tensor
    """[width]: of the neutral rows."""
    spread: Tensor
    """[width]: of the neutral rows."""
    space: TeachingSpace

    def convert_rows(self, rows: Tensor) -> Tensor:
        """Return the coordinates [segments, coordinates] of rows [segments, width]."""
        centred_rows = rows - self.mean
        standardised_rows = centred_rows / self.spread * self.space.row_factor
        return torch.cat([standardised_rows, centred_rows @ self.space.projection.T], 1)

    def convert_weights(self, weights: Tensor) -> Tensor:
        """Return the weights [width] for rows that give the same scores as `weights` [coordinates], but for a bias."""
        width = len(self.mean)
        return weights[:width] * self.space.row_factor / self.spread + weights[width:] @ self.space.projection


@dataclass(frozen=True, slots=True)
class Heads:
    """Fitted heads, one for each column: `weights` [coordinates, heads], priors and biases [heads]."""

    weights: Tensor
    priors: Tensor
    biases: Tensor

    def scores(self, rows: Tensor, general_scores: Tensor) -> Tensor:
        """Return the scores [segments, heads] for coordinates of rows, given the general scores [segments]."""
        return general_scores[:, None] * self.priors + rows @ self.weights + self.biases


def decode_rows(data: bytes, width: int) -> Tensor:
    """Convert `data`, rows of `width` 16-bit floats, to a tensor [segments, width] of 32-bit floats."""
    if not data:
        return torch.zeros(0, width)
    return torch.frombuffer(bytearray(data), dtype=torch.float16).view(-1, width).float()


def fit(table: Table, rows: Tensor, learns_from: Tensor) -> Heads:
    """Fit all heads to `rows` [segments, coordinates], the coordinates of a table's rows, and return them.

    `learns_from` [segments, heads] is 1 where a head learns from a segment, and 0 where the segment is held out.
    """
    head_count = learns_from.shape[1]
    segment_weights = table.segment_weights[:, None] * learns_from
    head_totals = segment_weights.sum(0)
    weights = torch.zeros(rows.shape[1], head_count, requires_grad=True)
    priors = torch.ones(head_count, requires_grad=True)
    violation_shares = (segment_weights * table.labels[:, None]).sum(0) / head_totals
    # the biases start at the log-odds of the share of violations, which the limits keep finite
    biases = torch.logit(violation_shares.clamp(1e-4, 0.5)).clone().requires_grad_()
    labels = table.labels[:, None].expand(-1, head_count)
    optimizer = torch.optim.LBFGS(
        [weights, priors, biases], max_iter=STEPS, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def compute_loss() -> Tensor:
        """Return the weighted log loss plus the penalties, and compute the gradients."""
        optimizer.zero_grad()
        scores = table.general_scores[:, None] * priors + rows @ weights + biases
        losses = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
        # divided by the sum of each head's segment weights, so that heads that learn from less are not penalised more
        data_loss = (losses * segment_weights / head_totals).sum()
        penalties = PENALTY * (weights**2).sum() / 2 + PRIOR_PENALTY * ((priors - 1) ** 2).sum() / 2
        loss: Tensor = data_loss + penalties
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(compute_loss)  # type: ignore[no-untyped-call]
    return Heads(weights.detach(), priors.detach(), biases.detach())


def scale_examples(weights: Tensor, labels: Tensor, example_count: int) -> Tensor:
    """Return the weights of segments, of which those of violations (`labels` 1) are scaled to their share.

    `weights` and `labels` are [segments]; `example_count` is the number of violating examples.
    """
    share = max(_MIN_EXAMPLES_SHARE, _EXAMPLES_FOR_HALF / (_EXAMPLES_FOR_HALF + example_count))
    # with this weight, all violating segments together have `share` of the total
    example_weight = share / (1 - share) * weights[labels == 0].sum() / labels.sum()
    return torch.where(labels == 1, weights * example_weight, weights)


def choose_threshold(
    neutral: Sequence[float],
    held_out: Sequence[float],
    near: Sequence[float],
    against: Sequence[float],
    usual: float | None = None,
) -> float:
    """Return the score above which a segment is flagged; 0 if there are no neutral segments.

    All arguments are scores. Those in `neutral` are of neutral segments by the head itself, which learned from them.
    The others are by heads that did not see the segment: `held_out` of neutral segments, `near` of mentioned examples
    and `against` of the violating examples.

    At most `MAX_FALSE` of `neutral`, `MAX_FALSE_UNSEEN` of `held_out` and `MAX_NEAR_UNSEEN` of `near` are above the
    threshold. It is at least `usual`, the threshold that is known to be a good one for any objective. If none is known,
    and all of `against` are higher, it is half way to the lowest of them, because nothing is known about scores in
    between.
    """
    if not neutral or not held_out:
        return 0.0
    unseen_limit = _find_highest_without(held_out, MAX_FALSE_UNSEEN)
    if near:
        unseen_limit = max(unseen_limit, _find_highest_without(near, MAX_NEAR_UNSEEN))
    if usual is None:
        usual = (unseen_limit + min(against, default=unseen_limit)) / 2
    return max(_find_highest_without(neutral, MAX_FALSE), unseen_limit, usual)


def _find_highest_without(scores: Sequence[float], share: float) -> float:
    """Return the highest score after removing this share of the scores, the highest ones."""
    return sorted(scores)[-1 - int(len(scores) * share)]


def make_row_head(
    heads: Heads, column: int, coordinates: Coordinates, shift: float, scale: float
) -> tuple[float, float, bytes]:
    """Return (prior, bias, weight as 16-bit floats) of the head in `column`, for rows instead of their coordinates.

    The threshold, at the score `shift`, is moved to 0, and the scores are multiplied by `scale`.
    """
    weight = coordinates.convert_weights(heads.weights[:, column])
    bias = heads.biases[column] - (weight * coordinates.mean).sum() - shift
    numbers = (weight * scale).clamp(-_MAX_WEIGHT, _MAX_WEIGHT).to(torch.float16)
    return float(heads.priors[column] * scale), float(bias * scale), numbers.numpy().astype("<f2").tobytes()


def highest_score(head: TaughtHead, answer: AnswerRows, index: int) -> float:
    """Return the highest score that a taught head gives a segment of an answer.

    The result is minus infinity for an answer without segments. `index` is that of the head's objective among the
    objectives of the prompt in which the answer was read.
    """
    if not answer.segments:
        return -math.inf
    rows = decode_rows(answer.rows, head.width)
    scores = torch.tensor(answer.general_scores(index))[:, None]
    # one column, of general scores, which `judge` overwrites with those of the taught head
    TaughtColumns({0: LoadedHead.from_head(head, rows.device)}).judge(rows, scores)
    return float(scores.max())
