"""Real answers that run on: their reply, and their invented turns."""

from __future__ import annotations

from collections.abc import Sequence

from models.defects.objectives import built_in_objective
from models.defects.turns import INVENTED_TURN

from .answers import PoolAnswer, RunOnAnswer
from .inject import Piece, make_pair, pieces_of
from .pairs import Pair


def split_run_on(run: RunOnAnswer) -> tuple[PoolAnswer, list[Piece]]:
    """The reply alone, and the pieces of the whole answer, in which the invented turns are marked as a defect."""
    reply = run.text[: run.cut].rstrip()
    turns = run.text[run.cut :].strip()
    own_pieces = pieces_of(reply)
    own_pieces[-1] = Piece(own_pieces[-1].text, "\n\n")
    invented = [Piece(piece.text, piece.gap, INVENTED_TURN.name) for piece in pieces_of(turns)]
    return PoolAnswer(run.query, reply, "llama2", harmless=False), [*own_pieces, *invented]


def make_run_on_pair(run: RunOnAnswer, names: Sequence[str]) -> Pair | None:
    """The pair whose target is without the invented turns, under the built-in objectives of these names."""
    _, pieces = split_run_on(run)
    return make_pair(pieces, {INVENTED_TURN.name}, run.query, [built_in_objective(name) for name in names], "turn:real")
