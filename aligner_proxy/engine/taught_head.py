"""Taught head: what an aligner learned about one objective from examples, as a frozen value and its bytes. No torch.

For one objective it takes the place of the general head's score: prior * general + rows @ weight + bias, in nats, where
the rows are those that the detector head reads of a segment. A head with `hidden` units adds what those say, gelu(rows
@ inner + offsets) @ outer, and one with a `floor` counts no general score below that. A head with `either` does not
take that place but stands beside it: the higher of both scores counts, so that nothing is lost that the general head
finds. Its bytes are a line of JSON and the numbers behind it; one content has one form, so that the hash of the bytes
is the hash of the content. An aligner folder may hold several of them in one file, each behind its length.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aligner_proxy.errors import MalformedHead

FORMAT = 1
MAX_HEAD_BYTES = 1 << 18
"""Of one head. A row of the largest model that aligners are made of has 20,480 numbers of two bytes each."""
_WIDTH = 2
"""Bytes of a number."""
_LENGTH = struct.Struct("<I")
_FIELDS = frozenset({"taught_head", "objective", "aligner", "prior", "bias", "width"})
_EITHER = "either"
_FLOOR = "floor"
_HIDDEN = "hidden"
"""Fields that only heads with them have, so that the bytes of all others are what they always were."""


@dataclass(frozen=True, slots=True)
class TaughtHead:
    """The head of one objective. `aligner` is empty where it lies in the folder of its own aligner."""

    objective: str
    """The whole text, "Name: description"."""
    aligner: str
    """Content hash of the aligner whose rows it reads."""
    prior: float
    """The part of the general head's score that counts."""
    bias: float
    """Nats."""
    weight: bytes
    """16-bit floating point numbers, little-endian: nats by number of a row; behind them, of the hidden units, the
    weights [hidden, width], the offsets [hidden] and what each adds, in nats [hidden]."""
    either: bool = False
    """Whether the general head's score counts where it is the higher one."""
    hidden: int = 0
    """Hidden units."""
    floor: float | None = None
    """Nats, the least that the general head's score counts as: how far below it lies says no more."""

    @property
    def width(self) -> int:
        """Numbers in a row that it reads."""
        return (len(self.weight) // _WIDTH - 2 * self.hidden) // (1 + self.hidden)

    @property
    def content_hash(self) -> str:
        """sha256 of its bytes, hex; requests name it by this."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Its bytes, the same for the same content."""
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
        return json.dumps(header, sort_keys=True).encode("ascii") + b"\n" + self.weight

    @classmethod
    def from_bytes(cls, data: bytes) -> TaughtHead:
        """Read `to_bytes`. Raises `MalformedHead` that says what is wrong."""
        if len(data) > MAX_HEAD_BYTES:
            raise MalformedHead(f"a taught head of {len(data)} bytes; at most {MAX_HEAD_BYTES} are read")
        line, newline, weight = data.partition(b"\n")
        header = _header(line) if newline else None
        if header is None:
            raise MalformedHead("no taught head: its first line is not the header of one")
        if header["taught_head"] != FORMAT:
            raise MalformedHead(f"a taught head of a format that is not {FORMAT}; teach it again with this version")
        either = header.get(_EITHER, False)
        hidden = header.get(_HIDDEN, 0)
        floor = header.get(_FLOOR)
        head = cls(
            header["objective"], header["aligner"], header["prior"], header["bias"], weight, either, hidden, floor
        )
        # Without hidden units that is the width of a row.
        count = header["width"] * (1 + hidden) + 2 * hidden
        if len(weight) != count * _WIDTH or head.width < 1:
            raise MalformedHead(f"a taught head of {len(weight)} bytes of weight; its header says another width")
        numbers = struct.unpack(f"<{count}e", weight)
        if not all(map(math.isfinite, (head.prior, head.bias, floor or 0.0, *numbers))):
            raise MalformedHead("a taught head with a number that is not finite")
        if head.to_bytes() != data:
            raise MalformedHead("a taught head in another form than the one that is hashed")
        return head


def _header(line: bytes) -> dict[str, Any] | None:
    """The fields of a header, each of its type; None where they are others."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or header.keys() - {_EITHER, _FLOOR, _HIDDEN} != _FIELDS:
        return None
    texts = all(isinstance(header[name], str) for name in ("objective", "aligner"))
    numbers = all(isinstance(header[name], float) for name in ("prior", "bias"))
    counts = all(type(header[name]) is int for name in ("taught_head", "width"))
    either = header.get(_EITHER, True) is True
    hidden = header.get(_HIDDEN, 1)
    units = type(hidden) is int and hidden > 0
    floored = isinstance(header.get(_FLOOR, 0.0), float)
    return header if texts and numbers and counts and either and units and floored else None


def pack(heads: Iterable[TaughtHead]) -> bytes:
    """Several heads as one file, each behind its length."""
    pieces = [head.to_bytes() for head in heads]
    return b"".join(_LENGTH.pack(len(piece)) + piece for piece in pieces)


def unpack(data: bytes) -> tuple[TaughtHead, ...]:
    """Read `pack`. Raises `MalformedHead`, also where two heads are of one objective."""
    heads: list[TaughtHead] = []
    at = 0
    while at < len(data):
        body = at + _LENGTH.size
        if body > len(data):
            raise MalformedHead(f"the file of taught heads is cut off after {len(heads)} heads")
        (length,) = _LENGTH.unpack_from(data, at)
        at = body + length
        if at > len(data):
            raise MalformedHead(f"the file of taught heads is cut off after {len(heads)} heads")
        heads.append(TaughtHead.from_bytes(data[body:at]))
    if len({head.objective for head in heads}) != len(heads):
        raise MalformedHead("the file of taught heads has two of one objective")
    return tuple(heads)
