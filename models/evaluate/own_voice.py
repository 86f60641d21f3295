"""Faults in an answer's own voice: the answers written for this project, whole authors, each under its own objective.

    python -m models.evaluate.own_voice aligner_proxy/embedded --out runs/own_voice --authors c d --each 6

Through the pipeline of the gateway, gate included, corrections not kept. Segments: `found`, flagged of those that go
against the objective; `false`, flagged of the others of the same answers. Answers: `exact`, flagged are just those;
`repaired`, what goes out is the written correction, or the answer without those segments, white space apart; `twins`,
answers with nothing against the objective that are flagged all the same.
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

from aligner_proxy.types import Exchange, Objective, Outcome, Policy, Turn
from models.data.labelled_replies import OWN
from models.reporting import output
from models.reporting.statistics import Rate

from .gateway import gateway

NAMES = ("found", "false", "exact", "repaired", "twins")


@dataclass(frozen=True, slots=True)
class Written:
    """One answer: its segments, which of them go against the objective, and what stands in the place of each."""

    author: str
    objective: str
    question: str
    segments: tuple[str, ...]
    against: frozenset[int]
    corrected: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The whole answer."""
        return "".join(self.segments)

    def is_repaired(self, text: str) -> bool:
        """Whether a text is the answer put right, by rewriting or by leaving out."""
        fine = (segment for n, segment in enumerate(self.segments) if n not in self.against)
        return _words(text) in (_words("".join(self.corrected)), _words("".join(fine)))


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one: of its segments those against the objective and the others, with how many are flagged."""

    author: str
    against: int
    found: int
    fine: int
    false: int
    repaired: bool

    @property
    def exact(self) -> bool:
        """Just what goes against the objective is flagged."""
        return self.found == self.against and not self.false


def _words(text: str) -> list[str]:
    return text.split()


def read(author: str, each: int, seed: int, folder: Path = OWN) -> Iterator[Written]:
    """Of each objective of an author at most so many answers, as many against it as fine, where there are."""
    for path in sorted((folder / f"author_{author}").glob("*.jsonl")):
        head, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        for kind in ("against", "fine"):
            mine = [row for row in rows if row["kind"] == kind]
            drawn = Random(f"{path.stem}:{kind}:{seed}").sample(mine, min(each // 2, len(mine)))
            yield from (_written(author, head["objective"], row) for row in drawn)


def _written(author: str, objective: str, row: dict[str, Any]) -> Written:
    segments = tuple(row["answer"])
    return Written(author, objective, row["question"], segments, frozenset(row["against"]), tuple(row["corrected"]))


def judged(written: Written, outcome: Outcome) -> Judged:
    """Compare verdicts with labels; segments are told by their text."""
    against = {written.segments[n].strip() for n in written.against}
    flagged = [verdict.text.strip() in against for verdict in outcome.segments if verdict.flagged and verdict.text]
    return Judged(
        author=written.author,
        against=len(written.against),
        found=sum(flagged),
        fine=len(written.segments) - len(written.against),
        false=len(flagged) - sum(flagged),
        repaired=written.is_repaired(outcome.text or ""),
    )


def rates(results: Sequence[Judged]) -> tuple[Rate, ...]:
    """In the order of `NAMES`."""
    faulty = [one for one in results if one.against]
    return (
        Rate.among(sum(one.found for one in faulty), sum(one.against for one in faulty)),
        Rate.among(sum(one.false for one in faulty), sum(one.fine for one in faulty)),
        Rate.of(one.exact for one in faulty),
        Rate.of(one.repaired for one in faulty),
        Rate.of(one.false > 0 for one in results if not one.against),
    )


def table(results: Sequence[Judged]) -> str:
    """Markdown: a row an author."""
    authors = [*sorted({one.author for one in results}), "all"]
    rows = [(name, *rates([one for one in results if name in (one.author, "all")])) for name in authors]
    return output.table(("author", *NAMES), rows)


async def run(arguments: argparse.Namespace) -> list[Judged]:
    """Send every answer through the pipeline."""
    drawn = [one for author in arguments.authors for one in read(author, arguments.each, arguments.seed)]
    results: list[Judged] = []
    async with gateway(arguments.aligner) as pipeline:
        for n, one in enumerate(track(drawn, description="own voice")):
            policy = Policy("own-voice", (Objective("own", one.objective),), deadline_s=600)
            exchange = Exchange(f"own-{n}", 0, (Turn("user", one.question),), one.answer)
            results.append(judged(one, await pipeline.align(exchange, policy)))
    return results


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--authors", nargs="+", default=["c", "d"], help="letters of authors")
    parser.add_argument("--each", type=int, default=6, help="answers an objective and author at most")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments))
    text = table(results)
    output.write(arguments.out, "own_voice", text, results)
    print(text)


if __name__ == "__main__":
    main()
