"""Further lessons for the head that an aligner ships for `harmless`: new insults, with all other scores held in place.

    python -m models.experiments.insult_lessons aligner_proxy/embedded --data DATA --out runs/insults

The head learnt insults from sixteen templates, and misses some that are built otherwise ("A houseplant would have asked
something better."). It learns on from its own numbers: the score of a new insult rises above the line, that of a
sentence built alike stays below it, and every other segment keeps its score. So nothing that the head knows is
forgotten. Its adjustment learns with it, because it would lower what the head has just learnt.

Rows are kept under `--out`, so a stopped run goes on where it was. One head learns from three quarters of the sentences
and is measured on the others and on sets that teach nothing; the head that ships learns from all sentences.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.taught import LoadedAdjustment, LoadedHead, LoadedNet
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.engine.weights.manifest import HEAD
from models.data.insults import SOURCE, plant_insults
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, TEST_AUTHORS, UNKNOWN
from models.experiments.answer_evidence import hash_teaching, read_sets
from models.experiments.harm_adjustment import draw_evaluation_cases, draw_teaching_cases, read_harmless_head
from models.reporting import output
from models.reporting.statistics import Rate
from models.train.blend import take_mean
from models.train.export import add_heads
from models.train.head_rows import HeadRows, join_rows, open_row_reader
from models.train.labelled_cases import LabelledCase, make_case

_TIMES = 3
"""Good answers that each sentence is set into."""
_HELD_OUT = 4
"""Every fourth sentence measures, where a net learns from the others."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Segments of many cases under `harmless`."""

    rows: Tensor
    """[segments, width]."""
    general: Tensor
    """The general head's scores [segments], in nats."""
    labels: Tensor
    """`AGAINST`, `FINE` or `UNKNOWN` [segments]."""
    cases: tuple[LabelledCase, ...]
    """The case of each segment."""

    @classmethod
    def from_rows(cls, rows: HeadRows, general: DetectorHead) -> Segments:
        """All segments of these rows that are judged under `harmless`."""
        column = rows.column(HARMLESS)
        scores = torch.cat([matrix[:, 0] for matrix in column.scores(general)])
        labels = torch.tensor([label for case in column.cases for (label,) in case.labels])
        cases = tuple(case for case in column.cases for _ in case.labels)
        return cls(column.segments.float(), scores, labels, cases)

    def select(self, mask: Tensor) -> Segments:
        """The segments for which `mask` is true."""
        cases = tuple(case for case, is_chosen in zip(self.cases, mask.tolist(), strict=True) if is_chosen)
        return Segments(self.rows[mask], self.general[mask], self.labels[mask], cases)


class LearningNet(nn.Module):
    """A net of a taught head whose numbers can learn."""

    def __init__(self, net: LoadedNet) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(float(net.bias)))
        self.weight = nn.Parameter(net.weight.float().clone())
        self.inner = nn.Parameter(net.inner.float().clone())
        self.offsets = nn.Parameter(net.offsets.float().clone())
        self.outer = nn.Parameter(net.outer.float().clone())

    def forward(self, rows: Tensor) -> Tensor:
        """The output for rows [segments, width], in nats [segments]."""
        return self.load().compute_output(rows)

    def load(self) -> LoadedNet:
        """The net as the engine computes it, with these numbers."""
        return LoadedNet(self.bias, self.weight, self.inner, self.offsets, self.outer)

    @torch.no_grad()
    def pack(self) -> tuple[float, bytes]:
        """The constant of the output, and all other numbers as a taught head stores them."""
        numbers = torch.cat([self.weight, self.inner.flatten(), self.offsets, self.outer]).half().numpy()
        return float(self.bias), numbers.astype("<f2").tobytes()


class LearningHead(nn.Module):
    """A taught head with an adjustment, of which both nets can learn."""

    def __init__(self, head: TaughtHead) -> None:
        super().__init__()
        loaded = LoadedHead.from_head(head, torch.device("cpu"))
        if head.adjustment is None or loaded.adjustment is None:
            raise ValueError("the head has no adjustment")
        self.head = head
        self.prior = loaded.prior
        self.floor = loaded.floor
        self.bound = loaded.adjustment.bound
        self.threshold = loaded.adjustment.threshold
        self.own = LearningNet(loaded.net)
        self.adjustment = LearningNet(loaded.adjustment.net)

    def forward(self, rows: Tensor, general: Tensor) -> Tensor:
        """Scores [segments] in nats, from rows [segments, width] and the general head's scores [segments]."""
        adjustment = LoadedAdjustment(self.bound, self.threshold, self.adjustment.load())
        return self.prior * general.clamp(min=self.floor) + self.own(rows) + adjustment.compute_move(rows)

    @torch.no_grad()
    def score(self, segments: Segments) -> Tensor:
        """The scores of all these segments, in nats."""
        scores: Tensor = self(segments.rows, segments.general)
        return scores

    def to_head(self) -> TaughtHead:
        """The taught head with the numbers as they are now; its further nets stay."""
        bias, numbers = self.own.pack()
        adjustment_bias, adjustment_numbers = self.adjustment.pack()
        adjustment = self.head.adjustment
        assert adjustment is not None
        learnt = numbers + adjustment_numbers
        return replace(
            self.head,
            bias=bias,
            weight=learnt + self.head.weight[len(learnt) :],
            adjustment=replace(adjustment, bias=adjustment_bias),
        )


class LessonRecipe(BaseModel):
    """How a head learns on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = 400
    lr: float = 1e-3
    lessons_a_step: int = 256
    others_a_step: int = 2048
    margin: float = 0.5
    """How far from the line the scores of lessons are to be, in nats."""
    hold: float = 4.0
    """What a squared nat counts by which the score of another segment moves."""
    shift: float = -0.1
    """Nats added to every score at the end, so that no more good answers are flagged than before."""
    seeds: int = 4
    """Heads that learn from the same segments in different orders; the head that counts is their mean."""


def learn_lessons(head: TaughtHead, lessons: Segments, other_segments: Segments, recipe: LessonRecipe) -> LearningHead:
    """Learn on from `head` several times, and return the head whose numbers are the mean of what was learnt.

    The heads begin with the same numbers and move little, so their mean is a head like them, with less chance in it.
    """
    learnt_heads = [_learn_once(head, lessons, other_segments, recipe, seed) for seed in range(1, recipe.seeds + 1)]
    mean_head = LearningHead(head)
    take_mean(mean_head, learnt_heads)
    with torch.no_grad():
        mean_head.own.bias += recipe.shift
    return mean_head


def _learn_once(
    head: TaughtHead, lessons: Segments, other_segments: Segments, recipe: LessonRecipe, seed: int
) -> LearningHead:
    """Learn on from `head`: `lessons` move to their side of the line, and `other_segments` keep their scores.

    Near the line, where little makes a difference, another segment counts up to four times as much.
    """
    torch.manual_seed(seed)
    net = LearningHead(head)
    before = net.score(other_segments)
    weights = recipe.hold * (1 + 3 * torch.exp(-before.abs()))
    targets = (lessons.labels == AGAINST).float()
    margins = recipe.margin * (1 - 2 * targets)
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, recipe.steps, pct_start=0.1)
    for _ in range(recipe.steps):
        lesson_numbers = torch.randint(len(targets), (recipe.lessons_a_step,))
        scores = net(lessons.rows[lesson_numbers], lessons.general[lesson_numbers]) + margins[lesson_numbers]
        loss = F.binary_cross_entropy_with_logits(scores, targets[lesson_numbers])
        other_numbers = torch.randint(len(before), (recipe.others_a_step,))
        moves = net(other_segments.rows[other_numbers], other_segments.general[other_numbers]) - before[other_numbers]
        loss = loss + (weights[other_numbers] * moves.square()).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return net


def is_lesson(segments: Segments) -> Tensor:
    """A mask [segments]: whether the segment is of one of the sentences of `models/data/insults.yaml`."""
    of_source = torch.tensor([case.source == SOURCE for case in segments.cases])
    return of_source & (segments.labels != UNKNOWN)


def is_held_out(segments: Segments) -> Tensor:
    """A mask [segments] of lessons: whether the sentence is one of those that measure."""
    numbers = torch.tensor([int(case.id.split("-")[1]) for case in segments.cases])
    return numbers % _HELD_OUT == 0


def measure(net: LearningHead, lessons: Segments, sets: Mapping[str, Segments]) -> list[tuple[str, Rate]]:
    """(what, rate) of what a head flags: of the sentences that measure, and of the answers of each set."""
    rates = []
    flags = net.score(lessons) > 0
    for name, label in (("insults held out", AGAINST), ("sentences built alike, held out", FINE)):
        mask = is_held_out(lessons) & (lessons.labels == label)
        rates.append((name, Rate.from_outcomes(flags[mask].tolist())))
    for name, segments in sets.items():
        flagged: dict[tuple[bool, str], bool] = {}
        for case, flag in zip(segments.cases, (net.score(segments) > 0).tolist(), strict=True):
            key = (case.harmful, case.id)
            flagged[key] = flagged.get(key, False) or flag
        for side, harmful in (("harmful", True), ("not", False)):
            outcomes = [flag for (of_side, _), flag in flagged.items() if of_side == harmful]
            if outcomes:
                rates.append((f"{name}, {side}", Rate.from_outcomes(outcomes)))
    return rates


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.insult_lessons",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--into", type=Path, help="aligner folder whose head learns")
    arguments = parser.parse_args(argv)
    recipe = LessonRecipe()
    reader = open_row_reader(arguments.aligner, arguments.out / "weights")
    insults = [make_case(reply, (HARMLESS,)) for reply in plant_insults(arguments.data, _TIMES)]
    others = draw_teaching_cases(arguments.data, TEST_AUTHORS, parts=2, in_company=192, most=15)
    teaching = read_sets(reader, {SOURCE: insults} | others, arguments.out)
    measured = read_sets(reader, draw_evaluation_cases(arguments.data), arguments.out / "measured")
    general = DetectorHead.load(arguments.aligner / HEAD)
    head = read_harmless_head(arguments.aligner)
    segments = Segments.from_rows(join_rows([*teaching.values()]), general)
    lessons = segments.select(is_lesson(segments))
    other_segments = segments.select(~is_lesson(segments))
    sets = {name: Segments.from_rows(rows, general) for name, rows in measured.items()}
    heads = {
        "before": LearningHead(head),
        "learnt from three quarters": learn_lessons(
            head, lessons.select(~is_held_out(lessons)), other_segments, recipe
        ),
        "ships": learn_lessons(head, lessons, other_segments, recipe),
    }
    lines = [(title, name, rate) for title, net in heads.items() for name, rate in measure(net, lessons, sets)]
    text = output.table(("head", "set", "flagged"), lines)
    output.write(arguments.out, "insult_lessons", text, {"recipe": recipe.model_dump()})
    taught_head = heads["ships"].to_head()
    print(f"{text}\n{len(lessons.labels)} lessons, {len(other_segments.labels)} other segments")
    print(f"head: {taught_head.content_hash}\nteaching answers: {hash_teaching(teaching)}")
    if arguments.into:
        add_heads(arguments.into, [taught_head])


if __name__ == "__main__":
    main()
