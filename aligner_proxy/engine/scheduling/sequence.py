"""A correction's tokens, and what it requests of the model and gets for it. No torch.

A correction is a generator: it yields an `Ask`, gets a `Step` and returns its result. It reads like a straight line,
and the loop that drives it decides when it goes on, and in whose company.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from aligner_proxy.engine.scheduling.blocks import Owner


@dataclass(frozen=True, slots=True)
class Spans:
    """Which tokens of a prompt are which objective and which segment of the answer; no range is empty.

    With `behind` the last one is no segment, but the place behind all of them.
    """

    objectives: tuple[range, ...]
    segments: tuple[range, ...]
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Feed `ids` and `draft` behind what the sequence holds, and say what comes next; without ids: wait for text.

    `spans` are the objectives and segments of a prompt to score; such a prompt may be shared with others that begin
    alike. `caution` (nats) lets a favoured token stand unless another beats its logit by more; `favoured` begins like
    the draft and may have one token more, so that what is chosen does not depend on where a draft happens to end.
    Of a prompt the first `shared` tokens belong to no tenant. `taught_heads` are those of its objectives, which only
    the model looks into. With `rows` the scored segments are also wanted as the general head reads them.
    """

    ids: list[int]
    draft: list[int] = field(default_factory=list)
    favoured: list[int] = field(default_factory=list)
    caution: float = 0.0
    spans: Spans | None = None
    prompt: bool = False
    shared: int = 0
    taught_heads: Any = None
    rows: bool = False


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment as the detector head reads it: `numbers` in 16 bits, and the general scores by objective."""

    numbers: bytes
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """The detector's verdict on each segment, and what the model chose after the fed tokens and each draft token.

    A verdict is (log-odds, index of the objective that speaks most against the segment).
    """

    scores: list[tuple[float, int]]
    tokens: list[int]
    forwards: int
    rows: list[SegmentRow] = field(default_factory=list)


NOTHING = Step([], [], 0)
"""The answer to an ask that only waited."""

Work = Generator[Ask, Step, Any]
"""A correction, or whatever else wants to write with the model; it returns its result."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One correction's tokens; the first `computed` of them stand in the cache, in `blocks`.

    `adapter` is the number of the one they are read with; 0 is the model as it was loaded. Blocks beyond the first
    `shared` tokens are given to no other tenant.
    """

    adapter: int = 0
    tenant: str = ""
    shared: int = 0
    ids: list[int] = field(default_factory=list)
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    spent_s: float = 0.0
    """Engine time: of each forward the share of its tokens."""

    @property
    def owner(self) -> Owner:
        """Whose its blocks are."""
        return Owner(self.adapter, self.tenant, self.shared)

    @property
    def remaining(self) -> int:
        """Tokens that the model has still to read."""
        return len(self.ids) - self.computed

    def crop(self, length: int) -> None:
        """Forget everything after the first `length` tokens; the blocks go back at the next schedule."""
        del self.ids[length:]
        self.computed = min(self.computed, length)
