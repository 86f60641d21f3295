"""A correction's tokens, its requests to the model (`Ask`) and their results (`Step`). No torch.

A correction is a generator: it yields an `Ask`, is sent a `Step`, and finally returns its result. So its code reads
sequentially, while the engine's loop decides when it continues and with which other corrections it shares a step.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from aligner_proxy.engine.scheduling.blocks import Owner
from aligner_proxy.types import SegmentEvidence


@dataclass(frozen=True, slots=True)
class Spans:
    """The token ranges of a prompt's objectives and of the answer's segments; no range is empty.

    A prompt of one objective and an answer of two sentences: `Spans((range(5, 12),), (range(30, 38), range(38, 51)))`.
    """

    objectives: tuple[range, ...]
    segments: tuple[range, ...]
    has_end: bool = False
    """True if the last of `segments` is the end of the answer and not a segment."""
    inner_words: tuple[tuple[range, ...], ...] = ()
    """For each segment in order, its words that are judged by themselves, too; may be shorter than `segments`."""
    question: range | None = None
    """The last tokens of the question; None if the prompt has none."""


# An `Ask` and a `Step` are made for each sequence in every step; frozen ones would take five times as long to make.
@dataclass(slots=True)
class Ask:
    """A request to append `ids` and `draft` to the sequence and choose the next tokens; without ids, to wait for text.

    The model chooses the token with the highest logit. But a favoured token (a token of the original answer) is chosen
    unless another token's logit is higher by more than `caution`.
    """

    ids: list[int]
    draft: list[int] = field(default_factory=list)
    favoured: list[int] = field(default_factory=list)
    """The favoured token at each choice: those of the draft, and the original token after the draft, if there is one.
    So the choice after the last draft token does not depend on where the draft ends."""
    caution: float = 0.0
    """In nats."""
    spans: Spans | None = None
    """The objectives and segments of a prompt to score; None if nothing is to be scored."""
    prompt: bool = False
    """Whether the tokens up to the end of `ids` are a prompt; prompts that begin alike may share its cached blocks."""
    shared: int = 0
    """Number of first tokens of a prompt whose blocks other tenants may share, too."""
    taught_heads: Any = None
    """The taught heads of the objectives; only the model reads them."""
    rows: bool = False
    """Whether the result also has the general head's rows of the segments."""


Score = tuple[float, int]
"""The log-odds that a segment violates the objective that it violates most, and this objective's index. A plain tuple,
because every step makes many."""


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """The detector head's row of a segment, and its scores."""

    numbers: bytes
    """16-bit floating point numbers, little-endian."""
    scores: tuple[float, ...]
    """The general head's score for each objective, in nats."""


@dataclass(slots=True)
class Step:
    """The result of an `Ask`: the detector's score of each segment, and the chosen tokens.

    The model chooses one token after the fed tokens, and one after each draft token: five tokens for a draft of four.
    """

    scores: list[Score]
    tokens: list[int]
    forwards: int
    """Forward passes that it took."""
    rows: list[SegmentRow] = field(default_factory=list)
    evidence: list[SegmentEvidence] = field(default_factory=list)
    """What each segment, but not the end, tells of the answer as a whole; empty unless a taught head has evidence."""


EMPTY_STEP = Step([], [], 0)
"""The result of an `Ask` that only waited for text."""

Work = Generator[Ask, Step, Any]
"""A correction, or any other work that uses the model, as a generator that returns its result."""


@dataclass(slots=True, eq=False)
class TokenSequence:
    """One correction's tokens `ids`; the first `computed` of them are in the KV cache, in `blocks`.

    `adapter` is the number of the adapter that reads them; 0 is the model as it was loaded. Blocks beyond the first
    `shared` tokens are shared with no other tenant.
    """

    adapter: int = 0
    tenant: str = ""
    shared: int = 0
    ids: list[int] = field(default_factory=list)
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    spent_s: float = 0.0
    """Engine time in seconds: of each forward pass, the part proportional to its tokens."""

    @property
    def owner(self) -> Owner:
        return Owner(self.adapter, self.tenant, self.shared)

    @property
    def remaining(self) -> int:
        """Number of tokens that the model has not read yet."""
        return len(self.ids) - self.computed

    def crop(self, length: int) -> None:
        """Drop all but the first `length` tokens; blocks without tokens are freed when it is next scheduled."""
        del self.ids[length:]
        self.computed = min(self.computed, length)
