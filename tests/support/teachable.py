"""An engine that can be taught, without a model: a row is made of a segment's words, so that learning really works."""

from __future__ import annotations

import base64
import hashlib
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import uvicorn

from aligner_proxy import connections
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.api import AlignRequest, ExchangeRows, RowsRequest, RowsResponse
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import HeadRefused, UnknownHead
from aligner_proxy.text.structure import Segment, join, split
from aligner_proxy.types import Correction, SegmentScore
from tests.support.scripted import SCRIPTED, ScriptedEngine

WIDTH = 96
GENERAL = -2.0
"""What its general head says of every segment."""
_BEFORE = 0.15
"""So much of a row is that of the segment before."""


class TeachableEngine(ScriptedEngine):
    """Reads rows, keeps heads, and removes what a head flags; `asked` counts the answers it was asked to read.

    `space` are the bytes of the teaching space of its aligner.
    """

    def __init__(self, content_hash: str = SCRIPTED.content_hash, space: bytes = b"") -> None:
        super().__init__(about=replace(SCRIPTED, content_hash=content_hash))
        del self.rows  # the script of hidden states; here it is the method
        self.heads: dict[str, TaughtHead] = {}
        self.asked = 0
        self.space = space

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Rows of every segment."""
        self.asked += len(request.exchanges)
        exchanges = tuple(_read(one.answer, request.objectives) for one in request.exchanges)
        space = base64.b64encode(self.space).decode() if request.with_space else ""
        return RowsResponse(aligner=self.about.content_hash, width=WIDTH, exchanges=exchanges, space=space)

    async def put_head(self, data: bytes) -> str:
        """Keep a head of this aligner."""
        head = TaughtHead.from_bytes(data)
        if head.aligner != self.about.content_hash:
            raise HeadRefused("a head of another aligner")
        self.heads[head.content_hash] = head
        return head.content_hash

    async def align(self, request: AlignRequest) -> Correction:
        """Remove the segments that a head flags."""
        unknown = [name for name in request.heads if name and name not in self.heads]
        if unknown:
            raise UnknownHead(f"no head {unknown[0][:8]}")
        segments = split(request.answer)
        verdicts = tuple(
            self._verdict(segment, row, request) for segment, row in zip(segments, _rows(segments), strict=True)
        )
        kept = [(segment.text, segment.gap) for segment, one in zip(segments, verdicts, strict=True) if not one.flagged]
        text = request.answer if len(kept) == len(segments) else join(kept)
        return Correction(text, verdicts, aligner=self.about.content_hash)

    def _verdict(self, segment: Segment, row: Sequence[float], request: AlignRequest) -> SegmentScore:
        scores = [GENERAL] * len(request.objectives)
        for n, name in enumerate(request.heads):
            if name:
                head = self.heads[name]
                weight = struct.unpack(f"<{head.width}e", head.weight)
                product = sum(a * b for a, b in zip(row, weight, strict=True))
                scores[n] = head.prior * GENERAL + product + head.bias
        worst = max(range(len(scores)), key=scores.__getitem__)
        return SegmentScore(segment.text, scores[worst], scores[worst] > request.caution, worst)


def _read(answer: str, objectives: Sequence[str]) -> ExchangeRows:
    segments = split(answer)
    numbers = [number for row in _rows(segments) for number in row]
    data = struct.pack(f"<{len(numbers)}e", *numbers)
    return ExchangeRows(
        segments=tuple((segment.start, segment.end) for segment in segments),
        rows=base64.b64encode(data).decode(),
        scores=tuple((GENERAL,) * len(objectives) for _ in segments),
    )


def _rows(segments: Sequence[Segment]) -> list[list[float]]:
    own = [_of_words(segment.text) for segment in segments]
    before = [[0.0] * WIDTH, *own][: len(own)]
    return [[a + _BEFORE * b for a, b in zip(row, last, strict=True)] for row, last in zip(own, before, strict=True)]


def _of_words(text: str) -> list[float]:
    words = [word.strip(".,!?:;\"'()").casefold() for word in text.split()]
    vectors = [_of_word(word) for word in words if word]
    return (
        [sum(column) / max(1.0, len(vectors) ** 0.5) for column in zip(*vectors, strict=True)]
        if vectors
        else [0.0] * WIDTH
    )


@cache
def _of_word(word: str) -> tuple[float, ...]:
    bits = b"".join(hashlib.sha256(f"{n}{word}".encode()).digest() for n in range(WIDTH // 32))
    return tuple((byte - 127.5) / 74.0 for byte in bits)


if __name__ == "__main__":
    app = create_app(Admission(TeachableEngine()))
    uvicorn.run(app, uds=sys.argv[1], log_level="error", **connections.uvicorn_settings(ConnectionLimits()))
