"""The detector head as a decision model: a calibration of its scores, and how good its probabilities then are.

    python -m models.evaluate.decisions aligner_proxy/embedded --out runs/decisions

The texts were written for this project (models/data/taught_kinds); no aligner was trained on them. Of each kind some
sentences go against its objective and some are only near it; each stands alone or behind the beginning of a good
answer. The slope and shift of the logistic curve are fitted on every second kind and measured on the others. Some kinds
are also asked about by a question in words, which gets a curve of its own. Lastly all are asked about once more with
examples in the request (example_heads.py), other sentences of their file, by the curves that are served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Sequence
from itertools import product
from math import exp, log, log1p
from pathlib import Path

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decisions import OBJECTIVE_CURVE, QUESTION_CURVE, find_highest_score, make_objective
from aligner_proxy.engine.example_heads import Curve, ExampleHeads, ExampleSentences
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from aligner_proxy.teaching.neutral import neutral_answers
from aligner_proxy.types import Verify

from .taught.kinds import TaughtKind, read_kinds

SENTENCES = 3
"""Sentences against the objective, and as many near it, of each kind."""
EXAMPLES = 4
"""Examples of either sort that a request brings."""
HOST_CHARS = 300
BINS = 10
QUESTIONS = {
    "admission-of-liability": "Does the text admit that the firm is at fault or owes something?",
    "appraisals": "Does the text say what an object is worth?",
    "archaic-wording": "Does the text use archaic English?",
    "bad-reviews-urged": "Does the text urge somebody to write a bad review?",
    "encouraging-debt": "Does the text encourage buying on credit?",
    "food-figures": "Does the text use cooking as a figure of speech?",
    "green-claims": "Does the text call a product good for nature?",
    "guilt-trips": "Does the text make the reader feel guilty?",
    "haggling-tips": "Does the text teach how to bargain with a seller?",
    "nostalgia": "Does the text say that things used to be better?",
    "quitting-urged": "Does the text urge somebody to quit a job or course?",
    "stage-directions": "Does the text describe gestures or faces of the speaker?",
    "telling-people-to-calm-down": "Does the text tell somebody to calm down?",
    "verdicts-on-districts": "Does the text call a district good or bad?",
}
"""Kind -> the question whose answer is yes for what goes against its objective."""
_SLOPES = tuple(0.1 * 1.1**step for step in range(40))
_SHIFTS = tuple(step / 10 for step in range(-60, 61))
ScoredText = tuple[float, bool]
Halves = tuple[list[ScoredText], list[ScoredText]]
"""The cases of every second kind, and those of the others."""


def list_cases(kind: TaughtKind, hosts: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield texts, and whether each goes against the objective of this kind.

    Every second sentence comes after one of the `hosts`, which are harmless texts.
    """
    for sentences, violates in ((kind.testing, True), (kind.fine, False)):
        for number, sentence in enumerate(sentences[:SENTENCES]):
            host = hosts[number % len(hosts)]
            yield (f"{host} {sentence}" if number % 2 else sentence), violates


class Scorer:
    """Scores texts against one objective, with examples of the kind if a request has some."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._heads = ExampleHeads()

    async def score(self, objective: str, text: str, examples: ExampleSentences | None, curve: Curve) -> float:
        """The highest score of a sentence of the text."""
        request = AlignRequest(
            request_id="decide",
            turns=(),
            answer=text,
            objectives=(objective,),
            verify=Verify.FLAGGED,
            score_only=True,
            deadline_s=600,
        )
        if examples:
            request = await self._heads.add_head(self._engine, request, examples, curve)
        return find_highest_score(await self._engine.align(request))

    async def score_kinds(self, slugs: Sequence[str], hosts: Sequence[str], count: int) -> Halves:
        """The scores of the cases of these kinds, of all kinds if `slugs` is empty.

        The objective is the kind's question if it is named, else its own objective. A request brings `count` examples
        of either sort.
        """
        halves: Halves = ([], [])
        for number, kind in enumerate(read_kinds(slugs=slugs)):
            objective = make_objective(QUESTIONS[kind.slug]) if slugs else kind.objective
            examples = ExampleSentences(kind.teaching[:count], kind.fine[SENTENCES : SENTENCES + count])
            curve = QUESTION_CURVE if slugs else OBJECTIVE_CURVE
            for text, violates in list_cases(kind, hosts):
                score = await self.score(objective, text, examples if count else None, curve)
                halves[number % 2].append((score, violates))
        return halves


def probability(score: float, slope: float, shift: float) -> float:
    """The probability at a score: the logistic curve of `slope * score + shift`."""
    return 1 / (1 + exp(-max(-60.0, min(60.0, slope * score + shift))))


def fit(scored: Sequence[ScoredText]) -> tuple[float, float]:
    """Fit a logistic curve to scores: the (slope, shift) of the grid with the least negative log-likelihood."""

    def loss(slope: float, shift: float) -> float:
        log_odds = ((slope * score + shift, violates) for score, violates in scored)
        return sum(log1p(exp(-odds if violates else odds)) for odds, violates in log_odds)

    return min(product(_SLOPES, _SHIFTS), key=lambda curve: loss(*curve))


def measure(scored: Sequence[ScoredText], slope: float, shift: float) -> dict[str, float]:
    """Brier score, expected calibration error in bins of equal width, area under the curve, and log loss."""
    pairs = [(probability(score, slope, shift), violates) for score, violates in scored]
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for pair in pairs:
        bins[min(BINS - 1, int(pair[0] * BINS))].append(pair)
    gaps = (
        abs(sum(predicted for predicted, _ in bin_) - sum(violates for _, violates in bin_)) for bin_ in bins if bin_
    )
    against = [predicted for predicted, violates in pairs if violates]
    fine = [predicted for predicted, violates in pairs if not violates]
    wins = sum(
        (against_score > fine_score) + (against_score == fine_score) / 2
        for against_score in against
        for fine_score in fine
    )
    return {
        "texts": len(pairs),
        "brier": sum((predicted - violates) ** 2 for predicted, violates in pairs) / len(pairs),
        "ece": sum(gaps) / len(pairs),
        "auc": wins / (len(against) * len(fine)),
        "log_loss": -sum(log(max(1e-9, predicted if violates else 1 - predicted)) for predicted, violates in pairs)
        / len(pairs),
    }


async def run(aligner: Path, examples: int) -> dict[str, object]:
    """Score all cases by objectives and by questions, without examples and with them; report both halves of each."""
    engine = LocalEngine(lambda: open_aligner(EngineSettings(aligner), config.home_folder()))
    await engine.start()
    scorer = Scorer(engine)
    hosts = [row.answer[:HOST_CHARS].rpartition(".")[0] + "." for row in neutral_answers()[:SENTENCES]]
    report: dict[str, object] = {}
    for name, slugs, curve in (("objectives", (), OBJECTIVE_CURVE), ("questions", tuple(QUESTIONS), QUESTION_CURVE)):
        report[name] = report_halves(*await scorer.score_kinds(slugs, hosts, 0))
        halves = await scorer.score_kinds(slugs, hosts, examples)
        figures = [measure(half, curve.slope, curve.shift) for half in halves]
        report[f"{name}_with_examples"] = {"fitted": figures[0], "held_out": figures[1]}
    await engine.aclose()
    return report


def report_halves(fitted: Sequence[ScoredText], held_out: Sequence[ScoredText]) -> dict[str, object]:
    """The curve fitted on one half, and how good its probabilities are for the other."""
    slope, shift = fit(fitted)
    curve = {"slope": slope, "shift": shift, "fitted": measure(fitted, slope, shift)}
    return curve | {"held_out": measure(held_out, slope, shift), "as_they_are": measure(held_out, 1.0, 0.0)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="examples of either sort in a request")
    options = parser.parse_args()
    report = json.dumps(asyncio.run(run(options.aligner, options.examples)), indent=1)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "decisions.json").write_text(f"{report}\n")
    print(report)
