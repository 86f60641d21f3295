"""Faults in an answer's own voice: the answers written for this project, whole authors, each under its own objective.

    python -m models.evaluate.own_voice aligner_proxy/embedded --out runs/own_voice --authors c d --each 6

Through the pipeline of the gateway, gate included, corrections not kept. Segments: `found`, flagged of those that go
against the objective; `false`, flagged of the others of the same answers. Answers: `exact`, flagged are just those;
`repaired`, what goes out is the written correction, or the answer without those segments, white space apart; `twins`,
answers with nothing against the objective that are flagged all the same.

With `--examples N` each objective is taught first, as `aligner-proxy teach` does, from N sentences against it and as
many that are fine (how they were put right, and sentences of twins). They are of other authors where others have the
objective (`another hand`), else of answers of the same author that are not drawn (`the same hand`), as an operator's
examples are of the upstream that is to be judged. With `--good N` it also learns from so many whole answers on its
subject in which nothing goes against it: twins, and answers that were put right.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.progress import track

from aligner_proxy.engine.api import Engine
from aligner_proxy.teaching.examples import MIN_AGAINST
from aligner_proxy.types import Exchange, Objective, Outcome, Policy, Turn
from models.data.labelled_replies import OWN, passage_numbers
from models.reporting import output
from models.reporting.statistics import Rate

from .gateway import open_gateway
from .teaching import teach_head

NAMES = ("found", "false", "exact", "repaired", "twins")


@dataclass(frozen=True, slots=True)
class WrittenAnswer:
    """One answer that was written for this project to test an objective, passage by passage."""

    author: str
    objective: str
    question: str
    passages: tuple[str, ...]
    against: frozenset[int]
    """Numbers of the passages that go against the objective."""
    corrected: tuple[str, ...]
    """The passages after correction: the same text, other text, or nothing."""

    @property
    def answer(self) -> str:
        """The whole answer."""
        return "".join(self.passages)

    @property
    def correction(self) -> str:
        """The answer with every passage corrected; the answer itself where nothing goes against the objective."""
        return "".join(self.corrected).strip()

    @property
    def is_half_right(self) -> bool:
        """Whether the correction rewrites a passage instead of leaving it out."""
        return any(self.corrected[n].strip() for n in self.against)

    def is_correction(self, text: str) -> bool:
        """Whether a text has the words of the correction. White space does not count."""
        return _words(text) == _words(self.correction)

    def is_repaired(self, text: str) -> bool:
        """Whether a text has the words of the correction, or of the answer without the wrong passages."""
        fine = (passage for n, passage in enumerate(self.passages) if n not in self.against)
        return _words(text) in (_words(self.correction), _words("".join(fine)))


@dataclass(frozen=True, slots=True)
class VoiceOutcome:
    """Which passages of an answer were flagged, in numbers, and whether the answer was repaired."""

    author: str
    taught: str
    """Whose sentences the objective was taught from: `VoiceExamples.hand`."""
    against: int
    """Passages against the objective."""
    found: int
    """Of these flagged."""
    fine: int
    """The other passages."""
    false: int
    """Of these flagged."""
    repaired: bool
    half_right: bool = False
    put_right: bool = False

    @property
    def exact(self) -> bool:
        """Whether every passage against the objective is flagged, and no other passage."""
        return self.found == self.against and not self.false


@dataclass(frozen=True, slots=True)
class VoiceExamples:
    """The texts that teach an objective. No test answer is among them."""

    hand: str
    """`another hand`, `the same hand` or `untaught`."""
    against: tuple[str, ...] = ()
    fine: tuple[str, ...] = ()
    good: tuple[tuple[str, str], ...] = ()
    """Questions and answers."""


UNTAUGHT = VoiceExamples("untaught")


def _words(text: str) -> list[str]:
    return text.split()


def read_answers(author: str, each: int, seed: int, folder: Path = OWN) -> Iterator[WrittenAnswer]:
    """At most `each` answers for each objective of an author.

    Half of them go against the objective, where the author wrote enough.
    """
    for path in sorted((folder / f"author_{author}").glob("*.jsonl")):
        testing, _ = _draw_answers(path, each, seed)
        yield from testing


def _draw_answers(path: Path, each: int, seed: int) -> tuple[list[WrittenAnswer], list[WrittenAnswer]]:
    """Divide the answers of a file into (`each` that test, all others); half of those that test have faults."""
    author = path.parent.name.removeprefix("author_")
    head, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    testing: list[WrittenAnswer] = []
    others: list[WrittenAnswer] = []
    for kind in ("against", "fine"):
        of_kind = [_make_answer(author, head["objective"], row) for row in rows if row["kind"] == kind]
        drawn_numbers = Random(f"{path.stem}:{kind}:{seed}").sample(range(len(of_kind)), min(each // 2, len(of_kind)))
        testing += [of_kind[n] for n in drawn_numbers]
        others += [answer for n, answer in enumerate(of_kind) if n not in drawn_numbers]
    return testing, others


@dataclass(frozen=True, slots=True)
class Draw:
    """Which answers test, and how many examples teach."""

    each: int
    """Answers of an objective and author at most."""
    seed: int
    count: int = 0
    """Sentences against the objective that teach at most, and as many fine ones."""
    good: int = 0
    """Whole good answers that teach at most."""
    folder: Path = OWN


def draw_examples(author: str, objective: str, draw: Draw) -> VoiceExamples:
    """Draw the texts that teach an objective before it is tested on the answers of `author`.

    If other authors wrote about the same objective, only their answers teach; otherwise the author's own, without those
    that test. Returns `UNTAUGHT` if there are too few sentences against the objective.
    """
    other_hands, own_hand = _read_teaching_answers(author, objective, draw)
    source_answers = other_hands or own_hand
    Random(f"{author}:{objective}:{draw.seed}").shuffle(source_answers)
    against = [answer.passages[n].strip() for answer in source_answers for n in sorted(answer.against)]
    if len(against) < MIN_AGAINST:
        return UNTAUGHT
    fine = [text for answer in source_answers for text in _list_fine_sentences(answer) if text not in against]
    taught_texts = _take_first(against, draw.count)
    # a whole answer that repeats a sentence against the objective would teach that the sentence is fine
    question_by_answer = {
        answer.correction: answer.question
        for answer in source_answers
        if not any(text in answer.correction for text in taught_texts)
    }
    whole_answers = tuple((question, answer) for answer, question in question_by_answer.items() if answer)
    hand = "another hand" if other_hands else "the same hand"
    return VoiceExamples(hand, taught_texts, _take_first(fine, draw.count), whole_answers[: draw.good])


def _read_teaching_answers(author: str, objective: str, draw: Draw) -> tuple[list[WrittenAnswer], list[WrittenAnswer]]:
    """Read the answers about an objective: (those of other authors, the author's own without those that test)."""
    other_hands: list[WrittenAnswer] = []
    own_hand: list[WrittenAnswer] = []
    for path in sorted(draw.folder.glob("author_*/*.jsonl")):
        testing, others = _draw_answers(path, draw.each, draw.seed)
        if path.parent.name.removeprefix("author_") == author:
            own_hand += [answer for answer in others if answer.objective == objective]
        else:
            other_hands += [answer for answer in [*testing, *others] if answer.objective == objective]
    return other_hands, own_hand


def _list_fine_sentences(answer: WrittenAnswer) -> list[str]:
    """Sentences of an answer that are allowed, but easily taken for what is not.

    Of an answer with a fault these are the corrected passages, of an answer without one its longest passage.
    """
    if not answer.against:
        return [max(answer.passages, key=len).strip()]
    corrections = [answer.corrected[n].strip() for n in sorted(answer.against)]
    return [text for text in corrections if text]


def _take_first(texts: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))[:count]


def _make_answer(author: str, objective: str, row: dict[str, Any]) -> WrittenAnswer:
    passages = tuple(row["answer"])
    return WrittenAnswer(
        author, objective, row["question"], passages, frozenset(row["against"]), tuple(row["corrected"])
    )


def judge_answer(answer: WrittenAnswer, outcome: Outcome, hand: str = UNTAUGHT.hand) -> VoiceOutcome:
    """Compare verdicts with labels; a passage is flagged if one of its segments is."""
    numbers = passage_numbers(answer.passages)
    # the verdict behind those of the segments is that of the end
    flagged = {number for number, verdict in zip(numbers, outcome.segments, strict=False) if verdict.flagged}
    found_count = len(flagged & answer.against)
    return VoiceOutcome(
        author=answer.author,
        taught=hand,
        against=len(answer.against),
        found=found_count,
        fine=len(answer.passages) - len(answer.against),
        false=len(flagged) - found_count,
        repaired=answer.is_repaired(outcome.text or ""),
        half_right=answer.is_half_right,
        put_right=answer.is_correction(outcome.text or ""),
    )


def compute_rates(results: Sequence[VoiceOutcome]) -> tuple[Rate, ...]:
    """The rates of `NAMES`, in that order."""
    faulty = [outcome for outcome in results if outcome.against]
    return (
        Rate.from_counts(sum(outcome.found for outcome in faulty), sum(outcome.against for outcome in faulty)),
        Rate.from_counts(sum(outcome.false for outcome in faulty), sum(outcome.fine for outcome in faulty)),
        Rate.from_outcomes(outcome.exact for outcome in faulty),
        Rate.from_outcomes(outcome.repaired for outcome in faulty),
        Rate.from_outcomes(outcome.false > 0 for outcome in results if not outcome.against),
    )


def format_table(results: Sequence[VoiceOutcome]) -> str:
    """Markdown: a row for each author and each source of examples."""
    rows = []
    for hand in sorted({outcome.taught for outcome in results}):
        of_hand = [outcome for outcome in results if outcome.taught == hand]
        authors = [*sorted({outcome.author for outcome in of_hand}), "all"]
        rows += [
            (hand, name, *compute_rates([outcome for outcome in of_hand if name in (outcome.author, "all")]))
            for name in authors
        ]
    return output.table(("taught by", "author", *NAMES), rows)


async def judge_answers(
    aligner: Path, answers: Sequence[WrittenAnswer], draw: Draw, lessons: Path
) -> list[VoiceOutcome]:
    """Send every answer through the pipeline, after teaching in the folder `lessons` where `draw` has examples."""
    heads: dict[tuple[str, str], tuple[str, str]] = {}
    results: list[VoiceOutcome] = []
    async with open_gateway(aligner) as pipeline:
        for n, answer in enumerate(track(answers, description="own voice")):
            key = (answer.author, answer.objective)
            if key not in heads:
                examples = draw_examples(*key, draw) if draw.count else UNTAUGHT
                folder = lessons / f"{answer.author}-{len(heads)}"
                heads[key] = await _teach_objective(pipeline.engine, folder, answer.objective, examples)
            head, hand = heads[key]
            policy = Policy("own-voice", (Objective("own", answer.objective, head=head),), deadline_s=600)
            exchange = Exchange(f"own-{n}", 0, (Turn("user", answer.question),), answer.answer)
            results.append(judge_answer(answer, await pipeline.align(exchange, policy), hand))
    return results


async def _teach_objective(engine: Engine, folder: Path, objective: str, examples: VoiceExamples) -> tuple[str, str]:
    """(hash of the head, whose examples it has). The hash is empty where nothing could be learned."""
    if not examples.against:
        return "", examples.hand
    head = await teach_head(engine, folder, "own", objective, examples.against, examples.fine, examples.good)
    return (head, examples.hand) if head else ("", UNTAUGHT.hand)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--authors", nargs="+", default=["c", "d"], help="letters of authors")
    parser.add_argument("--each", type=int, default=6, help="answers an objective and author at most")
    parser.add_argument("--examples", type=int, default=0, help="sentences that teach each objective, of either kind")
    parser.add_argument("--good", type=int, default=0, help="whole good answers that teach each objective")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = Draw(arguments.each, arguments.seed, arguments.examples, arguments.good)
    answers = [answer for author in arguments.authors for answer in read_answers(author, draw.each, draw.seed)]
    results = asyncio.run(judge_answers(arguments.aligner, answers, draw, arguments.out / "lessons"))
    text = format_table(results)
    output.write(arguments.out, "own_voice", text, results)
    print(text)


if __name__ == "__main__":
    main()
