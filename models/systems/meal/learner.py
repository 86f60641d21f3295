"""Base learner: an aligner whose prompt says what each objective weighs, and its loss on an answer.

Weights stand in the prompt in words, the heaviest objective first; or, as the alternative, each objective's tokens are
moved along one learnt direction by its weight. Parameters come in as values, so that a step can be differentiated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from aligner_proxy import prompts
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy_systems.meal.selector import add_weight_words

from .config import MealError
from .data import AnsweredPrompt

DIRECTION = "weight direction"
Params = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class LearnerRow:
    """One answer to read: its prompt, the objectives with their weights [objectives], and the answer."""

    prompt: AnsweredPrompt
    texts: tuple[str, ...]
    weights: Tensor
    answer: str


@dataclass(frozen=True, slots=True)
class _TokenRow:
    """A row as tokens."""

    ids: list[int]
    target: int
    """The number of tokens of the answer, which stands at the end of `ids`."""
    shares: tuple[tuple[range, Tensor], ...]
    """(tokens of an objective, its weight as a multiple of an equal share)."""


class Learner:
    """A frozen causal language model, some of whose parameters are handed in at each call."""

    def __init__(self, model: Any, tokenizer: PromptTokenizer, template: str, *, embedded: bool) -> None:
        self.model = model.requires_grad_(False).eval()
        self._tokenizer = tokenizer
        self._family = template
        self._embedded = embedded
        """Whether weights stand in the embeddings, not in words."""

    def initial_params(self, pattern: str) -> Params:
        """The parameters that training moves, as they are now, in fp32 or finer.

        Raises `MealError` where the pattern matches none.
        """
        trained = {
            name: parameter.detach().clone()
            for name, parameter in self.model.named_parameters()
            if re.search(pattern, name)
        }
        if not trained:
            raise MealError(f"trained: no parameter of the base is called like {pattern!r}")
        precise = {
            name: parameter if parameter.dtype == torch.float64 else parameter.float()
            for name, parameter in trained.items()
        }
        if self._embedded:
            example = next(iter(precise.values()))
            precise[DIRECTION] = 0.01 * torch.randn(self.model.config.hidden_size, dtype=example.dtype)
        return {name: parameter.requires_grad_() for name, parameter in precise.items()}

    def losses(self, params: Params, rows: Sequence[LearnerRow]) -> Tensor:
        """The mean loss (nats a token) of each answer [rows]."""
        token_rows = [self._tokenize(row) for row in rows]
        longest = max(len(row.ids) for row in token_rows)
        first = min(len(row.ids) - row.target for row in token_rows)
        # What is put behind a shorter one is seen by nothing before it: the model is causal, and needs no mask.
        ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in token_rows])
        inputs = self._inputs(params, ids, token_rows)
        parameters = {name: parameter.to(self.model.dtype) for name, parameter in params.items() if name != DIRECTION}
        options = {"use_cache": False, "logits_to_keep": longest - first + 1}
        logits = functional_call(self.model, parameters, kwargs=inputs | options).logits[:, :-1]
        precise = logits if logits.dtype == torch.float64 else logits.float()
        nats = F.cross_entropy(precise.transpose(1, 2), ids[:, first:], reduction="none")
        target_mask = torch.zeros_like(nats)
        for mask, row in zip(target_mask, token_rows, strict=True):
            mask[len(row.ids) - row.target - first : len(row.ids) - first] = 1.0
        return (nats * target_mask).sum(-1) / target_mask.sum(-1)

    def _inputs(self, params: Params, ids: Tensor, token_rows: Sequence[_TokenRow]) -> dict[str, Tensor]:
        """The model's inputs: token ids, or with `embedded` their embeddings.

        At the tokens of an objective the learnt direction is added, as often as its weight exceeds an equal share.
        """
        if not self._embedded:
            return {"input_ids": ids}
        vectors = self.model.get_input_embeddings()(ids).detach()
        additions = []
        for row in token_rows:
            addition = torch.zeros(ids.shape[1], dtype=vectors.dtype)
            for tokens, share in row.shares:
                mask = torch.zeros_like(addition)
                mask[tokens.start : tokens.stop] = 1.0
                addition = addition + mask * (share - 1.0).to(addition.dtype)
            additions.append(addition)
        return {"inputs_embeds": vectors + torch.stack(additions)[..., None] * params[DIRECTION].to(vectors.dtype)}

    def _tokenize(self, row: LearnerRow) -> _TokenRow:
        """The row's tokens, and where its objectives and its answer are."""
        shares = [weight * len(row.texts) for weight in row.weights]
        order = sorted(range(len(row.texts)), key=lambda i: -float(row.weights[i].detach()))
        texts = list(row.texts)
        if not self._embedded:
            texts = [add_weight_words(row.texts[i], float(shares[i].detach())) for i in order]
        prompt = prompts.render(prompts.find_template(self._family), row.prompt.query, row.prompt.answer, texts)
        read = self._tokenizer.encode_prompt(prompt.text)
        target = self._tokenizer.list_ids(row.answer)
        target = [*target, self._tokenizer.eos]
        spans = [
            (_token_range(start, stop, read.offsets), shares[i]) for i, (start, stop) in enumerate(prompt.objectives)
        ]
        return _TokenRow([*read.ids, *target], len(target), tuple(spans) if self._embedded else ())


def _token_range(start: int, stop: int, offsets: Sequence[tuple[int, int]]) -> range:
    """The tokens that end within the characters `start` to `stop`."""
    inside = [i for i, (_, end) in enumerate(offsets) if start < end <= stop]
    return range(inside[0], inside[-1] + 1)
