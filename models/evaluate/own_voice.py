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

from .gateway import gateway
from .teaching import taught

NAMES = ("found", "false", "exact", "repaired", "twins")


@dataclass(frozen=True, slots=True)
class Written:
    """One answer: its passages, which of them go against the objective, and what stands in the place of each."""

    author: str
    objective: str
    question: str
    passages: tuple[str, ...]
    against: frozenset[int]
    corrected: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The whole answer."""
        return "".join(self.passages)

    @property
    def put_right(self) -> str:
        """The answer as it was written to be corrected; itself where nothing goes against the objective."""
        return "".join(self.corrected).strip()

    @property
    def is_half_right(self) -> bool:
        """Whether its author put something right in words, and did not only leave it out."""
        return any(self.corrected[n].strip() for n in self.against)

    def is_put_right(self, text: str) -> bool:
        """Whether a text is the correction that the author wrote, white space apart."""
        return _words(text) == _words(self.put_right)

    def is_repaired(self, text: str) -> bool:
        """Whether a text is the answer put right, by rewriting or by leaving out."""
        fine = (passage for n, passage in enumerate(self.passages) if n not in self.against)
        return _words(text) in (_words(self.put_right), _words("".join(fine)))


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one: of its passages those against the objective and the others, with how many are flagged."""

    author: str
    taught: str
    against: int
    found: int
    fine: int
    false: int
    repaired: bool
    half_right: bool = False
    put_right: bool = False

    @property
    def exact(self) -> bool:
        """Just what goes against the objective is flagged."""
        return self.found == self.against and not self.false


@dataclass(frozen=True, slots=True)
class Examples:
    """What an objective is taught from, and whose words they are; nothing of a test answer is among them."""

    of: str
    against: tuple[str, ...] = ()
    fine: tuple[str, ...] = ()
    good: tuple[tuple[str, str], ...] = ()
    """Questions and answers."""


UNTAUGHT = Examples("untaught")


def _words(text: str) -> list[str]:
    return text.split()


def read(author: str, each: int, seed: int, folder: Path = OWN) -> Iterator[Written]:
    """Of each objective of an author at most so many answers, as many against it as fine, where there are."""
    for path in sorted((folder / f"author_{author}").glob("*.jsonl")):
        yield from _drawn(path, each, seed)[0]


def _drawn(path: Path, each: int, seed: int) -> tuple[list[Written], list[Written]]:
    """Of a file the answers that test, and all others."""
    author = path.parent.name.removeprefix("author_")
    head, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    testing: list[Written] = []
    others: list[Written] = []
    for kind in ("against", "fine"):
        mine = [_written(author, head["objective"], row) for row in rows if row["kind"] == kind]
        drawn = Random(f"{path.stem}:{kind}:{seed}").sample(range(len(mine)), min(each // 2, len(mine)))
        testing += [mine[n] for n in drawn]
        others += [one for n, one in enumerate(mine) if n not in drawn]
    return testing, others


@dataclass(frozen=True, slots=True)
class Draw:
    """What tests, and what teaches: answers an objective and author, and at most so many examples of each sort."""

    each: int
    seed: int
    count: int = 0
    good: int = 0
    folder: Path = OWN


def examples(author: str, objective: str, draw: Draw) -> Examples:
    """What an author's objective is taught from; `UNTAUGHT` where there is nothing."""
    answers: dict[str, list[Written]] = {}
    for path in sorted(draw.folder.glob("author_*/*.jsonl")):
        testing, others = _drawn(path, draw.each, draw.seed)
        writer = path.parent.name.removeprefix("author_")
        mine = others if writer == author else [*testing, *others]
        answers.setdefault(writer, []).extend(one for one in mine if one.objective == objective)
    elsewhere = [one for writer, mine in answers.items() if writer != author for one in mine]
    known = elsewhere or answers[author]
    Random(f"{author}:{objective}:{draw.seed}").shuffle(known)
    against = [one.passages[n].strip() for one in known for n in sorted(one.against)]
    fine = [text for one in known for text in _fine(one)]
    if len(against) < MIN_AGAINST:
        return UNTAUGHT
    whose = "another hand" if elsewhere else "the same hand"
    fine = [text for text in fine if text not in against]
    taught = _first(against, draw.count)
    good = {one.put_right: one.question for one in known if not any(text in one.put_right for text in taught)}
    whole = tuple((question, answer) for answer, question in good.items() if answer)
    return Examples(whose, taught, _first(fine, draw.count), whole[: draw.good])


def _fine(one: Written) -> list[str]:
    """How an answer was put right, or, of a twin, its longest sentence: what is easily taken for the other."""
    put_right = [one.corrected[n].strip() for n in sorted(one.against)]
    return [text for text in put_right if text] if one.against else [max(one.passages, key=len).strip()]


def _first(texts: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))[:count]


def _written(author: str, objective: str, row: dict[str, Any]) -> Written:
    passages = tuple(row["answer"])
    return Written(author, objective, row["question"], passages, frozenset(row["against"]), tuple(row["corrected"]))


def judged(written: Written, outcome: Outcome, taught: str = UNTAUGHT.of) -> Judged:
    """Compare verdicts with labels; a passage is flagged if one of its segments is."""
    numbers = passage_numbers(written.passages)
    # the verdict behind those of the segments is that of the end
    flagged = {number for number, verdict in zip(numbers, outcome.segments, strict=False) if verdict.flagged}
    found = len(flagged & written.against)
    return Judged(
        author=written.author,
        taught=taught,
        against=len(written.against),
        found=found,
        fine=len(written.passages) - len(written.against),
        false=len(flagged) - found,
        repaired=written.is_repaired(outcome.text or ""),
        half_right=written.is_half_right,
        put_right=written.is_put_right(outcome.text or ""),
    )


def rates(results: Sequence[Judged]) -> tuple[Rate, ...]:
    """In the order of `NAMES`."""
    faulty = [one for one in results if one.against]
    return (
        Rate.from_counts(sum(one.found for one in faulty), sum(one.against for one in faulty)),
        Rate.from_counts(sum(one.false for one in faulty), sum(one.fine for one in faulty)),
        Rate.from_outcomes(one.exact for one in faulty),
        Rate.from_outcomes(one.repaired for one in faulty),
        Rate.from_outcomes(one.false > 0 for one in results if not one.against),
    )


def table(results: Sequence[Judged]) -> str:
    """Markdown: a row an author and hand that taught."""
    rows = []
    for hand in sorted({one.taught for one in results}):
        mine = [one for one in results if one.taught == hand]
        authors = [*sorted({one.author for one in mine}), "all"]
        rows += [(hand, name, *rates([one for one in mine if name in (one.author, "all")])) for name in authors]
    return output.table(("taught by", "author", *NAMES), rows)


async def judge_answers(aligner: Path, answers: Sequence[Written], draw: Draw, lessons: Path) -> list[Judged]:
    """Send every answer through the pipeline, after teaching in the folder `lessons` where `draw` has examples."""
    heads: dict[tuple[str, str], tuple[str, str]] = {}
    results: list[Judged] = []
    async with gateway(aligner) as pipeline:
        for n, one in enumerate(track(answers, description="own voice")):
            key = (one.author, one.objective)
            if key not in heads:
                known = examples(*key, draw) if draw.count else UNTAUGHT
                folder = lessons / f"{one.author}-{len(heads)}"
                heads[key] = await _taught(pipeline.engine, folder, one.objective, known)
            head, hand = heads[key]
            policy = Policy("own-voice", (Objective("own", one.objective, head=head),), deadline_s=600)
            exchange = Exchange(f"own-{n}", 0, (Turn("user", one.question),), one.answer)
            results.append(judged(one, await pipeline.align(exchange, policy), hand))
    return results


async def _taught(engine: Engine, folder: Path, objective: str, known: Examples) -> tuple[str, str]:
    """The head of an objective and whose examples it has; empty where nothing could be learned."""
    if not known.against:
        return "", known.of
    head = await taught(engine, folder, "own", objective, known.against, known.fine, known.good)
    return (head, known.of) if head else ("", UNTAUGHT.of)


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
    answers = [one for author in arguments.authors for one in read(author, draw.each, draw.seed)]
    results = asyncio.run(judge_answers(arguments.aligner, answers, draw, arguments.out / "lessons"))
    text = table(results)
    output.write(arguments.out, "own_voice", text, results)
    print(text)


if __name__ == "__main__":
    main()
