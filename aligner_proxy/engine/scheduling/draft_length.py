"""Length of drafts: as many tokens as pay, by the acceptance seen and this machine's cost of a forward. No torch.

A forward over more tokens costs more, on one machine hardly anything and on another in proportion; a longer draft may
save forwards, or be thrown away. A token written has a price, which is what tokens of this answer cost of late. A draft
is as long as what it is expected to bring is worth, at that price, more than it adds to the forward. (Dividing the one
by the other, forward by forward, makes drafts too long where an edit goes on: there a token of an edit is the measure.)
As long as nothing was rejected the rest of the answer is the draft, so that an unchanged answer takes one forward;
where that could cost much for nothing, drafts go as far as segments that the detector did not flag (proposer.py), or
without a detector a probe goes along with the prompt. Draft lengths never change what is written.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

PROBE = 32
"""Tokens of the first draft where a long one is dear: an answer that is rewritten has shown it by then."""
_WASTE = 0.03
"""How much slower than plain decoding a first draft that is wrong from the start may make an answer."""
_FORGETTING = 0.85
"""What is left of older evidence with each rejection: an edit says more about its surroundings than the last page."""
_GUESSES_LEFT = 0.9
"""The same, with each draft that begins behind an edit."""
_LATELY = 12
"""Forwards that say what a token costs."""
_AT_FIRST = 4
"""Tokens that one forward is taken to write before any has."""
_ONE_BY_ONE = 16
_GROWTH = 1.3
"""Lengths that are compared: all up to this one, then each so much longer than the last."""


@dataclass(frozen=True, slots=True)
class CostCurve:
    """What a forward costs by the number of tokens fed, in any unit: measured (tokens, cost), straight in between."""

    points: tuple[tuple[int, float], ...]

    @classmethod
    def from_samples(cls, samples: Iterable[tuple[int, float]]) -> CostCurve:
        """From measurements, of which the least for each number counts; fewer tokens never cost more.

        What else uses the machine only adds to a measurement, so the lower of two that disagree is believed.
        """
        least: dict[int, float] = {}
        for tokens, cost in samples:
            least[tokens] = min(cost, least.get(tokens, cost))
        sizes = sorted(least)
        costs = [*accumulate((least[size] for size in reversed(sizes)), min)]
        return cls(tuple(zip(sizes, reversed(costs), strict=True)))

    def estimate_cost(self, tokens: int) -> float:
        """The cost of one forward; beyond the last point it goes on as before it."""
        if len(self.points) == 1:
            return self.points[0][1]
        at = min(max(1, bisect_left(self.points, tokens, key=lambda point: point[0])), len(self.points) - 1)
        (fewer, low), (more, high) = self.points[at - 1 : at + 1]
        return max(low + (high - low) * (tokens - fewer) / (more - fewer), self.points[0][1])

    def count_further_tokens(self, tokens: int, times: float, most: int) -> int:
        """How many further tokens, at most `most`, make a forward over `tokens` cost at most so many times as much."""
        bound = times * self.estimate_cost(tokens)
        return bisect_right(range(1, most + 1), bound, key=lambda more: self.estimate_cost(tokens + more))


FLAT = CostCurve(((1, 1.0), (1024, 1.0)))
"""Where a forward costs the same whatever its length, nearly so on a GPU; what is believed until it is measured."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """How often the first token of a draft behind an edit is right; it begins with that of many answers."""

    right: float
    total: float

    def add_guess(self, right: bool) -> Guesses:
        """One more; of older ones less is left."""
        return Guesses(_GUESSES_LEFT * self.right + right, _GUESSES_LEFT * self.total + 1)


@dataclass(frozen=True, slots=True)
class Round:
    """One forward: tokens fed, tokens written, and whether these showed where in the answer the next draft begins."""

    fed_tokens: int = 1
    written_tokens: int = 1
    located: bool = False


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What became of the drafts of one answer so far. A run is a piece of the answer that the model copied."""

    copied: float = 0.0
    """Tokens that went on a run; of older ones less is left."""
    ended_runs: float = 0.0
    """Runs that came to an end."""
    located: Guesses = Guesses(3.2, 4.0)
    """Drafts behind such an end whose place was located by tokens written."""
    blind: Guesses = Guesses(1.0, 4.0)
    """Those that only suppose where an edit ends."""
    running: bool = True
    lately: tuple[Round, ...] = ()

    def add_step(self, run: int, *, run_ended: bool, done: Round = Round()) -> Acceptance:
        """One step more: `run` tokens of the answer in a row were what the model wanted, then the run ended or not."""
        acceptance = self
        if not self.running and self.lately:
            name = "located" if self.lately[-1].located else "blind"
            acceptance = replace(acceptance, **{name: getattr(self, name).add_guess(run > 0)})
        acceptance = replace(
            acceptance, copied=acceptance.copied + run, running=not run_ended, lately=(*self.lately, done)[-_LATELY:]
        )
        if not run_ended:
            return acceptance
        return replace(
            acceptance, copied=acceptance.copied * _FORGETTING, ended_runs=acceptance.ended_runs * _FORGETTING + 1
        )

    @property
    def goes_on(self) -> float:
        """How likely a run goes on with its next token; certain as long as none has ended."""
        return (self.copied + 1) / (self.copied + self.ended_runs + 1)

    @property
    def begins(self) -> float:
        """How likely the first token of the next draft is right."""
        if self.running:
            return self.goes_on
        behind = self.located if self.lately and self.lately[-1].located else self.blind
        return behind.right / behind.total

    def expect_tokens(self, length: int) -> float:
        """Tokens that a step with a draft of this length writes: what is accepted of it, and the model's own."""
        p = self.goes_on
        return 1 + self.begins * (length if p == 1 else (1 - p**length) / (1 - p))

    def price(self, costs: CostCurve, company: int = 1) -> float:
        """What a token has cost of late, `company` sequences sharing each forward."""
        forward_sizes = [1, *(recent.fed_tokens for recent in self.lately)]
        written_tokens = _AT_FIRST + sum(recent.written_tokens for recent in self.lately)
        return sum(costs.estimate_cost(company * tokens) for tokens in forward_sizes) / company / written_tokens


Rule = Callable[[Acceptance, int], int]
"""The length of the next draft, from what was seen and from what there is room for."""


def probes(costs: CostCurve, room: int) -> bool:
    """Whether a first draft that fills the room would make an answer too dear if it were wrong from the start."""
    return costs.estimate_cost(room + 1) > (1 + _WASTE * room) * costs.estimate_cost(1)


def draft_length(costs: CostCurve, acceptance: Acceptance, room: int, company: int = 1) -> int:
    """The length worth most beyond what it adds to a forward, at most `room`; `company` sequences share the forward."""
    if not acceptance.ended_runs:
        return min(room, PROBE) if not acceptance.copied and probes(costs, room) else room
    price = acceptance.price(costs, company)

    def gain(length: int) -> float:
        return price * acceptance.expect_tokens(length) - costs.estimate_cost(company * (length + 1)) / company

    return max(_lengths(room), key=lambda length: (gain(length), length))


def _lengths(room: int) -> Iterator[int]:
    length = 0
    while length < room:
        yield length
        length = length + 1 if length < _ONE_BY_ONE else int(length * _GROWTH)
    yield room
