"""The head as a decision model on Typed Decisions: how often it is right, and how good its probabilities are.

    python -m models.evaluate.typed_decisions FILE aligner_proxy/embedded [--cases 15]

FILE is the test split of LocalLLaMA/typed-decisions as JSON lines, perhaps gzipped: cases with a `state` (JSON), five
typed `questions` and a `gold` distribution for each. The first cases of each workflow are asked as `POST /v1/systemone`
is. A question of type `score` is asked as a choice among its levels, since a head has no levels. Two guesses stand
beside the head: equal probabilities, and how often each answer is gold in the cases that are not asked. Nothing was
trained or chosen on this set.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_proxy.engine.example_heads import ExampleHeads
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from models.evaluate.choices import ChoiceAnswer, ChoiceCase, ask_system_one, calibration_error
from models.reporting import output
from models.reporting.statistics import Rate

Probabilities = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TypedCase:
    """One case of the set."""

    workflow: str
    state: Any
    questions: Mapping[str, Mapping[str, Any]]
    gold: Mapping[str, Probabilities]
    """By question the gold probability of each answer."""


def read_typed_cases(path: Path) -> list[TypedCase]:
    """The cases of a file, in the file's order."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        TypedCase(
            row["workflow"],
            row["state"],
            row["questions"],
            {name: gold["probabilities"] for name, gold in row["gold"].items()},
        )
        for row in rows
    ]


def divide_cases(cases: Sequence[TypedCase], count: int) -> tuple[list[TypedCase], list[TypedCase]]:
    """The first `count` cases of each workflow, and all others."""
    numbers = Counter[str]()
    parts: tuple[list[TypedCase], list[TypedCase]] = ([], [])
    for case in cases:
        parts[numbers[case.workflow] >= count].append(case)
        numbers[case.workflow] += 1
    return parts


def make_questions(case: TypedCase) -> dict[str, dict[str, Any]]:
    """The case's questions as `POST /v1/systemone` takes them; a score becomes a choice of its levels."""
    questions = {}
    for name, question in case.questions.items():
        criteria = question.get("criteria")
        if question["type"] == "score":
            criteria = {str(level): words for level, words in enumerate(criteria)}
        kind = "noul" if question["type"] == "noul" else "choice"
        questions[name] = {"type": kind, "instructions": question["instructions"], "criteria": criteria}
    return questions


def read_probabilities(reply: Mapping[str, Any]) -> Probabilities:
    """The probability of each answer in one reply of the endpoint."""
    if reply["type"] == "noul":
        return {"true": reply["noul"], "false": 1 - reply["noul"]}
    shares: Probabilities = reply["probabilities"]
    return shares


def make_answer(case: TypedCase, name: str, probabilities: Probabilities) -> ChoiceAnswer:
    """An answer of the head beside the gold answer, which is the one with the most gold probability."""
    gold = case.gold[name]
    label = max(gold, key=lambda answer: gold[answer])
    return ChoiceAnswer(ChoiceCase(case.questions[name]["type"], "", label, gold), probabilities)


def squared_distance(answer: ChoiceAnswer) -> float:
    """The squared distance of the probabilities from the gold distribution.

    `make_answer` stores the gold distribution as the case's criteria.
    """
    return sum((share - answer.case.criteria.get(label, 0.0)) ** 2 for label, share in answer.probabilities.items())


def guess_answers(cases: Sequence[TypedCase], others: Sequence[TypedCase]) -> dict[str, list[ChoiceAnswer]]:
    """What two guesses answer to each question: equal probabilities, and how often each label is right in `others`.

    The right label of a case is the one to which its gold answer gives the highest probability.
    """
    gold_labels: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for case in others:
        for name, gold in case.gold.items():
            right_label = max(gold, key=lambda label: gold[label])
            gold_labels[case.workflow, name][right_label] += 1
    guesses: dict[str, list[ChoiceAnswer]] = {"equal probabilities": [], "the most frequent answer": []}
    for case in cases:
        for name, gold in case.gold.items():
            counts = gold_labels[case.workflow, name]
            frequencies = {label: counts[label] / max(1, counts.total()) for label in gold}
            equal_probabilities = dict.fromkeys(gold, 1 / len(gold))
            guesses["equal probabilities"].append(make_answer(case, name, equal_probabilities))
            guesses["the most frequent answer"].append(make_answer(case, name, frequencies))
    return guesses


async def answer_cases(aligner: Path, cases: Sequence[TypedCase]) -> list[ChoiceAnswer]:
    """The head's answers to all questions of the cases."""
    engine = LocalEngine(lambda: open_aligner(EngineSettings(aligner), config.home_folder()))
    await engine.start()
    heads = ExampleHeads()
    answers = []
    for case in cases:
        replies = await ask_system_one(engine, heads, case.state, make_questions(case))
        answers += [make_answer(case, name, read_probabilities(reply)) for name, reply in replies.items()]
    await engine.aclose()
    return answers


def format_table(answers_by_way: Mapping[str, Sequence[ChoiceAnswer]]) -> str:
    """Markdown: a row for each way of answering and type of question, and one for all types."""
    rows = []
    for way, answers in answers_by_way.items():
        for kind in ("noul", "choice", "score", "all"):
            of_kind = [answer for answer in answers if kind in (answer.case.question, "all")]
            means = (
                sum(map(measure, of_kind)) / len(of_kind) for measure in (lambda answer: answer.brier, squared_distance)
            )
            error = calibration_error(of_kind)
            rows.append(
                (
                    way,
                    kind,
                    Rate.from_outcomes(answer.is_right for answer in of_kind),
                    *(f"{mean:.3f}" for mean in (*means, error)),
                )
            )
    return output.table(
        ("answered by", "type", "right", "Brier score", "squared distance from gold", "calibration error"), rows
    )


def main() -> None:
    """Print the figures of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--cases", type=int, default=15, help="cases of each workflow, with five questions each")
    options = parser.parse_args()
    cases, others = divide_cases(read_typed_cases(options.file), options.cases)
    answers = asyncio.run(answer_cases(options.aligner, cases))
    print(format_table({"head": answers, **guess_answers(cases, others)}))


if __name__ == "__main__":
    main()
