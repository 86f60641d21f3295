"""Fit of a taught head: ridge regression on rows, with the general head's score as a prior, and the choice of its
threshold. A row is the feature vector that the aligner computes for a segment of an answer. Neutral segments violate no
objective. Scores are log-odds in nats; a segment is flagged if its score is above the threshold.

    score = prior * general + row @ weight + bias

`general` is the general head's score of the segment, and `prior` the factor with which this score counts. The
regression is done in the coordinates of the aligner's teaching space, in which sentences against an objective are
alike, and its numbers (penalty, shares, scale) were learned with these coordinates, so that 0 is the threshold for any
objective. A threshold that is chosen for each objective from a handful of examples does worse
(docs/lab/2026-11-30-a-space-to-teach-in.md).
Several heads, each on its own part of the table, are fitted together, because they share the products of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aligner_proxy.engine.model.taught import LoadedHead, TaughtColumns
from aligner_proxy.engine.model.teaching_space import FitNumbers, TeachingSpace
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.teaching.rows import AnswerRows

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
ROUNDING = 0.01
"""Nats that a score may move when the weights are rounded to 16 bits. They are added to the threshold, so that a
neutral segment exactly at the threshold is not flagged."""
_MAX_WEIGHT = 60_000.0
"""Largest weight, which is below the largest 16-bit number."""
_MEAN_EXAMPLES = 4
"""The number of examples for which the space's `bias` holds."""
_MOST_EXAMPLES = 8
"""Most examples of a head while the space was learned; with more of them, its bias is that of so many."""


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
    """[segments]: how much each segment weighs, relative to others with its label."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Fitted heads, one for each column: `weights` [width, heads] for rows, priors and biases [heads]."""

    weights: Tensor
    priors: Tensor
    biases: Tensor

    def scores(self, rows: Tensor, general_scores: Tensor) -> Tensor:
        """Return the scores [segments, heads] of rows [segments, width], given the general scores [segments]."""
        return general_scores[:, None] * self.priors + rows @ self.weights + self.biases


def decode_rows(data: bytes, width: int) -> Tensor:
    """Convert `data`, rows of `width` 16-bit floats, to a tensor [segments, width] of 32-bit floats."""
    if not data:
        return torch.zeros(0, width)
    return torch.frombuffer(bytearray(data), dtype=torch.float16).view(-1, width).float()


def fit(
    space: TeachingSpace, projection: Tensor, table: Table, learns_from: Tensor, example_counts: Sequence[int]
) -> Heads:
    """Fit all heads to the rows of a table and return them.

    `projection` is that of the `space`. `learns_from` [segments, heads] is 1 where a head learns from a segment, and 0
    where the segment is held out. `example_counts` has the number of violating examples from which each head learns.
    """
    numbers = space.numbers
    coordinates = torch.cat([table.rows @ projection.T, table.general_scores[:, None] * numbers.general_factor], 1)
    weights = []
    priors = []
    biases = []
    for column, example_count in enumerate(example_counts):
        is_learned = learns_from[:, column] > 0
        slope, constant = _regress(
            coordinates[is_learned], table.labels[is_learned], table.segment_weights[is_learned], numbers
        )
        doublings = math.log2(min(example_count, _MOST_EXAMPLES) / _MEAN_EXAMPLES)
        weights.append(numbers.scale * (slope[:-1] @ projection))
        priors.append(numbers.prior + numbers.scale * numbers.general_factor * slope[-1])
        biases.append(numbers.scale * constant + numbers.bias + numbers.bias_per_doubling * doublings)
    return Heads(torch.stack(weights, dim=1), torch.stack(priors), torch.stack(biases))


def _regress(
    coordinates: Tensor, labels: Tensor, segment_weights: Tensor, numbers: FitNumbers
) -> tuple[Tensor, Tensor]:
    """Return the slope [coordinates] and the constant of a weighted ridge regression on 1 for violations, else -1.

    All violating segments together have the `share` of the total weight, which is 1.
    """
    share = numbers.share
    penalty = numbers.penalty
    violation_weights = segment_weights * labels
    other_weights = segment_weights * (1 - labels)
    weights = share * violation_weights / violation_weights.sum() + (1 - share) * other_weights / other_weights.sum()
    mean = weights @ coordinates
    targets = 2 * labels - 1
    mean_target = weights @ targets
    centred = coordinates - mean
    if len(centred) < centred.shape[1]:
        # With fewer segments than coordinates, the equations for a factor of each segment are the smaller ones.
        equations = centred @ centred.T + torch.diag(penalty / weights)
        slope = torch.linalg.solve(equations, targets - mean_target) @ centred
    else:
        equations = centred.T @ (weights[:, None] * centred) + penalty * torch.eye(centred.shape[1])
        slope = torch.linalg.solve(equations, (weights * (targets - mean_target)) @ centred)
    return slope, mean_target - mean @ slope


def choose_threshold(
    lowest: float, neutral: Sequence[float], held_out: Sequence[float], near: Sequence[float]
) -> float:
    """Return the score above which a segment is flagged: `lowest`, or higher where too much would be flagged.

    The others are scores, too. Those in `neutral` are of neutral segments by the head itself, which learned from them.
    The rest are by heads that did not see the segment: `held_out` of neutral segments, `near` of mentioned examples. At
    most `MAX_FALSE` of `neutral`, `MAX_FALSE_UNSEEN` of `held_out` and `MAX_NEAR_UNSEEN` of `near` are above the
    threshold.
    """
    limited_scores = ((neutral, MAX_FALSE), (held_out, MAX_FALSE_UNSEEN), (near, MAX_NEAR_UNSEEN))
    return max([lowest, *(_find_highest_without(scores, share) for scores, share in limited_scores if scores)])


def find_half_way(held_out: Sequence[float], against: Sequence[float]) -> float:
    """Return the score half way between the unseen neutral segments and the lowest unseen violation.

    For spaces in which 0 is not known to be a good threshold; nothing is known about scores in between. The arguments
    are scores by heads that saw neither; the highest `MAX_FALSE_UNSEEN` of `held_out` do not count.
    """
    highest_neutral = _find_highest_without(held_out, MAX_FALSE_UNSEEN) if held_out else 0.0
    return (highest_neutral + min(against, default=highest_neutral)) / 2


def _find_highest_without(scores: Sequence[float], share: float) -> float:
    """Return the highest score after removing this share of the scores, the highest ones."""
    return sorted(scores)[-1 - int(len(scores) * share)]


def pack_weights(heads: Heads, column: int) -> bytes:
    """Return the weights of the head in `column` as 16-bit floats."""
    numbers = heads.weights[:, column].clamp(-_MAX_WEIGHT, _MAX_WEIGHT).to(torch.float16)
    return numbers.numpy().astype("<f2").tobytes()


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
