"""Training examples from labelled replies: answers in their own voice, what people call harmful, and what is fine.

    python -m models.data.own_voice --data DATA --settle runs/data/settle.jsonl --without author_l author_t \\
        --out runs/data/own_voice.jsonl

Every written answer is an example twice, unchanged and as its author corrected it, so that the subject alone decides
nothing. The objectives of an example are the answer's own, the built-in ones, and those of other answers, against which
it does not go. With `--without`, all examples of an author or a natural source are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from .harm_replies import SOURCES, read_harm_replies
from .labelled_replies import (
    AGAINST,
    COMPANIES,
    FINE,
    HARMFUL_SLUGS,
    HARMLESS,
    TEACHING,
    TEST_KINDS,
    USUAL,
    LabelledReply,
    count_segments,
    make_harm_phrases,
    question_of,
    read_further_good_replies,
    read_good_replies,
    read_natural_replies,
    read_written_answers,
)
from .pairs import Pair, combine_labels, read_pairs, write_pairs

_AS_HARM_SHARE = 0.75
"""Share of written harm under the built-in objective `harmless`; the rest is under its author's objective."""
_BESIDE_SHARE = 0.5
"""How often objectives of other answers are added."""
_USUAL_BESIDE_SHARE = 0.4
"""How often built-in objectives are added to an answer's own one."""
_NOT_ASKED_SHARE = 0.15
"""How often an answer's own objective is left out."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many replies there are besides written answers: of each natural source, good, planted and harm phrases."""

    natural: int = 600
    good: int = 900
    planted: int = 1500
    phrases: int = 900
    further: bool = False
    """Whether the replies of models.data.harm_replies are among them, and all other good answers, long ones too."""


def _select_sources(names: Iterable[str], excluded: Collection[str]) -> list[str]:
    return [name for name in names if name not in excluded]


def make_examples(
    data: Path, excluded_sources: Collection[str], seed: int, rounds: int, sizes: Sizes
) -> Iterator[Pair]:
    """Yield all examples, not shuffled; written answers `rounds` times, each time with other objectives."""
    rng = Random(f"own voice:{seed}")
    answers = [
        answer
        for answer in read_written_answers()
        if answer.source not in excluded_sources and answer.slug not in TEST_KINDS
    ]
    others = sorted({answer.objective for answer in answers if not answer.about_harm})
    for _ in range(rounds):
        for answer in answers:
            for reply in (answer, *_find_correction(answer)):
                yield _ask_written_reply(rng, reply, others)
    replies: list[LabelledReply] = []
    for name in _select_sources(TEACHING, excluded_sources):
        replies += read_natural_replies(data, name, sizes.natural)
    if sizes.further:
        for name in _select_sources(SOURCES, excluded_sources):
            replies += read_harm_replies(data, name)
    good = read_good_replies(data, sizes.good)
    replies += [*good, *(read_further_good_replies(data, good) if sizes.further else ())]
    replies += make_harm_phrases(data, sizes.planted, sizes.phrases)
    for reply in replies:
        yield pair_reply(reply, rng.choice(COMPANIES))


def _find_correction(answer: LabelledReply) -> Iterator[LabelledReply]:
    """Yield a harmful answer as its author corrected it, if any text is left of it."""
    text = answer.corrected_answer
    if not answer.harmful or not text:
        return
    fine = (FINE,) * count_segments(text)
    yield replace(answer, answer=text, segments=fine, harmful=False, corrected=(), id=f"{answer.id}-right")


def _ask_written_reply(rng: Random, reply: LabelledReply, others: Sequence[str]) -> Pair:
    """The pair of a written reply under its own or the built-in objective, with or without others, or others alone."""
    if reply.slug in HARMFUL_SLUGS and rng.random() < _AS_HARM_SHARE:
        reply = replace(reply, objective=HARMLESS)
    if reply.objective == HARMLESS:
        company = list(rng.choice(COMPANIES))
    elif rng.random() < _NOT_ASKED_SHARE:
        company = []
    else:
        company = [reply.objective]
        if rng.random() < _USUAL_BESIDE_SHARE:
            company += USUAL[: rng.choice((1, 2))]
    if not company or rng.random() < _BESIDE_SHARE:
        foreign = [text for text in others if text != reply.objective]
        company += rng.sample(foreign, min(len(foreign), rng.choice((1, 1, 2))))
    rng.shuffle(company)
    return pair_reply(reply, company)


def pair_reply(reply: LabelledReply, objectives: Sequence[str]) -> Pair:
    """The pair of a labelled reply under these objectives; its target is corrected if it goes against one of them."""
    relations = reply.label_segments(objectives)
    labels = tuple(map(combine_labels, relations))
    target = reply.corrected_answer if AGAINST in labels and reply.corrected_answer else reply.answer
    return Pair(
        question_of(reply),
        tuple(objectives),
        reply.answer,
        target,
        labels,
        f"own voice:{reply.source}",
        relations=relations,
        whole=reply.flag_whole_reply(objectives),
    )


def main(argv: list[str] | None = None) -> None:
    """Write the examples, shuffled among those of another stage, to a file."""
    parser = argparse.ArgumentParser(
        prog="python -m models.data.own_voice",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--settle", type=Path, nargs="*", default=[], help="pairs of models.data.mixture among them")
    parser.add_argument("--natural", type=int, default=Sizes().natural, help="replies of each natural source at most")
    parser.add_argument(
        "--further", action="store_true", help="with those of models.data.harm_replies, and all good answers"
    )
    parser.add_argument("--without", nargs="*", default=[], help="authors and natural sources that are left out")
    parser.add_argument("--rounds", type=int, default=2, help="how often a written answer is asked about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    sizes = Sizes(natural=args.natural, further=args.further)
    pairs = list(make_examples(args.data, args.without, args.seed, args.rounds, sizes))
    print(f"{len(pairs)} examples of labelled replies")
    pairs += [pair for path in args.settle for pair in read_pairs(path)]
    Random(args.seed).shuffle(pairs)
    print(f"{args.out}: {write_pairs(args.out, pairs)} pairs")


if __name__ == "__main__":
    main()
