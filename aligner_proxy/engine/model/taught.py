"""Taught heads in an engine: the store of uploaded heads, and the heads of one request as columns of its scores. A
taught head scores one objective in place of the aligner's general head.

Both read the same numbers of a segment (its row), so a taught head costs only a few small matrix products. It does not
affect the model's states, so prompts with different heads share blocks of the KV cache.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aligner_proxy.engine.taught_head import TaughtHead, count_numbers
from aligner_proxy.errors import HeadRefused, UnknownHead
from aligner_proxy.types import SegmentEvidence

MAX_HEADS = 4096
"""Most uploaded heads in an engine. The least recently used are dropped; clients upload them again when needed."""
NAMED_DIGITS = 8
"""Digits of a hash that error messages show."""


@dataclass(frozen=True, slots=True)
class LoadedNet:
    """A linear layer and perhaps hidden units over a row, with their numbers on the model's device."""

    bias: float
    """Constant of the output, in nats."""
    weight: Tensor
    """The linear layer, [width of a row]."""
    inner: Tensor
    """The weights of the hidden units, [units, width]."""
    offsets: Tensor
    """The biases of the hidden units, [units]."""
    outer: Tensor
    """The weights of the hidden units in the output, [units]; empty without hidden units."""

    @classmethod
    def from_numbers(cls, numbers: Tensor, width: int, hidden: int, bias: float) -> LoadedNet:
        """Divide the packed numbers of one net, for rows of `width` numbers and with `hidden` hidden units."""
        weight, inner, offsets, outer = torch.split(numbers, [width, hidden * width, hidden, hidden])
        return cls(bias, weight, inner.view(hidden, width), offsets, outer)

    def compute_units(self, rows: Tensor) -> Tensor:
        """Return the output of the hidden units for these rows [segments, width], in nats [segments]."""
        return F.gelu(rows @ self.inner.T.float() + self.offsets.float()) @ self.outer.float()

    def compute_output(self, rows: Tensor) -> Tensor:
        """Return the output of the whole net for these rows [segments, width], in nats [segments]."""
        output = rows @ self.weight.float()
        if len(self.outer):
            output = output + self.compute_units(rows)
        return output + self.bias


@dataclass(frozen=True, slots=True)
class LoadedAdjustment:
    """A net that lowers a taught head's score; see `Adjustment`."""

    bound: float
    """Most nats by which the net's own output can move a score."""
    threshold: float
    """Nats that are subtracted from the bounded output."""
    net: LoadedNet

    def compute_move(self, rows: Tensor) -> Tensor:
        """Return by how much the score of each row moves, in nats [segments]; never up."""
        output = self.net.compute_output(rows)
        return (self.bound * torch.tanh(output / self.bound) - self.threshold).clamp(max=0.0)


@dataclass(frozen=True, slots=True)
class LoadedHead:
    """A taught head with its numbers on the model's device; `TaughtHead` says how they make a score."""

    objective: str
    aligner: str
    """Content hash of the aligner whose rows it reads; empty for a head that the aligner comes with."""
    prior: float
    net: LoadedNet
    either: bool
    """Whether the general head's score counts, too, if it is higher."""
    floor: float
    """Lowest general score that counts, in nats; lower ones are raised to it."""
    adjustment: LoadedAdjustment | None
    evidence: LoadedNet | None
    """The net that computes what each row says of the answer as a whole."""
    question: LoadedNet | None = None
    """The net that computes what the question asks for, from its row."""

    @classmethod
    def from_head(cls, head: TaughtHead, device: torch.device) -> LoadedHead:
        """Return the head with its packed numbers as tensors on `device`."""
        numbers = torch.frombuffer(bytearray(head.weight), dtype=torch.float16).to(device)
        adjustment = head.adjustment
        biases = [head.bias, *(net.bias for net in head.further_nets)]
        packed_nets = torch.split(numbers, [count_numbers(head.width, hidden) for hidden in head.hidden_counts])
        loaded_nets = [
            LoadedNet.from_numbers(packed_net, head.width, hidden, bias)
            for packed_net, hidden, bias in zip(packed_nets, head.hidden_counts, biases, strict=True)
        ]
        # first the head's own net, then those of its adjustment, its evidence and its question, if it has them
        nets = iter(loaded_nets)
        return cls(
            head.objective,
            head.aligner,
            head.prior,
            net=next(nets),
            either=head.either,
            # minus infinity: no score is raised
            floor=-math.inf if head.floor is None else head.floor,
            adjustment=LoadedAdjustment(adjustment.bound, adjustment.threshold, next(nets)) if adjustment else None,
            evidence=next(nets) if head.evidence else None,
            question=next(nets) if head.question else None,
        )


class TaughtColumns:
    """The taught heads of one request, which replace or supplement the general head's scores of their objectives."""

    def __init__(self, heads: Mapping[int, LoadedHead]) -> None:
        """Stack the numbers of the heads (`LoadedHead`); `heads` are by the objective's index in the request."""
        device = next(iter(heads.values())).net.weight.device
        # the heads' objectives as columns of the scores; all other tensors have an entry for each head, in this order
        self._columns = torch.tensor(list(heads), device=device)
        self._prior = torch.tensor([head.prior for head in heads.values()], device=device)
        self._bias = torch.tensor([head.net.bias for head in heads.values()], device=device)
        self._either = torch.tensor([head.either for head in heads.values()], device=device)
        self._floor = torch.tensor([head.floor for head in heads.values()], device=device)
        self._weight = torch.stack([head.net.weight for head in heads.values()], dim=1).float()
        # nets with hidden units and adjustments, each with the place of its head; their sizes differ, so they are not
        # stacked
        self._deep_nets = [(place, head.net) for place, head in enumerate(heads.values()) if len(head.net.outer)]
        self._adjustments = [(place, head.adjustment) for place, head in enumerate(heads.values()) if head.adjustment]
        # only the first head with evidence is used, because a judge is asked under one objective
        self._evidence_objective = next((index for index in sorted(heads) if heads[index].evidence), 0)
        self._evidence_head = heads.get(self._evidence_objective)

    @property
    def reads_question(self) -> bool:
        """Whether `find_evidence` uses the question's row."""
        return self._evidence_head is not None and self._evidence_head.question is not None

    def find_evidence(self, rows: Tensor, question: Tensor | None = None) -> list[SegmentEvidence]:
        """Return what each segment says of the answer as a whole, by its row; empty if no head computes this.

        `question` [1, numbers] is the question's row; None if there is no question or no head reads it.
        """
        head = self._evidence_head
        if head is None or head.evidence is None:
            return []
        question_nats = 0.0
        if head.question is not None and question is not None:
            question_nats = head.question.compute_output(question).item()
        segment_nats = head.evidence.compute_output(rows).tolist()
        return [SegmentEvidence(nats, self._evidence_objective, question_nats) for nats in segment_nats]

    def judge(self, rows: Tensor, scores: Tensor) -> None:
        """Overwrite the general scores [segments, objectives] by those of the taught heads, from segments' `rows`."""
        general_scores = scores[:, self._columns]
        taught_scores = self._prior * torch.maximum(general_scores, self._floor) + rows @ self._weight + self._bias
        for place, net in self._deep_nets:
            taught_scores[:, place] += net.compute_units(rows)
        for place, adjustment in self._adjustments:
            taught_scores[:, place] += adjustment.compute_move(rows)
        higher_scores = torch.maximum(taught_scores, general_scores)
        scores[:, self._columns] = torch.where(self._either, higher_scores, taught_scores)


class LoadedHeads:
    """Store of an engine's uploaded heads by content hash; safe to use from any thread."""

    def __init__(self, device: torch.device, limit: int = MAX_HEADS) -> None:
        self._device = device
        self._limit = limit
        self._heads: OrderedDict[str, LoadedHead] = OrderedDict()  # by content hash, the least recently used first
        self._lock = threading.Lock()

    def put(self, head: TaughtHead) -> str:
        """Store a head and return its content hash; drops the least recently used heads beyond the limit."""
        content_hash = head.content_hash
        loaded_head = LoadedHead.from_head(head, self._device)
        with self._lock:
            self._heads[content_hash] = loaded_head
            self._heads.move_to_end(content_hash)
            while len(self._heads) > self._limit:
                self._heads.popitem(last=False)
        return content_hash

    def get(self, content_hash: str) -> LoadedHead:
        """Return the head with this hash and mark it as used; raises `UnknownHead`."""
        with self._lock:
            head = self._heads.get(content_hash)
            if head is not None:
                self._heads.move_to_end(content_hash)
        if head is None:
            raise UnknownHead(f"this engine has no taught head {content_hash[:NAMED_DIGITS]}; upload it and ask again")
        return head


def select_heads(
    loaded_heads: LoadedHeads,
    shipped_heads: Mapping[str, LoadedHead],
    aligner: str,
    objectives: Sequence[str],
    head_hashes: Sequence[str],
) -> dict[int, LoadedHead]:
    """Return the taught head of each objective that has one, by the objective's index.

    This is the head that the request names in `head_hashes` (one hash per objective), or else the one that comes with
    the aligner (`shipped_heads`, by the objective's text). `aligner` is a content hash. Raises `UnknownHead`, and
    `HeadRefused` for a head of another aligner or objective.
    """
    heads: dict[int, LoadedHead] = {}
    for index, objective in enumerate(objectives):
        # a request without uploaded heads may leave the list out; an empty hash stands for no head
        head_hash = head_hashes[index] if head_hashes else ""
        if head_hash:
            heads[index] = loaded_heads.get(head_hash)
            _check_head(heads[index], head_hash, aligner, objective)
        elif objective in shipped_heads:
            heads[index] = shipped_heads[objective]
    return heads


def _check_head(head: LoadedHead, head_hash: str, aligner: str, objective: str) -> None:
    """Raise `HeadRefused` unless the head is for this aligner (a content hash) and this objective (its text)."""
    if head.aligner != aligner:
        raise HeadRefused(
            f"taught head {head_hash[:NAMED_DIGITS]} is for aligner {head.aligner[:12]}, but the request is for "
            f"{aligner[:12]}; teach the objective again"
        )
    if head.objective != objective:
        raise HeadRefused(f"taught head {head_hash[:NAMED_DIGITS]} is for another objective than the one that names it")
