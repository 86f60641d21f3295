"""Length of drafts: the best number of tokens, from the acceptance so far and this machine's costs. No torch.

A draft is a run of tokens of the original answer, which the model checks in one forward pass: it accepts the tokens up
to the first that it would not write itself. A pass over more tokens costs more: on some machines hardly more, on others
in proportion. A longer draft may save passes, or be rejected. The price of a token is the recent cost per written token
of this answer. The chosen length maximises the worth of the expected tokens at that price, minus the cost that the
draft adds to the pass. (A maximum of tokens per cost of each pass would make drafts too long while an edit goes on.)

As long as nothing was rejected, the draft is the rest of the answer, so that an unchanged answer takes one pass. If a
wrong draft of that length could cost too much, drafts cover only segments that the detector did not flag (proposer.py).
Without a detector, the first draft is then a probe: a few tokens, which show whether the model rewrites the answer. The
length of drafts never changes the text.
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
_MAX_SLOWDOWN_PER_TOKEN = 0.03
"""Most cost that each token of a first draft may add to its pass, as a part of the cost of a pass without drafts. A
model that then writes all these tokens without a draft needs a pass for each, so a wrong draft slows it down by 3 % at
most."""
_OLD_RUN_WEIGHT = 0.85
"""Factor on older counts at each rejection, because recent text says more about an edit than distant text."""
_OLD_GUESS_WEIGHT = 0.9
"""Factor on the counts of older guesses at each draft that begins after an edit."""
_RECENT_PASSES = 12
"""Number of recent passes from which the price of a token is computed."""
_PRIOR_TOKENS = 4
"""Tokens that one assumed pass wrote before the first real one."""
_DRAFTING_COST = 0.05
"""Cost of a draft outside of its pass, in passes over one token of each sequence. Without it, a GPU, where a few more
tokens cost nothing, would go on drafting text that is almost surely rewritten."""
_TABLE_SIZE = 4096
"""Costs of fewer tokens than this are kept once they are computed; `count_further_tokens` may keep more."""
_MAX_DENSE_LENGTH = 16
_LENGTH_GROWTH = 1.3
"""Lengths that are compared: all up to `_MAX_DENSE_LENGTH`, then each `_LENGTH_GROWTH` times the last."""


@dataclass(frozen=True, slots=True)
class CostCurve:
    """The cost of a forward pass by its number of tokens, in any unit: measured points, and straight lines between."""

    points: tuple[tuple[int, float], ...]
    """(tokens, cost), by rising tokens; costs never fall."""
    _table: list[float] = field(default_factory=list, init=False, repr=False, compare=False)
    """The cost of n tokens at index n, as far as it was computed; kept because every draft compares dozens of costs."""

    @classmethod
    def from_samples(cls, samples: Iterable[tuple[int, float]]) -> CostCurve:
        """Return the curve through `samples`, which are measured pairs (tokens, cost) in any order.

        Other load on the machine only adds to a measurement. So the lowest cost of each number of tokens is used, and a
        cost above that of a larger pass is lowered to it.
        """
        lowest_costs: dict[int, float] = {}  # by tokens
        for tokens, cost in samples:
            lowest_costs[tokens] = min(cost, lowest_costs.get(tokens, cost))
        token_counts = sorted(lowest_costs)
        # from the largest count down: the lowest cost of this count and of all larger counts
        falling_costs = [*accumulate((lowest_costs[count] for count in reversed(token_counts)), min)]
        return cls(tuple(zip(token_counts, reversed(falling_costs), strict=True)))

    def estimate_cost(self, tokens: int) -> float:
        """The cost of one forward pass over `tokens` tokens; the costs of small passes are computed only once."""
        table = self._table
        if tokens < len(table):
            return table[tokens]
        if tokens >= _TABLE_SIZE:
            return self._estimate_on_line(tokens)
        self._extend_table(tokens)
        return table[tokens]

    def _extend_table(self, tokens: int) -> None:
        """Extend the table to the cost of `tokens` tokens."""
        self._table.extend(self._estimate_on_line(count) for count in range(len(self._table), tokens + 1))

    def _estimate_on_line(self, tokens: int) -> float:
        """The cost of `tokens` tokens on the line through the two points around it.

        Beyond the last point, it is the line through this point and the last cheaper point; without a cheaper point,
        the cost stays that of the last point.
        """
        right_tokens, right_cost = self.points[-1]
        if tokens <= right_tokens and len(self.points) > 1:
            # the two points around `tokens`; below all points, the first two
            index = max(1, bisect_left(self.points, tokens, key=lambda point: point[0]))
            (left_tokens, left_cost), (right_tokens, right_cost) = self.points[index - 1 : index + 1]
        else:
            # CUDA graphs cost the same up to their size, so the last point with a lower cost shows the real rise
            cheaper_points = ((count, cost) for count, cost in reversed(self.points) if cost < right_cost)
            equal_point = (right_tokens - 1, right_cost)  # makes the line flat
            left_tokens, left_cost = next(cheaper_points, equal_point)
        # above 1 beyond the last point, below 0 before the first
        relative_distance = (tokens - left_tokens) / (right_tokens - left_tokens)
        _, first_cost = self.points[0]
        # below the first point the line might fall to 0, so no cost is below that of the first point
        return max(left_cost + (right_cost - left_cost) * relative_distance, first_cost)

    def count_further_tokens(self, tokens: int, factor: float, limit: int) -> int:
        """The most further tokens, up to `limit`, that a pass over `tokens` can take for `factor` times its cost."""
        first = tokens + 1  # the table has the cost of n tokens at index n
        if len(self._table) < first + limit:
            self._extend_table(tokens + limit)
        highest_cost = factor * self._table[tokens]
        # costs never fall, so the first cost that is too high can be found by bisection
        return bisect_right(self._table, highest_cost, first, first + limit) - first


FLAT = CostCurve(((1, 1.0), (1024, 1.0)))
"""A curve of constant cost, nearly true on a GPU; used until costs are measured."""


@dataclass(frozen=True, slots=True)
class FirstTokenCounts:
    """How many drafts that began after an edit had a right first token, of all these drafts in one answer. Older drafts
    have less weight. The counts start above 0, with values that fit many answers."""

    right_count: float
    total_count: float
    """Of all drafts that began after an edit; never 0."""

    def add_guess(self, *, is_right: bool) -> FirstTokenCounts:
        """Return the counts with one more draft, and with less weight on older drafts."""
        old_right_count = _OLD_GUESS_WEIGHT * self.right_count
        old_total_count = _OLD_GUESS_WEIGHT * self.total_count
        return FirstTokenCounts(old_right_count + is_right, old_total_count + 1)


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over an answer's draft."""

    fed_tokens: int = 1
    written_tokens: int = 1
    found_place: bool = False
    """Whether the written tokens occur in the original answer, so that the next draft begins after them. If not, the
    place of the next draft is a guess (proposer.py)."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Statistics of one answer's drafts so far. A run is a piece of the original answer that the model copied. After a
    run, the next draft is copied from the place in the original answer where the last written tokens were found (a
    found place), or else from a guessed place."""

    copied: float = 0.0
    """Tokens that continued a run; older ones have less weight."""
    ended_runs: float = 0.0
    """Runs that ended; older ones have less weight."""
    counts_at_found_places: FirstTokenCounts = FirstTokenCounts(3.2, 4.0)
    """Of drafts after the end of a run that began at a found place."""
    counts_at_guessed_places: FirstTokenCounts = FirstTokenCounts(1.0, 4.0)
    """Of drafts after the end of a run that began at a guessed place."""
    in_run: bool = True
    """Whether the last step ended within a run, which the next draft then continues."""
    recent_rounds: tuple[Round, ...] = ()
    """The last passes, at most `_RECENT_PASSES`."""

    def add_step(self, copied_tokens: int, *, run_ended: bool, step_round: Round = Round()) -> Acceptance:
        """Return the statistics with one more step, in which the model copied `copied_tokens` tokens of the answer.

        `run_ended` says whether the copied run ended; if not, the next draft continues it. `step_round` has the numbers
        of tokens of the step's pass.
        """
        found_counts = self.counts_at_found_places
        guessed_counts = self.counts_at_guessed_places
        if not self.in_run and self.recent_rounds:
            # this step's draft was the first after an edit, so it shows whether a draft after an edit begins right
            if self.recent_rounds[-1].found_place:
                found_counts = found_counts.add_guess(is_right=copied_tokens > 0)
            else:
                guessed_counts = guessed_counts.add_guess(is_right=copied_tokens > 0)
        copied = self.copied + copied_tokens
        ended_runs = self.ended_runs
        if run_ended:
            copied *= _OLD_RUN_WEIGHT
            ended_runs = ended_runs * _OLD_RUN_WEIGHT + 1
        rounds = (*self.recent_rounds[1 - _RECENT_PASSES :], step_round)
        return Acceptance(copied, ended_runs, found_counts, guessed_counts, in_run=not run_ended, recent_rounds=rounds)

    @property
    def continuation_chance(self) -> float:
        """Probability that a run continues with its next token; 1 as long as no run has ended."""
        # one more token counts as copied, so that the chance is not 0 if the first run ends at once
        return (self.copied + 1) / (self.copied + self.ended_runs + 1)

    @property
    def first_token_chance(self) -> float:
        """Probability that the first token of the next draft is right.

        Within a run, it is the chance that the run goes on. After a run, it is the share of right first tokens so far,
        counted separately for drafts from found and from guessed places.
        """
        if self.in_run:
            return self.continuation_chance
        # the last pass says whether it found the place from which the next draft is copied
        has_found_place = bool(self.recent_rounds) and self.recent_rounds[-1].found_place
        counts = self.counts_at_found_places if has_found_place else self.counts_at_guessed_places
        return counts.right_count / counts.total_count

    def expect_tokens(self, length: int) -> float:
        """Expected number of tokens written by a step with a draft of this length.

        These are the accepted tokens of the draft, and one token that the model chooses after them.
        """
        p = self.continuation_chance
        # draft token i (from 0) is accepted only if all tokens before it are, with the chance first_token_chance * p**i
        sum_of_powers = length if p == 1 else (1 - p**length) / (1 - p)  # of p**i for all i
        return 1 + self.first_token_chance * sum_of_powers

    def estimate_price(self, costs: CostCurve, sequence_count: int = 1) -> float:
        """The recent cost of a written token of this answer, if `sequence_count` sequences share each pass equally."""
        # without passes so far, the price is that of one assumed pass, which fed one token and wrote `_PRIOR_TOKENS`
        cost = costs.estimate_cost(sequence_count)
        written_tokens = _PRIOR_TOKENS
        for recent in self.recent_rounds:
            cost += costs.estimate_cost(sequence_count * recent.fed_tokens)
            written_tokens += recent.written_tokens
        return cost / sequence_count / written_tokens


LengthRule = Callable[[Acceptance, int], int]
"""Returns the length of the next draft, from the statistics so far and the largest allowed length."""


def needs_probe(costs: CostCurve, draft_length: int, sequence_count: int = 1) -> bool:
    """Whether an answer's first draft should be short (a probe), because a wrong long draft would cost too much.

    That is more than `_MAX_SLOWDOWN_PER_TOKEN` for each of its `draft_length` tokens. `sequence_count` sequences share
    the pass, each with a draft of this length.
    """
    cost_without_drafts = costs.estimate_cost(sequence_count)
    # each sequence feeds its draft and the token before it
    cost_with_drafts = costs.estimate_cost(sequence_count * (draft_length + 1))
    return cost_with_drafts > (1 + _MAX_SLOWDOWN_PER_TOKEN * draft_length) * cost_without_drafts


def choose_draft_length(costs: CostCurve, acceptance: Acceptance, tokens_left: int, sequence_count: int = 1) -> int:
    """The length of an answer's next draft: the one with the highest expected gain; of equal gains, the longest.

    `tokens_left` is the number of tokens that are left in the original answer, and so the longest draft. 0 means that
    the next pass has no draft. `sequence_count` sequences share the pass.
    """
    if not acceptance.ended_runs:
        # no draft token was rejected yet, so the rest of the answer is drafted, unless a probe has to come first
        is_probe = not acceptance.copied and needs_probe(costs, tokens_left, sequence_count)
        return min(tokens_left, PROBE) if is_probe else tokens_left
    price = acceptance.estimate_price(costs, sequence_count)
    # proposing and checking a draft takes time outside of the pass
    drafting_cost = _DRAFTING_COST * costs.estimate_cost(sequence_count) / sequence_count
    # the worth of the longest draft, because longer drafts are worth more
    highest_worth = price * acceptance.expect_tokens(tokens_left)
    best_gain = -math.inf
    best_length = 0
    for length in _list_lengths(tokens_left):
        # each sequence feeds its draft and the token before it
        cost = costs.estimate_cost(sequence_count * (length + 1)) / sequence_count
        if length:
            cost += drafting_cost
        # a longer draft never costs less, so if even the highest worth gains too little here, none can gain more
        if highest_worth - cost < best_gain:
            break
        gain = price * acceptance.expect_tokens(length) - cost
        if gain >= best_gain:
            best_gain = gain
            best_length = length
    return best_length


@lru_cache(maxsize=1024)
def _list_lengths(longest: int) -> tuple[int, ...]:
    """The draft lengths to compare, rising from 0 to `longest`; long ones in growing steps, so that they are few."""
    lengths = [0]
    while lengths[-1] < longest:
        last = lengths[-1]
        next_length = last + 1 if last < _MAX_DENSE_LENGTH else int(last * _LENGTH_GROWTH)
        lengths.append(min(longest, next_length))
    return tuple(lengths)
