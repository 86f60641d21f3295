"""Mixture of examples of each stage of training: how each sort is made, and its share.

A recipe is the name of a sort of example: "clean" is a good answer that stays, "defects" one with inserted defects of
which some have to go, "defects+wanted" the same with one objective more, which asks for something (`WISHES`). The same
data, seed and stage give the same examples. Run as a module to write them to files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal, get_args

from rich.console import Console
from rich.progress import track

from aligner_proxy.text.structure import split
from models.defects import SUBJECTS, TRAINING_KINDS, UNSEEN_KINDS, UNSEEN_WRITTEN, WRITTEN, DefectKind, ObjectiveWording
from models.defects.objectives import DEFAULT, SHARED, built_in_objective
from models.defects.turns import INVENTED_TURN, write_dialogue

from .answers import FICTION, SCRIPT, AnswerPool, PoolAnswer, RunOnAnswer, load_pool, preference_bags
from .dense import make_dense_pair
from .dialogues import write_script
from .history import add_history, select_earlier_answers
from .human_spans import make_marked_pair
from .inject import (
    Piece,
    choose_objectives,
    doubtful_themes,
    insert_alike,
    insert_defect,
    insert_innocent,
    make_pair,
    pieces_of,
    rewrite_sentence,
    take_opening,
    themes_in,
)
from .labels import INNOCENT
from .natural import answers_of_side, make_natural_pair
from .pairs import Pair, PairError, write_pairs
from .preference_sets import PreferenceError
from .required import make_missing_ending, make_present_ending, make_present_wish
from .run_ons import split_run_on

ASKED = 0.53
"""Probability that an objective asks for the removal of an inserted defect."""
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
_TRIES = 500
"""How often one example is tried."""
INSERTABLE = tuple(kind for kind in TRAINING_KINDS if kind is not INVENTED_TURN)
SHORT_SHARE = 0.75
"""Share of answers that are cut short in training: short ones teach more a minute, the aligner will read long ones."""
SHORT_CHARS = 420
"""Most characters of such an answer."""
# By its name in recipes, how an example gets one objective more, which asks for something to be there.
WISHES = {"lacking": make_missing_ending, "ended": make_present_ending, "wanted": make_present_wish}
_NATURAL = answers_of_side("train")
_INSIDE = tuple(kind for kind in TRAINING_KINDS if kind.inside is not None)


@dataclass(frozen=True, slots=True)
class InsertionShares:
    """Shares of inserted defects: weights of the groups (written kinds, subjects, kinds with a grammar).

    `alike` is how often a sentence that only looks like the defect is inserted as well.
    """

    concepts: float = 0.6
    subjects: float = 0.1
    others: float = 0.3
    alike: float = 0.25


class Mixer:
    """Makes examples from a pool of good answers; each method `_make_NAME` makes one of the recipe NAME, or None.

    With `held_out`, all wordings are those that training never sees.
    """

    def __init__(
        self, pool: AnswerPool, rng: Random, held_out: bool = False, shares: InsertionShares = InsertionShares()
    ) -> None:
        if not pool.answers:
            raise PairError("no usable answer is on this side of the split; give a folder with more data")
        self._pool = pool
        self._rng = rng
        self._held_out = held_out
        self._shares = shares
        self._sentences = _select_sentences(pool.answers)
        self._answers_by_source = _group_by_source(pool.answers)
        self.earlier_answers = select_earlier_answers(pool.answers)

    def make_pair(self, recipe: str) -> Pair:
        """One example of a recipe, such as "clean" or "any+lacking"; tries again as long as none can be made."""
        base, _, wish = recipe.partition("+")
        maker: Callable[[], Pair | None] = getattr(self, f"_make_{base}")
        if wish:
            maker = partial(WISHES[wish], self._rng, maker, self._held_out)
        for _ in range(_TRIES):
            example = maker()
            if example is not None:
                return example
        raise RuntimeError(f"no example of {recipe!r} could be made; the pool has {len(self._pool.answers)} answers")

    def _draw_answer(self) -> PoolAnswer:
        names = [*self._answers_by_source, *([] if self._held_out else [SCRIPT])]
        source = self._rng.choices(names, [SOURCES.get(name, 0.1) for name in names])[0]
        return self._write_script() if source == SCRIPT else self._rng.choice(self._answers_by_source[source])

    def _write_script(self) -> PoolAnswer:
        return write_script(self._rng, self._sentences, held_out=self._held_out)

    def _cut_pieces(self, answer: PoolAnswer) -> list[Piece]:
        """The pieces of an answer, in training mostly only the first few."""
        pieces = pieces_of(answer.text)
        if self._held_out or self._rng.random() >= SHORT_SHARE:
            return pieces
        return take_opening(pieces[: self._rng.choice((1, 2, 2, 3, 3, 4, 5))], SHORT_CHARS)

    def _draw_kinds(self, count: int, kinds: tuple[DefectKind, ...]) -> list[DefectKind]:
        """At most `count` different kinds; in training, `INSERTABLE` stands for all groups, by their weights."""
        if kinds is not INSERTABLE or self._held_out:
            return self._rng.sample(kinds, k=min(len(kinds), count))
        weights = (self._shares.concepts, self._shares.subjects, self._shares.others)
        groups = self._rng.choices((WRITTEN, SUBJECTS, kinds), weights, k=count)
        return list({kind.name: kind for kind in map(self._rng.choice, groups)}.values())

    def _make_clean(self) -> Pair | None:
        answer = self._draw_answer()
        return self._finish_pair(answer, self._cut_pieces(answer), [], [], f"clean:{answer.source}")

    def _make_dialogue(self) -> Pair | None:
        """A dialogue that the user asked for, under the objectives that most operators have."""
        answer = self._write_script()
        return make_pair(
            self._cut_pieces(answer), set(), answer.query, [*map(built_in_objective, DEFAULT)], f"clean:{SCRIPT}"
        )

    def _make_clean_long(self) -> Pair | None:
        clean = self._make_clean()
        return clean if clean and len(clean.answer) >= 700 else None

    def _make_defects(
        self,
        asked_share: float = ASKED,
        kinds: tuple[DefectKind, ...] = INSERTABLE,
        most: int = 3,
        about: bool | None = None,
    ) -> Pair | None:
        """An answer with one to `most` defects of `kinds`.

        With probability `asked_share` an objective asks for the removal of a defect. `about` True takes wordings that
        name the topic of the answer, None any.
        """
        answer = self._draw_answer()
        pieces: list[Piece] | None = self._cut_pieces(answer)
        present = self._draw_kinds(self._rng.choice((1, 1, 2, 2, 3, 3)[: 2 * most]), kinds)
        for kind in present:
            pieces = pieces and insert_defect(self._rng, pieces, kind, self._choose_writer(kind, answer, about))
            if kind.alike and self._rng.random() < self._shares.alike:
                pieces = pieces and insert_alike(self._rng, pieces, kind, self._held_out)
        if pieces and self._rng.random() < 0.15:
            pieces = insert_innocent(self._rng, pieces, self._rng.choice(self._sentences))
        if not pieces:
            return None
        removed = [kind for kind in present if self._rng.random() < asked_share]
        names = "+".join(sorted(kind.name for kind in (removed or present)))
        return self._finish_pair(
            answer, pieces, present, removed, f"defect:{names}" if removed else f"not-asked:{names}"
        )

    def _make_not_asked(self) -> Pair | None:
        return self._make_defects(asked_share=0.0)

    def _make_inside(self, asked_share: float = 0.62) -> Pair | None:
        """An answer with a defect worked into one or two of its sentences, sometimes with an inserted one as well."""
        answer = self._draw_answer()
        pieces: list[Piece] | None = self._cut_pieces(answer)
        present = self._rng.sample(_INSIDE, k=self._rng.choice((1, 1, 2)))
        for kind in present:
            pieces = pieces and rewrite_sentence(self._rng, pieces, kind)
        if pieces and self._rng.random() < 0.25:
            extra = self._rng.choice([kind for kind in INSERTABLE if kind not in present])
            pieces = insert_defect(self._rng, pieces, extra, self._choose_writer(extra, answer, None))
            present = [*present, extra]
        if not pieces:
            return None
        removed = [kind for kind in present if self._rng.random() < asked_share]
        names = "+".join(sorted(kind.name for kind in (removed or present)))
        return self._finish_pair(
            answer, pieces, present, removed, f"inside:{names}" if removed else f"inside-not-asked:{names}"
        )

    def _make_inside_kept(self) -> Pair | None:
        return self._make_inside(asked_share=0.0)

    def _make_inside_all(self) -> Pair | None:
        return self._make_inside(asked_share=1.0)

    def _make_innocent(self, relevance_share: float = 0.25) -> Pair | None:
        """An answer with one or two sentences of other answers in it.

        They have to go only if an objective asks for relevance, which `relevance_share` of the pairs have.
        """
        answer = self._draw_answer()
        pieces: list[Piece] | None = self._cut_pieces(answer)
        for _ in range(self._rng.choice((1, 1, 2))):
            # None if an earlier sentence could not be inserted
            pieces = pieces and insert_innocent(self._rng, pieces, self._rng.choice(self._sentences))
        if not pieces:
            return None
        if self._rng.random() < relevance_share:
            return self._make_irrelevant(answer, pieces)
        return self._finish_pair(answer, pieces, [], [], "innocent")

    def _make_innocent_kept(self) -> Pair | None:
        return self._make_innocent(relevance_share=0.0)

    def _make_stray(self) -> Pair | None:
        return self._make_innocent(relevance_share=1.0)

    def _make_alike(self, kinds: tuple[DefectKind, ...] = WRITTEN) -> Pair | None:
        """An answer with a sentence that looks like what an objective asks to remove, but is fine under it."""
        answer = self._draw_answer()
        kind = self._rng.choice(kinds)
        if kind.occurs_in(answer.text):
            return None
        pieces = insert_alike(self._rng, self._cut_pieces(answer), kind, self._held_out)
        if not pieces:
            return None
        asking = ObjectiveWording(self._rng.choice(kind.held_out_texts if self._held_out else kind.texts), kind.name)
        names = [piece.kind for piece in pieces if piece.kind]
        others = choose_objectives(self._rng, names, [], doubtful_themes(answer) | {kind.name}) or []
        objectives = [asking, *others[: self._rng.choice((0, 1, 1, 2))]]
        self._rng.shuffle(objectives)
        return make_pair(pieces, set(), answer.query, objectives, f"alike:{kind.name}")

    def _make_natural(self) -> Pair | None:
        """An answer that was written with faults in its own voice, or without any."""
        return make_natural_pair(self._rng, self._rng.choice(_NATURAL))

    def _make_dense(self) -> Pair | None:
        """A few sentences of an answer among offences and look-alikes, each judged by several objectives."""
        return make_dense_pair(self._rng, self._draw_answer(), self._sentences)

    def _make_any(self) -> Pair | None:
        """A clean answer, one with a defect, or one with sentences of others."""
        draw = self._rng.random()
        if draw < 0.55:
            return self._make_clean()
        if draw < 0.85:
            return self._make_defects(most=1)
        return self._make_innocent_kept()

    def _make_irrelevant(self, answer: PoolAnswer, pieces: list[Piece]) -> Pair | None:
        """The pair of these pieces under an objective for relevance, so that sentences of other answers have to go."""
        others = choose_objectives(self._rng, [], [], doubtful_themes(answer) | {"relevance"}) or []
        asking = ObjectiveWording(self._rng.choice(SHARED["relevance"]), "relevance")
        objectives = [asking, *others[:3]]
        self._rng.shuffle(objectives)
        return make_pair(pieces, {INNOCENT}, answer.query, objectives, "innocent:relevance")

    def _make_turns(self, asked_share: float = 0.65) -> Pair | None:
        """An answer that runs on into invented turns, perhaps with another defect inside the reply."""
        answer = self._draw_answer()
        pieces: list[Piece] | None = self._cut_pieces(answer)
        present = [INVENTED_TURN]
        if self._rng.random() < 0.3:
            other_kind = self._rng.choice(INSERTABLE)
            pieces = pieces and insert_defect(
                self._rng, pieces, other_kind, self._choose_writer(other_kind, answer, None)
            )
            present.append(other_kind)
        replies = tuple(self._rng.choice(self._pool.answers).text[:500] for _ in range(4))
        questions = (
            tuple(self._rng.choice(self.earlier_answers).query for _ in range(3)) if self.earlier_answers else ()
        )
        turns = write_dialogue(self._rng, answer.query, answer.text, self._held_out, replies, questions)
        pieces = pieces and insert_defect(self._rng, pieces, INVENTED_TURN, lambda _: turns)
        if not pieces:
            return None
        removed = [kind for kind in present if self._rng.random() < asked_share]
        return self._finish_pair(answer, pieces, present, removed, "turn:synthetic" if removed else "turn:kept")

    def _make_turns_kept(self) -> Pair | None:
        return self._make_turns(asked_share=0.0)

    def _make_real_turns(self, requested: bool = True) -> Pair | None:
        """A real answer that goes on into invented turns; with `requested`, an objective asks for their removal."""
        if not self._pool.run_ons:
            return None
        return self.make_run_on(self._rng.choice(self._pool.run_ons), requested)

    def _make_real_turns_kept(self) -> Pair | None:
        return self._make_real_turns(requested=False)

    def make_run_on(self, run: RunOnAnswer, requested: bool = True) -> Pair | None:
        """The pair of one real run-on answer."""
        answer, pieces = split_run_on(run)
        removed = [INVENTED_TURN] if requested else []
        return self._finish_pair(
            answer, pieces, [INVENTED_TURN], removed, "turn:real" if requested else "turn:real-kept"
        )

    def _make_marked(self) -> Pair | None:
        """An answer in which people marked what is wrong."""
        if not self._pool.marked:
            return None
        return make_marked_pair(self._rng, self._rng.choice(self._pool.marked))

    def _make_insult(self) -> Pair | None:
        return self._make_defects(asked_share=1.0, kinds=(_find_kind("insult"),), most=1)

    def _make_other_wordings(self) -> Pair | None:
        return self._make_defects(asked_share=1.0, most=1)

    def _make_unseen_kinds(self) -> Pair | None:
        return self._make_defects(asked_share=1.0, kinds=UNSEEN_KINDS, most=1)

    def _make_written(self, kinds: tuple[DefectKind, ...] = WRITTEN, asked_share: float = 1.0) -> Pair | None:
        return self._make_defects(asked_share=asked_share, kinds=kinds, most=1)

    def _make_written_not_asked(self) -> Pair | None:
        return self._make_written(asked_share=0.0)

    def _make_written_unseen(self) -> Pair | None:
        return self._make_written(UNSEEN_WRITTEN)

    def _make_alike_unseen(self) -> Pair | None:
        return self._make_alike(UNSEEN_WRITTEN)

    def _make_on_topic(self) -> Pair | None:
        return self._make_defects(asked_share=1.0, most=1, about=True)

    def _choose_writer(self, kind: DefectKind, answer: PoolAnswer, about: bool | None) -> Callable[[str], str]:
        """The function by which `insert_defect` writes a defect: a repetition repeats only text before its place."""
        whole = answer.text

        def write(before: str) -> str:
            context = before if kind.name == "repetition" else whole
            return kind.make(self._rng, answer.query, context, self._held_out, about)

        return write

    def _finish_pair(
        self, answer: PoolAnswer, pieces: list[Piece], present: list[DefectKind], removed: list[DefectKind], source: str
    ) -> Pair | None:
        """The pair of these pieces; its objectives ask for the removal of `removed`, and of nothing else `present`."""
        if any(kind.occurs_in(answer.text) for kind in removed):
            return None
        removed_names = {kind.name for kind in removed}
        avoid = doubtful_themes(answer) - removed_names
        for piece in pieces:
            if piece.kind:
                avoid |= themes_in(piece.text) - {piece.kind} - removed_names
        names = list(dict.fromkeys([*(kind.name for kind in present), *(piece.kind for piece in pieces if piece.kind)]))
        objectives = choose_objectives(self._rng, names, removed, avoid, self._held_out)
        if objectives is None:
            return None
        return make_pair(pieces, removed_names, answer.query, objectives, source)


@lru_cache(maxsize=2)
def _select_sentences(answers: tuple[PoolAnswer, ...]) -> tuple[str, ...]:
    """Sentences that can be inserted into another answer and then go against no objective but relevance.

    Cached, because each set of a side has a mixer of its own over the same answers.
    """
    return tuple(_find_insertable_sentences(answers))


def _find_insertable_sentences(answers: Iterable[PoolAnswer]) -> Iterator[str]:
    for answer in answers:
        tame = answer.harmless and answer.source != FICTION
        if tame and not any(kind.occurs_in(answer.text) for kind in TRAINING_KINDS if kind.natural):
            for segment in split(answer.text):
                text = segment.text.strip()
                if 40 <= len(text) <= 220 and text[0].isupper() and text[-1] == "." and "\n" not in text:
                    yield text


def _group_by_source(answers: Iterable[PoolAnswer]) -> dict[str, list[PoolAnswer]]:
    grouped: dict[str, list[PoolAnswer]] = {}
    for answer in answers:
        grouped.setdefault(answer.source, []).append(answer)
    return grouped


def _find_kind(name: str) -> DefectKind:
    return next(kind for kind in TRAINING_KINDS if kind.name == name)


StageName = Literal["warmup", "equal_preference", "contrastive_preference", "conversation", "dense", "wishes", "settle"]
STAGES: tuple[StageName, ...] = get_args(StageName)
# Shares of the recipes in each stage.
RECIPES: dict[StageName, dict[str, float]] = {
    "warmup": {"clean": 1.0},
    "equal_preference": {"clean": 0.4, "not_asked": 0.25, "innocent": 0.2, "turns_kept": 0.08, "inside_kept": 0.07},
    "contrastive_preference": {
        "clean": 0.13,
        "innocent": 0.06,
        "defects": 0.42,
        "alike": 0.06,
        "natural": 0.08,
        "inside": 0.1,
        "turns": 0.05,
        "real_turns": 0.04,
        "real_turns_kept": 0.01,
        "stray": 0.02,
        "marked": 0.03,
    },
}
RECIPES["conversation"] = RECIPES["contrastive_preference"]
RECIPES["dense"] = {"dense": 0.84, "natural": 0.05, "turns": 0.04, "real_turns": 0.04, "marked": 0.03}
# In a third of the examples, one objective asks for something to be there, at the end or anywhere.
RECIPES["wishes"] = {"dense": 0.45, "dense+lacking": 0.12, "dense+ended": 0.12, "dense+wanted": 0.12}
RECIPES["wishes"] |= {"alike": 0.05, "natural": 0.05, "turns": 0.03, "real_turns": 0.03, "marked": 0.03}
RECIPES["settle"] = {
    "clean": 0.17,
    "dialogue": 0.03,
    "innocent": 0.07,
    "defects": 0.17,
    "not_asked": 0.04,
    "alike": 0.1,
    "natural": 0.04,
    "inside": 0.05,
    "turns": 0.06,
    "real_turns": 0.05,
    "real_turns_kept": 0.01,
    "stray": 0.01,
    "marked": 0.02,
    "dense": 0.04,
    "any+lacking": 0.04,
    "any+ended": 0.06,
    "defects+wanted": 0.04,
}
SHARES: dict[StageName, InsertionShares] = {"settle": InsertionShares(concepts=0.45, others=0.45, alike=0.5)}
# Share of the questions that get earlier turns before them.
HISTORY: dict[StageName, float] = {"conversation": 0.45, "dense": 0.2, "wishes": 0.2, "settle": 0.5}


def build_examples(
    data_dir: Path, seed: int, n: int, stage: StageName = "contrastive_preference", excluded_kinds: Collection[str] = ()
) -> Iterator[Pair]:
    """`n` training examples of one stage, without those of the recipes `excluded_kinds`."""
    if not RECIPES[stage].keys() - set(excluded_kinds):
        raise PairError(f"without every kind of example there is none for {stage}; leave one of them in")
    examples = (pair for kind, pair in _stream_examples(data_dir, seed, stage) if kind not in excluded_kinds)
    return islice(examples, n)


def _stream_examples(data_dir: Path, seed: int, stage: StageName) -> Iterator[tuple[str, Pair]]:
    """Yield endless examples of a stage, each with the name of its recipe."""
    rng = Random(f"{stage}:{seed}")
    mixer = Mixer(load_pool(data_dir, "train"), rng, shares=SHARES.get(stage, InsertionShares()))
    names, shares = zip(*RECIPES[stage].items(), strict=True)
    before = mixer.earlier_answers
    share = HISTORY.get(stage, 0.0)
    while True:
        kind = rng.choices(names, shares)[0]
        example = mixer.make_pair(kind)
        if share and rng.random() < share:
            example = add_history(rng, example, before, INSERTABLE, held_out=False)
        yield kind, example


def main(argv: list[str] | None = None) -> None:
    """Write the examples of a stage, or the replies that people compared, to a file."""
    parser = argparse.ArgumentParser(prog="python -m models.data.mixture", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stage", choices=STAGES, default="contrastive_preference")
    parser.add_argument("--n", type=int, default=20000)
    parser.add_argument("--bags", action="store_true", help="write the replies that people compared instead")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    console = Console()
    pairs = preference_bags(args.data) if args.bags else build_examples(args.data, args.seed, args.n, args.stage)
    description = "bags" if args.bags else args.stage
    try:
        count = write_pairs(
            args.out, track(pairs, total=None if args.bags else args.n, description=description, console=console)
        )
    except (PreferenceError, PairError) as problem:
        sys.exit(str(problem))
    console.print(f"{args.out}: {count} {'replies' if args.bags else 'pairs'}")


if __name__ == "__main__":
    main()
