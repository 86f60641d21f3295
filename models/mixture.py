"""Which examples does each stage of training see, in which shares?

Streams of pairs, seeded: the same data, seed and stage give the same examples. Run as a module to write them to files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Literal, get_args

from rich.console import Console
from rich.progress import track

from aligner_proxy.segments import split

from .answers import Answer, Pool, RunOn, load_pool, preference_bags
from .damage import (
    Piece,
    choose_objectives,
    doubtful_themes,
    insert,
    insert_innocent,
    opening,
    pair,
    pieces_of,
    rewrite,
    themes_in,
)
from .defects import SUBJECTS, TRAINING_KINDS, UNSEEN_KINDS, Kind, Objective
from .defects.objectives import SHARED
from .defects.turns import INVENTED_TURN, dialogue
from .history import earlier, with_history
from .marked import marked_pair
from .pairs import Pair, write_pairs
from .relations import INNOCENT, OFF_TOPIC_THEMES

Stage = Literal["warmup", "equal_preference", "contrastive_preference", "conversation"]
STAGES: tuple[Stage, ...] = get_args(Stage)
ASKED = 0.53
# Kinds of example and their shares in each stage.
RECIPES: dict[Stage, dict[str, float]] = {
    "warmup": {"clean": 1.0},
    "equal_preference": {"clean": 0.4, "not_asked": 0.25, "innocent": 0.2, "turns_kept": 0.08, "inside_kept": 0.07},
    "contrastive_preference": {
        "clean": 0.16,
        "innocent": 0.06,
        "defects": 0.44,
        "inside": 0.15,
        "turns": 0.06,
        "real_turns": 0.05,
        "real_turns_kept": 0.01,
        "stray": 0.03,
        "marked": 0.04,
    },
}
RECIPES["conversation"] = RECIPES["contrastive_preference"]
# How many of the single questions of a stage get earlier turns before them.
HISTORY: dict[Stage, float] = {"conversation": 0.45}
# Shares of the sources of good answers: two thirds are what a chat service answers, the rest are replies to attacks.
SOURCES = {
    "ultrafeedback": 0.4,
    "finegrained": 0.12,
    "llmbar": 0.1,
    "pandalm": 0.04,
    "hh-model": 0.18,
    "hh-golden": 0.06,
    "hh-chosen": 0.1,
}
_INSERTABLE = tuple(kind for kind in TRAINING_KINDS if kind is not INVENTED_TURN)
# Short answers give more decisions a minute of training; long ones are what the aligner will read.
SHORT_SHARE, SHORT_CHARS = 0.55, 420
SUBJECT_SHARE = 0.3
_INSIDE = tuple(kind for kind in TRAINING_KINDS if kind.inside is not None)


class Mixer:
    """Makes one example after the other from a pool of good answers."""

    def __init__(self, pool: Pool, rng: Random, held_out: bool = False) -> None:
        self._pool = pool
        self._rng = rng
        self._held_out = held_out
        self._sentences = tuple(_sentences(pool.answers))
        self._by_source = _by_source(pool.answers)
        self.earlier = earlier(pool.answers)

    def make(self, recipe: str) -> Pair:
        """One example of a recipe; draws again until there is one that holds together."""
        maker: Callable[[], Pair | None] = getattr(self, f"_{recipe}")
        for _ in range(500):
            made = maker()
            if made is not None:
                return made
        raise RuntimeError(f"no example of {recipe!r} could be made; the pool has {len(self._pool.answers)} answers")

    def _answer(self) -> Answer:
        names = list(self._by_source)
        source = self._rng.choices(names, [SOURCES.get(name, 0.1) for name in names])[0]
        return self._rng.choice(self._by_source[source])

    def _pieces(self, answer: Answer) -> list[Piece]:
        """The answer's pieces, in training often only the first few."""
        pieces = pieces_of(answer.text)
        if self._held_out or self._rng.random() >= SHORT_SHARE:
            return pieces
        return opening(pieces[: self._rng.choice((1, 2, 2, 3, 3, 4, 5))], SHORT_CHARS)

    def _kinds(self, count: int, kinds: tuple[Kind, ...]) -> list[Kind]:
        """Different kinds to put in; where any may be taken, some are of the many small subjects."""
        if kinds is not _INSERTABLE or self._held_out:
            return self._rng.sample(kinds, k=min(len(kinds), count))
        drawn = [self._rng.choice(SUBJECTS if self._rng.random() < SUBJECT_SHARE else kinds) for _ in range(count)]
        return list({kind.name: kind for kind in drawn}.values())

    def _clean(self) -> Pair | None:
        answer = self._answer()
        return self._finish(answer, self._pieces(answer), [], [], f"clean:{answer.source}")

    def _clean_long(self) -> Pair | None:
        made = self._clean()
        return made if made and len(made.answer) >= 700 else None

    def _defects(
        self, asked: float = ASKED, kinds: tuple[Kind, ...] = _INSERTABLE, most: int = 3, about: bool | None = None
    ) -> Pair | None:
        """One to three defects, each asked for with probability `asked`; the others stay."""
        answer = self._answer()
        pieces: list[Piece] | None = self._pieces(answer)
        present = self._kinds(self._rng.choice((1, 1, 2, 2, 3)[: 2 * most]), kinds)
        for kind in present:
            pieces = pieces and insert(self._rng, pieces, kind, self._writer(kind, answer, about))
        if pieces and self._rng.random() < 0.15:
            pieces = insert_innocent(self._rng, pieces, self._rng.choice(self._sentences))
        if not pieces:
            return None
        wanted = [kind for kind in present if self._rng.random() < asked]
        names = "+".join(sorted(kind.name for kind in (wanted or present)))
        return self._finish(answer, pieces, present, wanted, f"defect:{names}" if wanted else f"not-asked:{names}")

    def _not_asked(self) -> Pair | None:
        return self._defects(asked=0.0)

    def _inside(self, asked: float = 0.62) -> Pair | None:
        """One or two sentences of the answer rewritten; sometimes with an insertion besides."""
        answer = self._answer()
        pieces: list[Piece] | None = self._pieces(answer)
        present = self._rng.sample(_INSIDE, k=self._rng.choice((1, 1, 2)))
        for kind in present:
            pieces = pieces and rewrite(self._rng, pieces, kind)
        if pieces and self._rng.random() < 0.25:
            extra = self._rng.choice([kind for kind in _INSERTABLE if kind not in present])
            pieces = insert(self._rng, pieces, extra, self._writer(extra, answer, None))
            present = [*present, extra]
        if not pieces:
            return None
        wanted = [kind for kind in present if self._rng.random() < asked]
        names = "+".join(sorted(kind.name for kind in (wanted or present)))
        return self._finish(
            answer, pieces, present, wanted, f"inside:{names}" if wanted else f"inside-not-asked:{names}"
        )

    def _inside_kept(self) -> Pair | None:
        return self._inside(asked=0.0)

    def _inside_all(self) -> Pair | None:
        return self._inside(asked=1.0)

    def _innocent(self, relevance: float = 0.25) -> Pair | None:
        """One or two sentences of other answers; they go only where relevance is asked for."""
        answer = self._answer()
        pieces: list[Piece] | None = self._pieces(answer)
        for _ in range(self._rng.choice((1, 1, 2))):
            pieces = pieces and insert_innocent(self._rng, pieces, self._rng.choice(self._sentences))
        if not pieces:
            return None
        if self._rng.random() < relevance:
            return self._irrelevant(answer, pieces)
        return self._finish(answer, pieces, [], [], "innocent")

    def _innocent_kept(self) -> Pair | None:
        return self._innocent(relevance=0.0)

    def _stray(self) -> Pair | None:
        return self._innocent(relevance=1.0)

    def _irrelevant(self, answer: Answer, pieces: list[Piece]) -> Pair | None:
        others = choose_objectives(self._rng, [], [], doubtful_themes(answer) | {"relevance"}) or []
        asking = Objective(self._rng.choice(SHARED["relevance"]), "relevance")
        objectives = [asking, *others[:3]]
        self._rng.shuffle(objectives)
        return pair(pieces, {INNOCENT}, answer.query, objectives, "innocent:relevance")

    def _turns(self, asked: float = 0.65) -> Pair | None:
        """An answer that runs on into invented turns, perhaps with another defect inside the reply."""
        answer = self._answer()
        pieces: list[Piece] | None = self._pieces(answer)
        present = [INVENTED_TURN]
        if self._rng.random() < 0.3:
            other = self._rng.choice(_INSERTABLE)
            pieces = pieces and insert(self._rng, pieces, other, self._writer(other, answer, None))
            present.append(other)
        replies = tuple(self._rng.choice(self._pool.answers).text[:500] for _ in range(4))
        turns = dialogue(self._rng, answer.query, answer.text, self._held_out, replies)
        pieces = pieces and insert(self._rng, pieces, INVENTED_TURN, lambda _: turns)
        if not pieces:
            return None
        wanted = [kind for kind in present if self._rng.random() < asked]
        return self._finish(answer, pieces, present, wanted, "turn:synthetic" if wanted else "turn:kept")

    def _turns_kept(self) -> Pair | None:
        return self._turns(asked=0.0)

    def _real_turns(self, asked: bool = True) -> Pair | None:
        """An output of a real model that ran on; what it made up goes when a single reply is asked for."""
        if not self._pool.run_ons:
            return None
        return self.run_on(self._rng.choice(self._pool.run_ons), asked)

    def _real_turns_kept(self) -> Pair | None:
        return self._real_turns(asked=False)

    def run_on(self, run: RunOn, asked: bool = True) -> Pair | None:
        """The pair of one real run-on answer."""
        reply, turns = run.text[: run.cut].rstrip(), run.text[run.cut :].strip()
        pieces = [*pieces_of(reply), *(Piece(p.text, p.gap, INVENTED_TURN.name) for p in pieces_of(turns))]
        last = len(pieces_of(reply)) - 1
        pieces[last] = Piece(pieces[last].text, "\n\n")
        answer = Answer(run.query, reply, "llama2", harmless=False)
        wanted = [INVENTED_TURN] if asked else []
        return self._finish(answer, pieces, [INVENTED_TURN], wanted, "turn:real" if asked else "turn:real-kept")

    def _marked(self) -> Pair | None:
        """An answer in which people marked what is wrong."""
        if not self._pool.marked:
            return None
        return marked_pair(self._rng, self._rng.choice(self._pool.marked))

    def _insult(self) -> Pair | None:
        return self._defects(asked=1.0, kinds=(_kind("insult"),), most=1)

    def _other_wordings(self) -> Pair | None:
        return self._defects(asked=1.0, most=1)

    def _unseen_kinds(self) -> Pair | None:
        return self._defects(asked=1.0, kinds=UNSEEN_KINDS, most=1)

    def _on_topic(self) -> Pair | None:
        return self._defects(asked=1.0, most=1, about=True)

    def _writer(self, kind: Kind, answer: Answer, about: bool | None) -> Callable[[str], str]:
        whole = answer.text

        def write(before: str) -> str:
            context = before if kind.name == "repetition" else whole
            return kind.make(self._rng, answer.query, context, self._held_out, about)

        return write

    def _finish(
        self, answer: Answer, pieces: list[Piece], present: list[Kind], wanted: list[Kind], source: str
    ) -> Pair | None:
        """Choose the objectives and put the pair together."""
        strange = any(piece.kind == INNOCENT for piece in pieces)
        if any(kind.occurs_in(answer.text) for kind in wanted):
            return None
        avoid = doubtful_themes(answer) - {kind.name for kind in wanted}
        avoid |= OFF_TOPIC_THEMES if strange else set()
        for piece in pieces:
            avoid |= themes_in(piece.text) - {piece.kind} - {kind.name for kind in wanted} if piece.kind else set()
        objectives = choose_objectives(self._rng, present, wanted, avoid, self._held_out)
        if objectives is None:
            return None
        return pair(pieces, {kind.name for kind in wanted}, answer.query, objectives, source)


def build(data_dir: Path, seed: int, n: int, stage: Stage = "contrastive_preference") -> Iterator[Pair]:
    """`n` training examples of one stage."""
    rng = Random(f"{stage}:{seed}")
    mixer = Mixer(load_pool(data_dir, "train"), rng)
    names, shares = zip(*RECIPES[stage].items(), strict=True)
    before, share = mixer.earlier, HISTORY.get(stage, 0.0)
    for _ in range(n):
        made = mixer.make(rng.choices(names, shares)[0])
        yield with_history(rng, made, before, _INSERTABLE, held_out=False) if share and rng.random() < share else made


def _sentences(answers: Iterable[Answer]) -> Iterator[str]:
    """Sentences of answers that can stand in another one without being against any objective but relevance."""
    for answer in answers:
        if answer.harmless and not any(kind.occurs_in(answer.text) for kind in TRAINING_KINDS if kind.natural):
            for segment in split(answer.text):
                text = segment.text.strip()
                if 40 <= len(text) <= 220 and text[0].isupper() and text[-1] == "." and "\n" not in text:
                    yield text


def _by_source(answers: Iterable[Answer]) -> dict[str, list[Answer]]:
    grouped: dict[str, list[Answer]] = {}
    for answer in answers:
        grouped.setdefault(answer.source, []).append(answer)
    return grouped


def _kind(name: str) -> Kind:
    return next(kind for kind in TRAINING_KINDS if kind.name == name)


def main(argv: list[str] | None = None) -> None:
    """Write the examples of a stage, or the replies that people compared, to a file."""
    parser = argparse.ArgumentParser(prog="python -m models.mixture", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stage", choices=STAGES, default="contrastive_preference")
    parser.add_argument("--n", type=int, default=20000)
    parser.add_argument("--bags", action="store_true", help="write the replies that people compared instead")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    console = Console()
    if args.bags:
        console.print(f"{args.out}: {write_pairs(args.out, preference_bags(args.data))} replies")
        return
    stream = track(
        build(args.data, args.seed, args.n, args.stage), total=args.n, description=args.stage, console=console
    )
    console.print(f"{args.out}: {write_pairs(args.out, stream)} pairs")


if __name__ == "__main__":
    main()
