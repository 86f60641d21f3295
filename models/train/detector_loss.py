"""Loss of the detector head: every segment against every objective, and whole answers against each other.

Three things are known: whether a segment goes against the objectives of its own prompt, whether a defect of a known
kind goes against the objectives of other prompts in the batch, and which of two answers people found worse.

The scores of a batch are one matrix [segments, objectives]. Of an example A with two segments and one objective, and an
example B with one segment and two objectives:

          a1    b1    b2
    A1   own     .     .       "own": the objective is in the segment's own prompt
    A2   own     .     .       ".":   known only if the segment is a defect of a known kind
    B1     .   own   own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead, normalise_states
from models.data.labels import relation_in_text
from models.data.pairs import CHANGES, UNKNOWN

from .features import EncodedExample

ASKED_WEIGHT = 2.0
"""Weight of a segment that goes against an objective; one that does not weighs 1."""


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What is known about a batch before the model has read it; tensors are [segments, objectives]."""

    labels: Tensor
    """1 if the segment goes against the objective, 0 if not, -1 if that is unknown."""
    weights: Tensor
    """0 where the label is unknown."""
    own: Tensor
    """True where segment and objective are of one prompt."""
    undivided: list[int]
    """Rows of segments that must change, though it is not known which objective of their prompt asks for it."""
    whole: list[tuple[slice, int]]
    """Answers of which some segment goes against an objective, though nobody said which: rows, and the column."""
    whole_weight: float = ASKED_WEIGHT

    @property
    def weight(self) -> float:
        """The sum by which the loss is divided, over all batches of a step."""
        undecided_weight = ASKED_WEIGHT * len(self.undivided) + self.whole_weight * len(self.whole)
        return float(self.weights.sum()) + undecided_weight

    def move_to(self, device: torch.device) -> BatchFacts:
        """The same facts with their tensors on `device`."""
        labels, weights, is_own = (tensor.to(device) for tensor in (self.labels, self.weights, self.own))
        return BatchFacts(labels, weights, is_own, self.undivided, self.whole, self.whole_weight)


def collect_facts(
    batch: Sequence[EncodedExample], other_prompts: float, whole_weight: float = ASKED_WEIGHT
) -> BatchFacts:
    """Labels and weights of a batch; a segment under an objective of another prompt weighs `other_prompts`."""
    labels, is_own = _label_batch(batch)
    weights = torch.where(is_own, 1.0, other_prompts) * torch.where(labels == CHANGES, ASKED_WEIGHT, 1.0)
    # with kinds, it is known which objective asks for the change
    must_change = [label == CHANGES and not example.kinds for example in batch for label in example.labels]
    undivided_rows = [row for row, changes in enumerate(must_change) if changes]
    return BatchFacts(
        labels, weights * (labels != UNKNOWN), is_own, undivided_rows, _find_whole_answers(batch), whole_weight
    )


def _find_whole_answers(batch: Sequence[EncodedExample]) -> list[tuple[slice, int]]:
    """The entries of `BatchFacts.whole`."""
    answers: list[tuple[slice, int]] = []
    first_row = 0
    first_column = 0
    for example in batch:
        rows = slice(first_row, first_row + len(example.labels))
        answers += [(rows, first_column + place) for place, goes_against in enumerate(example.whole) if goes_against]
        first_row = rows.stop
        first_column += len(example.spans.objectives)
    return answers


def detection_loss(head: DetectorHead, states: Tensor, batch: Sequence[EncodedExample], facts: BatchFacts) -> Tensor:
    """Weighted sum of binary cross-entropies; `states` are [examples, tokens, layers + 1, hidden].

    If the template names no objectives, there is nothing to compare a segment with, and the loss is 0.
    """
    if not any(example.spans.objectives for example in batch):
        return head.score.bias.sum() * 0.0
    scores = head(*read_rows(states, batch))
    each = F.binary_cross_entropy_with_logits(scores, facts.labels.clamp(min=0.0), reduction="none")
    # If it is not known which objective asks for a change, the one with the highest score has to.
    strongest = scores.masked_fill(~facts.own, -torch.inf).amax(dim=-1)[facts.undivided]
    total = (each * facts.weights).sum() + ASKED_WEIGHT * F.softplus(-strongest).sum()
    return total + facts.whole_weight * _compute_whole_losses(scores, facts.whole).sum()


def _compute_whole_losses(scores: Tensor, whole: Sequence[tuple[slice, int]]) -> Tensor:
    """The loss of each of the `whole` answers, by the mean score of its segments.

    The mean, because in a reply that goes along with harm most segments do (docs/lab).
    """
    places = [(n, row, column) for n, (rows, column) in enumerate(whole) for row in range(rows.start, rows.stop)]
    if not places:
        return scores.new_zeros(0)
    answers, all_rows, columns = torch.tensor(places, device=scores.device).unbind(dim=1)
    sums = scores.new_zeros(len(whole)).index_add(0, answers, scores[all_rows, columns])
    return F.softplus(-sums / torch.bincount(answers, minlength=len(whole)))


def read_rows(states: Tensor, batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor]:
    """The rows of all segments and of all objectives of a batch: (segments, objectives), as `DetectorHead.read` does.

    It is faster than `read`, which computes the mean of each segment by itself: on a GPU, a step of hundreds of
    segments would take twice the time. Here the sum over all tokens before each token is computed once, and a mean is
    the difference of two such sums.
    """
    sums_before = states[:, :, :-1].float().cumsum(dim=1)
    sums_before = torch.cat([torch.zeros_like(sums_before[:, :1]), sums_before], dim=1)

    def compute_means(places: Sequence[tuple[int, range]]) -> Tensor:
        """The mean states of tokens, each range given with the number of its example."""
        batch_rows, starts, stops = (
            torch.tensor(column, device=states.device, dtype=torch.long)
            for column in (
                [row for row, _ in places],
                [tokens.start for _, tokens in places],
                [tokens.stop for _, tokens in places],
            )
        )
        return (sums_before[batch_rows, stops] - sums_before[batch_rows, starts]) / (stops - starts)[:, None, None]

    segments = [(row, tokens) for row, example in enumerate(batch) for tokens in example.spans.segments]
    objectives = [(row, tokens) for row, example in enumerate(batch) for tokens in example.spans.objectives]
    last_states = states[[row for row, _ in segments], [tokens[-1] for _, tokens in segments], -1:].float()
    return normalise_states(torch.cat([compute_means(segments), last_states], dim=1)), normalise_states(
        compute_means(objectives)
    )


def bag_loss(head: DetectorHead, states: Tensor, batch: Sequence[EncodedExample]) -> Tensor:
    """Loss of a batch of bags: the other reply should have the higher score, by its worst segment and objective."""
    scores = head(*read_rows(states, batch))
    worst = []
    first_row = 0
    first_column = 0
    for example in batch:
        rows = slice(first_row, first_row + len(example.spans.segments))
        columns = slice(first_column, first_column + len(example.spans.objectives))
        worst.append(_log_any(scores[rows, columns]))
        first_row = rows.stop
        first_column = columns.stop
    pairs = zip(worst[::2], worst[1::2], strict=True)
    return torch.stack([F.softplus(-(rejected - preferred)) for preferred, rejected in pairs]).sum()


def _log_any(scores: Tensor) -> Tensor:
    """A smooth maximum of scores [segments, objectives]: over segments, of the highest score of each."""
    return torch.logsumexp(scores.amax(dim=-1), dim=0)


def _label_batch(batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor]:
    """(`labels`, `own`) of `BatchFacts`: every segment of the batch under every objective of the batch.

    Under the objectives of its own prompt a segment has the labels of its example. Under those of other prompts its
    label follows from its defect and from their themes.
    """
    defects = [defect for example in batch for defect in _list_defects(example)]
    themes = [theme for example in batch for theme in example.themes or [None] * len(example.spans.objectives)]
    labels = _label_under_themes(defects, themes)
    is_own = torch.zeros(labels.shape, dtype=torch.bool)
    first_row = 0
    first_column = 0
    for example in batch:
        rows = slice(first_row, first_row + len(example.labels))
        columns = slice(first_column, first_column + len(example.spans.objectives))
        if example.relations and example.spans.objectives:
            labels[rows, columns] = torch.tensor(example.relations, dtype=torch.float32)
        is_own[rows, columns] = True
        first_row = rows.stop
        first_column = columns.stop
    return labels, is_own


_Defect = tuple[str, frozenset[str]]
"""What is known of a segment under any objective: its kind of defect, and the themes that it may speak of."""


def _list_defects(example: EncodedExample) -> Sequence[_Defect | None]:
    """The defect of each segment; None for all if no kinds are known."""
    if not example.kinds:
        return [None] * len(example.labels)
    return list(zip(example.kinds, example.doubts, strict=True))


def _label_under_themes(defects: Sequence[_Defect | None], themes: Sequence[str | None]) -> Tensor:
    """Labels [defects, themes]; each different defect and theme is looked up once, because most occur many times."""
    defect_numbers = {defect: number for number, defect in enumerate(dict.fromkeys(defects))}
    theme_numbers = {theme: number for number, theme in enumerate(dict.fromkeys(themes))}
    labels = torch.tensor(
        [[_find_label(defect, theme) for theme in theme_numbers] for defect in defect_numbers], dtype=torch.float32
    )
    rows = torch.tensor([defect_numbers[defect] for defect in defects], dtype=torch.long)
    columns = torch.tensor([theme_numbers[theme] for theme in themes], dtype=torch.long)
    return labels.view(len(defect_numbers), len(theme_numbers))[rows][:, columns]


def _find_label(defect: _Defect | None, theme: str | None) -> float:
    """The label of a defect under a theme; `UNKNOWN` where either is unknown."""
    if defect is None or theme is None:
        return float(UNKNOWN)
    kind, doubts = defect
    return float(relation_in_text(kind, theme, doubts))
