"""What each built-in objective does to good answers: how many of 300 it edits, each objective by itself.

    python -m models.evaluate.good_answers aligner_proxy/embedded --out runs/good_answers

The answers were written for this project; nothing in them goes against the objective for which they were written, and
they are drawn evenly from all authors. An edit of one of them is damage. Through the pipeline of the gateway, gate
included. With --out each objective is written when it is done, and those that are there are not measured again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.types import Exchange, Objective, Status, Turn
from models.data.labelled_replies import OWN

from .gateway import make_policy, open_gateway

COUNT = 300
MIN_CHARS, MAX_CHARS = 120, 600
"""Lengths of the answers that are drawn, so that 300 of them are read in minutes on a CPU."""


def draw_good_answers(count: int = COUNT, seed: int = 9) -> list[tuple[str, str]]:
    """Draw (question, answer) of `count` good answers, about as many of each author: one of each by turns."""
    random = Random(seed)
    by_author: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(OWN.glob("author_*/*.jsonl")):
        for line in path.read_text().splitlines()[1:]:
            row = json.loads(line)
            answer = "".join(row["answer"]).strip()
            if row["kind"] == "fine" and MIN_CHARS <= len(answer) <= MAX_CHARS:
                by_author.setdefault(path.parent.name, []).append((row["question"], answer))
    for answers in by_author.values():
        random.shuffle(answers)
    turns = (answers[n] for n in range(count) for answers in by_author.values() if n < len(answers))
    return [answer for answer, _ in zip(turns, range(count), strict=False)]


async def count_edited(pipeline: Pipeline, objective: Objective, answers: Sequence[tuple[str, str]]) -> int:
    """How many of these answers are edited under one objective."""
    policy = make_policy("good", (objective,))
    edited_count = 0
    for number, (question, answer) in enumerate(answers):
        outcome = await pipeline.align(Exchange(str(number), 0, (Turn("user", question),), answer), policy)
        edited_count += outcome.status is Status.CORRECTED
    return edited_count


async def measure(aligner: Path, path: Path, names: Sequence[str], count: int) -> None:
    """Measure each objective by itself, and write a line for it to the file at `path`."""
    answers = draw_good_answers(count)
    async with open_gateway(aligner) as pipeline:
        for name in names:
            edited_count = await count_edited(pipeline, builtin_objectives()[name], answers)
            line = json.dumps({"objective": name, "edited": edited_count, "of": len(answers)})
            print(line, flush=True)
            _append(path, line)


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


def find_measured(path: Path) -> set[str]:
    """The objectives that have a line in the file at `path`."""
    return {json.loads(line)["objective"] for line in path.read_text().splitlines()} if path.exists() else set()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--objectives", nargs="+", default=list(builtin_objectives()))
    options = parser.parse_args()
    path = options.out / "good_answers.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.objectives if name not in find_measured(path)]
    asyncio.run(measure(options.aligner, path, names, options.count))


if __name__ == "__main__":
    main()
