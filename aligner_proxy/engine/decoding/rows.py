"""Rows of segments: the numbers that the detector head reads of each segment, on which taught heads are trained.

Each answer is read as if it were to be corrected, in the same prompts and parts, so that a head fitted to these rows
gets equal rows when it judges. The answers are read one after the other, so that the common beginning of their prompts
is read only once.
"""

from __future__ import annotations

from base64 import b64encode

from aligner_proxy.engine.api import AlignRequest, ExchangeRows, ExchangeText, RowsRequest, RowsResponse
from aligner_proxy.engine.decoding.aligner import Aligner, build_frame, scores_segments
from aligner_proxy.engine.decoding.piece_scorer import PieceScorer
from aligner_proxy.engine.scheduling.sequence import TokenSequence, Work
from aligner_proxy.errors import AnswerTooLong, HeadsUnavailable
from aligner_proxy.text import structure

MAX_ROWS_BYTES = 16 << 20
"""Most bytes of rows in one response. As base64 text they are a third longer, and both sides limit the body size."""


def read_answer_rows(aligner: Aligner, request: RowsRequest, sequence: TokenSequence) -> Work:
    """Return a `RowsResponse`: the rows of all segments, and the scores by the aligner's own head.

    Raises `HeadsUnavailable`, and `AnswerTooLong` if the rows exceed `MAX_ROWS_BYTES`.
    """
    detector = aligner.runner.heads[aligner.adapter].detector
    if detector is None:
        raise HeadsUnavailable(f"{aligner.info.model} has no detector head, so that no objective can be taught to it")
    exchanges: list[ExchangeRows] = []
    remaining_bytes = MAX_ROWS_BYTES
    for exchange in request.exchanges:
        answer_rows = yield from _read_answer(aligner, _align_request(request, exchange), sequence)
        # the rows are base64 text, which is a third longer than the bytes that it encodes
        remaining_bytes -= len(answer_rows.rows) * 3 // 4
        if remaining_bytes < 0:
            raise AnswerTooLong(
                f"rows of more than {MAX_ROWS_BYTES >> 20} MiB; ask for fewer or shorter answers at once"
            )
        exchanges.append(answer_rows)
    space = detector.teaching_space.to_bytes() if request.with_space else b""
    return RowsResponse(
        aligner=aligner.info.content_hash,
        width=detector.row_width,
        exchanges=tuple(exchanges),
        space=b64encode(space).decode("ascii"),
    )


def _align_request(request: RowsRequest, exchange: ExchangeText) -> AlignRequest:
    """Build the scoring request for one exchange, so that it is read as it would be for a correction."""
    return AlignRequest(
        request_id=request.request_id,
        aligner=request.aligner,
        tenant=request.tenant,
        turns=exchange.turns,
        answer=exchange.answer,
        objectives=request.objectives,
        # no objective counts as the client's own, so all prompts may share their beginning
        common=len(request.objectives),
        score_only=True,
    )


def _read_answer(aligner: Aligner, request: AlignRequest, sequence: TokenSequence) -> Work:
    """Return the `ExchangeRows` of one answer. Raises `HeadsUnavailable`."""
    frame = build_frame(aligner, request)
    if not scores_segments(aligner, frame):
        raise HeadsUnavailable(f"prompts of template {frame.template.name!r} name no objectives to teach")
    division = frame.divide(structure.split(request.answer) if request.answer.strip() else ())
    scorer = PieceScorer(aligner, frame, division, request, sequence)
    segment_rows = (yield from scorer.read_rows()) if division.pieces else []
    all_numbers = b"".join(row.numbers for row in segment_rows)
    return ExchangeRows(
        segments=tuple((piece.start, piece.end) for piece in division.pieces),
        rows=b64encode(all_numbers).decode("ascii"),
        scores=tuple(row.scores for row in segment_rows),
    )
