"""Heads made of example sentences that a request brings: a few against an objective, and a few that are fine.

Such a head corrects the general score of the objective by what tells the two sorts of examples apart: a logistic
regression on their rows, which begins at the general score, so that few examples change little. It becomes a taught
head (taught_head.py) that engines know by its hash; it is kept in memory, and used again for the same examples. No
torch: there are at most a few dozen rows, and a gateway without an engine of its own makes heads, too.
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
"""Penalty of the weights. A third of it is better where an objective is written out, and worse without one."""
KEPT_HEADS = 256
"""Heads kept in memory."""
_MIN_SPREAD = 1e-2
"""Least number by which rows are divided, so that a column that hardly varies is not blown up."""
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
    """The line `slope * score + shift`: log-odds that a text violates its objective, by its general score in nats."""

    slope: float
    shift: float

    def log_odds(self, score: float) -> float:
        """The log-odds at a score."""
        return self.slope * score + self.shift


@dataclass(frozen=True, slots=True)
class _Point:
    """One segment of an example: its row, and its log-odds by the general score.

    The label is 1 if the example violates the objective, else 0; `weight` is how much the segment counts.
    """

    row: tuple[float, ...]
    log_odds: float
    label: float
    weight: float


class ExampleHeads:
    """The heads made lately, by aligner, tenant, objective and examples."""

    def __init__(self) -> None:
        self._recent: LRUCache[str, bytes] = LRUCache(KEPT_HEADS)  # heads' bytes, by the digest of what made them

    async def add_head(
        self, engine: Engine, request: AlignRequest, examples: ExampleSentences, curve: Curve
    ) -> AlignRequest:
        """The request with a head made of these examples, which judges its only objective; raises `CorrectionError`.

        The engine must read the examples first, unless their head is remembered. The head is sent to the engine every
        time, because the engine may have been restarted since.
        """
        (objective,) = request.objectives
        engine_heads = require_teachable(engine)
        aligner = (await engine.info()).find_aligner(request.aligner).content_hash
        key = _digest([aligner, request.tenant, objective, examples.against, examples.fine, curve.slope, curve.shift])
        head = self._recent.get(key)
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
            self._recent[key] = head
        return request.model_copy(update={"heads": (await engine_heads.put_head(head),)})


def _make_head(
    objective: str, aligner: str, read: Sequence[ExchangeRows], examples: ExampleSentences, curve: Curve
) -> bytes:
    """The bytes of the head that these examples teach; `read` are their rows, those against the objective first."""
    points = []
    for number, exchange in enumerate(read):
        is_against = number < len(examples.against)
        rows = _read_rows(exchange)
        # both sorts weigh the same together, and the segments of one example as much as one sentence
        share = 1.0 if is_against else len(examples.against) / len(examples.fine)
        points += [
            _Point(row, curve.log_odds(scores[0]), float(is_against), share / len(rows))
            for row, scores in zip(rows, exchange.scores, strict=True)
        ]
    # Each column is shifted to the mean 0 and scaled to the same spread; the factors are fitted to the result.
    columns = list(zip(*(point.row for point in points), strict=True))
    means = [math.fsum(column) / len(column) for column in columns]
    spreads = [
        max(_MIN_SPREAD, math.sqrt(math.fsum((number - mean) ** 2 for number in column) / len(column)))
        for column, mean in zip(columns, means, strict=True)
    ]
    # divided by the root of the width, so that one penalty fits aligners of any width
    divisors = [spread * math.sqrt(len(columns)) for spread in spreads]
    standard = [
        [(number - mean) / divisor for number, mean, divisor in zip(point.row, means, divisors, strict=True)]
        for point in points
    ]
    factors = _fit_factors(standard, points)
    weights = [
        math.fsum(map(mul, factors, column)) / divisor / curve.slope
        for column, divisor in zip(zip(*standard, strict=True), divisors, strict=True)
    ]
    packed = struct.pack(f"<{len(weights)}e", *(max(-_MAX_WEIGHT, min(_MAX_WEIGHT, weight)) for weight in weights))
    # of the rounded weights, so that rounding moves no score of a middling row
    bias = -math.fsum(map(mul, struct.unpack(f"<{len(weights)}e", packed), means))
    return TaughtHead(objective, aligner, 1.0, bias, packed).to_bytes()


def _fit_factors(rows: Sequence[Sequence[float]], points: Sequence[_Point]) -> list[float]:
    """How much each row counts in the weights, which are the sum of all rows times these factors.

    Fits a logistic regression, by Newton's method, whose log-odds are added to the points' own.
    """
    products = [[math.fsum(map(mul, one, other)) for other in rows] for one in rows]
    factors = [0.0] * len(points)
    for _ in range(_NEWTON_STEPS):
        chances = [
            _estimate_probability(point.log_odds + math.fsum(map(mul, factors, row)))
            for point, row in zip(points, products, strict=True)
        ]
        slopes = [point.weight * chance * (1 - chance) for point, chance in zip(points, chances, strict=True)]
        matrix = [
            [slope * product + (PENALTY if at == other else 0.0) for other, product in enumerate(row)]
            for at, (slope, row) in enumerate(zip(slopes, products, strict=True))
        ]
        gaps = [
            point.weight * (point.label - chance) - PENALTY * factor
            for point, chance, factor in zip(points, chances, factors, strict=True)
        ]
        factors = [factor + step for factor, step in zip(factors, _solve(matrix, gaps), strict=True)]
    return factors


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """The solution x of the linear equations `matrix` x = `right`, by elimination; overwrites both arguments."""
    size = len(right)
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(matrix[row][at]))
        matrix[at], matrix[pivot] = matrix[pivot], matrix[at]
        right[at], right[pivot] = right[pivot], right[at]
        for row in range(at + 1, size):
            factor = matrix[row][at] / matrix[at][at]
            if factor:
                matrix[row] = [number - factor * top for number, top in zip(matrix[row], matrix[at], strict=True)]
                right[row] -= factor * right[at]
    solution = [0.0] * size
    for at in reversed(range(size)):
        rest = math.fsum(matrix[at][column] * solution[column] for column in range(at + 1, size))
        solution[at] = (right[at] - rest) / matrix[at][at]
    return solution


def _estimate_probability(log_odds: float) -> float:
    """The probability of these log-odds: 0.0 -> 0.5, 2.2 -> 0.9."""
    return 1 / (1 + math.exp(-max(-_MAX_LOG_ODDS, min(_MAX_LOG_ODDS, log_odds))))


def _read_rows(exchange: ExchangeRows) -> list[tuple[float, ...]]:
    """The rows of the segments of one example."""
    numbers = base64.b64decode(exchange.rows)
    count = len(exchange.segments)
    width = len(numbers) // 2 // count if count else 0
    return [struct.unpack_from(f"<{width}e", numbers, 2 * width * at) for at in range(count)]


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
