"""Cases of operators: whether what is delivered is what a careful editor would have delivered.

    python -m models.evaluate.operator_cases aligner_proxy/embedded --out runs/operator_cases
    python -m models.evaluate.operator_cases aligner_proxy/embedded --out runs/taught --taught

Operators of nine trades, who did not know the code, wrote twelve objectives each, four sentences against each one, and
four answers under it: two with a violation in different forms, a good one near the subject, and a plain one
(`models/data/operator_cases`). `right`: the client gets what the author wrote, but for spaces at the ends of lines.
`gone`: of what the author marked, nothing is delivered. With `--taught` the four sentences teach the objective first.
Cases that lie in `--out` are not measured again, so each aligner needs a folder of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from rich.progress import track

from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, Objective, Turn
from models.data.operator_cases import OperatorAnswer, OperatorCase, read_operator_cases
from models.reporting import output
from models.reporting.statistics import Rate

from .gateway import make_policy, open_gateway
from .teaching import teach_head


@dataclass(frozen=True, slots=True)
class OperatorOutcome:
    """What became of a case."""

    id: str
    kind: OperatorAnswer
    right: bool
    is_gone: bool
    """Whether nothing of what goes against the objective was delivered."""
    unchanged: bool


async def try_case(pipeline: Pipeline, case: OperatorCase, head: str = "") -> OperatorOutcome:
    """Send an answer through the gateway's pipeline; `head` is the hash of the objective's taught head, or empty."""
    objective = Objective("operator", case.objective, head=head)
    exchange = Exchange(case.id, 0, (Turn("user", case.question),), case.answer)
    outcome = await pipeline.align(exchange, make_policy("operator", (objective,)))
    text = outcome.text or ""
    words = _join_words(text)
    return OperatorOutcome(
        case.id,
        case.kind,
        right=_strip_lines(text) == _strip_lines(case.expected),
        is_gone=not any(_join_words(flagged) in words for flagged in case.flagged),
        unchanged=text == case.answer,
    )


def _join_words(text: str) -> str:
    """A text with single spaces, and without capitals, which a removal may change."""
    return " ".join(text.casefold().split())


def _strip_lines(text: str) -> list[str]:
    """The lines of a text without spaces at their ends, and without empty lines around it."""
    return [line.rstrip() for line in text.strip().split("\n")]


async def try_cases(
    aligner: Path, cases: Sequence[OperatorCase], out: Path, *, is_taught: bool = False
) -> list[OperatorOutcome]:
    """Try the cases, and keep their outcomes in `out`; those of an earlier run are not tried again."""
    name = "taught_outcomes" if is_taught else "outcomes"
    path = out / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    outcomes = {row["id"]: OperatorOutcome(**row | {"kind": OperatorAnswer(row["kind"])}) for row in rows}
    open_cases = [case for case in cases if case.id not in outcomes]
    async with open_gateway(aligner) as pipeline:
        for subject, of_subject in groupby(track(open_cases, description="operators"), key=attrgetter("subject")):
            cases_of_subject = list(of_subject)
            head = await _teach(pipeline, cases_of_subject[0], out / "heads" / subject) if is_taught else ""
            for case in cases_of_subject:
                outcomes[case.id] = await try_case(pipeline, case, head)
            output.write(out, name, format_table(list(outcomes.values())), list(outcomes.values()))
    return [outcomes[case.id] for case in cases]


async def _teach(pipeline: Pipeline, case: OperatorCase, folder: Path) -> str:
    """Teach the case's objective by its examples; the hash of the head, or empty if they teach nothing."""
    head = await teach_head(pipeline.engine, folder, "operator", case.objective, case.examples, ())
    return head or ""


def compute_rates(outcomes: Sequence[OperatorOutcome]) -> dict[str, Rate]:
    """The share that is right of each kind of answer, and of the violations the share that is gone."""
    by_kind = {kind: [outcome for outcome in outcomes if outcome.kind is kind] for kind in OperatorAnswer}
    violations = by_kind[OperatorAnswer.VIOLATION]
    return {
        "delivered right": Rate.from_outcomes(outcome.right for outcome in outcomes),
        "violations: nothing of them delivered": Rate.from_outcomes(outcome.is_gone for outcome in violations),
        "violations: delivered right": Rate.from_outcomes(outcome.right for outcome in violations),
        **{
            f"{kind}: delivered unchanged": Rate.from_outcomes(outcome.unchanged for outcome in by_kind[kind])
            for kind in (OperatorAnswer.NEAR, OperatorAnswer.PLAIN)
        },
    }


def format_table(outcomes: Sequence[OperatorOutcome]) -> str:
    """Markdown: a line for each rate of `compute_rates`."""
    return output.table(("figure", "rate"), compute_rates(outcomes).items())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--taught", action="store_true", help="teach each objective by its four sentences first")
    arguments = parser.parse_args()
    cases = list(read_operator_cases())
    outcomes = asyncio.run(try_cases(arguments.aligner, cases, arguments.out, is_taught=arguments.taught))
    sys.stdout.write(f"{format_table(outcomes)}\n")


if __name__ == "__main__":
    main()
