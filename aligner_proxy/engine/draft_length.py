"""How many draft tokens pay? As many as the acceptance seen and this machine's cost of a forward say. No torch.

A forward over more tokens costs more, on one machine hardly anything and on another in proportion; a longer draft may
save forwards, or be thrown away. What a draft of k tokens is expected to bring (its accepted tokens and the model's own
next one) over what it costs is largest at some k, and that is the length. As long as nothing was rejected the rest of
the answer is the draft, so that an unchanged answer takes one forward; where that could cost much for nothing, the
detector is asked first what it vouches for (proposer.py), or without one a probe goes along with the prompt. Draft
lengths never change what is written.
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
_ONE_BY_ONE, _GROWTH = 16, 1.3
"""Lengths that are compared: all up to this one, then each so much longer than the last."""


@dataclass(frozen=True, slots=True)
class CostCurve:
    """What a forward costs by the number of tokens fed, in any unit: measured (tokens, cost), straight in between."""

    points: tuple[tuple[int, float], ...]

    @classmethod
    def measured(cls, samples: Iterable[tuple[int, float]]) -> CostCurve:
        """From measurements, of which the least for each number counts; fewer tokens never cost more.

        Whoever else uses the machine only adds to a measurement, so the lower of two that disagree is believed.
        """
        least: dict[int, float] = {}
        for tokens, cost in samples:
            least[tokens] = min(cost, least.get(tokens, cost))
        sizes = sorted(least)
        costs = [*accumulate((least[size] for size in reversed(sizes)), min)]
        return cls(tuple(zip(sizes, reversed(costs), strict=True)))

    def of(self, tokens: int) -> float:
        """The cost of one forward; beyond the last point it goes on as before it."""
        if len(self.points) == 1:
            return self.points[0][1]
        at = min(max(1, bisect_left(self.points, tokens, key=lambda point: point[0])), len(self.points) - 1)
        (left, low), (right, high) = self.points[at - 1 : at + 1]
        return max(low + (high - low) * (tokens - left) / (right - left), self.points[0][1])

    def beside(self, tokens: int, times: float, most: int) -> int:
        """How many further tokens, at most `most`, make a forward over `tokens` cost at most so many times as much."""
        bound = times * self.of(tokens)
        return bisect_right(range(1, most + 1), bound, key=lambda more: self.of(tokens + more))


FLAT = CostCurve(((1, 1.0), (1024, 1.0)))
"""Where a forward costs the same whatever its length, nearly so on a GPU; what is believed until it is measured."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What became of the drafts of one answer so far. A run is a piece of the answer that the model copied."""

    copied: float = 0.0
    """Tokens that went on a run; of older ones less is left."""
    ended: float = 0.0
    """Runs that came to an end."""
    tried: float = 0.0
    """Drafts behind such an end."""
    begun: float = 0.0
    """Of these, the ones whose first token began a new run."""
    running: bool = True

    def after(self, run: int, *, ended: bool) -> Acceptance:
        """One step more: `run` tokens of the answer in a row were what the model wanted, then the run ended or not."""
        seen = self
        if not self.running:
            seen = replace(seen, tried=seen.tried + 1, begun=seen.begun + (run > 0))
        seen = replace(seen, copied=seen.copied + run, running=not ended)
        if not ended:
            return seen
        old = _FORGETTING
        return replace(
            seen, copied=seen.copied * old, ended=seen.ended * old + 1, tried=seen.tried * old, begun=seen.begun * old
        )

    @property
    def goes_on(self) -> float:
        """How likely a run goes on with its next token; certain as long as none has ended."""
        return (self.copied + 1) / (self.copied + self.ended + 1)

    @property
    def begins(self) -> float:
        """How likely the first token of the next draft is right."""
        return self.goes_on if self.running else (self.begun + 1) / (self.tried + 2)

    def expected(self, length: int) -> float:
        """Tokens that a step with a draft of this length writes: what is accepted of it, and the model's own."""
        p = self.goes_on
        return 1 + self.begins * (length if p == 1 else (1 - p**length) / (1 - p))


Rule = Callable[[Acceptance, int], int]
"""The length of the next draft, from what was seen and from what there is room for."""


def probes(costs: CostCurve, room: int) -> bool:
    """Whether a first draft that fills the room would make an answer too dear if it were wrong from the start."""
    return costs.of(room + 1) > (1 + _WASTE * room) * costs.of(1)


def draft_length(costs: CostCurve, seen: Acceptance, room: int, company: int = 1) -> int:
    """The length that writes most for its cost, of at most `room`; `company` sequences share a forward."""
    if not seen.ended:
        return min(room, PROBE) if not seen.copied and probes(costs, room) else room

    def pays(length: int) -> float:
        return seen.expected(length) / costs.of(company * (length + 1))

    return max(_lengths(room), key=lambda length: (pays(length), length))


def _lengths(room: int) -> Iterator[int]:
    length = 0
    while length < room:
        yield length
        length = length + 1 if length < _ONE_BY_ONE else int(length * _GROWTH)
    yield room
