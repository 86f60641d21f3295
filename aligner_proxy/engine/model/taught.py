"""Taught heads in an engine: those that it keeps, and those of one request as columns of its scores.

A head reads the rows that the detector head reads of the same prefill, so it costs one product of a few rows, with
hidden units two. What the model computes does not depend on it: prompts with other heads share blocks of the KV cache
as before.
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

from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import HeadRefused, UnknownHead

MOST_HEADS = 4096
"""Uploaded heads that an engine keeps; those not used for longest make room, and are uploaded again."""
NAMED_DIGITS = 8
"""Of a hash in errors."""


@dataclass(frozen=True, slots=True)
class LoadedHead:
    """A taught head whose numbers lie where the model is: `weight` [width], and of its hidden units the rest."""

    objective: str
    aligner: str
    prior: float
    bias: float
    weight: Tensor
    either: bool
    inner: Tensor
    """[hidden, width]."""
    offsets: Tensor
    """[hidden]."""
    outer: Tensor
    """[hidden]."""
    floor: float
    """The least that the general head's score counts as."""

    @classmethod
    def from_head(cls, head: TaughtHead, device: torch.device) -> LoadedHead:
        """From the frozen value."""
        numbers = torch.frombuffer(bytearray(head.weight), dtype=torch.float16).to(device)
        sizes = [head.width, head.hidden * head.width, head.hidden, head.hidden]
        weight, inner, offsets, outer = torch.split(numbers, sizes)
        inner = inner.view(head.hidden, head.width)
        fields = (head.objective, head.aligner, head.prior, head.bias)
        floor = -math.inf if head.floor is None else head.floor
        return cls(*fields, weight, head.either, inner, offsets, outer, floor)

    def units(self, rows: Tensor) -> Tensor:
        """What the hidden units say of these rows [segments, width], in nats [segments]."""
        return F.gelu(rows @ self.inner.T.float() + self.offsets.float()) @ self.outer.float()


class TaughtColumns:
    """The taught heads of one request: of some objectives they score in the general head's place, or beside it."""

    def __init__(self, heads: Mapping[int, LoadedHead]) -> None:
        """`heads` by the index of their objective."""
        device = next(iter(heads.values())).weight.device
        self._columns = torch.tensor(list(heads), device=device)
        self._prior = torch.tensor([head.prior for head in heads.values()], device=device)
        self._bias = torch.tensor([head.bias for head in heads.values()], device=device)
        self._either = torch.tensor([head.either for head in heads.values()], device=device)
        self._floor = torch.tensor([head.floor for head in heads.values()], device=device)
        self._weight = torch.stack([head.weight for head in heads.values()], dim=1).float()
        self._deep = [(place, head) for place, head in enumerate(heads.values()) if len(head.outer)]

    def judge(self, rows: Tensor, scores: Tensor) -> None:
        """Put their scores of these rows [segments, numbers] into `scores` [segments, objectives], from the general."""
        general = scores[:, self._columns]
        taught_scores = self._prior * torch.maximum(general, self._floor) + rows @ self._weight + self._bias
        for place, head in self._deep:
            taught_scores[:, place] += head.units(rows)
        scores[:, self._columns] = torch.where(self._either, torch.maximum(taught_scores, general), taught_scores)


class HeadShelf:
    """The uploaded heads of an engine, by content hash; any thread may use it."""

    def __init__(self, device: torch.device, most: int = MOST_HEADS) -> None:
        self._device = device
        self._most = most
        self._heads: OrderedDict[str, LoadedHead] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, head: TaughtHead) -> str:
        """Keep a head; its content hash."""
        name = head.content_hash
        loaded = LoadedHead.from_head(head, self._device)
        with self._lock:
            self._heads[name] = loaded
            self._heads.move_to_end(name)
            while len(self._heads) > self._most:
                self._heads.popitem(last=False)
        return name

    def get(self, name: str) -> LoadedHead:
        """The head of this hash; raises `UnknownHead`."""
        with self._lock:
            head = self._heads.get(name)
            if head is not None:
                self._heads.move_to_end(name)
        if head is None:
            raise UnknownHead(f"this engine has no taught head {name[:NAMED_DIGITS]}; upload it and ask again")
        return head

    def __len__(self) -> int:
        """Heads that are kept."""
        return len(self._heads)


def select_heads(
    shelf: HeadShelf, shipped: Mapping[str, LoadedHead], aligner: str, objectives: Sequence[str], names: Sequence[str]
) -> dict[int, LoadedHead]:
    """Of each objective that has one its head, by index: the named one, else the one that the aligner came with.

    Raises `UnknownHead`, and `HeadRefused` for a head of another aligner or objective.
    """
    heads: dict[int, LoadedHead] = {}
    for at, objective in enumerate(objectives):
        name = names[at] if names else ""
        if name:
            heads[at] = shelf.get(name)
            _check(heads[at], name, aligner, objective)
        elif objective in shipped:
            heads[at] = shipped[objective]
    return heads


def _check(head: LoadedHead, name: str, aligner: str, objective: str) -> None:
    if head.aligner != aligner:
        raise HeadRefused(
            f"taught head {name[:NAMED_DIGITS]} is of aligner {head.aligner[:12]}, the request of {aligner[:12]}; "
            "teach the objective again"
        )
    if head.objective != objective:
        raise HeadRefused(f"taught head {name[:NAMED_DIGITS]} is of another objective than the one that names it")
