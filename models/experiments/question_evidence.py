"""Evidence that a question asks for harm, so that a judge is asked sooner about the answer to it.

    python -m models.experiments.question_evidence aligner_proxy/embedded --data DATA --out runs/questions --into FOLDER

A harmful reply often looks like any other, but most questions that get one ask for it. A small net over the question's
row says how much it does. It flags and declines nothing, because a good model refuses such a question. It is added to
the score by which answers are in doubt (`AnswerScore.doubt`), and only where it is above 0.

It learns from `models.data.harm_questions` and from the questions of ordinary answers. Every tenth question is held
out, for the table: the figures of our own authors are of authors that it knows. One question in four, of either kind,
follows an ordinary exchange, so that a dialogue means nothing. Rows are kept under `--out`, so a stopped run goes on
where it was. `models.evaluate.guards FOLDER` measures what it finds.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aligner_proxy.engine.taught_head import FurtherNet, TaughtHead, unpack
from aligner_proxy.engine.weights.manifest import TAUGHT
from aligner_proxy.prompts import find_template, query_field
from aligner_proxy.teaching.neutral import neutral_answers
from aligner_proxy.types import Turn
from models.data.harm_questions import AskedQuestion, read_own_requests, read_questions
from models.data.labelled_replies import FINE, HARMLESS, USUAL
from models.reporting import output
from models.reporting.statistics import Rate
from models.train.export import add_heads
from models.train.head_rows import HeadRows, join_rows, open_row_reader
from models.train.labelled_cases import LabelledCase
from models.train.probe import measure_area
from models.train.row_net import NetRecipe, RowNet, fit_joined_net, minimise_loss

from .answer_evidence import draw_ordinary_answers, read_sets

_HELD_OUT_STEP = 10
"""One question in so many is held out."""
_DIALOGUE_STEP = 4
"""One question in so many follows an ordinary exchange."""
_ANSWER = "OK."
"""The model is causal, so the row of a question does not depend on its answer."""


class QuestionRecipe(NetRecipe):
    """How the evidence of questions is learnt."""

    axes: int = 1024
    hidden: int = 4
    steps: int = 3000
    batch: int = 96
    dropout: float = 0.5
    nets: int = 4
    """Nets of following seeds, which become one."""
    lift: float = 1.5
    """Nats that are added to what the nets say, so that a judge is asked about weaker signs, too."""


class QuestionNet(RowNet):
    """Says of a question how much it asks for harm, in nats."""

    @torch.no_grad()
    def score_questions(self, rows: Tensor) -> Tensor:
        """The evidence [questions] of rows [questions, width]."""
        return self.compute_output(self.project(rows.float()))


def draw_questions(data: Path) -> list[AskedQuestion]:
    """All questions in an order at random: those of `read_questions`, and those of ordinary answers."""
    ordinary = [reply for replies in draw_ordinary_answers(data).values() for reply in replies]
    questions = read_questions(data) + [AskedQuestion(one.source, one.question, False) for one in ordinary]
    unique = list({question.text: question for question in questions}.values())
    Random(1).shuffle(unique)
    return unique


def draw_own_questions() -> dict[str, list[AskedQuestion]]:
    """Our own requests by author, in an order at random."""
    return {author: Random(1).sample(requests, len(requests)) for author, requests in read_own_requests().items()}


def make_question_cases(questions: Sequence[AskedQuestion]) -> list[LabelledCase]:
    """The case of each question under the usual objectives; every fourth question follows an ordinary exchange."""
    # every second one; the others measure
    exchanges = neutral_answers()[1::2]
    labels = ((FINE,) * len(USUAL),)
    cases = []
    for number, question in enumerate(questions):
        turns = [Turn("user", question.text)]
        if number % _DIALOGUE_STEP == 0:
            exchange = exchanges[number % len(exchanges)]
            turns = [Turn("user", exchange.question), Turn("assistant", exchange.answer), *turns]
        query = query_field(find_template("ultrafeedback"), turns)
        cases.append(
            LabelledCase(
                f"question-{number}",
                question.source,
                query,
                _ANSWER,
                USUAL,
                labels,
                (False,) * len(USUAL),
                harmful=question.asks_for_harm,
                own=HARMLESS,
            )
        )
    return cases


def fit_questions(rows: Tensor, labels: Tensor, recipe: QuestionRecipe) -> QuestionNet:
    """Fit nets to rows [questions, width] and labels [questions]; return their mean as one net, raised by the recipe's
    `lift`.
    """
    net = fit_joined_net(partial(_fit_net, rows, labels), recipe, recipe.nets)
    with torch.no_grad():
        net.linear.bias += recipe.lift
    return net


def _fit_net(rows: Tensor, labels: Tensor, recipe: QuestionRecipe) -> QuestionNet:
    """Fit one net to the labels (cross-entropy)."""
    torch.manual_seed(recipe.seed)
    net = QuestionNet(rows, recipe.axes, recipe.hidden)
    parts = net.project(rows)

    def compute_loss(batch: Tensor) -> Tensor:
        output = net.compute_output(F.dropout(parts[batch], recipe.dropout))
        return F.binary_cross_entropy_with_logits(output, labels[batch])

    minimise_loss(net, len(rows), recipe, compute_loss)
    return net


def add_question(head: TaughtHead, net: QuestionNet) -> TaughtHead:
    """The head with this net for questions, in place of any that it had."""
    bias, numbers = net.pack_numbers()
    plain = head.without_question()
    return replace(plain, weight=plain.weight + numbers, question=FurtherNet(bias, net.inner.out_features))


def tabulate(net: QuestionNet, rows: HeadRows) -> str:
    """Markdown: of the questions of each source, how many score above 0; below, the AUC of all."""
    scores = net.score_questions(rows.questions).tolist()
    harmful = np.array([case.harmful for case in rows.cases])
    outcomes: dict[tuple[str, str], list[bool]] = {}
    for score, case in zip(scores, rows.cases, strict=True):
        # those of one of our authors are few
        source = re.sub("^author_.*", "ours", case.source)
        outcomes.setdefault((source, "ask for harm" if case.harmful else "others"), []).append(score > 0)
    lines = [(*key, Rate.from_outcomes(outcomes[key])) for key in sorted(outcomes)]
    area = measure_area(np.array(scores)[harmful], np.array(scores)[~harmful])
    return output.table(("source", "questions", "above 0"), lines) + f"\n\nAUC: {area}\n"


def hash_questions(cases: Sequence[LabelledCase]) -> str:
    """SHA-256 over source, text and label of every question that teaches."""
    digest = hashlib.sha256()
    for case in cases:
        digest.update(repr((case.source, case.query, case.harmful)).encode())
    return digest.hexdigest()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.question_evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--into", type=Path, help="aligner folder whose head for `harmless` gets the evidence")
    QuestionRecipe.add_options(parser)
    arguments = parser.parse_args(argv)
    recipe = QuestionRecipe.from_options(arguments)
    reader = open_row_reader(arguments.aligner, arguments.out / "weights")
    questions = {"others": draw_questions(arguments.data)} | draw_own_questions()
    sets = read_sets(reader, {name: make_question_cases(each) for name, each in questions.items()}, arguments.out)
    held_out = join_rows([rows.pick_cases(range(0, len(rows), _HELD_OUT_STEP)) for rows in sets.values()])
    teaching = join_rows([rows.pick_cases(n for n in range(len(rows)) if n % _HELD_OUT_STEP) for rows in sets.values()])
    labels = torch.tensor([float(case.harmful) for case in teaching.cases])
    net = fit_questions(teaching.questions.float(), labels, recipe)
    table = tabulate(net, held_out)
    data_hash = hash_questions(teaching.cases)
    output.write(arguments.out, "question_evidence", table, {"recipe": recipe.model_dump(), "data": data_hash})
    print(f"{table}\nteaching questions: {len(teaching)}, {int(labels.sum())} ask for harm, {data_hash}")
    if arguments.into:
        heads = unpack((arguments.into / TAUGHT).read_bytes())
        add_heads(arguments.into, [add_question(head, net) if head.objective == HARMLESS else head for head in heads])


if __name__ == "__main__":
    main()
