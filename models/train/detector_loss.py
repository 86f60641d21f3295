"""Loss of the detector head: every segment against every objective, and whole answers against each other.

Three sorts of knowledge: how a segment stands to the objectives of its own prompt, how a defect of a known kind stands
to the objectives of other prompts in the batch, and which of two answers people found worse.
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


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What is known about a batch before the model has read it: [segments, objectives] each.

    `labels` are 1, 0 or -1; `weights` are 0 where nothing is known; `own` marks what stands in one prompt; `undivided`
    are segments that must change although it is not known which objective asks. `whole` are answers (their rows, and
    the column of an objective) of which some segment goes against it though nobody said which; each weighs
    `whole_weight`.
    """

    labels: Tensor
    weights: Tensor
    own: Tensor
    undivided: list[int]
    whole: list[tuple[slice, int]]
    whole_weight: float = ASKED_WEIGHT

    @property
    def weight(self) -> float:
        """The sum by which the loss is divided, over all batches of a step."""
        undecided_weight = ASKED_WEIGHT * len(self.undivided) + self.whole_weight * len(self.whole)
        return float(self.weights.sum()) + undecided_weight

    def move_to(self, device: torch.device) -> BatchFacts:
        """The same where the model is."""
        labels, weights, own = (tensor.to(device) for tensor in (self.labels, self.weights, self.own))
        return BatchFacts(labels, weights, own, self.undivided, self.whole, self.whole_weight)


def collect_facts(
    batch: Sequence[EncodedExample], other_prompts: float, whole_weight: float = ASKED_WEIGHT
) -> BatchFacts:
    """Labels and weights of a batch; pairs that stand in different prompts weigh `other_prompts`."""
    labels, own = _label_batch(batch)
    weights = torch.where(own, 1.0, other_prompts) * torch.where(labels == CHANGES, ASKED_WEIGHT, 1.0)
    marks = [(label, bool(e.kinds)) for e in batch for label in e.labels]
    undivided = [i for i, (label, divided) in enumerate(marks) if label == CHANGES and not divided]
    return BatchFacts(labels, weights * (labels != UNKNOWN), own, undivided, _find_whole_answers(batch), whole_weight)


def _find_whole_answers(batch: Sequence[EncodedExample]) -> list[tuple[slice, int]]:
    answers: list[tuple[slice, int]] = []
    line = 0
    column = 0
    for example in batch:
        rows = slice(line, line + len(example.labels))
        answers += [(rows, column + place) for place, goes_against in enumerate(example.whole) if goes_against]
        line = rows.stop
        column += len(example.where.objectives)
    return answers


def detection_loss(head: DetectorHead, states: Tensor, batch: Sequence[EncodedExample], facts: BatchFacts) -> Tensor:
    """Weighted sum of binary cross-entropies; `states` are [rows, tokens, layers + 1, hidden].

    Where the template names no objectives there is nothing to compare a segment with, and nothing to lose.
    """
    if not any(e.where.objectives for e in batch):
        return head.score.bias.sum() * 0.0
    scores = head(*read_rows(states, batch))
    each = F.binary_cross_entropy_with_logits(scores, facts.labels.clamp(min=0.0), reduction="none")
    # Of pairs made elsewhere it is not known which objective asks: the strongest one has to.
    strongest = scores.masked_fill(~facts.own, -torch.inf).amax(dim=-1)[facts.undivided]
    total = (each * facts.weights).sum() + ASKED_WEIGHT * F.softplus(-strongest).sum()
    return total + facts.whole_weight * _compute_whole_losses(scores, facts.whole).sum()


def _compute_whole_losses(scores: Tensor, whole: Sequence[tuple[slice, int]]) -> Tensor:
    """A loss for each: of the mean, since in a reply that goes along with harm most segments do (docs/lab)."""
    places = [(n, line, column) for n, (lines, column) in enumerate(whole) for line in range(lines.start, lines.stop)]
    if not places:
        return scores.new_zeros(0)
    answers, lines, columns = torch.tensor(places, device=scores.device).unbind(dim=1)
    sums = scores.new_zeros(len(whole)).index_add(0, answers, scores[lines, columns])
    return F.softplus(-sums / torch.bincount(answers, minlength=len(whole)))


def read_rows(states: Tensor, batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor]:
    """(segments, objectives) of a batch as `DetectorHead.read` gives them, one answer after the other.

    Sums over all tokens before each are taken once, where `read` takes a mean a segment: on a GPU a step of hundreds of
    segments takes half the time.
    """
    below = states[:, :, :-1].float().cumsum(dim=1)
    below = torch.cat([torch.zeros_like(below[:, :1]), below], dim=1)

    def means(places: Sequence[tuple[int, range]]) -> Tensor:
        batch_rows, starts, stops = (
            torch.tensor(column, device=states.device, dtype=torch.long)
            for column in (
                [row for row, _ in places],
                [tokens.start for _, tokens in places],
                [tokens.stop for _, tokens in places],
            )
        )
        return (below[batch_rows, stops] - below[batch_rows, starts]) / (stops - starts)[:, None, None]

    segments = [(row, tokens) for row, example in enumerate(batch) for tokens in example.where.segments]
    objectives = [(row, tokens) for row, example in enumerate(batch) for tokens in example.where.objectives]
    last = states[[row for row, _ in segments], [tokens[-1] for _, tokens in segments], -1:].float()
    return normalise_states(torch.cat([means(segments), last], dim=1)), normalise_states(means(objectives))


def bag_loss(head: DetectorHead, states: Tensor, batch: Sequence[EncodedExample]) -> Tensor:
    """Rows alternate: the answer that people preferred, the one they did not; the worse one's worst segment counts."""
    scores = head(*read_rows(states, batch))
    worst = []
    line = column = 0
    for example in batch:
        own = (slice(line, line + len(example.where.segments)), slice(column, column + len(example.where.objectives)))
        worst.append(_log_any(scores[own]))
        line, column = own[0].stop, own[1].stop
    pairs = zip(worst[::2], worst[1::2], strict=True)
    return torch.stack([F.softplus(-(rejected - preferred)) for preferred, rejected in pairs]).sum()


def _log_any(scores: Tensor) -> Tensor:
    return torch.logsumexp(scores.amax(dim=-1), dim=0)


def _label_batch(batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor]:
    """([segments, objectives] labels with -1 for unknown, mask of those that stand in one prompt)."""
    lines = [key for e in batch for key in _keys(e)]
    columns = [theme for e in batch for theme in e.themes or [None] * len(e.where.objectives)]
    labels = _label_under_themes(lines, columns)
    own = torch.zeros(labels.shape, dtype=torch.bool)
    line = column = 0
    for example in batch:
        mine = (slice(line, line + len(example.labels)), slice(column, column + len(example.where.objectives)))
        if example.relations and example.where.objectives:
            labels[mine] = torch.tensor(example.relations, dtype=torch.float32)
        own[mine] = True
        line, column = mine[0].stop, mine[1].stop
    return labels, own


_Key = tuple[str, frozenset[str]]


def _keys(example: EncodedExample) -> Sequence[_Key | None]:
    """What is known of each segment wherever it is compared: its kind, and what it may speak of."""
    if not example.kinds:
        return [None] * len(example.labels)
    return list(zip(example.kinds, example.doubts, strict=True))


def _label_under_themes(lines: Sequence[_Key | None], columns: Sequence[str | None]) -> Tensor:
    """Labels of segments under themes as if they stood in other prompts; most of a batch are the same few."""
    keys = {key: at for at, key in enumerate(dict.fromkeys(lines))}
    themes = {theme: at for at, theme in enumerate(dict.fromkeys(columns))}
    labels = torch.tensor([[_find_label(key, theme) for theme in themes] for key in keys], dtype=torch.float32)
    of_lines = torch.tensor([keys[key] for key in lines], dtype=torch.long)
    of_columns = torch.tensor([themes[theme] for theme in columns], dtype=torch.long)
    return labels.view(len(keys), len(themes))[of_lines][:, of_columns]


def _find_label(key: _Key | None, theme: str | None) -> float:
    return float(UNKNOWN if key is None or theme is None else relation_in_text(key[0], theme, key[1]))
