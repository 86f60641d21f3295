"""Heads made from example sentences in a request: a few that go against an objective, and a few that are fine.

A head turns a segment's row (numbers that the aligner computes for the segment) into a score. A head of examples is a
taught head (taught_head.py), which engines know by its hash. It adds to the score of the general detector head what
separates the two sorts of examples: a logistic regression on their rows, which starts from the general score, so that
few examples change little. Heads are kept in memory and used again for the same examples. No torch: there are at most a
few dozen rows, and a gateway without an engine of its own makes heads, too.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from cachetools import LRUCache

from aligner_proxy.engine.api import AlignRequest, Engine, ExchangeRows, ExchangeText, RowsRequest, require_teachable
from aligner_proxy.engine.taught_head import TaughtHead

MIN_EXAMPLES = 3
"""Fewer examples of a sort than this teach nothing that can be measured (docs/guides/decide.md)."""
MAX_EXAMPLES = 16
"""Most examples of a sort; each is read once."""
PENALTY = 0.1
"""Penalty on large weights. A third of it is better for objectives that are written out, and worse for labels."""
KEPT_HEADS = 256
"""Heads kept in memory."""
_MIN_SPREAD = 1e-2
"""Smallest standard deviation by which a column is divided, so that a nearly constant column does not dominate."""
_NEWTON_STEPS = 25
"""Steps of Newton's method; it needs about ten."""
_MAX_LOG_ODDS = 30.0
"""Largest log-odds, so that `exp` cannot overflow."""
_MAX_WEIGHT = 60_000.0
"""Limit of weights, below the largest 16-bit number."""


@dataclass(frozen=True, slots=True)
class ExampleSentences:
    """Sentences that go against an objective, and sentences that are near it and fine."""

    against: tuple[str, ...]
    fine: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them, those against the objective first."""
        return (*self.against, *self.fine)


@dataclass(frozen=True, slots=True)
class Curve:
    """A line from the general score in nats to the log-odds that a text violates its objective.

    The log-odds are `slope * score + shift`; as a probability they are a logistic curve.
    """

    slope: float
    shift: float

    def log_odds(self, score: float) -> float:
        return self.slope * score + self.shift


@dataclass(frozen=True, slots=True)
class _Point:
    """One segment of an example, as a point of the regression."""

    row: tuple[float, ...]
    log_odds: float
    """Log-odds that it violates the objective, from its general score."""
    label: float
    """1 if the example violates the objective, else 0."""
    weight: float
    """How much the segment counts in the regression."""


class ExampleHeads:
    """Makes heads from examples, and keeps the last ones by aligner, tenant, objective and examples."""

    def __init__(self) -> None:
        self._recent_heads: LRUCache[str, bytes] = LRUCache(KEPT_HEADS)  # their bytes, by the digest of their inputs

    async def add_head(
        self, engine: Engine, request: AlignRequest, examples: ExampleSentences, curve: Curve
    ) -> AlignRequest:
        """Return the request with a head made from these examples for its only objective; raises `CorrectionError`.

        `curve` turns the scores of the engine's general head into log-odds. If the head is not kept from an earlier
        request, it is learned from the rows of numbers that the engine computes for the examples. The head is uploaded
        every time, because the engine may have been restarted since.
        """
        (objective,) = request.objectives
        engine_heads = require_teachable(engine)
        aligner = (await engine.info()).find_aligner(request.aligner).content_hash
        inputs = [aligner, request.tenant, objective, examples.against, examples.fine, curve.slope, curve.shift]
        key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        head = self._recent_heads.get(key)
        if head is None:
            rows = await engine_heads.rows(
                RowsRequest(
                    request_id=request.request_id,
                    aligner=request.aligner,
                    tenant=request.tenant,
                    quota=request.quota,
                    objectives=request.objectives,
                    exchanges=tuple(ExchangeText(turns=(), answer=text) for text in examples.texts),
                    deadline_s=request.deadline_s,
                )
            )
            head = await asyncio.to_thread(_make_head, objective, rows.aligner, rows.exchanges, examples, curve)
            # if requests make the same head at the same time, all use the first: rows differ a little by batch
            head = self._recent_heads.setdefault(key, head)
        head_hash = await engine_heads.put_head(head)
        return request.model_copy(update={"heads": (head_hash,)})


def _make_head(
    objective: str, aligner: str, exchanges: Sequence[ExchangeRows], examples: ExampleSentences, curve: Curve
) -> bytes:
    """Return the bytes of the head that is learned from the examples: a linear layer that adds to the general score.

    `exchanges` has, for each example in the order of `examples.texts`, a row of numbers and the general score of each
    of its segments.
    """
    points = []
    for index, exchange in enumerate(exchanges):
        is_against = index < len(examples.against)
        rows = _read_rows(exchange)
        # the examples against and the fine ones have the same total weight; the segments of an example share its weight
        example_weight = 1.0 if is_against else len(examples.against) / len(examples.fine)
        points += [
            _Point(row, curve.log_odds(scores[0]), float(is_against), example_weight / len(rows))
            for row, scores in zip(rows, exchange.scores, strict=True)
        ]
    # The regression works on columns with the mean 0 and the same spread.
    columns = list(zip(*(point.row for point in points), strict=True))
    means = [math.fsum(column) / len(column) for column in columns]
    spreads = [
        max(_MIN_SPREAD, math.sqrt(math.fsum((number - mean) ** 2 for number in column) / len(column)))
        for column, mean in zip(columns, means, strict=True)
    ]
    # divided by the root of the width as well, so that one penalty fits aligners of any width
    divisors = [spread * math.sqrt(len(columns)) for spread in spreads]
    scaled_rows = [
        [(number - mean) / divisor for number, mean, divisor in zip(point.row, means, divisors, strict=True)]
        for point in points
    ]
    factors = _fit_factors(scaled_rows, points)
    # The engine applies the weights to unscaled rows, so the scaling is undone; `slope` is log-odds per nat of score.
    weights = []
    for scaled_column, divisor in zip(zip(*scaled_rows, strict=True), divisors, strict=True):
        weight = math.fsum(map(mul, factors, scaled_column)) / divisor / curve.slope
        weights.append(max(-_MAX_WEIGHT, min(_MAX_WEIGHT, weight)))
    packed_weights = struct.pack(f"<{len(weights)}e", *weights)
    # computed from the rounded weights, so that the score of the mean row is exactly its general score
    rounded_weights = struct.unpack(f"<{len(weights)}e", packed_weights)
    bias = -math.fsum(map(mul, rounded_weights, means))
    return TaughtHead(objective, aligner, prior=1.0, bias=bias, weight=packed_weights).to_bytes()


def _fit_factors(rows: Sequence[Sequence[float]], points: Sequence[_Point]) -> list[float]:
    """Fit a logistic regression by Newton's method, and return a factor for each of `rows`.

    The regression's weights are the sum of each row times its factor. `rows` are the scaled rows of the points. What
    the regression predicts are the labels of the points; it adds to the log-odds that the points have already.
    """
    # There are far fewer rows than columns, so the regression is solved by the products of all pairs of rows.
    products = [[math.fsum(map(mul, row, other_row)) for other_row in rows] for row in rows]
    factors = [0.0] * len(points)
    for _ in range(_NEWTON_STEPS):
        probabilities = [
            _estimate_probability(point.log_odds + math.fsum(map(mul, factors, row_products)))  # of the label 1
            for point, row_products in zip(points, products, strict=True)
        ]
        slopes = [
            point.weight * probability * (1 - probability)
            for point, probability in zip(points, probabilities, strict=True)
        ]
        matrix = [[slope * product for product in row] for slope, row in zip(slopes, products, strict=True)]
        for index, matrix_row in enumerate(matrix):
            matrix_row[index] += PENALTY
        errors = [
            point.weight * (point.label - probability) - PENALTY * factor
            for point, probability, factor in zip(points, probabilities, factors, strict=True)
        ]
        steps = _solve_equations(matrix, errors)  # the change of each factor
        factors = [factor + step for factor, step in zip(factors, steps, strict=True)]
    return factors


def _solve_equations(matrix: list[list[float]], right_side: list[float]) -> list[float]:
    """Return the solution x of the linear equations `matrix` x = `right_side`; overwrites both arguments.

    Gaussian elimination with row pivoting; `matrix` must not be singular.
    """
    size = len(right_side)
    for step in range(size):
        pivot_index = max(range(step, size), key=lambda index: abs(matrix[index][step]))
        matrix[step], matrix[pivot_index] = matrix[pivot_index], matrix[step]
        right_side[step], right_side[pivot_index] = right_side[pivot_index], right_side[step]
        pivot_row = matrix[step]
        for index in range(step + 1, size):
            factor = matrix[index][step] / pivot_row[step]
            if factor:
                row = matrix[index]
                matrix[index] = [number - factor * pivot for number, pivot in zip(row, pivot_row, strict=True)]
                right_side[index] -= factor * right_side[step]
    solution = [0.0] * size
    for index in reversed(range(size)):
        solved_part = math.fsum(matrix[index][column] * solution[column] for column in range(index + 1, size))
        solution[index] = (right_side[index] - solved_part) / matrix[index][index]
    return solution


def _estimate_probability(log_odds: float) -> float:
    """The probability of these log-odds: 0.0 -> 0.5, 2.2 -> 0.9."""
    return 1 / (1 + math.exp(-max(-_MAX_LOG_ODDS, min(_MAX_LOG_ODDS, log_odds))))


def _read_rows(exchange: ExchangeRows) -> list[tuple[float, ...]]:
    """Decode the rows of one example: a tuple of 16-bit floating point numbers for each of its segments."""
    row_bytes = base64.b64decode(exchange.rows)
    count = len(exchange.segments)
    width = len(row_bytes) // 2 // count if count else 0  # a number has 2 bytes
    return [struct.unpack_from(f"<{width}e", row_bytes, 2 * width * index) for index in range(count)]
