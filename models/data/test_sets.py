"""Held-out sets: those that measure an aligner, and those that choose its operating point.

Only prompts, wordings of inserted defects, frames of objectives and kinds that no stage of training ever sees. "dev"
and "test" have different prompts. Run as a module to write one side to a folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

from models.defects import TRAINING_KINDS
from models.defects.objectives import DEFAULT

from .answers import AnswerPool, Side, load_pool, preference_bags
from .history import add_history, is_dialogue
from .human_spans import make_error_pair, make_marked_pair
from .mixture import Mixer
from .natural import answers_of_side, make_natural_pair
from .pairs import Pair, PairError, write_pairs
from .preference_sets import PreferenceError
from .run_ons import make_run_on_pair

# By the name of a set: the recipe of its examples (mixture.py), and their number.
_SETS = {
    "clean": ("clean", 300),
    "clean_long": ("clean_long", 200),
    "insult": ("insult", 200),
    "other_wordings": ("other_wordings", 200),
    "unseen_kinds": ("unseen_kinds", 200),
    "not_asked": ("not_asked", 200),
    "innocent": ("innocent_kept", 200),
    "inside_sentence": ("inside_all", 200),
    "on_topic": ("on_topic", 200),
    "written": ("written", 200),
    "written_not_asked": ("written_not_asked", 200),
    "written_unseen": ("written_unseen", 200),
    "alike": ("alike", 200),
    "alike_unseen": ("alike_unseen", 200),
    "ending_missing": ("any+lacking", 200),
    "ending_there": ("clean+ended", 200),
    "wanted_there": ("not_asked+wanted", 200),
}
# Sets whose questions come after turns in which the assistant was rude, and their recipes.
_AFTER_INSULTS = {"clean_after_insults": "clean", "insult_after_insults": "insult"}
_AFTER_SIZE = 200
# Sets of the test side only: their few requests are our own, so both sides would have the same ones.
_TEST_ONLY = {"dialogue": ("dialogue", 200)}
# Themes under which every error that people marked counts as going against the objective. For the test side only:
# errors of other sorts go against neither theme, so nothing may be chosen by these sets.
_ERRORS_UNDER = ("factual", "specific")


def make_held_out_sets(data_dir: Path, seed: int, side: Side, limit: int | None = None) -> dict[str, list[Pair]]:
    """The sets of one side by name; with `limit`, only the first pairs of each.

    Their prompts, wordings of defects and wordings of objectives are never used in training.
    """
    pool = load_pool(data_dir, side)
    sets: dict[str, Iterable[Pair]] = {}
    for name, (recipe, size) in (_SETS | (_TEST_ONLY if side == "test" else {})).items():
        mixer = Mixer(pool, Random(f"{side}:{name}:{seed}"), held_out=True)
        sets[name] = _make_distinct_pairs(mixer, recipe, size)
    sets["invented_turns_real"] = _make_real_suite(pool, seed)
    sets["invented_turns_default"] = (pair for run in pool.run_ons if (pair := make_run_on_pair(run, DEFAULT)))
    for name, recipe in _AFTER_INSULTS.items():
        sets[name] = _make_after_insults(pool, Random(f"{side}:{name}:{seed}"), recipe)
    sets["compared_replies"] = preference_bags(data_dir, side)
    sets["marked"] = _make_marked_suite(pool, seed)
    for theme in _ERRORS_UNDER if side == "test" else ():
        sets[f"marked_{theme}"] = _make_errors_suite(pool, seed, theme)
    sets["natural"] = _make_natural_suite(side, seed)
    return {name: list(islice(pairs, limit)) for name, pairs in sets.items()}


def _make_distinct_pairs(mixer: Mixer, recipe: str, size: int) -> Iterator[Pair]:
    """Yield at most `size` examples with different answers: repeated ones would make figures look too certain."""
    answers: set[str] = set()
    for _ in range(size * 4):
        pair = mixer.make_pair(recipe)
        if pair.answer not in answers:
            answers.add(pair.answer)
            yield pair
        if len(answers) == size:
            return


def _make_after_insults(pool: AnswerPool, rng: Random, recipe: str) -> Iterator[Pair]:
    """Yield examples of a recipe after turns in which every reply has an insult."""
    mixer = Mixer(pool, rng, held_out=True)
    insult_kinds = [kind for kind in TRAINING_KINDS if kind.name == "insult"]
    questions_alone = (
        pair for pair in _make_distinct_pairs(mixer, recipe, 3 * _AFTER_SIZE) if not is_dialogue(pair.query)
    )
    for pair in islice(questions_alone, _AFTER_SIZE):
        yield add_history(rng, pair, mixer.earlier_answers, insult_kinds, held_out=True, bad_share=1.0)


def _make_real_suite(pool: AnswerPool, seed: int) -> Iterator[Pair]:
    """Yield the pairs of real answers that go on into invented turns."""
    mixer = Mixer(pool, Random(f"test:real:{seed}"), held_out=True)
    return _take_first_pairs([partial(mixer.make_run_on, run) for run in pool.run_ons[:150]], tries=40)


def _make_marked_suite(pool: AnswerPool, seed: int) -> Iterator[Pair]:
    """Yield each marked answer once, mostly under an objective that asks for the removal of something marked."""
    rng = Random(f"test:marked:{seed}")
    return _take_first_pairs([partial(make_marked_pair, rng, answer) for answer in pool.marked], tries=20)


def _make_errors_suite(pool: AnswerPool, seed: int, theme: str) -> Iterator[Pair]:
    """Yield each marked answer once, under an objective of this theme."""
    rng = Random(f"test:errors:{theme}:{seed}")
    return _take_first_pairs([partial(make_error_pair, rng, answer, theme) for answer in pool.marked], tries=1)


def _make_natural_suite(side: Side, seed: int) -> Iterator[Pair]:
    """Yield each written answer of this side once, with faults of its own or without any."""
    rng = Random(f"{side}:natural:{seed}")
    return _take_first_pairs([partial(make_natural_pair, rng, answer) for answer in answers_of_side(side)], tries=20)


def _take_first_pairs(makers: Iterable[Callable[[], Pair | None]], tries: int) -> Iterator[Pair]:
    """Yield one pair of each maker that makes one within `tries` calls."""
    for make in makers:
        if pair := next(filter(None, (make() for _ in range(tries))), None):
            yield pair


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m models.data.test_sets", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--side", choices=("dev", "test"), default="test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, help="write only the first LIMIT pairs of each set")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        sets = make_held_out_sets(args.data, args.seed, args.side, args.limit)
    except (PreferenceError, PairError) as problem:
        sys.exit(str(problem))
    for name, pairs in sets.items():
        print(f"{args.out / name}.jsonl: {write_pairs(args.out / f'{name}.jsonl', pairs)} pairs")


if __name__ == "__main__":
    main()
