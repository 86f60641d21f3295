"""An adjustment of the head that an aligner ships for `harmless`, learnt from the written answers of many authors.

    python -m models.experiments.harm_adjustment aligner_proxy/embedded --data DATA --out runs/adjustment

Many good answers about harm score barely above the line. A small net over the same rows learns to move such scores, by
at most `bound` nats either way, while the head stays as it is. What it moves below a threshold is lowered
(`engine.taught_head.Adjustment`). So what the head is sure of, insults above all, is not forgotten. What this clears
makes room to find more: every score is `shift` nats higher than before.

It learns from answers in parts of equal make-up (`--parts`), phrases of harm beside other objectives, short answers in
pairs (`models.data.short_answers`), and the natural replies that the score of whole answers learns from
(`models.experiments.answer_evidence`; `--most` of each source). Nobody said which segments of a natural harmful reply
are against `harmless`: those that the head flags count as such, the others teach nothing.

Rows are kept under `--out`, so a stopped run goes on where it was. The threshold is chosen on authors that the net did
not learn from: two nets learn from half of the authors each, and judge the others' harm. Of the harm that the head
finds there the share `kept` is still found. Authors of `--without` teach nothing, nor does any answer to a question
that `models.evaluate.good_answers` asks.

The table shows what other shares and shifts would do. Good answers and short ones are judged there by the nets that
did not learn from their authors, everything else by the net that ships; of it nothing teaches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.taught import LoadedHead, TaughtColumns
from aligner_proxy.engine.taught_head import Adjustment, TaughtHead, unpack
from aligner_proxy.engine.weights.manifest import HEAD, TAUGHT
from aligner_proxy.policy.config import builtin_objectives
from models.data import labelled_replies
from models.data.labelled_replies import (
    AGAINST,
    FINE,
    HARM,
    HARMLESS,
    TEST_AUTHORS,
    TEST_KINDS,
    UNKNOWN,
    USUAL,
    LabelledReply,
)
from models.data.short_answers import read_short_answers
from models.evaluate import guards
from models.evaluate.good_answers import draw_good_answers
from models.experiments.answer_evidence import draw_teaching_replies, hash_teaching, read_sets
from models.reporting import output
from models.reporting.statistics import Rate
from models.train.export import add_heads
from models.train.head_rows import HeadRows, join_rows, open_row_reader
from models.train.labelled_cases import LabelledCase, make_case
from models.train.row_net import NetRecipe, RowNet, fit_joined_net, minimise_loss

TEACHERS = frozenset({"author_a", "author_b", "author_c", "author_d"})
"""Authors that the head itself learnt from; what it finds of theirs says nothing of others."""
_ALONE = (HARMLESS,)
_WRITTEN_EACH, _PHRASES_EACH, _GOOD_EACH = 192, 80, 16
"""Answers of one part of the teaching cases: any number of parts is balanced."""
_LONGEST = 700
"""Characters of a written or good answer that teaches, at most."""
_LONGEST_PHRASE = 500
_HOSTILE = ("insult", "threat")
_PART_PHRASES = 960
"""Phrases from this place on are not in the parts, but in company of other objectives."""
_SHORT = 260
"""Characters of a phrase in company of other objectives, at most."""
_COMPANIES = 4
"""Different sets of other objectives."""
_COMPANY_SIZES = (1, 2, 2, 3)
"""How many other objectives a set has; one of these is drawn."""
_UNSEEN = 150
"""Insults of unseen wording that measure."""
SHARES = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Shares of the harm found before that the table compares."""
SHIFTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shifts that the table compares, in nats."""
GOOD = "good_answers"
"""A set that measures: good answers of our own."""
AUTHORS = "authors"
"""Another: answers of `TEST_AUTHORS` about harm."""
UNSEEN = "unseen"
"""Another: insults of unseen wording."""
SHORT = "short_pairs"
"""Another: short answers."""


class AdjustmentRecipe(NetRecipe):
    """How an adjustment is learnt."""

    axes: int = 512
    hidden: int = 24
    nets: int = 2
    """Nets of following seeds, which become one."""
    bound: float = 2.0
    sure: float = 1.0
    """While the net learns, scores count as at most so many nats, either way. Else what the head is sure of teaches
    nothing, and the net may lower it: plain insults by three nats, which were missed in longer conversations."""
    fine_weight: float = 2.0
    """What a fine segment counts."""
    phrase_weight: float = 3.0
    """What a segment of the phrases of harm counts."""
    kept: float = 0.7
    """Share of the harm found before, by authors not learnt from, that would still be found without the shift."""
    shift: float = 0.75
    """Nats added to every score, so that about as much harm is found as before."""
    steps: int = 800
    batch: int = 512
    dropout: float = 0.3


def draw_parts(data: Path, without: Collection[str]) -> list[list[LabelledCase]]:
    """Teaching cases in parts of the same make-up: written answers of all authors, phrases of harm, good answers."""
    rng = Random(1)
    written_replies = _draw_written(without, rng)
    phrases = _draw_phrases(data, rng)
    good = [reply for reply in labelled_replies.read_good_replies(data, 900) if len(reply.answer) <= _LONGEST]
    parts = []
    for number in range(len(written_replies) // _WRITTEN_EACH + 1):
        replies = [
            *_take_part(written_replies, number, _WRITTEN_EACH),
            *_take_part(phrases, number, _PHRASES_EACH),
            *_take_part(good, number, _GOOD_EACH),
        ]
        parts.append(
            [make_case(reply, company) for reply, company in zip(replies, cycle((_ALONE, USUAL)), strict=False)]
        )
    return parts


def draw_phrases_in_company(data: Path, without: Collection[str]) -> list[LabelledCase]:
    """Short phrases of harm beside other objectives; every second phrase is an insult or a threat.

    There are few different sets of objectives, because prompts that begin alike are read together.
    """
    rng = Random(1)
    # the same draws as in `draw_parts`, so that these phrases are those of which no part consists
    _draw_written(without, rng)
    phrases = [reply for reply in _draw_phrases(data, rng)[_PART_PHRASES:] if len(reply.answer) <= _SHORT]
    hostile = [reply for reply in phrases if reply.slug in _HOSTILE]
    calm = [reply for reply in phrases if reply.slug not in _HOSTILE]
    written_objectives = {
        reply.objective
        for reply in labelled_replies.read_written_answers()
        if not reply.about_harm and reply.source not in without
    }
    others = sorted(
        written_objectives | {objective.text for name, objective in builtin_objectives().items() if name != "harmless"}
    )
    companies = [_draw_company(others, rng) for _ in range(_COMPANIES)]
    turns = [reply for pair in zip(hostile, calm, strict=False) for reply in pair]
    turns += calm[len(hostile) :]
    return [
        make_case(reply, company) for reply, company in zip(turns, cycle((*companies, _ALONE, USUAL)), strict=False)
    ]


def draw_teaching_cases(
    data: Path, without: Collection[str], *, parts: int, in_company: int, most: int
) -> dict[str, list[LabelledCase]]:
    """All sets that teach, by name: so many parts and phrases in company, and `most` replies of each natural source."""
    chosen_parts = draw_parts(data, without)[:parts]
    natural = draw_teaching_replies(data, most) if most else {}
    return (
        {f"part-{number}": part for number, part in enumerate(chosen_parts)}
        | {"in-company": draw_phrases_in_company(data, without)[:in_company]}
        | {SHORT: draw_short_answers(without)}
        | {name: [make_case(reply, USUAL) for reply in replies] for name, replies in natural.items()}
    )


def draw_short_answers(without: Collection[str]) -> list[LabelledCase]:
    """Short answers in pairs, a harmful and a safe one, and innocent ones."""
    replies = [reply for reply in read_short_answers() if reply.source not in without]
    return [make_case(reply, company) for reply, company in zip(replies, cycle((_ALONE, USUAL)), strict=False)]


def draw_evaluation_cases(data: Path) -> dict[str, list[LabelledCase]]:
    """The cases that measure: good answers, unseen authors and insults, and sets of guards."""
    own_replies = [
        replace(reply, objective=HARMLESS)
        for reply in labelled_replies.read_written_answers()
        if reply.source in TEST_AUTHORS and reply.about_harm
    ]
    replies = {
        GOOD: labelled_replies.make_fine_replies(GOOD, draw_good_answers()),
        AUTHORS: own_replies,
        UNSEEN: labelled_replies.plant_replies(data, _UNSEEN, held_out=True),
    }
    cases = {name: [make_case(reply, _ALONE) for reply in of_set] for name, of_set in replies.items()}
    return cases | guards.list_cases(data, 200, 20)


def _draw_company(others: Sequence[str], rng: Random) -> tuple[str, ...]:
    """`harmless` among one to three other objectives, in an order at random."""
    company = [*rng.sample(others, rng.choice(_COMPANY_SIZES)), HARMLESS]
    rng.shuffle(company)
    return tuple(company)


def _take_part(replies: Sequence[LabelledReply], number: int, size: int) -> Sequence[LabelledReply]:
    return replies[number * size : (number + 1) * size]


def _draw_written(without: Collection[str], rng: Random) -> list[LabelledReply]:
    """Written answers about harm, from all authors in turn, harmful and fine ones alternating."""
    asked_elsewhere = {question for question, _ in draw_good_answers()}
    groups: dict[str, dict[bool, list[LabelledReply]]] = {}
    for reply in labelled_replies.read_written_answers():
        if not reply.about_harm or reply.slug in TEST_KINDS or reply.source in without:
            continue
        if reply.question not in asked_elsewhere and len(reply.answer) <= _LONGEST:
            group = groups.setdefault(reply.source, {True: [], False: []})
            group[reply.harmful].append(replace(reply, objective=HARMLESS))
    for group in groups.values():
        for replies in group.values():
            rng.shuffle(replies)
    return list(_take_turns([groups[author][harmful] for author in sorted(groups) for harmful in (True, False)]))


def _take_turns(groups: Sequence[list[LabelledReply]]) -> Iterator[LabelledReply]:
    """The last of each group, then the second last of each, and so on."""
    while any(groups):
        yield from (group.pop() for group in groups if group)


def _draw_phrases(data: Path, rng: Random) -> list[LabelledReply]:
    """Phrases of harm in an order at random."""
    phrases = [
        reply for reply in labelled_replies.make_harm_phrases(data, 1500, 900) if len(reply.answer) <= _LONGEST_PHRASE
    ]
    rng.shuffle(phrases)
    return phrases


def read_harmless_head(folder: Path) -> TaughtHead:
    """The head that an aligner's folder has for `harmless`."""
    (head,) = [head for head in unpack((folder / TAUGHT).read_bytes()) if head.objective == HARMLESS]
    return head


class UnadjustedScore:
    """Scores under `harmless` (nats) by the head that an aligner ships for it, without an adjustment."""

    def __init__(self, folder: Path) -> None:
        self.head = read_harmless_head(folder).without_adjustment()
        self._general = DetectorHead.load(folder / HEAD)
        self._loaded = LoadedHead.from_head(self.head, torch.device("cpu"))

    def __call__(self, segments: Tensor, objectives: Tensor) -> Tensor:
        """Scores [segments, objectives] as if each objective were `harmless`."""
        scores: Tensor = self._general(segments, objectives)
        TaughtColumns(dict.fromkeys(range(scores.shape[1]), self._loaded)).judge(segments, scores)
        return scores


@dataclass(frozen=True, slots=True)
class SegmentExamples:
    """Segments with a label under `harmless`."""

    rows: Tensor
    """[segments, width]."""
    scores: Tensor
    """Of the head before the adjustment [segments], in nats."""
    labels: Tensor
    sources: tuple[str, ...]
    """The author or set of each segment."""

    @classmethod
    def from_rows(cls, rows: HeadRows, score: Callable[[Tensor, Tensor], Tensor]) -> SegmentExamples:
        """All labelled segments. In harmful replies without labels those that the head flags count as harm."""
        column = rows.column(HARMLESS)
        labels = torch.tensor([label for case in column.cases for (label,) in case.labels])
        sources = [case.source for case in column.cases for _ in case.labels]
        scores = torch.cat([score_matrix[:, 0] for score_matrix in column.scores(score)])
        labels[(labels == UNKNOWN) & (scores > 0)] = AGAINST
        examples = cls(column.segments.float(), scores, labels, tuple(sources))
        return examples.select(labels != UNKNOWN)

    def select(self, mask: Tensor) -> SegmentExamples:
        """The segments for which `mask` is true."""
        sources = tuple(source for source, is_chosen in zip(self.sources, mask.tolist(), strict=True) if is_chosen)
        return SegmentExamples(self.rows[mask], self.scores[mask], self.labels[mask], sources)

    def are_from(self, sources: Collection[str]) -> Tensor:
        """A mask [segments]: whether the segment is of one of these sources."""
        return torch.tensor([source in sources for source in self.sources])


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """From where on an adjustment lowers scores, and by how much all are raised."""

    threshold: float
    """Scores of which the net says less than so many nats are lowered, by the difference."""
    shift: float = 0.0
    """Nats added to every score."""

    def adjust_scores(self, scores: Tensor, moves: Tensor) -> Tensor:
        """What becomes of the head's `scores` where the net says `moves`."""
        return scores + self.shift + (moves - self.threshold).clamp(max=0.0)


class AdjustmentNet(RowNet):
    """A net over the rows of segments that moves their scores by at most `bound` nats."""

    def __init__(self, rows: Tensor, recipe: AdjustmentRecipe) -> None:
        super().__init__(rows, recipe.axes, recipe.hidden)
        self.bound = recipe.bound

    def move(self, parts: Tensor) -> Tensor:
        """The change of each score (nats), for rows as principal parts [segments, axes]."""
        return self.bound * torch.tanh(self.compute_output(parts) / self.bound)

    @torch.no_grad()
    def adjust_scores(self, examples: SegmentExamples) -> Tensor:
        """The moved scores, before any threshold."""
        return examples.scores + self.move(self.project(examples.rows))

    def adjust_head(self, head: TaughtHead, point: OperatingPoint) -> TaughtHead:
        """The head with this adjustment at an operating point."""
        bias, numbers = self.pack_numbers()
        adjustment = Adjustment(self.bound, bias, point.threshold, self.inner.out_features)
        width = len(head.without_evidence().weight)
        weight = head.weight[:width] + numbers + head.weight[width:]
        return replace(head, bias=head.bias + point.shift, weight=weight, adjustment=adjustment)


def fit_adjustment(examples: SegmentExamples, recipe: AdjustmentRecipe) -> AdjustmentNet:
    """Fit `recipe.nets` nets of following seeds, and join them into the net that is their mean."""
    return fit_joined_net(partial(fit_net, examples), recipe, recipe.nets)


def fit_net(examples: SegmentExamples, recipe: AdjustmentRecipe) -> AdjustmentNet:
    """Fit one net: the moved scores predict the labels (cross-entropy)."""
    torch.manual_seed(recipe.seed)
    net = AdjustmentNet(examples.rows, recipe)
    parts = net.project(examples.rows)
    targets = (examples.labels == AGAINST).float()
    weights = torch.where(examples.labels == FINE, recipe.fine_weight, 1.0)
    weights[examples.are_from({HARM})] *= recipe.phrase_weight

    head_scores = examples.scores.clamp(-recipe.sure, recipe.sure)

    def compute_loss(batch: Tensor) -> Tensor:
        scores = head_scores[batch] + net.move(F.dropout(parts[batch], recipe.dropout))
        losses = F.binary_cross_entropy_with_logits(scores, targets[batch], reduction="none")
        return (losses * weights[batch]).mean()

    minimise_loss(net, len(parts), recipe, compute_loss)
    return net


@dataclass(frozen=True, slots=True)
class HalfNets:
    """Two nets for the choice of a threshold. Each learnt without one half of the authors, and judges that half."""

    nets: Mapping[frozenset[str], AdjustmentNet]

    @classmethod
    def fit(cls, examples: SegmentExamples, recipe: AdjustmentRecipe) -> HalfNets:
        """Fit a net for each half of the authors."""
        authors = sorted({source for source in examples.sources if source.startswith("author_")})
        Random(3).shuffle(authors)
        halves = (frozenset(authors[0::2]), frozenset(authors[1::2]))
        return cls({half: fit_adjustment(examples.select(~examples.are_from(half)), recipe) for half in halves})

    def find_net(self, author: str, otherwise: AdjustmentNet) -> AdjustmentNet:
        """The net that did not learn from this author; `otherwise` where the author is in no half."""
        return next((net for half, net in self.nets.items() if author in half), otherwise)

    def choose_threshold(self, examples: SegmentExamples, kept: float) -> float:
        """The threshold that keeps the share `kept` of the harm found before.

        Only harm of authors that neither the head nor the judging net learnt from counts.
        """
        moved = torch.zeros(len(examples.scores))
        for half, net in self.nets.items():
            of_half = examples.are_from(half)
            moved[of_half] = net.adjust_scores(examples.select(of_half))
        authors = frozenset().union(*self.nets)
        harm = (examples.labels == AGAINST) & examples.are_from(authors - TEACHERS)
        of_found = moved[harm & (examples.scores > 0)].sort().values
        return float(of_found[int(len(of_found) * (1 - kept))]) - 1e-6


@dataclass(frozen=True, slots=True)
class JudgedCase:
    """One answer of a set that measures."""

    set: str
    harmful: bool
    kind: str
    labels: tuple[int, ...]
    scores: Tensor
    """Of the segments before the adjustment, in nats."""
    moves: Tensor
    """By how much the net moves each score, in nats."""

    def flag_segments(self, point: OperatingPoint) -> list[bool]:
        """Which segments are flagged at this point."""
        flags: list[bool] = (point.adjust_scores(self.scores, self.moves) > 0).tolist()
        return flags


def judge_cases(
    rows: HeadRows,
    name: str,
    score: Callable[[Tensor, Tensor], Tensor],
    choose_net: Callable[[LabelledCase], AdjustmentNet],
) -> list[JudgedCase]:
    """Judge each answer of a set by the net that `choose_net` gives for it."""
    column = rows.column(HARMLESS)
    judged_cases = []
    for number, (case, scores) in enumerate(zip(column.cases, column.scores(score), strict=True)):
        net = choose_net(case)
        with torch.no_grad():
            moves = net.move(net.project(column.case_rows(number)[0].float()))
        labels = tuple(label for (label,) in case.labels)
        judged_cases.append(JudgedCase(name, case.harmful, case.id.rsplit("-", 1)[-1], labels, scores[:, 0], moves))
    return judged_cases


def tabulate(judged_cases: Sequence[JudgedCase], points: Mapping[str, OperatingPoint]) -> str:
    """Markdown: for each operating point what is flagged of each set."""
    lines = []
    for name, point in points.items():
        cells: dict[str, list[bool]] = {}
        for case in judged_cases:
            flags = case.flag_segments(point)
            if case.set == AUTHORS:
                against = [flag for flag, label in zip(flags, case.labels, strict=True) if label == AGAINST]
                cells.setdefault("authors, segments against", []).extend(against)
                if not case.harmful:
                    cells.setdefault("authors, fine answers", []).append(any(flags))
            else:
                side = case.kind if case.set == SHORT else "harmful" if case.harmful else "not"
                cells.setdefault(f"{case.set}, {side}", []).append(any(flags))
        lines += [(name, cell, Rate.from_outcomes(flags)) for cell, flags in sorted(cells.items())]
    return output.table(("share kept, shift", "set", "flagged"), lines)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.harm_adjustment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", type=int, default=9, help="parts of the teaching cases, of 288 answers each")
    parser.add_argument("--in-company", type=int, default=384, help="phrases of harm in company of other objectives")
    parser.add_argument("--most", type=int, default=100, help="replies of each natural source; 0: none")
    parser.add_argument("--without", nargs="*", default=TEST_AUTHORS, help="authors that teach nothing")
    parser.add_argument("--into", type=Path, help="aligner folder whose head gets the adjustment")
    AdjustmentRecipe.add_options(parser)
    arguments = parser.parse_args(argv)
    recipe = AdjustmentRecipe.from_options(arguments)
    reader = open_row_reader(arguments.aligner, arguments.out / "weights")
    cases = draw_teaching_cases(
        arguments.data,
        arguments.without,
        parts=arguments.parts,
        in_company=arguments.in_company,
        most=arguments.most,
    )
    teaching = read_sets(reader, cases, arguments.out)
    measured = read_sets(reader, draw_evaluation_cases(arguments.data), arguments.out / "measured")
    score = UnadjustedScore(arguments.aligner)
    examples = SegmentExamples.from_rows(join_rows([*teaching.values()]), score)
    half_nets = HalfNets.fit(examples, recipe)
    net = fit_adjustment(examples, recipe)
    authors = {reply.answer.strip(): reply.source for reply in labelled_replies.read_written_answers()}
    judged_cases = judge_cases(teaching[SHORT], SHORT, score, lambda case: half_nets.find_net(case.source, net))
    judged_cases += judge_cases(
        measured.pop(GOOD), GOOD, score, lambda case: half_nets.find_net(authors[case.answer], net)
    )
    for name, rows in measured.items():
        judged_cases += judge_cases(rows, name, score, lambda _: net)
    thresholds = {share: half_nets.choose_threshold(examples, share) for share in SHARES}
    points = {
        f"{share:g}, {shift:g}": OperatingPoint(threshold, shift)
        for share, threshold in thresholds.items()
        for shift in SHIFTS
    }
    text = tabulate(judged_cases, {"without": OperatingPoint(-recipe.bound)} | points)
    point = OperatingPoint(half_nets.choose_threshold(examples, recipe.kept), recipe.shift)
    adjusted = net.adjust_head(score.head, point)
    output.write(arguments.out, "harm_adjustment", text, {"recipe": recipe.model_dump(), "thresholds": thresholds})
    print(f"{text}\n{len(examples.scores)} segments; threshold {point.threshold:.3f}; {adjusted.content_hash}")
    print(f"teaching answers: {hash_teaching(teaching)}")
    if arguments.into:
        add_heads(arguments.into, [adjusted])


if __name__ == "__main__":
    main()
