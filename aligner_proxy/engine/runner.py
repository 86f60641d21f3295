"""The model and its forward passes: the only file of the engine, with loading and the head, that handles tensors.

A `Sequence` is one correction's tokens and their KV cache. `step` is the one operation: feed tokens and a draft, get
the detector's scores at given tokens and the tokens the model chooses behind them. It works on one sequence; a
batched runner would take a list of the same.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from aligner_proxy.engine.detector import DetectorHead, Spans
from aligner_proxy.engine.proposer import LONG, SHORT, WHOLE_ANSWER, DraftLimits
from aligner_proxy.engine.tokens import PromptTokenizer

PREFILL_CHUNK = 1024
"""Tokens per forward at most: between two forwards a cancelled request lets go of the model."""

Check = Callable[[], None]
"""Called before every forward; raises when the deadline has passed or nobody waits any more."""


@dataclass(slots=True)
class Sequence:
    """Tokens that the cache holds, in order."""

    ids: list[int] = field(default_factory=list)
    cache: DynamicCache = field(default_factory=DynamicCache)


@dataclass(frozen=True, slots=True)
class Step:
    """The detector's word on each segment, and what the model chose after the fed tokens and each draft token.

    A word is (log-odds, index of the objective that speaks most against the segment).
    """

    scores: list[tuple[float, int]]
    chosen: list[int]
    forwards: int


class ModelRunner:
    """Runs one causal language model and, where there is one, its detector head."""

    def __init__(self, model: PreTrainedModel, tokenizer: PromptTokenizer, head: DetectorHead | None) -> None:
        model.train(mode=False)
        self._model = model
        self._output: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._head = head.to(model.device) if head else None
        self._taps = head.taps(model.base_model) if head else None
        self.tokenizer = tokenizer

    @property
    def has_head(self) -> bool:
        """Whether segments can be scored without generating."""
        return self._head is not None

    @property
    def device(self) -> str:
        """Where the model is, as torch names it."""
        return str(self._model.device)

    @property
    def positions(self) -> int:
        """Longest sequence, in tokens, that the model's positions reach."""
        return int(self._model.config.max_position_embeddings)

    @property
    def draft_limits(self) -> DraftLimits:
        """Draft lengths that pay on this device and number format."""
        if self._model.device.type != "cpu":
            return WHOLE_ANSWER
        return SHORT if getattr(self._model, "is_loaded_in_4bit", False) else LONG

    def step(
        self,
        sequence: Sequence,
        ids: Ordered[int],
        check: Check,
        *,
        draft: Ordered[int] = (),
        favoured: Ordered[int] = (),
        spans: Spans | None = None,
        caution: float = 0.0,
    ) -> Step:
        """Feed `ids` (at least one) and `draft`; the sequence then holds both, and the caller crops what it rejects.

        `spans` are objectives and segments within `ids` to score. `chosen` has one token more than `draft`. `caution`
        (nats) lets a favoured token stand unless another beats its logit by more; `favoured` begins like the draft
        and may have one token more, so that what is chosen does not depend on where a draft happens to end.
        """
        fed = [*ids, *draft]
        tail, forwards = len(draft) + 1, 0
        kept: list[Tensor] = []
        states: list[Tensor] = []
        for start in range(0, len(fed), PREFILL_CHUNK):
            check()
            chunk = fed[start : start + PREFILL_CHUNK]
            hidden = self._forward(sequence, chunk)
            if spans and self._taps:
                states.append(self._taps.take(hidden[None])[0])
            kept.append(hidden[-tail:])
            forwards += 1
        last = torch.cat(kept)[-tail:]
        return Step(self._scores(states, spans), self._choose(last, favoured, caution), forwards)

    @staticmethod
    def crop(sequence: Sequence, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        surplus = len(sequence.ids) - length
        if surplus > 0:
            sequence.cache.crop(-surplus)
            del sequence.ids[length:]

    @torch.inference_mode()
    def _forward(self, sequence: Sequence, ids: list[int]) -> Tensor:
        """Hidden states after the final norm, [len(ids), hidden_size]."""
        inputs = torch.tensor([ids], device=self._model.device)
        output = self._model.base_model(inputs, past_key_values=sequence.cache, use_cache=True)
        sequence.ids.extend(ids)
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    @torch.inference_mode()
    def _scores(self, states: list[Tensor], spans: Spans | None) -> list[tuple[float, int]]:
        if self._head is None or not states or not spans:
            return []
        most = self._head(*self._head.read(torch.cat(states), spans)).max(dim=-1)
        return list(zip(most.values.tolist(), most.indices.tolist(), strict=True))

    @torch.inference_mode()
    def _choose(self, hidden: Tensor, favoured: Ordered[int], caution: float) -> list[int]:
        """Greedy tokens after each of `hidden`; the logits are computed for these positions only."""
        logits = self._output(hidden)
        best, chosen = logits.max(dim=-1)
        if caution > 0 and favoured:
            wanted = torch.tensor(list(favoured), device=logits.device)
            rows = slice(len(favoured))
            margin = logits[rows].gather(1, wanted[:, None])[:, 0] + caution
            chosen[rows] = torch.where(margin >= best[rows], wanted, chosen[rows])
        tokens: list[int] = chosen.tolist()
        return tokens
