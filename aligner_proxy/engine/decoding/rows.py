"""Rows of segments, on which objectives are taught: what the detector head reads of answers, without editing them.

Each answer is read like one that is to be corrected, in the same prompts and parts, so a head that was fitted to these
rows meets the same ones when it judges. One answer is read after the other: what their prompts have in common is read
once.
"""

from __future__ import annotations

from base64 import b64encode

from aligner_proxy.engine.api import AlignRequest, ExchangeRows, ExchangeText, RowsRequest, RowsResponse
from aligner_proxy.engine.decoding.correct import Aligner, AnswerEditor, build_frame, scores_segments
from aligner_proxy.engine.scheduling.sequence import Sequence, Work
from aligner_proxy.errors import AnswerTooLong, HeadsUnavailable
from aligner_proxy.text import structure

MAX_ROWS_BYTES = 16 << 20
"""Of all rows of a request: they travel as text, a third longer, and both sides have a bound."""


def rows(aligner: Aligner, request: RowsRequest, sequence: Sequence) -> Work:
    """Rows and general scores of all segments of the answers. Raises `HeadsUnavailable` and `AnswerTooLong`."""
    width = aligner.runner.row_width(aligner.adapter)
    if not width:
        raise HeadsUnavailable(f"{aligner.info.model} has no detector head, so that no objective can be taught to it")
    answers: list[ExchangeRows] = []
    remaining_bytes = MAX_ROWS_BYTES
    for exchange in request.exchanges:
        rows_of_answer = yield from _read(aligner, _align_request(request, exchange), sequence)
        remaining_bytes -= len(rows_of_answer.rows) * 3 // 4
        if remaining_bytes < 0:
            raise AnswerTooLong(
                f"rows of more than {MAX_ROWS_BYTES >> 20} MiB; ask for fewer or shorter answers at once"
            )
        answers.append(rows_of_answer)
    return RowsResponse(aligner=aligner.info.content_hash, width=width, exchanges=tuple(answers))


def _align_request(request: RowsRequest, exchange: ExchangeText) -> AlignRequest:
    """The request whose scores these rows decide."""
    return AlignRequest(
        request_id=request.request_id,
        aligner=request.aligner,
        tenant=request.tenant,
        turns=exchange.turns,
        answer=exchange.answer,
        objectives=request.objectives,
        common=len(request.objectives),
        score_only=True,
    )


def _read(aligner: Aligner, request: AlignRequest, sequence: Sequence) -> Work:
    """Rows of one answer."""
    framed = build_frame(aligner, request)
    if not scores_segments(aligner, framed):
        raise HeadsUnavailable(f"prompts of template {framed.family.name!r} name no objectives to teach")
    division = framed.division(structure.split(request.answer) if request.answer.strip() else ())
    segments = (yield from AnswerEditor(aligner, framed, division, request, sequence).rows()) if division.pieces else []
    return ExchangeRows(
        segments=tuple((piece.start, piece.end) for piece in division.pieces),
        rows=b64encode(b"".join(row.numbers for row in segments)).decode("ascii"),
        scores=tuple(row.scores for row in segments),
    )
