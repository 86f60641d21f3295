"""Taught heads in an engine: the store of uploaded heads, and the heads of one request as columns of its scores.

A taught head uses the same rows as the detector head, so it costs only a few small matrix products. It does not affect
the model's states, so prompts with different heads share blocks of the KV cache.
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
    """[width]."""
    inner: Tensor
    """[hidden, width]."""
    offsets: Tensor
    """[hidden]."""
    outer: Tensor
    """[hidden]."""

    @classmethod
    def from_numbers(cls, numbers: Tensor, width: int, hidden: int, bias: float) -> LoadedNet:
        """Divide the packed numbers of one net."""
        weight, inner, offsets, outer = torch.split(numbers, [width, hidden * width, hidden, hidden])
        return cls(bias, weight, inner.view(hidden, width), offsets, outer)

    def compute_units(self, rows: Tensor) -> Tensor:
        """The output of the hidden units for these rows [segments, width], in nats [segments]."""
        return F.gelu(rows @ self.inner.T.float() + self.offsets.float()) @ self.outer.float()

    def compute_output(self, rows: Tensor) -> Tensor:
        """The output of the whole net for these rows, in nats [segments]."""
        linear = rows @ self.weight.float()
        return (linear + self.compute_units(rows) if len(self.outer) else linear) + self.bias


@dataclass(frozen=True, slots=True)
class LoadedAdjustment:
    """What lowers a taught head's score, on the model's device; see `Adjustment`."""

    bound: float
    threshold: float
    net: LoadedNet

    def compute_move(self, rows: Tensor) -> Tensor:
        """By how much the score of each row moves, in nats [segments]; never up."""
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
    """What each row says of the answer as a whole; see `AnswerEvidence`."""
    question: LoadedNet | None = None
    """What the question's row says of what it asks for; see `QuestionEvidence`."""

    @classmethod
    def from_head(cls, head: TaughtHead, device: torch.device) -> LoadedHead:
        """The head with its packed numbers as tensors on `device`."""
        numbers = torch.frombuffer(bytearray(head.weight), dtype=torch.float16).to(device)
        adjustment = head.adjustment
        biases = [head.bias, *(net.bias for net in head.further_nets)]
        packed_nets = torch.split(numbers, [count_numbers(head.width, hidden) for hidden in head.hidden_counts])
        # in this order: the head's own net, that of its adjustment, and that of its evidence, if it has them
        nets = iter(
            [
                LoadedNet.from_numbers(packed, head.width, hidden, bias)
                for packed, hidden, bias in zip(packed_nets, head.hidden_counts, biases, strict=True)
            ]
        )
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
        """Stack the heads; `heads` maps an objective's index to its head."""
        device = next(iter(heads.values())).net.weight.device
        # indices of the objectives; all other tensors have their entries in the same order
        self._columns = torch.tensor(list(heads), device=device)
        self._prior = torch.tensor([head.prior for head in heads.values()], device=device)
        self._bias = torch.tensor([head.net.bias for head in heads.values()], device=device)
        self._either = torch.tensor([head.either for head in heads.values()], device=device)
        self._floor = torch.tensor([head.floor for head in heads.values()], device=device)
        self._weight = torch.stack([head.net.weight for head in heads.values()], dim=1).float()
        # heads with hidden units; their sizes differ, so they are not stacked
        self._deep = [(place, head.net) for place, head in enumerate(heads.values()) if len(head.net.outer)]
        self._adjustments = [(place, head.adjustment) for place, head in enumerate(heads.values()) if head.adjustment]
        # the first whose evidence counts; one is enough, because a judge is asked under one objective
        telling = next((index for index in sorted(heads) if heads[index].evidence), None)
        self._telling_objective = telling or 0
        self._telling_head = None if telling is None else heads[telling]

    @property
    def reads_question(self) -> bool:
        """Whether `find_evidence` uses the question's row."""
        return self._telling_head is not None and self._telling_head.question is not None

    def find_evidence(self, rows: Tensor, question: Tensor | None = None) -> list[SegmentEvidence]:
        """What each row says of the answer as a whole; empty if no head says it. `question` is its row [1, numbers]."""
        head = self._telling_head
        if head is None or head.evidence is None:
            return []
        question_nats = 0.0
        if head.question is not None and question is not None:
            question_nats = head.question.compute_output(question).item()
        segment_nats = head.evidence.compute_output(rows).tolist()
        return [SegmentEvidence(nats, self._telling_objective, question_nats) for nats in segment_nats]

    def judge(self, rows: Tensor, scores: Tensor) -> None:
        """Overwrite the general scores in `scores` [segments, objectives] with those of the taught heads.

        `rows` are the segments' rows [segments, numbers].
        """
        general = scores[:, self._columns]
        taught_scores = self._prior * torch.maximum(general, self._floor) + rows @ self._weight + self._bias
        for place, net in self._deep:
            taught_scores[:, place] += net.compute_units(rows)
        for place, adjustment in self._adjustments:
            taught_scores[:, place] += adjustment.compute_move(rows)
        scores[:, self._columns] = torch.where(self._either, torch.maximum(taught_scores, general), taught_scores)


class LoadedHeads:
    """Store of an engine's uploaded heads by content hash; safe to use from any thread."""

    def __init__(self, device: torch.device, limit: int = MAX_HEADS) -> None:
        self._device = device
        self._limit = limit
        self._heads: OrderedDict[str, LoadedHead] = OrderedDict()  # by content hash, the least recently used first
        self._lock = threading.Lock()

    def put(self, head: TaughtHead) -> str:
        """Store a head and return its content hash; drops the least recently used heads beyond the limit."""
        name = head.content_hash
        loaded = LoadedHead.from_head(head, self._device)
        with self._lock:
            self._heads[name] = loaded
            self._heads.move_to_end(name)
            while len(self._heads) > self._limit:
                self._heads.popitem(last=False)
        return name

    def get(self, name: str) -> LoadedHead:
        """Return the head with this hash and mark it as used; raises `UnknownHead`."""
        with self._lock:
            head = self._heads.get(name)
            if head is not None:
                self._heads.move_to_end(name)
        if head is None:
            raise UnknownHead(f"this engine has no taught head {name[:NAMED_DIGITS]}; upload it and ask again")
        return head

    def __len__(self) -> int:
        return len(self._heads)


def select_heads(
    loaded_heads: LoadedHeads,
    shipped: Mapping[str, LoadedHead],
    aligner: str,
    objectives: Sequence[str],
    names: Sequence[str],
) -> dict[int, LoadedHead]:
    """Map the index of each objective to its head: the one that the request names, else the aligner's own, if any.

    Raises `UnknownHead`, and `HeadRefused` for a head of another aligner or objective.
    """
    heads: dict[int, LoadedHead] = {}
    for index, objective in enumerate(objectives):
        # a request without uploaded heads may leave the list out; an empty name stands for none
        name = names[index] if names else ""
        if name:
            heads[index] = loaded_heads.get(name)
            _check_head(heads[index], name, aligner, objective)
        elif objective in shipped:
            heads[index] = shipped[objective]
    return heads


def _check_head(head: LoadedHead, name: str, aligner: str, objective: str) -> None:
    """Raise `HeadRefused` unless the head is for this aligner and this objective."""
    if head.aligner != aligner:
        raise HeadRefused(
            f"taught head {name[:NAMED_DIGITS]} is for aligner {head.aligner[:12]}, but the request is for "
            f"{aligner[:12]}; teach the objective again"
        )
    if head.objective != objective:
        raise HeadRefused(f"taught head {name[:NAMED_DIGITS]} is for another objective than the one that names it")
