"""Evidence that an answer is harmful as a whole, learnt from replies of models that others labelled.

    python -m models.experiments.answer_evidence aligner_proxy/embedded --data DATA --out runs/evidence

What people call harmful lies in a reply as a whole, and no sentence of it need be bad. A small net over the rows of an
answer's segments learns to say of each what it tells of the whole: the mean over the segments is the answer's score,
and the model below and its heads stay as they are. It learns from the natural replies that may teach
(`models.data.harm_replies`, GPTFuzz, JailbreakBench), harmful and harmless in turn, and from ordinary answers.

Every fifth ordinary answer only sets the point: 0 is `SURE` nats above what all but `BUDGET` of those reach. Rows are
kept under `--out`, so a stopped run goes on where it was. The table is measured on the halves of the sets that guards
are measured by (`models.evaluate.guards`); they teach nothing, nor do the strong, short and near answers beside them.
`--into` writes the evidence into the head for `harmless` of an aligner's folder, `--average` the mean of it and of what
the head has.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from aligner_proxy.engine.model.taught import LoadedHead
from aligner_proxy.engine.taught_head import FurtherNet, TaughtHead, unpack
from aligner_proxy.engine.weights.manifest import TAUGHT
from aligner_proxy.teaching.neutral import neutral_answers
from models.data import labelled_replies
from models.data.harm_replies import SOURCES, read_harm_replies
from models.data.labelled_replies import FINE, HARMLESS, TEACHING, TEST_AUTHORS, USUAL, LabelledReply
from models.evaluate import guards
from models.evaluate.good_answers import draw_good_answers
from models.reporting import output
from models.reporting.statistics import Rate
from models.train.export import add_heads
from models.train.head_rows import HeadRowReader, HeadRows, open_row_reader
from models.train.labelled_cases import LabelledCase, make_case
from models.train.row_net import NetRecipe, RowNet, fit_joined_net, minimise_loss

BUDGET = 0.005
"""Share of ordinary answers that may come within `SURE` nats of the point, or above it."""
SURE = 1.0
"""Nats between that and the point: an answer above 0 is declined as a whole, which costs more than a sentence."""
DOUBT = 0.03
"""Share of ordinary answers that a judge may be asked about."""
NEAR = "near"
"""Good answers of our own, many of them about subjects near harm."""
SHORT_SOURCES = frozenset(name for name in SOURCES if name.startswith("b_")) | {"a_safetext_advice"}
"""Sources of sentences rather than whole replies; fewer are taken of them."""
_SENTENCES = 160
"""Replies of each source in `SHORT_SOURCES` at most."""
_GOOD, _LONG, _OTHER = 300, 60, 300
"""Ordinary answers: good ones, long good ones, and answers written for other objectives."""
_LONG_CHARS = 900
"""A longer answer is a long one."""
_MAX_OTHER_CHARS = 700
_BEGINNING = 4
"""Most segments of an answer that is cut to its beginning."""
_ORDINARY_STEP = 5
"""One ordinary answer in so many sets the point, and is not learnt from."""


class EvidenceRecipe(NetRecipe):
    """How the evidence is learnt, from whole answers."""

    axes: int = 1024
    hidden: int = 16
    steps: int = 1500
    batch: int = 96
    dropout: float = 0.5
    nets: int = 4
    """Nets of following seeds, which become one: the figures of a single one move by 0.02 with its seed."""
    beginnings: float = 0.25
    """Share of the answers of a step that are cut to their first segments: most replies to attacks are long, and a
    short reply to a direct question is like their beginning."""


def draw_teaching_replies(data: Path, most: int) -> dict[str, list[LabelledReply]]:
    """At most `most` replies of each natural source, harmful and harmless in turn, and ordinary answers."""
    natural = {name: read_harm_replies(data, name) for name in SOURCES}
    natural |= {name: labelled_replies.read_natural_replies(data, name, 1000) for name in TEACHING}
    selected = {name: _take_turns(replies, name)[: _count_taken(name, most)] for name, replies in natural.items()}
    return selected | draw_ordinary_answers(data)


def _count_taken(name: str, most: int) -> int:
    return min(most, _SENTENCES) if name in SHORT_SOURCES else most


def _take_turns(replies: Sequence[LabelledReply], name: str) -> list[LabelledReply]:
    """The replies in an order at random, harmful and harmless in turn."""
    rng = Random(name)
    sides = [[reply for reply in replies if reply.harmful is harmful] for harmful in (True, False)]
    for side in sides:
        rng.shuffle(side)
    return [reply for reply in chain.from_iterable(zip_longest(*sides)) if reply is not None]


def draw_ordinary_answers(data: Path) -> dict[str, list[LabelledReply]]:
    """Answers in which nothing is harmful, by sort: good, long, for other objectives, neutral."""
    good = labelled_replies.read_good_replies(data, _GOOD)
    longer = [one for one in labelled_replies.read_further_good_replies(data, good) if len(one.answer) > _LONG_CHARS]
    measured = {answer for _, answer in draw_good_answers()}
    # what goes against an objective of its own is ordinary here
    other_answers = [
        replace(one, objective=HARMLESS, harmful=False, segments=(FINE,) * len(one.segments))
        for one in labelled_replies.read_written_answers()
        if one.source not in TEST_AUTHORS
        and one.answer.strip() not in measured
        and not one.about_harm
        and len(one.answer) <= _MAX_OTHER_CHARS
    ]
    Random(2).shuffle(other_answers)
    neutral = labelled_replies.make_fine_replies(
        "neutral", ((one.question, one.answer) for one in neutral_answers()[1::2])
    )
    return {"good": good, "long": longer[:_LONG], "other": other_answers[:_OTHER], "neutral": neutral}


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers under `harmless`, as the rows of their segments [segments, width].

    Answer i has the rows `segment_starts[i]` to `segment_starts[i + 1]`.
    """

    rows: Tensor
    segment_starts: tuple[int, ...]
    harmful: Tensor

    @classmethod
    def from_rows(cls, sets: Collection[HeadRows]) -> Answers:
        """All answers of these sets."""
        columns = [rows.column(HARMLESS) for rows in sets]
        lengths = [stop - start for column in columns for start, stop in pairwise(column.segment_starts)]
        harmful = torch.tensor([float(case.harmful) for column in columns for case in column.cases])
        starts = (0, *torch.tensor(lengths).cumsum(0).tolist())
        return cls(torch.cat([column.segments for column in columns]).float(), starts, harmful)

    def __len__(self) -> int:
        return len(self.harmful)

    def find_segments(self, numbers: Tensor, beginnings: float = 0.0) -> tuple[Tensor, Tensor]:
        """The segments of the answers `numbers`: the row of each segment, and the index in `numbers` of its answer.

        For answers 0 and 2 of 2, 5 and 1 segments: rows `[0, 1, 7]` and answers `[0, 0, 1]`. Of the share `beginnings`
        of the answers, drawn anew each time, only the first one to four segments.
        """
        starts = torch.tensor([self.segment_starts[n] for n in numbers.tolist()])
        lengths = torch.tensor([self.segment_starts[n + 1] for n in numbers.tolist()]) - starts
        if beginnings:
            is_cut = torch.rand(len(numbers)) < beginnings
            drawn_lengths = torch.randint(1, _BEGINNING + 1, (len(numbers),))
            lengths = torch.where(is_cut, torch.minimum(lengths, drawn_lengths), lengths)
        ranges = [torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        return torch.cat(ranges), torch.repeat_interleave(lengths)


def average(numbers: Tensor, owners: Tensor, count: int) -> Tensor:
    """The mean of each owner's numbers [count]; numbers 1, 3, 8 of owners 0, 0, 1 give 2, 8."""
    sums = torch.zeros(count).index_add(0, owners, numbers)
    return sums / torch.bincount(owners, minlength=count)


class EvidenceNet(RowNet):
    """Says of each segment how much it speaks for harm in its answer, in nats. `bias` moves the point."""

    bias = 0.0

    @torch.no_grad()
    def score_segments(self, rows: Tensor) -> Tensor:
        """The evidence [segments] of rows [segments, width]."""
        return self.compute_output(self.project(rows.float())) + self.bias


def fit_evidence(answers: Answers, recipe: EvidenceRecipe) -> EvidenceNet:
    """Fit `recipe.nets` nets of following seeds, and join them into the net that is their mean."""
    return fit_joined_net(partial(fit_net, answers), recipe, recipe.nets)


def fit_net(answers: Answers, recipe: EvidenceRecipe) -> EvidenceNet:
    """Fit one net: its mean over an answer's segments predicts the label of the answer (cross-entropy)."""
    torch.manual_seed(recipe.seed)
    net = EvidenceNet(answers.rows, recipe.axes, recipe.hidden)
    parts = net.project(answers.rows)

    def compute_loss(batch: Tensor) -> Tensor:
        segments, owners = answers.find_segments(batch, recipe.beginnings)
        evidence = net.compute_output(F.dropout(parts[segments], recipe.dropout))
        scores = average(evidence, owners, len(batch))
        return F.binary_cross_entropy_with_logits(scores, answers.harmful[batch])

    minimise_loss(net, len(answers), recipe, compute_loss)
    return net


def set_point(net: EvidenceNet, ordinary: Sequence[float]) -> None:
    """Move the net so that 0 lies `SURE` nats above the score that the share `BUDGET` of `ordinary` exceeds."""
    net.bias -= guards.find_limit(ordinary, BUDGET) + SURE


def score_answers(net: EvidenceNet, rows: HeadRows) -> list[guards.ScoredReply]:
    """Each answer with the evidence of its segments."""
    column = rows.column(HARMLESS)
    evidence = [net.score_segments(column.case_rows(number)[0]).tolist() for number in range(len(column))]
    return [
        guards.ScoredReply(case.id, case.harmful, tuple(each))
        for case, each in zip(column.cases, evidence, strict=True)
    ]


def tabulate(results: Mapping[str, Sequence[guards.ScoredReply]]) -> str:
    """Markdown: for each set the AUC, and the share above 0, above the budget, and above the bar of doubt."""
    strong, short = (
        [one.mean_score for one in results[name]] for name in (guards.STRONG_ANSWERS, guards.SHORT_ANSWERS)
    )
    # the first as models.evaluate.guards has it; judges are asked about short answers, too
    bars = {
        BUDGET: guards.find_limit(strong, BUDGET),
        DOUBT: max(guards.find_limit(strong, DOUBT), guards.find_limit(short, DOUBT)),
    }
    areas = {one.set: one.area for one in guards.compute_figures(results, BUDGET) if one.evidence == guards.MEAN}
    lines = []
    for name, each in results.items():
        for harmful in (True, False):
            scores = [one.mean_score for one in each if one.harmful is harmful]
            if scores:
                rates = [
                    Rate.from_outcomes(score > limit for score in scores) for limit in (0.0, bars[BUDGET], bars[DOUBT])
                ]
                lines.append((name, "harmful" if harmful else "not", areas.get(name, ""), *rates))
    head = ("set", "replies", "AUC", "above 0", f"at {BUDGET:.1%} of strong answers", f"at {DOUBT:.0%} of both")
    return output.table(head, lines) + f"\n\nbars: {bars[BUDGET]:.3f}, {bars[DOUBT]:.3f}\n"


def evaluation_cases(data: Path, most: int, each: int) -> dict[str, list[LabelledCase]]:
    """The answers that measure the net. None of them teaches."""
    near = labelled_replies.make_fine_replies(NEAR, draw_good_answers())
    return guards.list_cases(data, most, each) | {NEAR: [make_case(reply, USUAL) for reply in near]}


def fit_with_point(teaching: Sequence[HeadRows], ordinary: Sequence[HeadRows], recipe: EvidenceRecipe) -> EvidenceNet:
    """Fit a net, and set its point by the ordinary answers that it did not learn from."""
    learnt = [rows.pick_cases(n for n in range(len(rows)) if n % _ORDINARY_STEP) for rows in ordinary]
    held_out = [rows.pick_cases(range(0, len(rows), _ORDINARY_STEP)) for rows in ordinary]
    net = fit_evidence(Answers.from_rows([*teaching, *learnt]), recipe)
    set_point(net, sorted((one.mean_score for rows in held_out for one in score_answers(net, rows)), reverse=True))
    return net


def add_evidence(head: TaughtHead, net: EvidenceNet) -> TaughtHead:
    """The head with the net's evidence, in place of any evidence that it had."""
    bias, numbers = net.pack_numbers()
    evidence = FurtherNet(bias + net.bias, net.inner.out_features)
    plain = head.without_evidence()
    return replace(plain, weight=plain.weight + numbers, evidence=evidence)


def average_evidence(head: TaughtHead, other: TaughtHead) -> TaughtHead:
    """The head with the mean of its own evidence and the other head's.

    The result is one net with the hidden units of both.
    """
    nets = []
    for one in (head, other):
        evidence = LoadedHead.from_head(one, torch.device("cpu")).evidence
        if evidence is None:
            raise ValueError(f"the head for {one.objective!r} has no evidence to average")
        nets.append(evidence)
    numbers = torch.cat(
        [
            torch.stack([net.weight for net in nets]).mean(0),
            *[net.inner.flatten() for net in nets],
            *[net.offsets for net in nets],
            *[net.outer / len(nets) for net in nets],
        ]
    )
    plain = head.without_evidence()
    packed = numbers.half().numpy().astype("<f2").tobytes()
    hidden = sum(len(net.outer) for net in nets)
    return replace(
        plain, weight=plain.weight + packed, evidence=FurtherNet(sum(net.bias for net in nets) / len(nets), hidden)
    )


def hash_teaching(sets: Mapping[str, HeadRows]) -> str:
    """SHA-256 over set, id, question, text and label of every teaching answer."""
    digest = hashlib.sha256()
    for name in sorted(sets):
        for case in sets[name].cases:
            digest.update(repr((name, case.id, case.query, case.answer, case.harmful)).encode())
    return digest.hexdigest()


def read_sets(reader: HeadRowReader, sets: Mapping[str, Sequence[LabelledCase]], out: Path) -> dict[str, HeadRows]:
    """The rows of each set; rows that an earlier run read are taken from its folder."""
    return {name: reader.read(cases, out / "rows" / name) for name, cases in sets.items()}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.answer_evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=100, help="replies of each natural source")
    parser.add_argument("--measured", type=int, default=200, help="replies of each set that is measured; 0: all")
    parser.add_argument("--each", type=int, default=20, help="strong answers an upstream")
    parser.add_argument("--into", type=Path, help="aligner folder whose head for `harmless` gets the evidence")
    parser.add_argument(
        "--average", action="store_true", help="give it the mean of this evidence and of that which the head has"
    )
    EvidenceRecipe.add_options(parser)
    arguments = parser.parse_args(argv)
    recipe = EvidenceRecipe.from_options(arguments)
    reader = open_row_reader(arguments.aligner, arguments.out / "weights")
    teaching_replies = draw_teaching_replies(arguments.data, arguments.most)
    teaching = read_sets(
        reader,
        {name: [make_case(one, USUAL) for one in each] for name, each in teaching_replies.items()},
        arguments.out,
    )
    data_hash = hash_teaching(teaching)
    ordinary = [teaching.pop(name) for name in ("good", "long", "other", "neutral")]
    net = fit_with_point([*teaching.values()], ordinary, recipe)
    measured = read_sets(
        reader, evaluation_cases(arguments.data, arguments.measured, arguments.each), arguments.out / "measured"
    )
    results = {name: score_answers(net, rows) for name, rows in measured.items()}
    text = tabulate(results)
    record = {"recipe": recipe.model_dump(), "data": data_hash, "scores": results}
    output.write(arguments.out, "answer_evidence", text, record)
    print(f"{text}\nteaching answers: {data_hash}")
    if arguments.into:
        heads = unpack((arguments.into / TAUGHT).read_bytes())
        changed = {head.objective: add_evidence(head, net) for head in heads if head.objective == HARMLESS}
        if arguments.average:
            changed = {
                one.objective: average_evidence(one, changed[HARMLESS]) for one in heads if one.objective in changed
            }
        add_heads(arguments.into, [changed.get(head.objective, head) for head in heads])


if __name__ == "__main__":
    main()
