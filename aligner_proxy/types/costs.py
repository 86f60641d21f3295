"""What the correction of an answer costs: tokens of the engine, and calls of editors and judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self


class _Cost:
    """Base class of costs whose sum is the sum of each field."""

    __slots__: tuple[str, ...] = ()

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class DecodeCounts(_Cost):
    """Token counts of speculative decoding: tokens proposed as a draft are checked in one pass through the model."""

    drafted: int = 0
    """Tokens proposed by drafts."""
    accepted: int = 0
    """Drafted tokens that the model would have written, too."""
    recovered: int = 0
    """Tokens that the model wrote in place of the first rejected one of a draft."""
    bonus: int = 0
    """Tokens that the model wrote after a draft that was accepted completely."""
    forwards: int = 0
    """Number of passes through the model."""


@dataclass(frozen=True, slots=True)
class EditorUse(_Cost):
    """Editor calls for one answer: their number, tokens, milliseconds and results."""

    calls: int = 0
    """Calls with a usable reply."""
    read: int = 0
    """Tokens of the prompts."""
    written: int = 0
    """Tokens of the replies."""
    ms: float = 0.0
    failed: int = 0
    """Calls without a usable reply; the aligner edited instead."""
    refused: int = 0
    """Replacements that were flagged again or refused by the gate, so the passages were removed."""


@dataclass(frozen=True, slots=True)
class JudgeUse(_Cost):
    """Use of a judge for one answer: the segments that it was asked about, its verdicts, and the cost of its calls."""

    segments: int = 0
    """Number of segments about which it was asked, or whose verdict was known from an equal question."""
    flagged: int = 0
    """Number of segments that the judge flagged and the detector head had not."""
    cleared: int = 0
    """Number of segments that the detector head had flagged and the judge cleared."""
    calls: EditorUse = field(default_factory=EditorUse)
