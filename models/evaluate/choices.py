"""Choices among labels that are no objectives: how often the head chooses right, and how good its probabilities are.

    python -m models.evaluate.choices aligner_proxy/embedded --out runs/choices

The texts of models/data/choices.yaml were written for this project; no aligner was trained on them. `part: tune` chose
the wording and the curve. Each text is asked about as `POST /v1/systemone` is: with a description of every label, and
with three examples of each in place of it (by the first three texts of a label about the last two, and the other way
round, so that a text never teaches what it is asked about).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.engine.decisions import AskedObjective, SystemOneDecision, answer_decision, score_objective
from aligner_proxy.engine.example_heads import ExampleHeads
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from aligner_proxy.policy.yaml_file import read_yaml
from aligner_proxy.types import Correction
from models.reporting import output
from models.reporting.statistics import Rate

FILE = Path(__file__).parents[1] / "data" / "choices.yaml"
FOLDS = ((slice(0, 3), slice(3, 5)), (slice(2, 5), slice(0, 2)))
"""(the texts of a label that teach, those that test): each text tests in one of the folds."""
ONLY_TESTS = ((slice(0, 0), slice(None)),)
"""The same where no text teaches, so that all of them test at once."""
BINS = 10


@dataclass(frozen=True, slots=True)
class ChoiceCase:
    """One text, its right label, and the description of each label, in words or by examples."""

    question: str
    text: str
    label: str
    criteria: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """The probabilities of the labels for one case."""

    case: ChoiceCase
    probabilities: Mapping[str, float]

    @property
    def is_right(self) -> bool:
        """Whether the right label has the highest probability."""
        return max(self.probabilities, key=lambda label: self.probabilities[label]) == self.case.label

    @property
    def brier(self) -> float:
        """The Brier score, over all labels: 0 is best, 2 worst."""
        return sum((share - (label == self.case.label)) ** 2 for label, share in self.probabilities.items())


def list_cases(part: str, *, by_examples: bool) -> list[ChoiceCase]:
    """The cases of one part of the file; labels are explained by a description, or `by_examples`."""
    cases = []
    entries, _ = read_yaml(FILE)
    for entry in entries:
        if entry["part"] != part:
            continue
        choices = entry["choices"]
        descriptions = {label: choice["description"] for label, choice in choices.items()}
        for teaching, testing in FOLDS if by_examples else ONLY_TESTS:
            examples = {label: choice["texts"][teaching] for label, choice in choices.items()}
            cases += [
                ChoiceCase(entry["instructions"], text, label, examples if by_examples else descriptions)
                for label, choice in choices.items()
                for text in choice["texts"][testing]
            ]
    return cases


async def answer_cases(engine: LocalEngine, cases: Sequence[ChoiceCase]) -> list[ChoiceAnswer]:
    """The engine's answers, computed by the code of the gateway's endpoint."""
    heads = ExampleHeads()
    answers = []
    for case in cases:
        question = {"type": "choice", "criteria": case.criteria}
        replies = await ask_system_one(engine, heads, case.text, {"q": question})
        answers.append(ChoiceAnswer(case, replies["q"]["probabilities"]))
    return answers


async def ask_system_one(
    engine: Engine, heads: ExampleHeads, state: Any, questions: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The answers to these questions by name, computed by the code of `POST /v1/systemone`."""
    form = SystemOneDecision.model_validate({"state": state, "questions": questions})
    decision = form.read()

    async def score_text(objective: AskedObjective) -> Correction:
        alone = AlignRequest(
            request_id="choose",
            turns=decision.turns,
            answer=decision.text,
            objectives=(objective.text,),
            score_only=True,
            deadline_s=600,
        )
        return await score_objective(engine, heads, alone, objective)

    replies: Mapping[str, Any] = (await answer_decision(form, decision, score_text))["answers"]
    return replies


def calibration_error(answers: Sequence[ChoiceAnswer]) -> float:
    """The expected calibration error of the highest probability, in bins of equal width."""
    bins: list[list[float]] = [[] for _ in range(BINS)]
    for answer in answers:
        highest = max(answer.probabilities.values())
        bins[min(BINS - 1, int(highest * BINS))].append(highest - answer.is_right)
    return sum(abs(sum(gaps)) for gaps in bins) / len(answers)


def format_table(answers_by_way: Mapping[str, Sequence[ChoiceAnswer]]) -> str:
    """A table in Markdown with a row for each way of asking and each question, and one for all questions."""
    rows = []
    for way, answers in answers_by_way.items():
        questions = list(dict.fromkeys(answer.case.question for answer in answers))
        for question in [*questions, "all"]:
            of_question = [answer for answer in answers if question in (answer.case.question, "all")]
            right = Rate.from_outcomes(answer.is_right for answer in of_question)
            brier = sum(answer.brier for answer in of_question) / len(of_question)
            rows.append((way, question, right, f"{brier:.3f}", f"{calibration_error(of_question):.3f}"))
    return output.table(("labels have", "question", "right", "Brier score", "calibration error"), rows)


async def measure(aligner: Path, part: str) -> dict[str, list[ChoiceAnswer]]:
    """Answer all cases of a part in both ways."""
    engine = LocalEngine(lambda: open_aligner(EngineSettings(aligner), config.home_folder()))
    await engine.start()
    ways = {"descriptions": False, "three examples": True}
    answers = {
        way: await answer_cases(engine, list_cases(part, by_examples=by_examples)) for way, by_examples in ways.items()
    }
    await engine.aclose()
    return answers


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=("tune", "test"), default="test")
    options = parser.parse_args()
    answers = asyncio.run(measure(options.aligner, options.part))
    text = format_table(answers)
    output.write(options.out, "choices", text, answers)
    print(text)


if __name__ == "__main__":
    main()
