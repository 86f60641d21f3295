"""Taught head: what an aligner learned about one objective from examples, as a frozen value and its bytes. No torch.

For its objective it replaces the general head's score by prior * general + rows @ weight + bias, in nats. The rows are
the numbers that the detector head reads for a segment. A head with `hidden` units adds their output, gelu(rows @ inner
+ offsets) @ outer. A head with a `floor` raises lower general scores to that value. A head with `either` does not
replace the general score: the higher of both counts, so that nothing is lost that the general head finds. A head with
an `adjustment` has its score lowered by a second such net, but never by more than a bound. A head with `evidence` says
by a further net what each segment tells of the answer as a whole, and one with a `question` says by another what the
question asks for; these change no score.

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
"""Largest size of an uploaded head. Rows of the largest model used for aligners have 20,480 numbers of two bytes."""
MAX_SHIPPED_HEAD_BYTES = 1 << 21
"""Largest size of a head in an aligner's folder, which is the operator's own file."""
_NUMBER_BYTES = 2
"""Bytes per number."""
_LENGTH_FORM = struct.Struct("<I")
"""Length of a head in a file of several: 32 bits, little-endian."""
_EITHER = "either"
_FLOOR = "floor"
_HIDDEN = "hidden"
_ADJUSTMENT = "adjustment"
_ADJUSTMENT_NUMBERS = ("bound", "bias", "threshold")
_EVIDENCE = "evidence"
_QUESTION = "question"
_FIELDS = {"taught_head": int, "objective": str, "aligner": str, "prior": float, "bias": float, "width": int}
"""The fields of the header and their types, as in the following three."""
_OPTIONAL_FIELDS = {
    _EITHER: bool,
    _FLOOR: float,
    _HIDDEN: int,
    _ADJUSTMENT: dict,
    _EVIDENCE: dict,
    _QUESTION: dict,
}
"""Optional fields, left out if unused, so that the bytes (and hashes) of older heads stay the same."""
_ADJUSTMENT_FIELDS = {**dict.fromkeys(_ADJUSTMENT_NUMBERS, float), _HIDDEN: int}
_EVIDENCE_FIELDS = {"bias": float, _HIDDEN: int}


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A second net over the same rows that lowers a score by what bound * tanh(output / bound) is below a threshold.

    It is learned after the head, and clears what the head flags barely and the net takes for fine. It lowers no score
    by more than bound + threshold, so what the head is sure of is not forgotten, and it flags nothing.
    """

    bound: float
    """The largest amount of what the net says of a segment, in nats."""
    bias: float
    """Constant of its output, in nats."""
    threshold: float
    """What the net has to say of a segment that keeps its score, in nats."""
    hidden: int = 0
    """Number of its hidden units."""


@dataclass(frozen=True, slots=True)
class AnswerEvidence:
    """A net over the same rows: what a segment says of the answer as a whole, in nats.

    The mean over an answer's segments is the answer's score; above 0 it probably goes against the objective as a whole.
    It is learned from whole answers, most of whose segments are fine by themselves, so it flags no segment.
    """

    bias: float
    """Constant of its output, in nats."""
    hidden: int = 0
    """Number of its hidden units."""


@dataclass(frozen=True, slots=True)
class QuestionEvidence:
    """A net over the row of the question: how much this asks for what goes against the objective, in nats.

    Above 0 it probably does. An answer to it is asked about sooner (`AnswerScore.doubt`); it flags and declines none,
    because a good model refuses what it should not answer.
    """

    bias: float
    """Constant of its output, in nats."""
    hidden: int = 0
    """Number of its hidden units."""


@dataclass(frozen=True, slots=True)
class TaughtHead:
    """The taught head of one objective. `aligner` is empty for a head that comes in its aligner's folder."""

    objective: str
    """The objective's full text, "Name: description"."""
    aligner: str
    """Content hash of the aligner whose rows it reads."""
    prior: float
    """Factor of the general head's score."""
    bias: float
    """Constant added to the score, in nats."""
    weight: bytes
    """16-bit floating point numbers, little-endian: the weights of a row's numbers [width], in nats. Those of hidden
    units follow, if there are any: weights [hidden, width], offsets [hidden], and output weights in nats [hidden].
    Those of an adjustment follow in the same order, then those of the evidence, then those of the question."""
    either: bool = False
    """Whether the general head's score counts if it is the higher one."""
    hidden: int = 0
    """Number of hidden units."""
    floor: float | None = None
    """Lowest general score that counts, in nats; lower ones are raised to it, because they carry no information."""
    adjustment: Adjustment | None = None
    """What lowers the scores of fine segments near the line, if anything."""
    evidence: AnswerEvidence | None = None
    """What tells from the segments whether the answer as a whole goes against the objective, if anything."""
    question: QuestionEvidence | None = None
    """What tells whether the question asks for that, if anything; only a head with evidence has it."""

    @property
    def width(self) -> int:
        """Numbers per row that the head reads."""
        # solved from `count_numbers`
        counts = self.hidden_counts
        return (len(self.weight) // _NUMBER_BYTES - 2 * sum(counts)) // sum(1 + hidden for hidden in counts)

    @property
    def hidden_counts(self) -> tuple[int, ...]:
        """The hidden units of each net, in the order of their numbers: its own, then those of `further_nets`."""
        return (self.hidden, *(net.hidden for net in self.further_nets))

    @property
    def further_nets(self) -> tuple[Adjustment | AnswerEvidence | QuestionEvidence, ...]:
        """The nets besides its own, in the order of their numbers."""
        return tuple(net for net in (self.adjustment, self.evidence, self.question) if net is not None)

    @property
    def content_hash(self) -> str:
        """sha256 of the head's bytes in hex, by which requests name it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def without_adjustment(self) -> TaughtHead:
        """The head as it was before the adjustment was learned; what tells of answers as a whole stays."""
        if self.adjustment is None:
            return self
        start = _NUMBER_BYTES * count_numbers(self.width, self.hidden)
        stop = start + _NUMBER_BYTES * count_numbers(self.width, self.adjustment.hidden)
        return replace(self, weight=self.weight[:start] + self.weight[stop:], adjustment=None)

    def without_evidence(self) -> TaughtHead:
        """The head without what tells of answers as a whole, and of questions."""
        if self.evidence is None:
            return self
        plain = self.without_question()
        stop = len(plain.weight) - _NUMBER_BYTES * count_numbers(self.width, self.evidence.hidden)
        return replace(plain, weight=plain.weight[:stop], evidence=None)

    def without_question(self) -> TaughtHead:
        """The head without what tells of questions."""
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
            header[_EITHER] = True
        if self.hidden:
            header[_HIDDEN] = self.hidden
        if self.floor is not None:
            header[_FLOOR] = float(self.floor)
        if self.adjustment is not None:
            header[_ADJUSTMENT] = {name: float(getattr(self.adjustment, name)) for name in _ADJUSTMENT_NUMBERS}
            header[_ADJUSTMENT][_HIDDEN] = self.adjustment.hidden
        for name, net in ((_EVIDENCE, self.evidence), (_QUESTION, self.question)):
            if net is not None:
                header[name] = {"bias": float(net.bias), _HIDDEN: net.hidden}
        return json.dumps(header, sort_keys=True).encode("ascii") + b"\n" + self.weight

    @classmethod
    def from_bytes(cls, data: bytes, limit: int = MAX_HEAD_BYTES) -> TaughtHead:
        """Parse the output of `to_bytes`, of at most `limit` bytes. Raises `MalformedHead` that says what is wrong."""
        if len(data) > limit:
            raise MalformedHead(f"a taught head of {len(data)} bytes; at most {limit} are read")
        line, newline, weight = data.partition(b"\n")
        header = _parse_header(line) if newline else None
        if header is None:
            raise MalformedHead("no taught head: its first line is not the header of one")
        if header["taught_head"] != FORMAT:
            raise MalformedHead(f"a taught head of a format that is not {FORMAT}; teach it again with this version")
        either = header.get(_EITHER, False)
        hidden = header.get(_HIDDEN, 0)
        floor = header.get(_FLOOR)
        adjustment = Adjustment(**header[_ADJUSTMENT]) if _ADJUSTMENT in header else None
        evidence = AnswerEvidence(**header[_EVIDENCE]) if _EVIDENCE in header else None
        question = QuestionEvidence(**header[_QUESTION]) if _QUESTION in header else None
        fields = (header["objective"], header["aligner"], header["prior"], header["bias"])
        head = cls(*fields, weight, either, hidden, floor, adjustment, evidence, question)
        count = sum(count_numbers(header["width"], each) for each in head.hidden_counts)
        if len(weight) != count * _NUMBER_BYTES or head.width < 1:
            raise MalformedHead(f"a taught head of {len(weight)} bytes of weight; its header says another width")
        numbers = struct.unpack(f"<{count}e", weight)
        scalars = [head.prior, head.bias, floor or 0.0, *(net.bias for net in head.further_nets)]
        scalars += [adjustment.bound, adjustment.threshold] if adjustment else []
        if not all(map(math.isfinite, (*scalars, *numbers))):
            raise MalformedHead("a taught head with a number that is not finite")
        # there is one form only, so that equal heads have equal hashes
        if head.to_bytes() != data:
            raise MalformedHead("a taught head in another form than the one that is hashed")
        return head


def count_numbers(width: int, hidden: int) -> int:
    """The numbers of one net: the weights of a row's numbers, and those of the hidden units."""
    return width * (1 + hidden) + 2 * hidden


def _parse_header(line: bytes) -> dict[str, Any] | None:
    """Parse a header line; None if a field is missing, unknown, of the wrong type or out of its range."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not _has_fields(header, _FIELDS, _OPTIONAL_FIELDS):
        return None
    adjustment = header.get(_ADJUSTMENT)
    adjustment_fits = adjustment is None or (_has_fields(adjustment, _ADJUSTMENT_FIELDS) and adjustment["bound"] > 0)
    telling_nets = [header[name] for name in (_EVIDENCE, _QUESTION) if name in header]
    # what a question asks for adds to what is said of the answer
    is_about_answers = _QUESTION not in header or _EVIDENCE in header
    evidence_fits = is_about_answers and all(_has_fields(net, _EVIDENCE_FIELDS) for net in telling_nets)
    # optional fields are left out if false or 0, so these values may not stand there
    optional_fit = header.get(_EITHER, True) and header.get(_HIDDEN, 1) > 0
    return header if adjustment_fits and evidence_fits and optional_fit else None


def _has_fields(value: Any, types: Mapping[str, type], optional: Mapping[str, type] | None = None) -> bool:
    """Whether JSON is an object with these fields, and perhaps optional ones, of these types and no count below 0."""
    field_types = {**types, **(optional or {})}
    if not isinstance(value, dict) or not types.keys() <= value.keys() <= field_types.keys():
        return False
    # `isinstance` would let true and false through as whole numbers
    return all(type(field) is field_types[name] for name, field in value.items()) and value.get(_HIDDEN, 0) >= 0


def pack(heads: Iterable[TaughtHead]) -> bytes:
    """Serialise several heads into the file of an aligner's folder, each preceded by its length."""
    pieces = [head.to_bytes() for head in heads]
    return b"".join(_LENGTH_FORM.pack(len(piece)) + piece for piece in pieces)


def unpack(data: bytes) -> tuple[TaughtHead, ...]:
    """Parse the output of `pack`. Raises `MalformedHead`, also if two heads have the same objective."""
    heads: list[TaughtHead] = []
    position = 0
    while position < len(data):
        body = position + _LENGTH_FORM.size
        if body > len(data):
            raise MalformedHead(f"the file of taught heads is cut off after {len(heads)} heads")
        (length,) = _LENGTH_FORM.unpack_from(data, position)
        position = body + length
        if position > len(data):
            raise MalformedHead(f"the file of taught heads is cut off after {len(heads)} heads")
        heads.append(TaughtHead.from_bytes(data[body:position], MAX_SHIPPED_HEAD_BYTES))
    if len({head.objective for head in heads}) != len(heads):
        raise MalformedHead("the file of taught heads has two of one objective")
    return tuple(heads)
