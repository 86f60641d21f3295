"""Length of drafts: the best number of tokens, from the acceptance so far and this machine's costs. No torch.

A forward pass over more tokens costs more: on some machines hardly more, on others in proportion. A longer draft may
save passes, or be thrown away. The price of a token is the recent cost per written token of this answer. The chosen
length maximises the worth of the expected tokens at that price, minus the cost that the draft adds to the pass. (A
maximum of tokens per cost of each single pass would make drafts too long while an edit goes on.)

As long as nothing was rejected, the draft is the rest of the answer, so that an unchanged answer takes one pass. If a
wrong draft of that length could cost too much, drafts cover only segments that the detector did not flag (proposer.py).
Without a detector, a short probe is drafted together with the prompt. The length of drafts never changes the text.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

PROBE = 32
"""Tokens of the first draft if a long one is expensive; an answer that is being rewritten shows within these."""
_MAX_SLOWDOWN = 0.03
"""Largest slow-down (3 % of plain decoding) that a first draft which is wrong from the start may cause."""
_OLD_RUN_WEIGHT = 0.85
"""Weight left to older evidence at each rejection, because recent text says more about an edit than distant text."""
_OLD_GUESS_WEIGHT = 0.9
"""Weight left to older guesses at each draft that begins after an edit."""
_RECENT_PASSES = 12
"""Number of recent passes from which the price of a token is computed."""
_PRIOR_TOKENS = 4
"""Prior: tokens assumed to have been written by one pass, before any has run."""
_DRAFTING_COST = 0.05
"""What a draft costs beside the pass, in passes over one token of each sequence; on a GPU, where a few more tokens cost
nothing, drafts of text that is all but surely rewritten would otherwise never end."""
_TABLE_SIZE = 4096
"""Numbers of tokens whose costs are kept once they are computed, unless a step may have more."""
_ONE_BY_ONE = 16
_GROWTH = 1.3
"""Lengths that are compared: all up to `_ONE_BY_ONE`, then each `_GROWTH` times the last."""


@dataclass(frozen=True, slots=True)
class CostCurve:
    """The cost of a forward pass by the number of tokens, in any unit: measured (tokens, cost), linear in between."""

    points: tuple[tuple[int, float], ...]
    _table: list[float] = field(default_factory=list, init=False, repr=False, compare=False)
    """Costs of 0, 1, 2 ... tokens that were computed before; every draft compares dozens."""

    @classmethod
    def from_samples(cls, samples: Iterable[tuple[int, float]]) -> CostCurve:
        """Return the curve of measured (tokens, cost), by the lowest cost of each size; more tokens never cost less.

        Other load on the machine only adds to a measurement, so of two that disagree the lower one is used.
        """
        least: dict[int, float] = {}
        for tokens, cost in samples:
            least[tokens] = min(cost, least.get(tokens, cost))
        sizes = sorted(least)
        # from the largest size down, so that no smaller pass costs more than a larger one
        costs = [*accumulate((least[size] for size in reversed(sizes)), min)]
        return cls(tuple(zip(sizes, reversed(costs), strict=True)))

    def estimate_cost(self, tokens: int) -> float:
        """The cost of one forward pass; beyond the last point it is extrapolated."""
        table = self._table
        if tokens < len(table):
            return table[tokens]
        if tokens >= _TABLE_SIZE:
            return self._interpolate(tokens)
        self._extend_table(tokens)
        return table[tokens]

    def _extend_table(self, tokens: int) -> None:
        """Compute the costs of up to `tokens` tokens that the table does not have yet."""
        self._table.extend(self._interpolate(count) for count in range(len(self._table), tokens + 1))

    def _interpolate(self, tokens: int) -> float:
        """The cost of `tokens` tokens on the line through the two measured points around or before it."""
        right_tokens, right_cost = self.points[-1]
        if tokens <= right_tokens and len(self.points) > 1:
            # the piece of the curve that holds `tokens`; below all sizes, the first piece
            index = max(1, bisect_left(self.points, tokens, key=lambda point: point[0]))
            (left_tokens, left_cost), (right_tokens, right_cost) = self.points[index - 1 : index + 1]
        else:
            # recorded forward passes cost the same up to the next size, so the rise is that since the last lower cost
            lower = (point for point in reversed(self.points) if point[1] < right_cost)
            left_tokens, left_cost = next(lower, (right_tokens - 1, right_cost))
        share = (tokens - left_tokens) / (right_tokens - left_tokens)
        # below the first size the line might fall to nothing, so the first cost is the least
        return max(left_cost + (right_cost - left_cost) * share, self.points[0][1])

    def count_further_tokens(self, tokens: int, factor: float, most: int) -> int:
        """How many tokens, at most `most`, can be added to a pass over `tokens` for at most `factor` times its cost."""
        first = tokens + 1
        if len(self._table) < first + most:
            self._extend_table(tokens + most)
        return bisect_right(self._table, factor * self._table[tokens], first, first + most) - first


FLAT = CostCurve(((1, 1.0), (1024, 1.0)))
"""A curve of constant cost, nearly true on a GPU; used until costs are measured."""


@dataclass(frozen=True, slots=True)
class FirstTokenCounts:
    """How often the first token of a draft after an edit is right: `right` times of `total`.

    Older drafts have less weight; initial values come from many answers.
    """

    right: float
    total: float

    def add_guess(self, right: bool) -> FirstTokenCounts:
        """Return the counts with one more guess, and less weight on older ones."""
        return FirstTokenCounts(_OLD_GUESS_WEIGHT * self.right + right, _OLD_GUESS_WEIGHT * self.total + 1)


@dataclass(frozen=True, slots=True)
class Round:
    """One pass: tokens fed, tokens written, and whether these located the place in the answer for the next draft."""

    fed_tokens: int = 1
    written_tokens: int = 1
    located: bool = False


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Statistics of one answer's drafts so far. A run is a piece of the answer that the model copied."""

    copied: float = 0.0
    """Tokens that continued a run; older ones have less weight."""
    ended_runs: float = 0.0
    """Runs that ended; older ones have less weight."""
    located: FirstTokenCounts = FirstTokenCounts(3.2, 4.0)
    """Drafts after the end of a run whose position was located by written tokens."""
    blind: FirstTokenCounts = FirstTokenCounts(1.0, 4.0)
    """Drafts after the end of a run whose position is only a guess."""
    in_run: bool = True
    """Whether the last step ended within a run, which the next draft then continues."""
    recent_rounds: tuple[Round, ...] = ()
    """The last passes, at most `_RECENT_PASSES`."""

    def add_step(self, copied_tokens: int, *, run_ended: bool, step_round: Round = Round()) -> Acceptance:
        """Return the statistics with one more step, in which the model copied `copied_tokens` tokens of the answer.

        `run_ended` is false if the run goes on with the next draft.
        """
        located = self.located
        blind = self.blind
        # this step's draft was the first after an edit: note whether its first token was right
        if not self.in_run and self.recent_rounds:
            if self.recent_rounds[-1].located:
                located = located.add_guess(copied_tokens > 0)
            else:
                blind = blind.add_guess(copied_tokens > 0)
        copied = self.copied + copied_tokens
        ended_runs = self.ended_runs
        if run_ended:
            copied *= _OLD_RUN_WEIGHT
            ended_runs = ended_runs * _OLD_RUN_WEIGHT + 1
        return Acceptance(
            copied, ended_runs, located, blind, not run_ended, (*self.recent_rounds[1 - _RECENT_PASSES :], step_round)
        )

    @property
    def continuation_chance(self) -> float:
        """Probability that a run continues with its next token; 1 as long as no run has ended."""
        # one token counts as copied in advance, so that the first end of a run does not make this 0
        return (self.copied + 1) / (self.copied + self.ended_runs + 1)

    @property
    def first_token_chance(self) -> float:
        """Probability that the first token of the next draft is right."""
        if self.in_run:
            return self.continuation_chance
        guesses = self.located if self.recent_rounds and self.recent_rounds[-1].located else self.blind
        return guesses.right / guesses.total

    def expect_tokens(self, length: int) -> float:
        """Expected tokens written by a step with a draft of this length: its accepted tokens, and the model's own."""
        # a token is accepted only if all before it are, so the chance of draft token i is first * p ** i
        first = self.first_token_chance
        p = self.continuation_chance
        return 1 + first * (length if p == 1 else (1 - p**length) / (1 - p))

    def estimate_price(self, costs: CostCurve, sequence_count: int = 1) -> float:
        """The recent cost of a written token, if `sequence_count` sequences share each pass."""
        # the prior is one pass over a single token
        cost = costs.estimate_cost(sequence_count)
        written_tokens = _PRIOR_TOKENS
        for recent in self.recent_rounds:
            cost += costs.estimate_cost(sequence_count * recent.fed_tokens)
            written_tokens += recent.written_tokens
        return cost / sequence_count / written_tokens


LengthRule = Callable[[Acceptance, int], int]
"""Returns the length of the next draft, from the statistics so far and the maximal length."""


def needs_probe(costs: CostCurve, room: int, sequence_count: int = 1) -> bool:
    """Whether first drafts of `room` tokens, in so many sequences, would cost too much if wrong from the start."""
    plain_cost = costs.estimate_cost(sequence_count)
    return costs.estimate_cost(sequence_count * (room + 1)) > (1 + _MAX_SLOWDOWN * room) * plain_cost


def choose_draft_length(costs: CostCurve, acceptance: Acceptance, room: int, sequence_count: int = 1) -> int:
    """The draft length with the highest expected gain, at most `room`; `sequence_count` sequences share the pass.

    Of lengths with equal gains it is the longest.
    """
    # nothing was rejected yet: draft the rest of the answer, or a probe before anything was copied
    if not acceptance.ended_runs:
        return min(room, PROBE) if not acceptance.copied and needs_probe(costs, room, sequence_count) else room
    price = acceptance.estimate_price(costs, sequence_count)
    # proposing and checking a draft takes time outside of the pass
    effort = _DRAFTING_COST * costs.estimate_cost(sequence_count) / sequence_count
    # no draft is worth more than one of the full length
    most_worth = price * acceptance.expect_tokens(room)
    best_gain = -math.inf
    best_length = 0
    for length in _list_lengths(room):
        # each sequence feeds its draft and the token before it
        cost = costs.estimate_cost(sequence_count * (length + 1)) / sequence_count + (effort if length else 0.0)
        # passes over more tokens never cost less, so no longer draft can gain more
        if most_worth - cost < best_gain:
            break
        gain = price * acceptance.expect_tokens(length) - cost
        if gain >= best_gain:
            best_gain = gain
            best_length = length
    return best_length


@lru_cache(maxsize=1024)
def _list_lengths(room: int) -> tuple[int, ...]:
    """The draft lengths to compare, from 0 to `room`; long ones in growing steps, so that few are compared."""
    lengths = [0]
    while lengths[-1] < room:
        last = lengths[-1]
        longer = last + 1 if last < _ONE_BY_ONE else int(last * _GROWTH)
        lengths.append(min(room, longer))
    return tuple(lengths)
