"""How is one example of each sort made? Good answers, defects that are asked for or not, what only looks like one.

Everything is drawn from one random state: the same pool and state give the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from aligner_proxy.segments import split

from .answers import FICTION, SCRIPT, Answer, Pool, RunOn
from .damage import (
    Piece,
    choose_objectives,
    doubtful_themes,
    insert,
    insert_alike,
    insert_innocent,
    opening,
    pair,
    pieces_of,
    rewrite,
    themes_in,
)
from .defects import SUBJECTS, TRAINING_KINDS, UNSEEN_KINDS, UNSEEN_WRITTEN, WRITTEN, Kind, Objective
from .defects.objectives import DEFAULT, SHARED, built_in
from .defects.turns import INVENTED_TURN, dialogue
from .dense import dense_pair
from .endings import ended, lacking
from .faults import natural_pair, written_for
from .history import earlier
from .marked import marked_pair
from .pairs import Pair, PairError
from .relations import INNOCENT
from .run_ons import reply_and_turns
from .scripts import script
from .wanted import wanted_there

ASKED = 0.53
# Weights of the sources of good answers: two thirds are what a chat service answers, the rest are replies to attacks.
SOURCES = {
    "ultrafeedback": 0.4,
    "finegrained": 0.12,
    "llmbar": 0.1,
    "pandalm": 0.04,
    "hh-model": 0.18,
    "hh-golden": 0.06,
    "hh-chosen": 0.1,
    FICTION: 0.08,
    SCRIPT: 0.05,
}
INSERTABLE = tuple(kind for kind in TRAINING_KINDS if kind is not INVENTED_TURN)
# Short answers give more decisions a minute of training; long ones are what the aligner will read.
SHORT_SHARE, SHORT_CHARS = 0.75, 420
# What an example is made into by one objective more, which asks for something to be there.
WISHES = {"lacking": lacking, "ended": ended, "wanted": wanted_there}
_NATURAL = written_for("train")
_INSIDE = tuple(kind for kind in TRAINING_KINDS if kind.inside is not None)


@dataclass(frozen=True, slots=True)
class Shares:
    """What is put in where anything may be: weights of the three groups of kinds, share of look-alikes beside them."""

    written: float = 0.6
    subjects: float = 0.1
    others: float = 0.3
    alike: float = 0.25


class Mixer:
    """Makes one example after the other from a pool of good answers."""

    def __init__(self, pool: Pool, rng: Random, held_out: bool = False, shares: Shares = Shares()) -> None:
        if not pool.answers:
            raise PairError("no usable answer is on this side of the split; give a folder with more data")
        self._pool = pool
        self._rng = rng
        self._held_out = held_out
        self._shares = shares
        self._sentences = tuple(_sentences(pool.answers))
        self._by_source = _by_source(pool.answers)
        self.earlier = earlier(pool.answers)

    def make(self, recipe: str) -> Pair:
        """One example of a recipe, perhaps "+" a wish; draws again until there is one that holds together."""
        base, _, wish = recipe.partition("+")
        maker: Callable[[], Pair | None] = getattr(self, f"_{base}")
        if wish:
            maker = partial(WISHES[wish], self._rng, maker, self._held_out)
        for _ in range(500):
            made = maker()
            if made is not None:
                return made
        raise RuntimeError(f"no example of {recipe!r} could be made; the pool has {len(self._pool.answers)} answers")

    def _answer(self) -> Answer:
        names = [*self._by_source, *([] if self._held_out else [SCRIPT])]
        source = self._rng.choices(names, [SOURCES.get(name, 0.1) for name in names])[0]
        return self._script() if source == SCRIPT else self._rng.choice(self._by_source[source])

    def _script(self) -> Answer:
        return script(self._rng, self._sentences, self._held_out)

    def _pieces(self, answer: Answer) -> list[Piece]:
        """The answer's pieces, in training often only the first few."""
        pieces = pieces_of(answer.text)
        if self._held_out or self._rng.random() >= SHORT_SHARE:
            return pieces
        return opening(pieces[: self._rng.choice((1, 2, 2, 3, 3, 4, 5))], SHORT_CHARS)

    def _kinds(self, count: int, kinds: tuple[Kind, ...]) -> list[Kind]:
        """Different kinds to put in; where any may be taken, most are of those that are written out."""
        if kinds is not INSERTABLE or self._held_out:
            return self._rng.sample(kinds, k=min(len(kinds), count))
        weights = (self._shares.written, self._shares.subjects, self._shares.others)
        groups = self._rng.choices((WRITTEN, SUBJECTS, kinds), weights, k=count)
        return list({kind.name: kind for kind in map(self._rng.choice, groups)}.values())

    def _clean(self) -> Pair | None:
        answer = self._answer()
        return self._finish(answer, self._pieces(answer), [], [], f"clean:{answer.source}")

    def _dialogue(self) -> Pair | None:
        """A dialogue that was asked for, under what most operators ask for."""
        answer = self._script()
        return pair(self._pieces(answer), set(), answer.query, [*map(built_in, DEFAULT)], f"clean:{SCRIPT}")

    def _clean_long(self) -> Pair | None:
        made = self._clean()
        return made if made and len(made.answer) >= 700 else None

    def _defects(
        self, asked: float = ASKED, kinds: tuple[Kind, ...] = INSERTABLE, most: int = 3, about: bool | None = None
    ) -> Pair | None:
        """One to three defects, each asked for with probability `asked`; the others stay."""
        answer = self._answer()
        pieces: list[Piece] | None = self._pieces(answer)
        present = self._kinds(self._rng.choice((1, 1, 2, 2, 3, 3)[: 2 * most]), kinds)
        for kind in present:
            pieces = pieces and insert(self._rng, pieces, kind, self._writer(kind, answer, about))
            if kind.alike and self._rng.random() < self._shares.alike:
                pieces = pieces and insert_alike(self._rng, pieces, kind, self._held_out)
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
            extra = self._rng.choice([kind for kind in INSERTABLE if kind not in present])
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

    def _alike(self, kinds: tuple[Kind, ...] = WRITTEN) -> Pair | None:
        """Sentences that look like what an objective asks to remove, and are fine under it."""
        answer, kind = self._answer(), self._rng.choice(kinds)
        if kind.occurs_in(answer.text):
            return None
        pieces = insert_alike(self._rng, self._pieces(answer), kind, self._held_out)
        if not pieces:
            return None
        asking = Objective(self._rng.choice(kind.held_out_texts if self._held_out else kind.texts), kind.name)
        names = [piece.kind for piece in pieces if piece.kind]
        others = choose_objectives(self._rng, names, [], doubtful_themes(answer) | {kind.name}) or []
        objectives = [asking, *others[: self._rng.choice((0, 1, 1, 2))]]
        self._rng.shuffle(objectives)
        return pair(pieces, set(), answer.query, objectives, f"alike:{kind.name}")

    def _natural(self) -> Pair | None:
        """An answer that was written with faults in its own voice, or without any."""
        return natural_pair(self._rng, self._rng.choice(_NATURAL))

    def _dense(self) -> Pair | None:
        """A few sentences of an answer among offences and look-alikes, each judged by several objectives."""
        return dense_pair(self._rng, self._answer(), self._sentences)

    def _any(self) -> Pair | None:
        draw = self._rng.random()
        return self._clean() if draw < 0.55 else self._defects(most=1) if draw < 0.85 else self._innocent_kept()

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
            other = self._rng.choice(INSERTABLE)
            pieces = pieces and insert(self._rng, pieces, other, self._writer(other, answer, None))
            present.append(other)
        replies = tuple(self._rng.choice(self._pool.answers).text[:500] for _ in range(4))
        questions = tuple(self._rng.choice(self.earlier).query for _ in range(3)) if self.earlier else ()
        turns = dialogue(self._rng, answer.query, answer.text, self._held_out, replies, questions)
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
        answer, pieces = reply_and_turns(run)
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

    def _written(self, kinds: tuple[Kind, ...] = WRITTEN, asked: float = 1.0) -> Pair | None:
        return self._defects(asked=asked, kinds=kinds, most=1)

    def _written_not_asked(self) -> Pair | None:
        return self._written(asked=0.0)

    def _written_unseen(self) -> Pair | None:
        return self._written(UNSEEN_WRITTEN)

    def _alike_unseen(self) -> Pair | None:
        return self._alike(UNSEEN_WRITTEN)

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
        if any(kind.occurs_in(answer.text) for kind in wanted):
            return None
        avoid = doubtful_themes(answer) - {kind.name for kind in wanted}
        for piece in pieces:
            avoid |= themes_in(piece.text) - {piece.kind} - {kind.name for kind in wanted} if piece.kind else set()
        names = list(dict.fromkeys([*(kind.name for kind in present), *(p.kind for p in pieces if p.kind)]))
        objectives = choose_objectives(self._rng, names, wanted, avoid, self._held_out)
        if objectives is None:
            return None
        return pair(pieces, {kind.name for kind in wanted}, answer.query, objectives, source)


def _sentences(answers: Iterable[Answer]) -> Iterator[str]:
    """Sentences of answers that can stand in another one without being against any objective but relevance."""
    for answer in answers:
        tame = answer.harmless and answer.source != FICTION
        if tame and not any(kind.occurs_in(answer.text) for kind in TRAINING_KINDS if kind.natural):
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
