"""Taught head: what an aligner learned about one objective from examples, as a frozen value and its bytes. No torch.

For its objective it replaces the score of the general detector head by prior * general + row @ weight + bias, in nats.
A row is the numbers that the detector head reads for a segment. A head with `hidden` units adds their output,
gelu(row @ inner + offsets) @ outer. With `either`, the general score is not replaced: the higher of both scores counts,
so that what the general head finds is not lost. Up to three further nets read such rows: an `adjustment` lowers
scores, but never by more than a bound; `evidence` and `question` tell of the answer and the question as a whole.

The bytes are a line of JSON followed by the numbers. Equal content always gives equal bytes, so the hash of the bytes
identifies the content. An aligner folder may hold several heads in one file, each preceded by its length.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aligner_proxy.errors import MalformedHead

FORMAT = 1
"""Version of the bytes, in the header's field `taught_head`."""
MAX_HEAD_BYTES = 1 << 18
"""Largest size of an uploaded head. Rows of the largest aligner in use have 20,480 numbers of two bytes."""
MAX_SHIPPED_HEAD_BYTES = 1 << 21
"""Largest size of a head in an aligner's folder, which is the operator's own file."""
_NUMBER_BYTES = 2
"""Bytes of a number in the weights, a 16-bit float."""
_HEAD_LENGTH = struct.Struct("<I")
"""Length of a head in a file of several: 32 bits, little-endian."""
_ADJUSTMENT_NUMBERS = ("bound", "bias", "threshold")
_FIELDS = {"taught_head": int, "objective": str, "aligner": str, "prior": float, "bias": float, "width": int}
"""The required fields of the header and their types."""
_OPTIONAL_FIELDS = {
    "either": bool,
    "floor": float,
    "hidden": int,
    "adjustment": dict,
    "evidence": dict,
    "question": dict,
}
"""Optional fields, left out if unused, so that the bytes (and hashes) of older heads stay the same."""
_ADJUSTMENT_FIELDS = {**dict.fromkeys(_ADJUSTMENT_NUMBERS, float), "hidden": int}
"""The fields of the header's object `adjustment`, and their types."""
_EVIDENCE_FIELDS = {"bias": float, "hidden": int}
"""The fields of the header's objects `evidence` and `question`, and their types."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A second net over the same rows, whose verdict lowers scores near the threshold.

    Its verdict on a segment is bound * tanh(output / bound). A score is lowered by what the verdict is below
    `threshold`. The net is learned after the head, and clears segments that the head barely flags and the net takes for
    fine. It lowers no score by more than bound + threshold, so it clears nothing of which the head is sure.
    """

    bound: float
    """The largest absolute value of a verdict, in nats."""
    bias: float
    """Constant of its output, in nats."""
    threshold: float
    """The lowest verdict with which a segment keeps its score, in nats."""
    hidden: int = 0
    """Number of its hidden units."""


@dataclass(frozen=True, slots=True)
class FurtherNet:
    """A net over a row of the answer or of the question. Its output, in nats, changes no score."""

    bias: float
    """Constant of its output, in nats."""
    hidden: int = 0
    """Number of its hidden units."""


@dataclass(frozen=True, slots=True)
class TaughtHead:
    """What an aligner learned about one objective: a net over a segment's row, and up to three further nets."""

    objective: str
    """The objective's full text, "Name: description"."""
    aligner: str
    """Content hash of the aligner whose rows it reads; empty for a head that comes in its aligner's folder."""
    prior: float
    """Factor of the general head's score."""
    bias: float
    """Constant added to the score, in nats."""
    weight: bytes
    """16-bit floating point numbers, little-endian: a weight for each number of a row [width], in nats. The numbers of
    the hidden units follow, if any: weights [hidden, width], offsets [hidden], and output weights in nats [hidden].
    Those of the adjustment's net follow in the same order, then those of the evidence, then those of the question."""
    either: bool = False
    """Whether the general head's score counts if it is the higher one."""
    hidden: int = 0
    """Number of hidden units."""
    floor: float | None = None
    """Lowest general score that counts, in nats; lower ones are raised to it, because they carry no information."""
    adjustment: Adjustment | None = None
    evidence: FurtherNet | None = None
    """What a segment tells of the answer as a whole. The mean over all segments is the answer's score: above 0, the
    answer probably goes against the objective. It is learned from whole answers, most of whose segments are fine."""
    question: FurtherNet | None = None
    """How much the question asks for what goes against the objective; only heads with evidence have it. Above 0, a
    judge is asked about the answer sooner (`AnswerScore.doubt`). It flags no answer, because a good model refuses what
    it should not answer."""

    @property
    def width(self) -> int:
        """Number of numbers in a row that the head reads."""
        number_count = len(self.weight) // _NUMBER_BYTES
        # `count_numbers(width, hidden)` of all nets add up to this count, so the width is the solution of an equation
        hidden_counts = self.hidden_counts
        return (number_count - 2 * sum(hidden_counts)) // sum(1 + hidden for hidden in hidden_counts)

    @property
    def hidden_counts(self) -> tuple[int, ...]:
        """The number of hidden units of each net: of the head's own net, then of `further_nets`, as in `weight`."""
        return (self.hidden, *(net.hidden for net in self.further_nets))

    @property
    def further_nets(self) -> tuple[Adjustment | FurtherNet, ...]:
        """The nets besides the head's own, in the order of their numbers in `weight`."""
        return tuple(net for net in (self.adjustment, self.evidence, self.question) if net is not None)

    @property
    def content_hash(self) -> str:
        """sha256 of the head's bytes in hex, by which requests name it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def without_adjustment(self) -> TaughtHead:
        """The head as it was before the adjustment was learned; evidence and question stay."""
        if self.adjustment is None:
            return self
        # `weight` has the numbers of the head's own net first, and then those of the adjustment's net
        start = _NUMBER_BYTES * count_numbers(self.width, self.hidden)
        stop = start + _NUMBER_BYTES * count_numbers(self.width, self.adjustment.hidden)
        return replace(self, weight=self.weight[:start] + self.weight[stop:], adjustment=None)

    def without_evidence(self) -> TaughtHead:
        """The head without its last two nets, which judge answers as a whole and questions."""
        if self.evidence is None:
            return self
        head = self.without_question()
        stop = len(head.weight) - _NUMBER_BYTES * count_numbers(self.width, self.evidence.hidden)
        return replace(head, weight=head.weight[:stop], evidence=None)

    def without_question(self) -> TaughtHead:
        """The head without its last net, which judges questions."""
        if self.question is None:
            return self
        stop = len(self.weight) - _NUMBER_BYTES * count_numbers(self.width, self.question.hidden)
        return replace(self, weight=self.weight[:stop], question=None)

    def to_bytes(self) -> bytes:
        """Serialise the head; equal content gives equal bytes."""
        header: dict[str, Any] = {
            "taught_head": FORMAT,
            "objective": self.objective,
            "aligner": self.aligner,
            "prior": float(self.prior),
            "bias": float(self.bias),
            "width": self.width,
        }
        if self.either:
            header["either"] = True
        if self.hidden:
            header["hidden"] = self.hidden
        if self.floor is not None:
            header["floor"] = float(self.floor)
        if self.adjustment is not None:
            numbers = {name: float(getattr(self.adjustment, name)) for name in _ADJUSTMENT_NUMBERS}
            header["adjustment"] = {**numbers, "hidden": self.adjustment.hidden}
        for name, net in (("evidence", self.evidence), ("question", self.question)):
            if net is not None:
                header[name] = {"bias": float(net.bias), "hidden": net.hidden}
        return json.dumps(header, sort_keys=True).encode("ascii") + b"\n" + self.weight

    @classmethod
    def from_bytes(cls, data: bytes, limit: int = MAX_HEAD_BYTES) -> TaughtHead:
        """Parse the output of `to_bytes`, of at most `limit` bytes. Raises `MalformedHead`, which names the fault."""
        if len(data) > limit:
            raise MalformedHead(f"a taught head of {len(data)} bytes; at most {limit} are read")
        line, newline, weight = data.partition(b"\n")
        header = _parse_header(line) if newline else None
        if header is None:
            raise MalformedHead("no taught head: its first line is not the header of one")
        if header["taught_head"] != FORMAT:
            raise MalformedHead(f"a taught head of a format that is not {FORMAT}; teach it again with this version")
        either = header.get("either", False)
        hidden = header.get("hidden", 0)
        floor = header.get("floor")
        adjustment = Adjustment(**header["adjustment"]) if "adjustment" in header else None
        evidence = FurtherNet(**header["evidence"]) if "evidence" in header else None
        question = FurtherNet(**header["question"]) if "question" in header else None
        required_fields = (header["objective"], header["aligner"], header["prior"], header["bias"])
        head = cls(*required_fields, weight, either, hidden, floor, adjustment, evidence, question)
        count = sum(count_numbers(header["width"], hidden_count) for hidden_count in head.hidden_counts)
        if len(weight) != count * _NUMBER_BYTES or head.width < 1:
            raise MalformedHead(f"a taught head of {len(weight)} bytes of weight; its header says another width")
        numbers = struct.unpack(f"<{count}e", weight)
        scalars = [head.prior, head.bias, floor or 0.0, *(net.bias for net in head.further_nets)]
        scalars += [adjustment.bound, adjustment.threshold] if adjustment else []
        if not all(map(math.isfinite, (*scalars, *numbers))):
            raise MalformedHead("a taught head with a number that is not finite")
        # other bytes with the same content are refused, so that equal heads have equal hashes
        if head.to_bytes() != data:
            raise MalformedHead("a taught head in another form than the one that is hashed")
        return head


def count_numbers(width: int, hidden: int) -> int:
    """How many numbers one net has in `TaughtHead.weight`: the weights of a row, and those of the hidden units."""
    return width * (1 + hidden) + 2 * hidden


def _parse_header(line: bytes) -> dict[str, Any] | None:
    """Parse a header line; None if a field is missing, unknown, of the wrong type or out of its range."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not _has_fields(header, _FIELDS, _OPTIONAL_FIELDS):
        return None
    adjustment = header.get("adjustment")
    adjustment_fits = adjustment is None or (_has_fields(adjustment, _ADJUSTMENT_FIELDS) and adjustment["bound"] > 0)
    evidence_nets = [header[name] for name in ("evidence", "question") if name in header]
    # the output for the question is added to that for the answer, so a head with `question` needs `evidence`
    is_complete = "question" not in header or "evidence" in header
    evidence_fits = is_complete and all(_has_fields(net, _EVIDENCE_FIELDS) for net in evidence_nets)
    # optional fields are left out if they are false or 0, so a header must not contain these values
    optional_fields_fit = header.get("either", True) and header.get("hidden", 1) > 0
    return header if adjustment_fits and evidence_fits and optional_fields_fit else None


def _has_fields(value: Any, types: Mapping[str, type], optional: Mapping[str, type] | None = None) -> bool:
    """Whether parsed JSON is an object with exactly these fields, of the given types; `hidden` must not be negative.

    The fields of `types` are required, those of `optional` may be missing.
    """
    field_types = {**types, **(optional or {})}
    if not isinstance(value, dict) or not types.keys() <= value.keys() <= field_types.keys():
        return False
    # `isinstance` would let true and false through as whole numbers
    return all(type(field) is field_types[name] for name, field in value.items()) and value.get("hidden", 0) >= 0


def pack(heads: Iterable[TaughtHead]) -> bytes:
    """Serialise several heads into the file of an aligner's folder, each preceded by its length."""
    serialised_heads = [head.to_bytes() for head in heads]
    return b"".join(_HEAD_LENGTH.pack(len(head)) + head for head in serialised_heads)


def unpack(data: bytes) -> tuple[TaughtHead, ...]:
    """Parse the output of `pack`. Raises `MalformedHead`, also if two heads have the same objective."""
    heads: list[TaughtHead] = []
    stop = 0
    while stop < len(data):
        start = stop + _HEAD_LENGTH.size
        if start > len(data):
            raise MalformedHead(f"the file of taught heads is cut off after {len(heads)} heads")
        (length,) = _HEAD_LENGTH.unpack_from(data, stop)
        stop = start + length
        if stop > len(data):
            raise MalformedHead(f"the file of taught heads is cut off after {len(heads)} heads")
        heads.append(TaughtHead.from_bytes(data[start:stop], MAX_SHIPPED_HEAD_BYTES))
    if len({head.objective for head in heads}) != len(heads):
        raise MalformedHead("the file of taught heads has two of one objective")
    return tuple(heads)
