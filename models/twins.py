"""The same damaged answer under different objectives: what goes in one twin stays in the other.

Only the objectives tell twins apart, so nothing but reading them separates their labels. Answers are short, which gives
more decisions a minute of training. Run as a module to write the data of the last stage.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random

from rich.progress import track

from .answers import Answer, load_pool
from .damage import Piece, insert, insert_innocent, pieces_of, rewrite
from .defects import Kind
from .defects.turns import INVENTED_TURN, dialogue
from .mixture import _INSERTABLE, _INSIDE, Mixer
from .pairs import Pair, write_pairs

LONGEST = 420
# Kinds that an application meets most are drawn as often as all others together.
FREQUENT = ("insult", "sign-off", "advert", "self-disclaimer", "padding", "repetition", "invented-turn")


class TwinMixer(Mixer):
    """Makes twins from the same pool, kinds and wordings as the mixture."""

    def twins(self) -> list[Pair]:
        """Two or three pairs of one answer with two defects: the first asked for, the second, and now and then none."""
        for _ in range(500):
            made = self._twins()
            if made:
                return made
        raise RuntimeError("no twins could be made; the pool has too few short answers")

    def _twins(self) -> list[Pair] | None:
        answer = self._answer()
        pieces = self._short(answer)
        first, second = self._kinds()
        damaged = pieces and self._damage(self._damage(pieces, first, answer), second, answer)
        if not damaged:
            return None
        if self._rng.random() < 0.15:
            damaged = insert_innocent(self._rng, damaged, self._rng.choice(self._sentences))
        wanted: list[list[Kind]] = [[first], [second]]
        if self._rng.random() < 0.3:
            wanted.append([])
        made = [damaged and self._finish(answer, damaged, [first, second], w, self._source(w)) for w in wanted]
        return [pair for pair in made if pair] if all(made) else None

    def _source(self, wanted: list[Kind]) -> str:
        return "twin:" + ("+".join(kind.name for kind in wanted) or "none")

    def _kinds(self) -> tuple[Kind, Kind]:
        everything = (*_INSERTABLE, INVENTED_TURN)
        frequent = [kind for kind in everything if kind.name in FREQUENT]
        first = self._rng.choice(frequent if self._rng.random() < 0.5 else everything)
        second = self._rng.choice([kind for kind in everything if kind is not first])
        return (second, first) if first is INVENTED_TURN else (first, second)

    def _short(self, answer: Answer) -> list[Piece]:
        """The first one to five pieces of an answer, without what would make it long."""
        pieces, length = [], 0
        for piece in pieces_of(answer.text)[: self._rng.choice((1, 2, 2, 3, 3, 4, 5))]:
            length += len(piece.text)
            if length > LONGEST:
                break
            pieces.append(piece)
        return pieces

    def _damage(self, pieces: list[Piece] | None, kind: Kind, answer: Answer) -> list[Piece] | None:
        if not pieces:
            return None
        if kind is INVENTED_TURN:
            replies = tuple(self._rng.choice(self._pool.answers).text[:120] for _ in range(4))
            turns = dialogue(self._rng, answer.query, answer.text, self._held_out, replies)
            return insert(self._rng, pieces, kind, lambda _: turns) if len(turns) < LONGEST else None
        if kind in _INSIDE and self._rng.random() < 0.2:
            return rewrite(self._rng, pieces, kind)
        return insert(self._rng, pieces, kind, self._writer(kind, answer, None))


def build(data_dir: Path, seed: int, n: int) -> Iterator[Pair]:
    """`n` or a few more training examples: mostly twins, and a fifth good answers under any objectives."""
    mixer = TwinMixer(load_pool(data_dir, test=False), Random(f"twins:{seed}"))
    rng, made = Random(f"twins:{seed}:shares"), 0
    while made < n:
        batch = [mixer.make("clean")] if rng.random() < 0.35 else mixer.twins()
        made += len(batch)
        yield from batch


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m models.twins", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n", type=int, default=6000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    stream = build(arguments.data, arguments.seed, arguments.n)
    write_pairs(arguments.out, track(stream, total=arguments.n, description="twins"))


if __name__ == "__main__":
    main()
